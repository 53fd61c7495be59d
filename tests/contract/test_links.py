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
    counts: Counter[str] = Counter()
    slugs = set()
    for heading in re.findall(r"^#+ (.+)$", prose(read(path)), re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        slugs.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return slugs


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_resolve(path: Path) -> None:
    for link in links(path):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


def test_the_readme_leads_to_every_page() -> None:
    pages, queue = {README}, [README]
    while queue:
        page = queue.pop()
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        new = (targets & set(PAGES)) - pages
        pages |= new
        queue += new
    assert pages == set(PAGES)


def test_every_picture_is_shown() -> None:
    targets = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert {path for path in DOCS.iterdir() if path.suffix in PICTURES} <= targets


def test_anchors_as_github_makes_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n## What's `it`?\n## Way\n## Way\n```\n# no heading\n```\n", encoding="utf-8")
    assert anchors(page) == {"a-page", "whats-it", "way", "way-1"}
