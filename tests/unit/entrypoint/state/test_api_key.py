"""The key that the entrypoint makes or is given, and what it tells people of it."""

from __future__ import annotations

import argparse
import stat
from pathlib import Path

import pytest

from entrypoint.commands.link import print_link
from entrypoint.settings.load import parse_settings
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.api_key import AccessFiles, how_to_open, open_access
from entrypoint.state.state_dir import StateDir

KEY = "correct-horse-battery-staple"


def settings(tmp_path: Path, **values: str) -> Settings:
    return parse_settings({"GLM_STATE_DIR": str(tmp_path), "GLM_PORT": "8123", **values})


def opened(tmp_path: Path, **values: str) -> AccessFiles:
    run_dir = tmp_path / "run"
    run_dir.mkdir(exist_ok=True)
    return open_access(settings(tmp_path, **values), StateDir(tmp_path), run_dir)


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    access = opened(tmp_path)
    assert access.key_file == tmp_path / "api_key"
    key = access.key_file.read_text().strip()
    assert len(key) >= 43, "256 bits"
    assert stat.S_IMODE(access.key_file.stat().st_mode) == 0o600
    assert f"Open http://127.0.0.1:8123/#key={key} " in how_to_open(settings(tmp_path), StateDir(tmp_path))
    assert opened(tmp_path).key_file == access.key_file and access.key_file.read_text().strip() == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api_key", "run"], "no half-written file is left"


def test_a_given_key_is_handed_on_by_a_file_and_never_told(tmp_path: Path) -> None:
    access = opened(tmp_path, GLM_API_KEY=KEY)
    assert access.key_file == tmp_path / "run" / "api_key"
    assert access.key_file.read_text() == f"{KEY}\n" and stat.S_IMODE(access.key_file.stat().st_mode) == 0o600
    said = how_to_open(settings(tmp_path, GLM_API_KEY=KEY), StateDir(tmp_path))
    assert KEY not in said and "Open http://127.0.0.1:8123 and sign in" in said
    assert not (tmp_path / "api_key").exists()


def test_open_to_this_machine(tmp_path: Path) -> None:
    access = opened(tmp_path, GLM_AUTH="off")
    assert access.key_file is None
    assert "GLM_AUTH=off" in how_to_open(settings(tmp_path, GLM_AUTH="off"), StateDir(tmp_path))
    assert not (tmp_path / "api_key").exists()


def test_the_link_is_printed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="there is no key yet"):
        print_link(settings(tmp_path), argparse.Namespace())
    opened(tmp_path)
    key = (tmp_path / "api_key").read_text().strip()
    assert print_link(settings(tmp_path), argparse.Namespace()) == 0
    assert capsys.readouterr().out == f"http://127.0.0.1:8123/#key={key}\n"
    assert print_link(settings(tmp_path, GLM_API_KEY=KEY), argparse.Namespace()) == 0
    told = capsys.readouterr()
    assert told.out == "http://127.0.0.1:8123\n" and KEY not in told.err


def test_where_every_address_is_listened_on_the_link_is_this_machine_s(tmp_path: Path) -> None:
    open_to_all = settings(tmp_path, GLM_BIND="0.0.0.0", GLM_API_KEY=KEY)
    said = how_to_open(open_to_all, StateDir(tmp_path))
    assert "Open http://127.0.0.1:8123 (from another machine, use this machine's address) and sign in" in said


def test_the_link_names_the_port_that_compose_publishes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = {"GLM_BIND": "0.0.0.0", "BERTH_PUBLISHED_BIND": "127.0.0.1", "BERTH_PUBLISHED_PORT": "9000"}
    print_link(settings(tmp_path, GLM_AUTH="off", **inside), argparse.Namespace())
    assert capsys.readouterr().out == "http://127.0.0.1:9000\n"


@pytest.mark.parametrize("held", ["", "short", "two words that are long", "ключ-ключ-ключ-ключ"])
def test_a_key_file_that_was_tampered_with_is_told(tmp_path: Path, held: str) -> None:
    (tmp_path / "api_key").write_text(held)
    with pytest.raises(
        SettingsError, match=r"api_key doesn't hold a key: it should be 16 to 512 printable .*; remove it, and the next"
    ):
        opened(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="api_key can't be written: No such file or directory"):
        open_access(settings(tmp_path), StateDir(tmp_path / "gone"), tmp_path)
