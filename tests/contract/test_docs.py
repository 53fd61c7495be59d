"""Documents, .env.example, Compose and settings say the same; commands, modules and files that documents name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.commands.serve import VERSION
from entrypoint.settings.settings import OPTIONS, SETTING_NAMES
from tests.contract.documents import CONFIGURATION, DOCUMENTS, PAGES, README, fenced, name, read
from tests.paths import TOP
from tools.settings_docs import renewed

EXAMPLE = TOP / ".env.example"
COMPOSE = (TOP / "compose.yaml", TOP / "docker" / "compose.gpu.yaml")
README_BYTES = 8192
OTHER_FILES = (EXAMPLE, *COMPOSE, TOP / "docker" / "Dockerfile", TOP / "docker" / "healthcheck", TOP / "Makefile")
BUILT = ("app/web/static/dist",)
"""Named, and not in a fresh checkout."""
KNOWN_COMMANDS = ("make ", "docker compose ", "cp .env.example ", "curl ", ".venv/bin/python -m ", "GLM_")


def settings_rows(page: Path) -> dict[str, str]:
    """The rows of a page's table of settings, by name; the table stands between two comments."""
    (table,) = re.findall(r"<!-- settings: .*? -->\n(.*?)<!-- settings: end -->\n", read(page), re.DOTALL)
    header, ruler, *rows = table.splitlines()
    assert header == "| setting | default | meaning |"
    assert ruler == "|---|---|---|"
    names = [row.split("|")[1].strip().strip("`") for row in rows]
    assert len(set(names)) == len(names)
    return dict(zip(names, rows, strict=True))


def test_the_documents_say_what_the_table_of_settings_says() -> None:
    for path, text in renewed().items():
        assert read(path) == text, f"{name(path)}: run python -m tools.settings_docs"


def test_a_default_of_the_container_is_the_one_that_the_image_sets() -> None:
    image = "\n".join(read(path) for path in (TOP / "docker" / "Dockerfile", *COMPOSE))
    variables = {"GLM_MODEL": "BERTH_DEFAULT_MODEL"}
    defaults = {option.name: option.container_default for option in OPTIONS.values() if option.container_default}
    assert set(defaults) == {"GLM_MODEL", "GLM_STATE_DIR", "HF_HOME", "GLM_REQUIRE_GPU"}
    for setting, text in defaults.items():
        value = text.split()[-1].strip("`")
        assert re.search(rf"{variables.get(setting, setting)}(=|: |:-){re.escape(value)}\b", image), setting


def test_the_readme_is_short() -> None:
    assert README.stat().st_size <= README_BYTES


def test_every_setting_has_one_row() -> None:
    assert sorted(settings_rows(CONFIGURATION)) == sorted(SETTING_NAMES)


def test_the_readmes_rows_are_those_of_the_full_table() -> None:
    rows = settings_rows(README)
    assert len(rows) == 5
    assert rows.items() <= settings_rows(CONFIGURATION).items()


@pytest.mark.parametrize("setting", SETTING_NAMES)
def test_every_setting_is_in_the_example_once(setting: str) -> None:
    assert len(re.findall(rf"^#?{setting}=", read(EXAMPLE), re.MULTILINE)) == 1


def test_no_setting_is_made_up() -> None:
    for path in (*DOCUMENTS, EXAMPLE, *COMPOSE):
        assert set(re.findall(r"\bGLM_[A-Z_]+\b", read(path))) <= set(SETTING_NAMES), name(path)


def test_the_examples_env_file_is_accepted(tmp_path: Path) -> None:
    """With every line of it switched on, except the second of two ways to give a key."""
    lines = [
        line.removeprefix("#")
        for line in read(EXAMPLE).splitlines()
        if re.match(r"#?(?!GLM_API_KEY_FILE)[A-Z_]+=", line)
    ]
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    script = "from entrypoint.settings.load import load_settings; print(load_settings())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(TOP), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_same_everywhere() -> None:
    assert f'version = "{VERSION}"' in read(TOP / "pyproject.toml")


def test_the_lowest_versions_are_named() -> None:
    for version in ("Python 3.11", "Docker Engine 25", "Docker Compose 2.24", "driver, 580"):
        assert version in read(README)


def test_make_targets_exist() -> None:
    makefile = read(TOP / "Makefile")
    assert {"run", "test", "test-slow"} <= set(re.findall(r"\bmake ([a-z-]+)", read(README)))
    for path in DOCUMENTS:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", read(path), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name(path)}: make {target}"


@pytest.mark.parametrize("path", [*DOCUMENTS, *OTHER_FILES], ids=name)
def test_modules_and_files_that_are_named_exist(path: Path) -> None:
    text = read(path)
    for module in re.findall(r"python3? -m ((?:app|entrypoint|tests|tools)[a-z0-9_.]*[a-z0-9_])", text):
        source = TOP / module.replace(".", "/")
        assert source.with_suffix(".py").exists() or (source / "__main__.py").exists(), module
    for file in re.findall(r"(?<![\w/.-])(?:app|docker|docs|entrypoint|tests|tools)/[\w./-]*\w", text):
        assert file.startswith(BUILT) or (TOP / file).exists(), file


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_command_is_one_that_something_runs(path: Path) -> None:
    """A command that no test, bench or Makefile knows would go stale unseen."""
    lines = [line for block in fenced(read(path), "sh") for line in block.splitlines()]
    for command in lines:
        assert command.startswith((*KNOWN_COMMANDS, " ")), command
