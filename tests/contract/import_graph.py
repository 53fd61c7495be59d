"""Who imports whom, read from the syntax trees: imports in functions and under TYPE_CHECKING count, too."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.paths import TOP

PROGRAMS = ("entrypoint", "app", "tools")
SPLIT = ("entrypoint", "app/engine", "app/web", "tools")
"""Folders whose own modules count one by one: what all below use lies there beside what puts everything together."""


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the programs, by its dotted name."""
    paths = (path for program in PROGRAMS for path in (TOP / program).rglob("*.py") if "node_modules" not in path.parts)
    return {dotted(path): path for path in paths}


def dotted(path: Path) -> str:
    """`app/web/drain.py` is `app.web.drain`; a package has its folder's name."""
    name = ".".join(path.relative_to(TOP).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, with what it takes out of a module.

    Raises:
        AssertionError: an import is relative.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def module_graph() -> dict[str, set[str]]:
    """The project's own modules, each with those that it imports."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        targets = (_module_of(imported, known) for imported in imported_names(path))
        graph[name] = {target for target in targets if target and target != name}
    return graph


@functools.cache
def package_graph() -> dict[str, set[str]]:
    """The same between packages, named by their folders; in `SPLIT` folders each module is one of its own."""
    known = modules()
    graph: dict[str, set[str]] = {package_of(path): set() for path in known.values()}
    for name, targets in module_graph().items():
        package = package_of(known[name])
        graph[package] |= {package_of(known[target]) for target in targets} - {package}
    return graph


def package_of(path: Path) -> str:
    """The folder that a module lies in; the module itself, without its suffix, if that folder is split."""
    folder = path.parent.relative_to(TOP).as_posix()
    return f"{folder}/{path.stem}" if folder in SPLIT and path.stem != "__init__" else folder


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that import each other in a ring; empty if there is none."""
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if ring := walk(target, [*trail, node]):
                return ring
        done.add(node)
        return []

    return next((ring for node in sorted(graph) if (ring := walk(node, []))), [])


def _module_of(name: str, known: dict[str, Path]) -> str | None:
    while name:
        if name in known:
            return name
        name = name.rpartition(".")[0]
    return None
