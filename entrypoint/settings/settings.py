"""The environment and `.env`, parsed once into a frozen `Settings`. Nothing else reads either."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from dotenv.parser import parse_stream

from app.contract.plan import PRECISIONS, Precision
from entrypoint.settings import access_parsers, parsers
from entrypoint.settings.parsers import auto_or_count, count, flag

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine's."""


T = TypeVar("T")

NAMES = (
    "GLM_MODEL",
    "GLM_PRECISION",
    "GLM_MAX_MODEL_LEN",
    "GLM_MAX_NUM_SEQS",
    "GLM_PORT",
    "GLM_BIND",
    "GLM_STATE_DIR",
    "HF_HOME",
    "GLM_MODELS_DIR",
    "GLM_REQUIRE_GPU",
    "GLM_ON_REFUSAL",
    "GLM_DRAIN_SECONDS",
    "GLM_REQUEST_SECONDS",
    "GLM_API_KEY",
    "GLM_API_KEY_FILE",
    "GLM_AUTH",
    "GLM_TRUSTED_PROXIES",
    "GLM_REVISION",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)
"""Every setting there is, as the README and `.env.example` document them."""

SERVICE_LINK = re.compile(r"GLM_SERVICE_|GLM_PORT_")
"""Variables that Kubernetes injects for a service named glm."""


LARGEST_MAX_NUM_SEQS = 64
"""Each takes a thread of the web worker, beside those of the queue, and a connection of the engine's 256."""
MEANINGFUL_EMPTY = ("CUDA_VISIBLE_DEVICES",)
"""An empty one hides every GPU; everything else that is empty counts as unset."""
SECRETS = ("HF_TOKEN", "GLM_API_KEY")
NOT_INHERITED = ("WEB_CONCURRENCY", *SECRETS)
"""gunicorn reads the first at import, and one worker is part of the design; only the download gets the token, and the
web service reads the key from a file."""


class SettingsError(ValueError):
    """What is wrong with the settings, one line for each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user decided; None means that Berth decides."""

    model: str | None = None
    precision: Precision | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    port: int = 8000
    bind: str = "127.0.0.1"
    state_dir: Path = Path(".berth")
    hf_home: Path = Path.home() / ".cache" / "huggingface"
    models_dir: Path | None = None
    require_gpu: bool = False
    on_refusal: Literal["wait", "exit"] = "wait"
    drain_seconds: int = 20
    request_seconds: int = 600
    """How long a request may wait and run; 0 is for ever."""
    api_key: str | None = field(default=None, repr=False)
    """None where Berth makes one."""
    auth: bool = True
    trusted_proxies: int = 0
    """How many proxies in front of the service may say where a request comes from."""
    published_bind: str = "127.0.0.1"
    """The address that others reach the service by: in a container not the one that it binds."""
    published_port: int = 8000
    revision: str = "main"
    """Branch, tag or commit of a model from the hub."""
    hf_token: str | None = field(default=None, repr=False)
    hf_endpoint: str = "https://huggingface.co"
    hf_offline: bool = False
    default_model: str | None = None
    """Hub id that the image serves where GLM_MODEL is unset; outside of it the demo model is."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What child processes inherit."""


def load_settings(dotenv: Path = Path(".env")) -> Settings:
    """Settings of this process: the environment, and below it the `.env` file where there is one.

    Raises:
        SettingsError: with a line for every setting that is wrong.
    """
    given = {k: v for k, v in os.environ.items() if v or k in MEANINGFUL_EMPTY}
    return parse_settings({**read_dotenv(dotenv), **given})


