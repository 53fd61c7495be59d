"""Kill -9 of web worker, engine and supervisor while people chat: nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import http.client
import os
import random
import signal
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.contract.codec import from_json
from app.contract.conversations import Conversation, StoredMessage
from tests.conversations import Ask, Chats, new_id, over_http, question, told
from tests.processes.service import Service, alive, descendants, free_port, running, wait_until
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=512, context=512)
CHATS = 200
PEOPLE = 4
PATIENCE_SECONDS = 120

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Person:
    """Chats, asks again with the same ids when there was no reply, and remembers all that was acknowledged."""

    def __init__(self, ask: Ask) -> None:
        self.chats = Chats(self._insist)
        self._ask = ask
        self.questions: dict[str, tuple[str, str]] = {}
        """Of each conversation: id and content."""
        self.answers: dict[str, StoredMessage] = {}
        """At rest, as they were last told."""

    def _insist(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                status, answer = self._ask(method, path, body)
                if status not in (429, 503):
                    return status, answer
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() < deadline, f"{method} {path} in vain"
            time.sleep(0.1)

    def chat(self, number: int) -> None:
        made = new_id()
        self.chats.fine("POST", "/api/conversations", {"id": made, "settings": {"max_tokens": 40 + number % 100}})
        body = question(f"question {number}: 你好 'quoted' %_")
        self.chats.turn(made, **body)
        self.questions[made] = (body["question_id"], body["content"])
        answer = self._read(body["answer_id"])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while answer.state in ("interrupted", "failed") and time.monotonic() < deadline:
            time.sleep(0.3)
            self.chats.turn(made, answer_id=answer.id, continues=answer.id, seq=answer.seq)
            answer = self._read(answer.id)
        self.answers[answer.id] = answer

    def _read(self, answer_id: str) -> StoredMessage:
        """Follows an answer through every death, up to its rest."""
        while True:
            events = told(self.chats.fine("GET", f"/api/turns/{answer_id}/events"))
            if events and events[-1]["message"] and events[-1]["message"]["state"] != "writing":
                return from_json(StoredMessage, events[-1]["message"])


def kill(service: Service, name: str) -> None:
    """Ends a process of the service at once; a supervisor takes its children along."""
    try:
        victim = {
            "worker": service.web_worker,
            "engine": lambda: service.child("app.engine"),
            "supervisor": lambda: service.process.pid,
        }[name]()
    except (AssertionError, IndexError, FileNotFoundError):
        return  # on its way back from the kill before
    gone = [victim, *descendants(victim)]
    os.kill(victim, signal.SIGKILL)
    if name == "supervisor":
        service.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in gone), 30, f"{name} is gone")


def test_what_was_acknowledged_outlives_every_kill(tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    make_checkpoint(model, SHAPE)
    settings, picks = {"GLM_MODEL": str(model), "GLM_PORT": str(free_port())}, random.Random(20261124)
    kills = [*["worker"] * 12, *["engine"] * 5, *["supervisor"] * 4]
    picks.shuffle(kills)
    kills.append("worker")  # so that somebody is there for the last words
    person = Person(over_http(int(settings["GLM_PORT"])))
    talks: list[Future[None]] = []

    def talked(share: float) -> bool:
        return sum(talk.done() for talk in talks) >= share * CHATS

    with ThreadPoolExecutor(PEOPLE) as people:
        talks += [people.submit(person.chat, number) for number in range(CHATS)]
        at = 0
        while at < len(kills):
            with running(tmp_path, **settings) as service:
                while at < len(kills) and service.process.poll() is None:
                    # Between two kills people get on, however slow the machine is.
                    wait_until(partial(talked, at / len(kills)), 120, "people get on")
                    time.sleep(picks.uniform(0.0, 1.5))
                    kill(service, kills[at])
                    at += 1
                if at == len(kills):
                    wait_until(lambda: talked(1.0), 300, "all have talked")
                    break
        for talk in talks:
            talk.result()
    with running(tmp_path, **settings) as service:
        service.wait_for("ready")
        check_api(service, person)
    check_file(tmp_path / "state" / "berth.db", person)


def check_api(service: Service, person: Person) -> None:
    chats = Chats(service.request)
    exported = chats.fine("GET", "/api/conversations/export")["conversations"]
    stored = {one.head.id: one for one in (from_json(Conversation, raw) for raw in exported)}
    assert stored.keys() == person.questions.keys() and len(stored) == CHATS
    for made, (question_id, content) in person.questions.items():
        asked, answer = stored[made].messages
        assert (asked.id, asked.content, asked.state) == (question_id, content, "done")
        assert answer == person.answers[answer.id]
    assert sum(answer.state in ("done", "length") for answer in person.answers.values()) > CHATS / 2


def check_file(path: Path, person: Person) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.execute("INSERT INTO messages_index (messages_index, rank) VALUES ('integrity-check', 1)")
        (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
        assert count == 2 * CHATS
        assert connection.execute("SELECT count(*) FROM messages WHERE state = 'writing'").fetchone() == (0,)
