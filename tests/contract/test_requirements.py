"""Every package that the sources import is declared, and the lock holds what is declared."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import TOP

REQUIREMENTS = TOP / "requirements"


def declared(name: str) -> dict[str, Requirement]:
    """The lines of an .in file, by package."""
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if re.match(r"\w", line)]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def locked() -> dict[str, set[str]]:
    """The versions that the lock pins, by package; some differ by Python version."""
    text = "".join((REQUIREMENTS / name).read_text(encoding="utf-8") for name in ("runtime.txt", "torch.txt"))
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)===?([\w.+-]+)", text, re.MULTILINE):
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


def imported() -> dict[str, str]:
    """Every package from outside that app/ or entrypoint/ imports, and one file that does."""
    packages: dict[str, str] = {}
    for path in (path for room in ("app", "entrypoint") for path in (TOP / room).rglob("*.py")):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            packages |= {name.partition(".")[0]: path.relative_to(TOP).as_posix() for name in names}
    ours = {"app", "entrypoint"}
    return {name: path for name, path in packages.items() if name not in sys.stdlib_module_names and name not in ours}


def test_every_imported_package_is_declared() -> None:
    distributions = packages_distributions()
    packages = imported()
    assert {"torch", "flask", "httpx2"} <= set(packages)
    for name, path in packages.items():
        candidates = {canonicalize_name(distribution) for distribution in distributions[name]}
        assert candidates & set(declared("runtime.in")), f"{path} imports {name}: add it to requirements/runtime.in"


@pytest.mark.parametrize("name", declared("runtime.in"))
def test_the_lock_holds_what_is_declared(name: str) -> None:
    versions = locked()[name]
    assert versions
    for version in versions:
        assert declared("runtime.in")[name].specifier.contains(version, prereleases=True), version


def test_gunicorn_is_bounded() -> None:
    """app/web/wsgi subclasses parts of it that may change with a major version."""
    assert not declared("runtime.in")["gunicorn"].specifier.contains("28.0.0")
