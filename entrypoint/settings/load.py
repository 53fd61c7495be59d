"""The environment and `.env`, parsed once into a frozen `Settings`. Nothing else reads either."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from entrypoint.settings import access_parsers
from entrypoint.settings.settings import OPTIONS, SECRETS, SETTING_NAMES, Settings, SettingsError

SERVICE_LINK = re.compile(r"GLM_SERVICE_|GLM_PORT_")
"""Variables that Kubernetes injects for a service named glm."""
MEANINGFUL_EMPTY = ("CUDA_VISIBLE_DEVICES",)
"""An empty one hides every GPU; everything else that is empty counts as unset."""
NOT_INHERITED = ("WEB_CONCURRENCY", *SECRETS)
"""gunicorn reads the first at import, and one worker is part of the design; only the download gets the token, and the
web service reads the key from a file."""


def load_settings(dotenv: Path = Path(".env")) -> Settings:
    """Settings of this process: the environment, and below it the `.env` file if there is one.

    Raises:
        SettingsError: with a line for every setting that is wrong.
    """
    environment = {k: v for k, v in os.environ.items() if v or k in MEANINGFUL_EMPTY}
    return parse_settings({**read_dotenv(dotenv), **environment})


def read_dotenv(path: Path) -> dict[str, str]:
    """The assignments in a `.env` file, none if the file is missing. Raises SettingsError naming the line."""
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
    parsed, errors = _parse(values)
    environment = {name: value for name, value in values.items() if name not in NOT_INHERITED}
    settings = Settings(**parsed, environment=environment)
    settings = replace(
        settings,
        state_dir=settings.state_dir.absolute(),
        hf_home=settings.hf_home.absolute(),
        api_key=settings.key_in_file or settings.api_key,
        published_bind=parsed.get("published_bind", settings.bind),
        published_port=parsed.get("published_port", settings.port),
    )
    errors += access_parsers.conflicts(values, settings.auth, settings.published_bind)
    errors += _unknown(values)
    if errors:
        raise SettingsError(*errors)
    return settings


def _parse(values: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The fields that are set and right, and a line for each that is wrong."""
    parsed: dict[str, Any] = {}
    errors = []
    for field, option in OPTIONS.items():
        name = option.variable(values)
        value = values.get(name, "").strip()
        if not value:
            continue
        try:
            parsed[field] = option.parse(value)
        except ValueError as error:
            shown = "..." if option.secret or "@" in value else value  # no secret in an error
            errors.append(f"{name}={shown}: {error}")
    return parsed, errors


def _unknown(values: Mapping[str, str]) -> list[str]:
    lines = []
    for name in sorted(values):
        if name.startswith("GLM_") and name not in SETTING_NAMES and not SERVICE_LINK.match(name):
            near = difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.0)[0]
            lines.append(f"{name} is not a setting; did you mean {near}?")
    return lines
