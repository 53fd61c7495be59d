"""Requests made to hurt, against the running service: each is answered by name, and the streams beside it go on."""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.web.chat.request import NEUTRAL, READ, WITHOUT_EFFECT
from tests.processes.service import Service, running, wait_until
from tests.processes.streams import CHAT, RawStream, Witness, busy, chat_body, head, settled, stats, stream
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SLOTS = 4
CONTEXT = 2048
SHAPE = CheckpointShape(
    hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=600, context=CONTEXT, dtype="float32"
)
FIELDS = (*READ, *WITHOUT_EFFECT, *NEUTRAL)
_log = logging.getLogger("measured")
ODD_VALUES = (True, 1, -1, 0.5, 10**30, "x", "", [], [1], ["x", None], {}, {"a": [1]})

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(model, SHAPE)
    for name in ("config.json", "generation_config.json"):  # no stop ids: an answer lasts as long as is asked
        fields = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(fields | {"eos_token_id": None}))
    settings = {"GLM_MODEL": str(model), "GLM_MAX_NUM_SEQS": str(SLOTS), "GLM_PRECISION": "fp32"}
    with running(tmp_path_factory.mktemp("service"), **settings) as service:
        service.wait_for("ready", 180)
        yield service
        assert service.status()["deaths"] == 0
        assert "Traceback" not in service.log()


@pytest.fixture
def witness(service: Service) -> Iterator[Witness]:
    with Witness(service) as witness:
        yield witness
    settled(service)


