"""One class, one name; folders that one can take in at a glance."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.contract.import_graph import modules
from tests.paths import TOP

MOST_MODULES = 12


def test_each_class_has_a_name_of_its_own() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(TOP)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def python_files() -> list[Path]:
    folders = ("entrypoint", "app", "tools", "tests")
    paths = [path for folder in folders for path in (TOP / folder).rglob("*.py")]
    return [path for path in paths if "node_modules" not in path.parts and path.name != "__init__.py"]


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    counts = Counter(path.parent.relative_to(TOP).as_posix() for path in python_files())
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_dataclasses_of_many_like_fields_are_keyword_only() -> None:
    """Five values of one type in a row can't be told apart where they are passed."""
    positional = []
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and (options := dataclass_options(node)) is not None:
                types = Counter(positional_types(node))
                if max(types.values(), default=0) > 4 and "kw_only" not in options:
                    positional.append(f"{path.relative_to(TOP)}:{node.lineno} {node.name}")
    assert positional == []


def positional_types(node: ast.ClassDef) -> Iterator[str]:
    """The fields' types, down to the mark that makes the rest keyword-only."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            annotation = ast.unparse(item.annotation)
            if annotation == "KW_ONLY":
                return
            yield annotation


def dataclass_options(node: ast.ClassDef) -> set[str] | None:
    """The names of the decorator's arguments; None if it is not a dataclass."""
    for decorator in node.decorator_list:
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(function) in ("dataclass", "dataclasses.dataclass"):
            return {str(item.arg) for item in decorator.keywords} if isinstance(decorator, ast.Call) else set()
    return None
