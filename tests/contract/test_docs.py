"""README, .env.example, Compose and settings say the same, once; the README's commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.commands.serve import VERSION
from entrypoint.settings.settings import NAMES
from tests.paths import TOP

README = (TOP / "README.md").read_text(encoding="utf-8")
EXAMPLE = (TOP / ".env.example").read_text(encoding="utf-8")


def settings_table() -> str:
    return README.split("## Configure")[1].split("## Use the API")[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_documented_once(name: str) -> None:
    rows = [line.split("|")[1] for line in settings_table().splitlines() if line.startswith("| `")]
    assert sum(f"`{name}`" in row for row in rows) == 1
    assert len(re.findall(rf"^#?{name}=", EXAMPLE, re.MULTILINE)) == 1


def test_no_setting_is_made_up() -> None:
    for text in (README, EXAMPLE, (TOP / "compose.yaml").read_text(encoding="utf-8")):
        assert set(re.findall(r"\bGLM_[A-Z_]+\b", text)) <= set(NAMES)


def test_the_examples_env_file_is_accepted(tmp_path: Path) -> None:
    """With every line of it switched on, except the second of two ways to give a key."""
    lines = [
        line.removeprefix("#") for line in EXAMPLE.splitlines() if re.match(r"#?(?!GLM_API_KEY_FILE)[A-Z_]+=", line)
    ]
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    script = "from entrypoint.settings.settings import load_settings; print(load_settings())"
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
    assert f'version = "{VERSION}"' in (TOP / "pyproject.toml").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith(" ")]


def test_make_targets_exist() -> None:
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"run", "test", "test-slow"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_modules_and_files_that_the_readme_names_exist() -> None:
    for module in re.findall(r"python -m ([a-z_.]+)", README):
        path = TOP / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for name in re.findall(r"`((?:app|entrypoint|tests|tools|docker)/[a-z_./]*)`", README):
        assert (TOP / name).exists(), name


def test_every_command_is_one_that_something_runs() -> None:
    """A command in the README that no test, bench or Makefile knows would go stale unseen."""
    known = ("make ", "docker compose ", "docker run ", "cp .env.example ", "curl ", ".venv/bin/python -m ", "GLM_")
    for command in commands():
        assert command.startswith((*known, "COMPOSE_")), command
