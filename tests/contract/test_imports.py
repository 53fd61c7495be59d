"""Which package may import which, and why; what may come from elsewhere; who reads the environment."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.contract.import_graph import (
    PROGRAMS,
    circle,
    dotted,
    imported_names,
    module_graph,
    modules,
    package_graph,
)
from tests.contract.import_table import MAY_IMPORT
from tests.paths import TOP

MAY_INSTALL = {
    "entrypoint": {"pynvml", "huggingface_hub", "httpx2", "rich", "dotenv"},
    "app.contract": set[str](),
    "app.layouts": set[str](),
    "app.web": {
        *("alembic", "flask", "flask_limiter", "flask_wtf", "gunicorn", "limits"),
        *("prometheus_client", "sqlalchemy", "werkzeug", "wtforms"),
    },
    "app.engine": {
        *("accelerate", "bitsandbytes", "jinja2", "pynvml", "safetensors"),
        *("sentencepiece", "tokenizers", "torch", "transformers"),
    },
}
"""Packages from elsewhere. The supervisor and the web worker never load torch: it costs seconds and 300 MB."""


def test_the_table_names_each_package_once() -> None:
    assert package_graph().keys() == MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    assert package_graph()[package] - set(MAY_IMPORT[package].split()) == set()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_table_allows_nothing_that_nobody_uses(package: str) -> None:
    assert set(MAY_IMPORT[package].split()) - package_graph()[package] == set()


def test_no_package_imports_one_that_stands_above_it() -> None:
    """The table goes from the lowest to the highest."""
    places = {package: place for place, package in enumerate(MAY_IMPORT)}
    upward = [
        (package, target)
        for package, allowed in MAY_IMPORT.items()
        for target in allowed.split()
        if places[target] >= places[package]
    ]
    assert upward == []


def test_there_is_no_circle() -> None:
    assert circle(module_graph()) == []
    assert circle(package_graph()) == []


def test_a_circle_would_be_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("package", MAY_INSTALL)
def test_only_these_packages_come_from_elsewhere(package: str) -> None:
    for name, path in modules().items():
        if f"{name}.".startswith(f"{package}."):
            tops = {imported.partition(".")[0] for imported in imported_names(path)}
            strangers = tops - set(sys.stdlib_module_names) - set(PROGRAMS) - MAY_INSTALL[package]
            assert strangers == set(), path


def environment_reads(tree: ast.AST) -> list[int]:
    """Lines that use os.environ or os.getenv, other than to set a variable for a library."""
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.Attribute) and node.attr == "setdefault")
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        if node.attr in ("environ", "getenv") and id(node) not in written
    ]


def test_only_settings_reads_the_environment() -> None:
    allowed = TOP / "entrypoint" / "settings" / "load.py"
    for path in modules().values():
        if path != allowed and not dotted(path).startswith("tools"):
            assert environment_reads(ast.parse(path.read_text(encoding="utf-8"))) == [], path
