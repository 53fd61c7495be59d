"""An engine without a model, on a real Unix socket. The first word of the last user message decides its answer:

- `echo TEXT`: TEXT, word by word
- `slow N`: N deltas, one every 50 ms
- `flood N`: N deltas of 64 KiB at once
- `hang`: accepts and sends nothing more
- `deaf`: doesn't accept
- `die`: one delta, then the connection ends
- `refuse`: a 400
- `full`: a 429
- `weird`: a text with a lone surrogate and line separators
- `script [..]`: the replies in this JSON

The token ids of a text are its characters' code points, and those of a conversation the ones of its contents.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from app.contract.codec import dump_line, from_json
from app.contract.wire import (
    Accepted,
    ChatRequest,
    Delta,
    Detokenized,
    DetokenizeRequest,
    EngineRequest,
    Failed,
    Finished,
    Reply,
    Stats,
    StatsRequest,
    Tokenized,
    TokenizeRequest,
)


@dataclass
class ReceivedRequest:
    """A chat request, and when it was accepted and cancelled."""

    request: ChatRequest
    accepted_at: float = 0.0
    cancelled_at: float | None = None
    """When the engine noticed that the connection was closed before the end."""
    done: threading.Event = field(default_factory=threading.Event)


class Cancelled(Exception):
    """The web closed the connection."""


class FakeEngine:
    """Use it as a context manager. `received` has all chat requests, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[ReceivedRequest] = []
        self.token_requests: list[TokenizeRequest | DetokenizeRequest] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self.stats = Stats(
            running=0,
            waiting=0,
            slots=4,
            cache_tokens=0,
            cache_limit_tokens=32768,
            decode_steps=0,
            decoded_tokens=0,
            prefilled_tokens=0,
            reused_tokens=0,
        )
        """The reply to a `StatsRequest`."""

    def __enter__(self) -> FakeEngine:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(5)

    def last(self, seconds: float = 5.0) -> ReceivedRequest:
        """The latest request, waited for."""
        deadline = time.monotonic() + seconds
        while not self.received:
            assert time.monotonic() < deadline, "no request reached the engine"
            time.sleep(0.005)
        return self.received[-1]

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            request: EngineRequest = from_json(
                EngineRequest,  # type: ignore[arg-type]
                json.loads(lines.readline()),
                "request",
            )
            if isinstance(request, StatsRequest):
                connection.sendall(dump_line(self.stats))
                return
            if not isinstance(request, ChatRequest):
                self.token_requests.append(request)
                connection.sendall(dump_line(answer_token_request(request)))
                return
            received = ReceivedRequest(request)
            self.received.append(received)
            try:
                Script(connection, received, self._stopping).run()
            except (Cancelled, BrokenPipeError, ConnectionResetError):
                received.cancelled_at = time.monotonic()
            received.done.set()


def answer_token_request(request: TokenizeRequest | DetokenizeRequest) -> Reply:
    """Ids are code points here. Larger ones are refused, as an engine refuses ids outside its vocabulary."""
    if isinstance(request, TokenizeRequest):
        text = request.prompt if request.prompt is not None else "".join(m.content for m in request.messages)
        return Tokenized(tuple(ord(character) for character in text), 8192)
    if any(token > 0x10FFFF for token in request.tokens):
        return Failed(status=400, code="invalid_value", message="There are only 1114112 ids.", param="tokens")
    return Detokenized("".join(chr(token) for token in request.tokens))


@dataclass(frozen=True)
class Script:
    """One request, played."""

    connection: socket.socket
    received: ReceivedRequest
    stopping: threading.Event

    def run(self) -> None:
        question = next(message for message in reversed(self.received.request.messages) if message.role == "user")
        verb, _, rest = question.content.partition(" ")
        if verb == "deaf":
            self._pause(60)
            return
        if verb in ("refuse", "full"):
            self._refuse(verb)
            return
        self.received.accepted_at = time.monotonic()
        self._send(Accepted(prompt_tokens=7))
        if verb == "hang":
            self._pause(60)
        elif verb == "die":
            self._send(Delta("half an ", 2))
        elif verb == "weird":
            self._send(Delta("a\ud83d\u2028\r\n</script>", 1))
            self._send(Finished("stop", 7, 1))
        elif verb == "script":
            for reply in json.loads(rest):
                self._send(from_json(Reply, reply, "reply"))  # type: ignore[arg-type]
        elif verb == "flood":
            self._words(["x" * 65536] * int(rest), 0.0)
        elif verb == "slow":
            self._words(["x "] * int(rest), 0.05)
        else:
            self._words([f"{word} " for word in rest.split()], 0.0)

    def _words(self, words: list[str], seconds: float) -> None:
        limit = self.received.request.max_tokens or len(words)
        for word in words[:limit]:
            self._pause(seconds)
            self._send(Delta(word, 1))
        reason = "length" if limit < len(words) else "stop"
        self._send(Finished(reason, 7, min(limit, len(words))))

    def _refuse(self, verb: str) -> None:
        if verb == "full":
            self._send(Failed(status=429, code="queue_full", message="The queue is full.", retry_after_seconds=3))
        else:
            self._send(
                Failed(status=400, code="context_length_exceeded", message="At most 100 tokens fit.", param="messages")
            )

    def _send(self, reply: Reply) -> None:
        self.connection.sendall(dump_line(reply))

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.stopping.is_set():
            if select.select([self.connection], [], [], min(left, 0.05))[0]:
                raise Cancelled