def refused(service: Service, body: Any, path: str = CHAT) -> dict[str, Any]:
    """The error of a 400."""
    code, answer = service.request("POST", path, body)
    assert code == 400, (code, answer)
    error = answer["error"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 1000
    return dict(error)


def raw_answer(service: Service, data: bytes, path: str = CHAT) -> tuple[int, Any]:
    """For bodies that are no JSON."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head(len(data), path) + data)
        with connection.makefile("rb") as lines:
            top, _, text = lines.read().partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(text)


def test_numbers_at_and_beyond_their_ends(service: Service, witness: Witness) -> None:
    greedy = stream(service, "count", max_tokens=8).text
    for zero in (0, 0.0, -0.0, 1e-9):
        assert stream(service, "count", max_tokens=8, temperature=zero).text == greedy
    assert stream(service, "count", max_tokens=8, temperature=1).end == "length"
    for name, value in (("temperature", -1), ("temperature", 2.1), ("top_p", 0), ("top_p", 1.5), ("max_tokens", 0)):
        assert refused(service, chat_body("count", **{name: value}))["param"] == name
    for text in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        code, answer = raw_answer(
            service, b'{"messages": [{"role": "user", "content": "x"}], "temperature": %s}' % text
        )
        assert (code, answer["error"]["code"]) == (400, "invalid_json")


def test_what_cannot_fit_is_told_with_what_would(service: Service, witness: Witness) -> None:
    long = refused(service, chat_body("word " * 3 * CONTEXT))
    assert (long["code"], long["param"]) == ("context_length_exceeded", "messages")
    assert f"takes at most {CONTEXT - 1}" in long["message"]
    past = refused(service, chat_body("hi", max_tokens=CONTEXT))
    assert (past["code"], past["param"]) == ("context_length_exceeded", "max_tokens")
    assert f"into the context of {CONTEXT}" in past["message"]
    megabyte = refused(service, chat_body("1 MB of it. " * 87_000))
    assert megabyte["code"] == "context_length_exceeded"
    code, answer = service.request("POST", CHAT, chat_body("x" * 5_000_000))
    assert (code, answer["error"]["code"]) == (413, "request_entity_too_large")


def test_bodies_that_are_not_what_they_should_be(service: Service, witness: Witness) -> None:
    assert refused(service, {"messages": []})["param"] == "messages"
    assert refused(service, {})["param"] == "messages"
    assert refused(service, chat_body("x", stop=[f"s{n}" for n in range(10_000)]))["param"] == "stop"
    assert refused(service, chat_body("x", tools=[{"type": "function"}] * 10_000))["param"].startswith("tools")
    for path in ("/detokenize", "/tokenize"):
        assert refused(service, {"tokens": "x", "prompt": 1}, path)["param"] in ("tokens", "prompt")
    for ids in ([600], [-1], [2**70]):
        assert refused(service, {"tokens": ids}, "/detokenize")["param"].startswith("tokens")
    for data in (b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000, b'"messages"', b"null"):
        code, answer = raw_answer(service, data)
        assert (code, answer["error"]["code"]) == (400, "invalid_json"), data[:20]


@pytest.mark.parametrize("name", FIELDS)
def test_every_type_in_every_field(service: Service, name: str) -> None:
    """What is taken is answered, what is not is refused by its name; nothing is an error of the service's."""
    plain = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    codes = set()
    for value in ODD_VALUES:
        code, answer = service.request("POST", CHAT, plain | {name: value})
        codes.add(code)
        if code == 404 and name == "model":
            continue
        if code != 200:
            assert code == 400, (value, answer)
            blamed = answer["error"]["param"]
            assert blamed.startswith(name) or blamed in FIELDS, (value, answer)
    assert codes & {400, 404}, "nothing was refused"


def test_the_types_in_a_message(service: Service, witness: Witness) -> None:
    for value in (*ODD_VALUES, None, [{"type": "text"}], [{"type": "image_url", "image_url": {"url": "x"}}]):
        for message in ({"role": "user", "content": value}, {"role": value, "content": "x"}, value):
            code, answer = service.request("POST", CHAT, {"messages": [message], "max_tokens": 1})
            assert code == 200 or (code == 400 and answer["error"]["param"].startswith("messages")), (message, answer)


def test_who_leaves_before_or_in_the_body_costs_nothing(service: Service, witness: Witness) -> None:
    data = json.dumps(chat_body("x")).encode()
    for sent in (b"", b"POST", head(len(data)), head(len(data)) + data[:20], head(10**6) + data):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
                connection.sendall(sent)
    assert service.request("GET", "/health/live")[0] == 200


def test_who_leaves_while_waiting_leaves_the_queue(service: Service) -> None:
    with busy(service, SLOTS, max_tokens=1800):
        with RawStream(service, chat_body("late")), RawStream(service, chat_body("later")):
            settled(service, SLOTS, waiting=2)
        took = settled(service, SLOTS, waiting=0)
        _log.info(f"out of the queue {took:.3f} s after closing")
    _log.info(f"out of the slots {settled(service):.3f} s after closing")


def test_who_leaves_in_mid_prefill_frees_the_slot(service: Service) -> None:
    """Tried until one was caught there: then fewer tokens were computed than its prompt has."""
    for attempt in range(40):
        before = stats(service).prefilled_tokens
        with RawStream(service, chat_body(f"{attempt} " + "a long story " * 150)):
            wait_until(lambda before=before: stats(service).prefilled_tokens > before, 60, "the prefill has begun")
        took = settled(service)
        if (computed := stats(service).prefilled_tokens - before) < 1800:
            _log.info(f"attempt {attempt}: free {took:.3f} s after closing, {computed} tokens computed")
            return
    raise AssertionError("never caught in mid-prefill")


def test_who_leaves_in_mid_stream_frees_the_slot(service: Service) -> None:
    with Witness(service, ("a bystander",)):
        for _ in range(3):
            with busy(service, 2, max_tokens=1900):
                assert stats(service).running >= 2
        wait_until(lambda: stats(service).running <= 1, 30, "only the bystander runs")
    settled(service)


def test_what_is_sent_behind_the_end_harms_nobody(service: Service, witness: Witness) -> None:
    with RawStream(service, chat_body("x", max_tokens=2)) as raw:
        assert raw.all().end == "length"
        with contextlib.suppress(OSError):
            raw.socket.sendall(b"GET / HTTP/1.1\r\n" * 1000)


def test_one_who_queues_many_is_not_served_before_one_who_queues_one(service: Service) -> None:
    """Clients are told apart by their addresses here; the second comes last and waits for one of the first's alone."""
    with contextlib.ExitStack() as stack:
        ends: list[str] = []
        stack.enter_context(busy(service, SLOTS, max_tokens=600))
        many = [RawStream(service, chat_body(f"many {n}", max_tokens=40)) for n in range(20)]
        settled(service, SLOTS, waiting=20)
        one = RawStream(service, chat_body("one", max_tokens=40), source="127.0.0.2")
        for raw in (*many, one):
            stack.enter_context(raw)
        settled(service, SLOTS, waiting=21)
        readers = [threading.Thread(target=lambda raw=raw: ends.append(end_of(raw, one))) for raw in (*many, one)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
    assert sorted(ends) == ["many"] * 20 + ["one"]
    assert ends.index("one") < 12, "behind the first's other requests"
    settled(service)


def end_of(raw: RawStream, one: RawStream) -> str:
    assert raw.all().end == "length"
    return "one" if raw is one else "many"


def test_readers_that_do_not_read_slow_nobody(service: Service) -> None:
    engine = service.child("app.engine")
    with Witness(service, ("a bystander",)):
        before = anonymous_mib(engine)
        with contextlib.ExitStack() as stack:
            for n in range(2):
                body = chat_body(f"deaf {n}", max_tokens=1900)
                stack.enter_context(RawStream(service, body, receive_bytes=2048))
            for _ in range(3):
                assert stream(service, "x", max_tokens=20).end == "length"
            assert anonymous_mib(engine) - before < 32
    settled(service)


def anonymous_mib(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def test_five_hundred_at_once_are_answered_or_told_when_to_come_back(service: Service, witness: Witness) -> None:
    body = json.dumps(chat_body("one of many", max_tokens=2)).encode()
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60)) for _ in range(500)
        ]
        for connection in connections:
            connection.sendall(head(len(body)) + body)
        start = time.monotonic()
        assert service.request("GET", "/health/live", timeout=20)[0] == 200
        _log.info(f"/health/live answered in {time.monotonic() - start:.2f} s beside 500 requests")
        codes = [int(answer.split()[1]) for answer in read_all(connections)]
    assert set(codes) <= {200, 429}
    assert codes.count(200) >= SLOTS


def read_all(connections: list[socket.socket]) -> list[bytes]:
    """Every answer to its end, in the order of their ends."""
    answers: dict[int, bytes] = {connection.fileno(): b"" for connection in connections}
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(60)
            assert ready, f"{len(selector.get_map())} of {len(connections)} got no answer"
            for key, _ in ready:
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                answers[key.fd] += data
                if not data:
                    selector.unregister(key.fileobj)
    return list(answers.values())
