"""The engine's socket when something behind it fails."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from app.contract.codec import dump_line
from app.contract.wire import TokenizeRequest
from app.engine.sampling import SamplingDefaults
from app.engine.serving.server import EngineServer


class Broken:
    """A chat format with a mistake in it."""

    def encode(self, text: str) -> tuple[int, ...]:
        raise ZeroDivisionError(text)


def test_a_programming_error_is_no_death(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that ends without a word would be taken for one."""
    chat: Any = Broken()
    nobody: Any = None
    server = EngineServer(tmp_path / "engine.sock", nobody, chat, SamplingDefaults(), 64)
    try:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(30)
                connection.connect(str(tmp_path / "engine.sock"))
                connection.sendall(dump_line(TokenizeRequest("t", prompt="x")))
                reply = json.loads(connection.makefile("rb").readline())
            assert (reply["type"], reply["status"], reply["code"]) == ("failed", 500, "internal_error")
    finally:
        server.stop(30)
    assert [record.message for record in caplog.records] == ["a request failed"] * 2


def test_a_connection_without_a_thread_is_closed_and_the_next_one_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there were no memory for a thread's stack."""
    chat: Any = Broken()
    nobody: Any = None
    server = EngineServer(tmp_path / "engine.sock", nobody, chat, SamplingDefaults(), 64)

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(tmp_path / "engine.sock"))
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(dump_line(TokenizeRequest("t", prompt="x")))
            with contextlib.suppress(ConnectionResetError):
                return connection.makefile("rb").readline()
            return b""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert ask() == b""
        assert b"internal_error" in ask()
    finally:
        server.stop(30)
    assert "no thread can be started" in caplog.text
