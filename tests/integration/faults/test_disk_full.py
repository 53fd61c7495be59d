"""A disk that is full: nothing is stored and that is said; what was written waits for room; chats go on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conversations import Chats, new_id, over_http, question
from tests.processes.fake_engine import FakeEngine
from tests.processes.service import wait_until
from tests.processes.web import WebProcess, start_web, temporary_folder


@pytest.fixture
def small() -> Iterator[Path]:
    """A file system of one megabyte."""
    with temporary_folder() as name:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", name], capture_output=True)
        if mounted.returncode:
            pytest.skip("file systems can't be mounted here")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


@pytest.fixture
def web(small: Path) -> Iterator[WebProcess]:
    with temporary_folder() as name:
        folder = Path(name)
        process = start_web(folder, folder / "engine.sock", database=small / "berth.db")
        try:
            process.wait_alive(60)
            yield process
        finally:
            process.stop()


def fill(folder: Path) -> Path:
    """Takes all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_is_said_and_stores_nothing_until_there_is_room(web: WebProcess, small: Path) -> None:
    chats = Chats(over_http(web.port))
    with FakeEngine(web.folder / "engine.sock"):
        made = chats.create()
        first = chats.say(made, "echo before")
        filler = fill(small)
        words = ("x" * 500 + " ") * 200
        long = question(f"echo {words}", first.id)
        for method, path, body in (
            ("POST", f"/api/conversations/{made}/turns", long),
            ("POST", "/api/conversations", {"id": new_id(), "settings": {"system_prompt": "x" * 100_000}}),
        ):
            status, answer = chats.send(method, path, body)
            assert (status, answer["error"]["code"]) == (507, "storage_full"), answer
        assert len(chats.get(made).messages) == 2
        talk = {"messages": [{"role": "user", "content": "echo on"}]}
        assert chats.fine("POST", "/v1/chat/completions", talk)["choices"][0]["message"]["content"] == "on "
        filler.unlink()
        chats.turn(made, **long)
        assert chats.rest(long["answer_id"]).content == words
        assert "Traceback" not in web.log


def test_an_answer_that_ends_while_the_disk_is_full_waits_for_room(web: WebProcess, small: Path) -> None:
    chats = Chats(over_http(web.port))
    with FakeEngine(web.folder / "engine.sock"):
        made = chats.create()
        answer_id = chats.turn(made, **question("slow 40")).answer.id
        wait_until(lambda: chats.message(made, answer_id).seq > 0, 30, "it has begun")
        filler = fill(small)
        wait_until(lambda: chats.message(made, answer_id).content == "x " * 40, 30, "all is said")
        wait_until(lambda: "a growing answer can't be stored" in web.log, 30, "the log says it")
        assert chats.message(made, answer_id).state == "writing"
        filler.unlink()
        assert (chats.rest(answer_id).state, chats.message(made, answer_id).content) == ("done", "x " * 40)
