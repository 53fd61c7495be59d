"""The design's import rules, held over the syntax trees."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.paths import TOP

ROOMS = ("entrypoint", "app/contract", "app/layouts", "app/web", "app/engine")
ALLOWED_OURS = {
    "entrypoint": ("entrypoint", "app.contract", "app.layouts"),
    "app/contract": ("app.contract",),
    "app/layouts": ("app.layouts",),
    "app/web": ("app.web", "app.contract"),
    "app/engine": ("app.engine", "app.contract", "app.layouts"),
}
ALLOWED_PACKAGES = {
    "entrypoint": {"pynvml", "huggingface_hub", "httpx2", "rich", "dotenv"},
    "app/contract": set[str](),
    "app/layouts": set[str](),
    "app/web": {
        "alembic",
        "flask",
        "flask_limiter",
        "flask_wtf",
        "wtforms",
        "gunicorn",
        "limits",
        "prometheus_client",
        "sqlalchemy",
        "werkzeug",
    },
    "app/engine": {
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "sentencepiece",
        "bitsandbytes",
        "accelerate",
        "jinja2",
        "pynvml",
    },
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = list((TOP / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            package = name.partition(".")[0]
            if package in ("app", "entrypoint", "tools", "tests"):
                assert name.startswith(ALLOWED_OURS[room]), f"{path} imports {name}"
            elif package not in sys.stdlib_module_names:
                assert package in ALLOWED_PACKAGES[room], f"{path} imports {name}"


def reads_environment(tree: ast.AST) -> list[int]:
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
    for room in ROOMS:
        for path in (TOP / room).rglob("*.py"):
            if path != TOP / "entrypoint" / "settings" / "load.py":
                assert reads_environment(ast.parse(path.read_text(encoding="utf-8"))) == [], path
