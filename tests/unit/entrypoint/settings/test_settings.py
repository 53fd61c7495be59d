from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.settings.load import parse_settings, read_dotenv
from entrypoint.settings.settings import SETTING_NAMES, SettingsError


def test_nothing_set_means_berth_decides() -> None:
    settings = parse_settings({})
    assert settings.model is None
    assert settings.precision is None
    assert settings.max_model_len is None
    assert (settings.bind, settings.port) == ("127.0.0.1", 8000)
    assert settings.on_refusal == "wait"


def test_every_setting_is_read() -> None:
    settings = parse_settings(
        {
            "GLM_MODEL": "zai/x",
            "GLM_PRECISION": "int8",
            "GLM_MAX_MODEL_LEN": "4096",
            "GLM_MAX_NUM_SEQS": "2",
            "GLM_PORT": "9000",
            "GLM_BIND": "0.0.0.0",
            "GLM_STATE_DIR": "/s",
            "HF_HOME": "/h",
            "GLM_MODELS_DIR": "/m",
            "GLM_REQUIRE_GPU": "1",
            "GLM_ON_REFUSAL": "exit",
            "GLM_DRAIN_SECONDS": "5",
            "GLM_REQUEST_SECONDS": "90",
            "GLM_REVISION": "v1.0",
            "HF_TOKEN": "hf_x",
            "HF_ENDPOINT": "https://mirror.example:8443/hub/",
            "HF_HUB_OFFLINE": "ON",
        }
    )
    assert (settings.revision, settings.hf_token) == ("v1.0", "hf_x")
    assert (settings.hf_endpoint, settings.hf_offline) == ("https://mirror.example:8443/hub", True)
    assert settings.model == "zai/x"
    assert settings.precision == "int8"
    assert (settings.max_model_len, settings.max_num_seqs) == (4096, 2)
    assert (settings.bind, settings.port) == ("0.0.0.0", 9000)
    assert (settings.state_dir, settings.hf_home, settings.models_dir) == (Path("/s"), Path("/h"), Path("/m"))
    assert settings.require_gpu
    assert (settings.on_refusal, settings.drain_seconds, settings.request_seconds) == ("exit", 5, 90)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("GLM_PRECISION", "int5", "auto or one of fp32, bf16, fp16, int8, int4"),
        ("GLM_PRECISION", "INT8", "auto or one of"),
        ("GLM_MAX_MODEL_LEN", "8k", "auto or a whole number of at least 16"),
        ("GLM_MAX_MODEL_LEN", "0", "at least 16"),
        ("GLM_MAX_NUM_SEQS", "65", "auto or a whole number from 1 to 64"),
        ("GLM_MAX_NUM_SEQS", "٣", "from 1 to 64"),
        ("GLM_PORT", "0", "from 1 to 65535"),
        ("GLM_PORT", "http", "from 1 to 65535"),
        ("GLM_BIND", "a b", "an address such as"),
        ("GLM_REQUIRE_GPU", "yes", "0 or 1"),
        ("GLM_ON_REFUSAL", "die", "wait or exit"),
        ("GLM_DRAIN_SECONDS", "1e3", "from 0 to 3600"),
        ("GLM_REQUEST_SECONDS", "-1", "from 0 to 86400"),
        ("GLM_REVISION", "a/../b", "a branch, a tag or a commit"),
        ("GLM_REVISION", "-x", "a branch, a tag or a commit"),
        ("HF_ENDPOINT", "hf-mirror.com", "an address such as https://huggingface.co"),
        ("HF_ENDPOINT", "ftp://x", "an address such as"),
        ("HF_HUB_OFFLINE", "maybe", "0 or 1"),
    ],
)
def test_a_wrong_value_names_setting_value_and_what_is_right(name: str, value: str, right: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings({name: value})
    (line,) = caught.value.lines
    assert line.startswith(f"{name}={value}: ")
    assert right in line


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings({"GLM_PORT": "x", "GLM_PRECISION": "y", "GLM_PRECISON": "int8"})
    assert len(caught.value.lines) == 3
    assert caught.value.lines[2] == "GLM_PRECISON is not a setting; did you mean GLM_PRECISION?"


def test_a_setting_that_another_version_has_is_not_ignored() -> None:
    with pytest.raises(SettingsError, match="GLM_ADMIN_KEY is not a setting"):
        parse_settings({"GLM_ADMIN_KEY": "secret"})


def test_kubernetes_service_links_are_let_be() -> None:
    settings = parse_settings(
        {"GLM_PORT": "tcp://10.0.0.1:8000", "GLM_PORT_8000_TCP": "x", "GLM_SERVICE_HOST": "10.0.0.1", "PORT": "7000"}
    )
    assert settings.port == 7000


def test_port_is_honoured_only_where_glm_port_is_unset() -> None:
    assert parse_settings({"PORT": "7000"}).port == 7000
    assert parse_settings({"PORT": "7000", "GLM_PORT": "7001"}).port == 7001
    with pytest.raises(SettingsError, match=r"^PORT=seven: should be"):
        parse_settings({"PORT": "seven"})


def test_empty_means_unset() -> None:
    assert parse_settings(dict.fromkeys(SETTING_NAMES, "")).port == 8000


def test_dotenv(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# comment\nGLM_PRECISION=int4 # why\nexport GLM_MODEL='a b'\nGLM_PORT=\n", encoding="utf-8")
    assert read_dotenv(file) == {"GLM_PRECISION": "int4", "GLM_MODEL": "a b"}
    assert read_dotenv(tmp_path / "missing") == {}


def test_a_damaged_dotenv_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("GLM_PORT=1\nGLM PRECISION int4\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="line 2: 'GLM PRECISION int4' is not NAME=value"):
        read_dotenv(file)
    file.write_bytes(b"GLM_MODEL=\xff\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_dotenv(file)


@pytest.mark.parametrize(
    ("name", "value"), [("HF_TOKEN", "hf_sesame open"), ("HF_ENDPOINT", "https://me:hf_sesame@mirror.example")]
)
def test_no_secret_is_in_an_error(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}=\.\.\.: should be") as caught:
        parse_settings({name: value})
    assert "sesame" not in str(caught.value)


def test_the_token_is_not_shown_and_not_inherited(tmp_path: Path) -> None:
    settings = parse_settings({"HF_TOKEN": "hf_sesame", "HF_ENDPOINT": "https://x"})
    assert "sesame" not in repr(settings)
    assert "HF_TOKEN" not in settings.environment and "HF_ENDPOINT" in settings.environment
    (tmp_path / ".env").write_text("HF_TOKEN hf_sesame\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"line 1: 'HF_TOKEN \.\.\.' is not NAME=value"):
        read_dotenv(tmp_path / ".env")
