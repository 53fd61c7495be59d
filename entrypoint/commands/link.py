"""`link`: prints the URL of the page; it signs the browser in if Berth made the key."""

from __future__ import annotations

import argparse
import sys

from app.contract import exits
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.api_key import read_made_key, sign_in_link
from entrypoint.state.state_dir import StateDir


def print_link(settings: Settings, _options: argparse.Namespace) -> int:
    """Prints the URL, which contains the key if Berth made it. Raises SettingsError if there is no key yet."""
    state = StateDir(settings.state_dir)
    if settings.auth and settings.api_key is None and read_made_key(state.api_key) is None:
        raise SettingsError(f"GLM_STATE_DIR={state.folder}: there is no key yet; run `serve` once, which creates it")
    if settings.api_key is not None:
        sys.stderr.write("You set the key yourself, so the link does not contain it.\n")
    sys.stdout.write(f"{sign_in_link(settings, state)}\n")
    return exits.OK
