"""Which model is meant, where the file system itself says no."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.model_choice import resolve_model
from entrypoint.paths import existing
from entrypoint.settings.settings import Settings, SettingsError

TOO_LONG = "x" * 300
NOBODY = 65534


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that this user may not look into; root may, so it is nobody for as long."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(uid)


def test_a_name_longer_than_any_folder_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^GLM_MODEL=xxx.* no folder at "):
        resolve_model(Settings(model=TOO_LONG, models_dir=tmp_path))


def test_a_folder_that_may_not_be_looked_into_is_told(locked: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_model(Settings(model="chatglm3", models_dir=locked))
    assert str(caught.value) == (
        f"GLM_MODEL: {locked}/chatglm3 can't be accessed (Permission denied): "
        f"give uid {os.geteuid()} (Berth's user) read and search permission on its parent folders"
    )


def test_a_cache_that_may_not_be_looked_into_holds_nothing(locked: Path) -> None:
    choice = resolve_model(Settings(model="zai-org/chatglm3-6b", hf_home=locked, revision="a" * 40))
    assert choice.hub is not None


def test_the_nearest_folder_above_an_impossible_one(tmp_path: Path) -> None:
    assert existing(tmp_path / TOO_LONG / "deeper") == tmp_path
