from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from entrypoint.settings.settings import SettingsError
from entrypoint.state.state_dir import MemoryUsage, make_run_dir, open_state, pid_namespace, read_usage, write_usage


def test_what_is_held_is_told_only_while_a_service_runs(tmp_path: Path) -> None:
    assert read_usage(tmp_path / "none") == MemoryUsage()
    state, lock = open_state(tmp_path / "state")
    write_usage(state, 123, {"GPU-1": 5})
    assert read_usage(state.folder) == MemoryUsage(pid_namespace(), 123, {"GPU-1": 5})
    os.close(lock)
    assert read_usage(state.folder) == MemoryUsage()


def test_a_damaged_note_counts_as_none(tmp_path: Path) -> None:
    state, lock = open_state(tmp_path)
    state.usage.write_text("{")
    assert read_usage(tmp_path) == MemoryUsage()
    os.close(lock)


def test_one_service_at_a_time(tmp_path: Path) -> None:
    _, lock = open_state(tmp_path)
    with pytest.raises(SettingsError, match="another Berth uses it"):
        open_state(tmp_path)
    os.close(lock)
    _, lock = open_state(tmp_path)
    os.close(lock)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(SettingsError, match=r"GLM_STATE_DIR=.*state can't be written \(File exists\)"):
        open_state(tmp_path / "state")


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="File name too long") as caught:
        open_state(tmp_path / ("x" * 300))
    assert str(caught.value).startswith("GLM_STATE_DIR=")


def test_the_run_directory_is_private_and_its_path_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_dir = make_run_dir()
    assert run_dir.stat().st_mode & 0o777 == 0o700
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(SettingsError, match="too long for the path of a Unix socket"):
        make_run_dir()
    assert list(deep.iterdir()) == []


def test_no_temporary_directory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"TMPDIR: can't create a temporary directory \(No such file"):
        make_run_dir()


def test_a_volume_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("entrypoint.state.state_dir.fcntl.flock", no_locks)
    _, lock = open_state(tmp_path / "state")
    os.close(lock)
    assert "without locks (No locks available)" in caplog.text
