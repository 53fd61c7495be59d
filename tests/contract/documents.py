"""The documents that tests hold to the code, and what they have in common."""

from __future__ import annotations

import re
from pathlib import Path

from tests.paths import TOP

README = TOP / "README.md"
DOCS = TOP / "docs"
CONFIGURATION = DOCS / "configuration.md"
DESIGN = DOCS / "design.md"
PAGES = (README, *sorted(DOCS.glob("*.md")))
"""For users: the README and docs/."""
DOCUMENTS = (
    *PAGES,
    TOP / "CHANGELOG.md",
    TOP / "app" / "demo_model" / "README.md",
    *sorted((TOP / "tests" / "fixtures").glob("*/README.md")),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


def name(path: Path) -> str:
    """Relative to the repository, for test ids."""
    return path.relative_to(TOP).as_posix()


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a language; an empty one for those without."""
    return [body for kind, body in FENCE.findall(text) if kind == language]


def prose(text: str) -> str:
    """The text without its code blocks."""
    return FENCE.sub("", text)
