"""The settings of who may come in: keys, their files, and where no key may do."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.settings.load import parse_settings, read_dotenv
from entrypoint.settings.settings import SettingsError

KEY = "correct-horse-battery-staple"


def refusal(**values: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(values)
    (line,) = caught.value.lines
    return line


def test_a_key_is_asked_for_unless_somebody_says_otherwise() -> None:
    settings = parse_settings({})
    assert (settings.auth, settings.api_key, settings.trusted_proxies) == (True, None, 0)


def test_a_key_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert parse_settings({"GLM_API_KEY": KEY}).api_key == KEY
    assert parse_settings({"GLM_API_KEY_FILE": str(file)}).api_key == KEY
    assert parse_settings({"GLM_API_KEY": "", "GLM_API_KEY_FILE": str(file)}).api_key == KEY


def test_no_error_and_no_representation_repeats_a_key(tmp_path: Path) -> None:
    settings = parse_settings({"GLM_API_KEY": KEY})
    assert KEY not in repr(settings)
    assert KEY not in "".join(settings.environment.values()), "no child process inherits it"
    for wrong in ("short-secret", "a secret with spaces in it", "geheimer-schlüssel-mit-umlaut", "x" * 513):
        line = refusal(GLM_API_KEY=wrong)
        assert wrong not in line and line.startswith("GLM_API_KEY=...: should be 16 to 512 printable ASCII")
    file = tmp_path / "key"
    file.write_text("short-secret")
    line = refusal(GLM_API_KEY_FILE=str(file))
    assert "short-secret" not in line and line.startswith(f"GLM_API_KEY_FILE={file}: doesn't hold a key")
    file.write_text(KEY)
    assert KEY not in repr(parse_settings({"GLM_API_KEY_FILE": str(file)}))
    (tmp_path / ".env").write_text(f"GLM API KEY {KEY}\n")
    with pytest.raises(SettingsError) as caught:
        read_dotenv(tmp_path / ".env")
    assert KEY not in str(caught.value) and "line 1" in str(caught.value)


def test_a_key_file_that_is_no_use_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert "is empty" in refusal(GLM_API_KEY_FILE=str(empty))
    assert "can't be read: No such file" in refusal(GLM_API_KEY_FILE=str(tmp_path / "none"))
    assert "can't be read: Is a directory" in refusal(GLM_API_KEY_FILE=str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    assert "is not text" in refusal(GLM_API_KEY_FILE=str(tmp_path / "binary"))


def test_two_keys_and_a_key_that_nobody_asks_for_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    assert "both set" in refusal(GLM_API_KEY=KEY, GLM_API_KEY_FILE=str(file))
    assert "would not be asked for" in refusal(GLM_API_KEY=KEY, GLM_AUTH="off")


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_no_key_is_needed_where_only_this_machine_can_reach_it(bind: str) -> None:
    assert not parse_settings({"GLM_AUTH": "off", "GLM_BIND": bind}).auth


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.168.1.5", "203.0.113.7", "berth.example", "localhost.example"])
def test_whatever_is_not_loopback_counts_as_public(bind: str) -> None:
    assert refusal(GLM_AUTH="off", GLM_BIND=bind).startswith(
        f"GLM_AUTH=off: only allowed on a loopback address; GLM_BIND={bind} is not one"
    )


def test_in_a_container_the_published_address_counts() -> None:
    inside = {"GLM_AUTH": "off", "GLM_BIND": "0.0.0.0"}
    assert not parse_settings({**inside, "BERTH_PUBLISHED_BIND": "127.0.0.1"}).auth
    assert not parse_settings({**inside, "BERTH_PUBLISHED_BIND": "[::1]"}).auth
    for public in ({}, {"BERTH_PUBLISHED_BIND": ""}, {"BERTH_PUBLISHED_BIND": "0.0.0.0"}):
        assert "GLM_BIND=0.0.0.0" in refusal(**inside, **public)


def test_wrong_values() -> None:
    assert refusal(GLM_AUTH="no") == "GLM_AUTH=no: should be on or off"
    assert "whole number from 0 to 10" in refusal(GLM_TRUSTED_PROXIES="all")
