"""`link`: the address to open, which signs a browser in if Berth made the key."""

from __future__ import annotations

import argparse
import sys

from app.contract import exits
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.api_key import read_made_key, sign_in_link
from entrypoint.state.state_dir import StateDir


def print_link(settings: Settings, _options: argparse.Namespace) -> int:
    """`link`: prints the address to open, with the key in it if Berth made one."""
    state = StateDir(settings.state_dir)
    if settings.auth and settings.api_key is None and read_made_key(state.api_key) is None:
        raise SettingsError(f"GLM_STATE_DIR={state.folder}: there is no key yet; the first `serve` makes it")
    if settings.api_key is not None:
        sys.stderr.write("You set the key yourself, so no sign-in link is printed.\n")
    sys.stdout.write(f"{sign_in_link(settings, state)}\n")
    return exits.OK
