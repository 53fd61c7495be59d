"""The listening socket, bound before anything else starts, so that a port in use is one line at once."""

from __future__ import annotations

import errno
import socket
import time

from entrypoint.settings.settings import Settings, SettingsError

BACKLOG = 512
PATIENCE_SECONDS = 1.5
"""How long to wait for the port: the children of a killed supervisor keep it for up to a second."""


def bind(settings: Settings) -> socket.socket:
    """Listens on GLM_BIND:GLM_PORT. Raises SettingsError naming the setting to change."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return _listen(settings)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                raise SettingsError(_reason(settings, error)) from error
            time.sleep(0.1)


def _listen(settings: Settings) -> socket.socket:
    family, kind, protocol, _, endpoint = socket.getaddrinfo(
        settings.bind, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(endpoint)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _reason(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"GLM_PORT={settings.port}: in use on {settings.bind}; stop what uses it or set another GLM_PORT"
    if error.errno == errno.EACCES:
        return f"GLM_PORT={settings.port}: not allowed for this user; set one from 1024 to 65535"
    return f"GLM_BIND={settings.bind}: {error.strerror or error}; give an address of this machine, such as 127.0.0.1"
