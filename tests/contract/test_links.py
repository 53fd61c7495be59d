"""Every link in the documents that stays in this repository leads somewhere, and every picture is shown somewhere."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.contract.documents import DOCS, DOCUMENTS, PAGES, README, name, prose, read

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PICTURES = (".png", ".svg")


def links(path: Path) -> list[str]:
    """Targets of links and pictures, without those to other hosts."""
    return [target for target in LINK.findall(prose(read(path))) if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """What headings can be linked by, as GitHub makes it."""
    found: Counter[str] = Counter()
    result = set()
    for heading in re.findall(r"^#+ (.+)$", prose(read(path)), re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        result.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return result


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_resolve(path: Path) -> None:
    for link in links(path):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


def test_the_readme_leads_to_every_page() -> None:
    reached, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        new = (linked & set(PAGES)) - reached
        reached |= new
        waiting += new
    assert reached == set(PAGES)


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert {path for path in DOCS.iterdir() if path.suffix in PICTURES} <= shown


def test_anchors_as_github_makes_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n## What's `it`?\n## Way\n## Way\n```\n# no heading\n```\n", encoding="utf-8")
    assert anchors(page) == {"a-page", "whats-it", "way", "way-1"}
