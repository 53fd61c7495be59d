"""The trees in README and docs/design.md are the folders that there are."""

from __future__ import annotations

import re

from tests.contract.documents import DESIGN, README, fenced, read
from tests.paths import TOP

ROOTS = ("app", "entrypoint", "tools", "tests")
MIRRORS = ("tests/unit", "tests/integration")
"""Below these, a package's tests are in a folder of its name, which needs no line."""
LINE = re.compile(r"^( *)([\w./]+)/(?: {2,}(\S.*))?$")


def tree(text: str) -> dict[str, str]:
    """Path to description, from the code block that is indented like a file tree."""
    (block,) = [body for body in fenced(text, "") if all(LINE.match(line) for line in body.splitlines())]
    above: list[tuple[int, str]] = []
    descriptions: dict[str, str] = {}
    for line in block.splitlines():
        match = LINE.match(line)
        assert match
        indent, folder = len(match[1]), match[2]
        above = [one for one in above if one[0] < indent]
        path = "/".join([name for _, name in above[-1:]] + [folder])
        assert path not in descriptions, path
        descriptions[path] = match[3] or ""
        above.append((indent, path))
    return descriptions


def packages() -> set[str]:
    """Every folder that holds Python sources, by its path."""
    folders = {path.parent for root in ROOTS for path in (TOP / root).rglob("*.py") if "node_modules" not in path.parts}
    return {path.relative_to(TOP).as_posix() for path in folders if not path.is_relative_to(TOP / ".venv")}


def mirrors_a_package(path: str) -> bool:
    """Whether it is `tests/unit/web/chat` or such, for `app/web/chat`."""
    packages = [path.removeprefix(f"{mirror}/") for mirror in MIRRORS if path.startswith(f"{mirror}/")]
    return any((TOP / package).is_dir() or (TOP / "app" / package).is_dir() for package in packages)


def test_each_package_has_a_line_in_the_design() -> None:
    lines = {path for path, description in tree(read(DESIGN)).items() if description}
    assert {path for path in packages() - lines if not mirrors_a_package(path)} == set()


def test_the_readme_has_each_part() -> None:
    lines = {path for path, description in tree(read(README)).items() if description}
    parts = {path for path in packages() if path.count("/") == 0} - {"app"}
    parts |= {path for path in packages() if path.startswith("app/") and path.count("/") == 1}
    assert parts <= lines


def test_every_folder_of_the_trees_exists() -> None:
    for page in (README, DESIGN):
        for path in tree(read(page)):
            assert (TOP / path).is_dir(), f"{page.name}: {path}"


def test_the_parts_named_in_the_readme_are_packages() -> None:
    """The README names each part's packages in one line."""
    for part in ("entrypoint", "app/engine", "app/web"):
        names = set(re.findall(r"[a-z_]+", tree(read(README))[part].partition(":")[2]))
        inside = {path.removeprefix(f"{part}/") for path in packages() if path.startswith(f"{part}/")}
        assert names <= inside, part