def read_dotenv(path: Path) -> dict[str, str]:
    """The assignments in a `.env` file, none where the file is missing. Raises SettingsError naming the line."""
    try:
        stream = path.open(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    values = {}
    with stream:
        try:
            for binding in parse_stream(stream):
                if binding.error:
                    text = binding.original.string.strip()
                    if re.search("TOKEN|KEY", text, re.IGNORECASE):  # no secret in an error
                        text = next((f"{name} ..." for name in SECRETS if name in text), "...")
                    raise SettingsError(f"{path} line {binding.original.line}: {text!r} is not NAME=value")
                if binding.key and binding.value:
                    values[binding.key] = binding.value
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return values


def parse_settings(values: Mapping[str, str]) -> Settings:
    """Checks every setting in `values` and reports all that are wrong at once. Raises SettingsError."""
    reader = _Reader(values)
    default = Settings()
    bind, port = reader.get("GLM_BIND", access_parsers.address, default.bind), reader.port(default.port)
    key = reader.get("GLM_API_KEY", access_parsers.key, default.api_key)
    settings = Settings(
        model=reader.get("GLM_MODEL", str, default.model),
        precision=reader.get("GLM_PRECISION", _precision, default.precision),
        max_model_len=reader.get("GLM_MAX_MODEL_LEN", auto_or_count(16), default.max_model_len),
        max_num_seqs=reader.get("GLM_MAX_NUM_SEQS", auto_or_count(1, LARGEST_MAX_NUM_SEQS), default.max_num_seqs),
        port=port,
        bind=bind,
        state_dir=reader.get("GLM_STATE_DIR", Path, default.state_dir).absolute(),
        hf_home=reader.get("HF_HOME", Path, default.hf_home).absolute(),
        models_dir=reader.get("GLM_MODELS_DIR", Path, default.models_dir),
        require_gpu=reader.get("GLM_REQUIRE_GPU", flag, default.require_gpu),
        on_refusal=reader.get("GLM_ON_REFUSAL", _on_refusal, default.on_refusal),
        drain_seconds=reader.get("GLM_DRAIN_SECONDS", count(0, 3600), default.drain_seconds),
        request_seconds=reader.get("GLM_REQUEST_SECONDS", count(0, 86400), default.request_seconds),
        api_key=reader.get("GLM_API_KEY_FILE", access_parsers.key_in, key),
        auth=reader.get("GLM_AUTH", access_parsers.auth, default.auth),
        trusted_proxies=reader.get("GLM_TRUSTED_PROXIES", count(0, access_parsers.MOST_PROXIES), 0),
        published_bind=reader.get("BERTH_PUBLISHED_BIND", access_parsers.published, bind),
        published_port=reader.get("BERTH_PUBLISHED_PORT", count(1, 65535), port),
        revision=reader.get("GLM_REVISION", parsers.revision, default.revision),
        hf_token=reader.get("HF_TOKEN", parsers.token, default.hf_token),
        hf_endpoint=reader.get("HF_ENDPOINT", parsers.endpoint, default.hf_endpoint),
        hf_offline=reader.get("HF_HUB_OFFLINE", parsers.hub_flag, default.hf_offline),
        default_model=reader.get("BERTH_DEFAULT_MODEL", str, default.default_model),
        environment={name: value for name, value in values.items() if name not in NOT_INHERITED},
    )
    contradictions = access_parsers.conflicts(values, settings.auth, settings.published_bind)
    errors = [*reader.errors, *contradictions, *_unknown(values)]
    if errors:
        raise SettingsError(*errors)
    return settings


class _Reader:
    """Parses one setting after the other and collects what is wrong."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.errors: list[str] = []

    def get(self, name: str, parse: Callable[[str], T], default: T) -> T:
        value = self.values.get(name, "").strip()
        if not value:
            return default
        try:
            return parse(value)
        except ValueError as error:
            shown = "..." if name in SECRETS or "@" in value else value  # no secret in an error
            self.errors.append(f"{name}={shown}: {error}")
            return default

    def port(self, default: int) -> int:
        linked = self.values.get("GLM_PORT", "").startswith("tcp://")
        name = "GLM_PORT" if self.values.get("GLM_PORT") and not linked else "PORT"
        return self.get(name, count(1, 65535), default)


def _precision(value: str) -> Precision | None:
    if value == "auto":
        return None
    for precision in PRECISIONS:
        if value == precision:
            return precision
    raise ValueError(f"should be auto or one of {', '.join(PRECISIONS)}")


def _on_refusal(value: str) -> Literal["wait", "exit"]:
    if value == "wait":
        return "wait"
    if value == "exit":
        return "exit"
    raise ValueError("should be wait or exit")


def _unknown(values: Mapping[str, str]) -> list[str]:
    lines = []
    for name in sorted(values):
        if name.startswith("GLM_") and name not in NAMES and not SERVICE_LINK.match(name):
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
            lines.append(f"{name} is not a setting; did you mean {near}?")
    return lines


def address(settings: Settings) -> str:
    """The address to open in a browser on this machine."""
    host = "127.0.0.1" if settings.published_bind in EVERYWHERE else settings.published_bind
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.published_port}"
