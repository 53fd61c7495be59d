"""Mixed load over HTTP, polite and rude; every request must have an end."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

END_SECONDS = 180.0
"""Longest time that anything may take; far more than it does."""
PAUSE_SECONDS = 0.05
MOST_FAILURES = 20
CHAT = "/v1/chat/completions"
MALFORMED: tuple[bytes, ...] = (
    b"{",
    b"\xff\xfe\x00",
    b"[" * 5000,
    b'{"messages": 5}',
    b'{"messages": []}',
    b'{"messages": [{"role": "nobody", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
    b'{"messages": [{"role": "user", "content": "x"}], "stop": 7}',
)


class Wrong(Exception):
    """A request did not end as it should."""


@dataclass(frozen=True)
class Target:
    """The service, and how long its prompts can be."""

    port: int
    key: str
    max_model_len: int
    tokens_a_word: float

    def words(self, tokens: float) -> str:
        """A text of about so many tokens."""
        return "memory " * max(1, round(tokens / self.tokens_a_word))


@contextlib.contextmanager
def asked(port: int, key: str, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
    """One request; its connection is closed at the end, whatever has been read by then."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=END_SECONDS)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, body, headers)
        yield connection.getresponse()
    finally:
        connection.close()


def ask(port: int, key: str, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Status and text."""
    data = None if body is None else json.dumps(body).encode()
    with asked(port, key, method, path, data) as answer:
        return answer.status, answer.read().decode()


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def stream(target: Target, body: dict[str, Any], leave_after: int = 0, slow: bool = False) -> str:
    """Follows an answer to its end, or leaves after so many events."""
    with asked(target.port, target.key, "POST", CHAT, json.dumps({**body, "stream": True}).encode()) as answer:
        if answer.status == 429:
            return "refused, full"
        if answer.status != 200:
            raise Wrong(f"{answer.status}: {answer.read()[:300]!r}")
        events = 0
        reasons: list[str] = []
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return "answered" if reasons else _wrong("a stream ended without a finish_reason")
            event = json.loads(line[6:])
            if "error" in event:
                raise Wrong(f"a stream failed: {event}")
            reasons += [choice["finish_reason"] for choice in event["choices"] if choice["finish_reason"]]
            events += 1
            if events == leave_after:
                return "left"
            if slow:
                time.sleep(0.02)
        raise Wrong("a stream broke off")


def _wrong(text: str) -> str:
    raise Wrong(text)


def _short(target: Target, draw: random.Random) -> str:
    return stream(target, chat(f"What is Berth? {draw.randrange(50)}", temperature=0, max_tokens=draw.randint(1, 24)))


def _long(target: Target, draw: random.Random) -> str:
    sampling = {"temperature": 0.9, "top_p": 0.95, "seed": draw.randrange(1000)}
    return stream(target, chat("Tell me all about precision.", max_tokens=draw.randint(50, 200), **sampling))


def _rules(target: Target, draw: random.Random) -> str:
    rules = {"frequency_penalty": 0.5, "presence_penalty": 0.2, "logprobs": True, "top_logprobs": 5}
    return stream(target, chat("What happens when memory runs out?", max_tokens=30, temperature=1, **rules))


def _long_prompt(target: Target, draw: random.Random) -> str:
    text = f"{draw.randrange(10**6)} {target.words(target.max_model_len * 0.8)}"
    return stream(target, chat(text, max_tokens=8, temperature=0))


def _stops(target: Target, draw: random.Random) -> str:
    stop = draw.sample(["e", "the", "memory", "。", "\n", "zzzz"], 4)
    return stream(target, chat("Why was this precision chosen?", max_tokens=60, stop=stop))


def _slow(target: Target, draw: random.Random) -> str:
    return stream(target, chat("What is an int4 weight?", max_tokens=40), slow=True)


def _leave(target: Target, draw: random.Random) -> str:
    return stream(target, chat("Tell me a long story.", max_tokens=300, temperature=1), leave_after=draw.randint(1, 9))


def _leave_in_the_prompt(target: Target, draw: random.Random) -> str:
    body = chat(f"{draw.randrange(10**6)} {target.words(target.max_model_len * 0.8)}", stream=True, max_tokens=50)
    return _send_and_leave(target, json.dumps(body).encode(), draw.random() * 0.3, whole=True)


def _half_a_request(target: Target, draw: random.Random) -> str:
    return _send_and_leave(target, json.dumps(chat("half")).encode(), draw.random() * 0.2, whole=False)


def _send_and_leave(target: Target, body: bytes, seconds: float, whole: bool) -> str:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", target.port), timeout=END_SECONDS) as connection:
        connection.sendall(head.encode() + (body if whole else body[: len(body) // 2]))
        time.sleep(seconds)
    return "left"


def _whole(target: Target, draw: random.Random) -> str:
    status, text = ask(target.port, target.key, "POST", CHAT, chat("hello", max_tokens=12, seed=draw.randrange(9)))
    if status == 429:
        return "refused, full"
    return "answered" if status == 200 and json.loads(text)["choices"] else _wrong(f"{status}: {text[:300]}")


def _over_long(target: Target, draw: random.Random) -> str:
    body = chat(target.words(target.max_model_len * draw.choice((1.2, 3.0))))
    return _refused(*ask(target.port, target.key, "POST", CHAT, body))


def _malformed(target: Target, draw: random.Random) -> str:
    with asked(target.port, target.key, "POST", CHAT, draw.choice(MALFORMED)) as answer:
        return _refused(answer.status, answer.read().decode())


def _refused(status: int, text: str) -> str:
    if status == 429:
        return "refused, full"
    return "refused" if status == 400 and json.loads(text)["error"]["message"] else _wrong(f"{status}: {text[:300]}")


def _look(target: Target, draw: random.Random) -> str:
    status, text = ask(target.port, target.key, "GET", draw.choice(("/api/status", "/metrics", "/v1/models", "/")))
    return "looked" if status == 200 else _wrong(f"{status}: {text[:300]}")


KINDS: tuple[Callable[[Target, random.Random], str], ...] = (
    _short,
    _long,
    _rules,
    _long_prompt,
    _stops,
    _slow,
    _leave,
    _leave_in_the_prompt,
    _half_a_request,
    _whole,
    _over_long,
    _malformed,
    _look,
)


@dataclass
class Load:
    """Some clients, each asking one thing after the other until `stop`."""

    target: Target
    clients: int
    seed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.clients):
            thread = threading.Thread(target=self._run, args=(random.Random(self.seed * 1000 + number),), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Waits for every request's end."""
        self._over.set()
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        endless = sum(thread.is_alive() for thread in self._threads)
        if endless:
            self.failures.append(f"{endless} requests have no end")

    def _run(self, draw: random.Random) -> None:
        while not self._over.is_set():
            kind = draw.choice(KINDS)
            try:
                self.outcomes[f"{kind.__name__.strip('_')}: {kind(self.target, draw)}"] += 1
            except (Wrong, OSError, http.client.HTTPException, ValueError, LookupError) as error:
                if len(self.failures) < MOST_FAILURES:
                    self.failures.append(f"{kind.__name__.strip('_')}: {type(error).__name__}: {error}")
            self._over.wait(PAUSE_SECONDS)
