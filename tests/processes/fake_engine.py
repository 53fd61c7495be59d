"""An engine without a model: a real Unix socket that speaks the wire and answers by the last user message's first word.

`echo TEXT` answers TEXT word by word; `flood N` sends N deltas of 64 KiB at once; `slow N` sends N deltas, one each
50 ms; `hang` accepts and says nothing more;
`deaf` does not even accept; `die` sends one delta and drops the connection; `refuse` is a 400 of the engine's;
`full` a 429; `weird` a text with a lone surrogate and line separators; `script [..]` plays the replies that follow as
JSON. A text is tokenized to its characters' code points; a conversation, to those of its contents.
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
class Seen:
    """What became of one request."""

    request: ChatRequest
    accepted_at: float = 0.0
    cancelled_at: float | None = None
    """When the engine saw that the connection had been closed before the end."""
    done: threading.Event = field(default_factory=threading.Event)


class Cancelled(Exception):
    """The web closed the connection."""


class FakeEngine:
    """Use as a context manager; `seen` grows by one for each request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[Seen] = []
        self.questions: list[TokenizeRequest | DetokenizeRequest] = []
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
        """What it says of itself."""

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

    def last(self, seconds: float = 5.0) -> Seen:
        """The latest request, waited for."""
        deadline = time.monotonic() + seconds
        while not self.seen:
            assert time.monotonic() < deadline, "no request reached the engine"
            time.sleep(0.005)
        return self.seen[-1]

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
                self.questions.append(request)
                connection.sendall(dump_line(answer_question(request)))
                return
            seen = Seen(request)
            self.seen.append(seen)
            try:
                Script(connection, seen, self._stopping).run()
            except (Cancelled, BrokenPipeError, ConnectionResetError):
                seen.cancelled_at = time.monotonic()
            seen.done.set()


def answer_question(request: TokenizeRequest | DetokenizeRequest) -> Reply:
    """Ids are code points here; those beyond are refused as an engine refuses what its vocabulary lacks."""
    if isinstance(request, TokenizeRequest):
        text = request.prompt if request.prompt is not None else "".join(m.content for m in request.messages)
        return Tokenized(tuple(ord(character) for character in text), 8192)
    if any(token > 0x10FFFF for token in request.tokens):
        return Failed(400, "invalid_value", "There are only 1114112 ids.", "tokens")
    return Detokenized("".join(chr(token) for token in request.tokens))


@dataclass(frozen=True)
class Script:
    """One request, played."""

    connection: socket.socket
    seen: Seen
    stopping: threading.Event

    def run(self) -> None:
        asked = next(message for message in reversed(self.seen.request.messages) if message.role == "user")
        verb, _, rest = asked.content.partition(" ")
        if verb == "deaf":
            self._pause(60)
            return
        if verb in ("refuse", "full"):
            self._refuse(verb)
            return
        self.seen.accepted_at = time.monotonic()
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
        limit = self.seen.request.max_tokens or len(words)
        for word in words[:limit]:
            self._pause(seconds)
            self._send(Delta(word, 1))
        reason = "length" if limit < len(words) else "stop"
        self._send(Finished(reason, 7, min(limit, len(words))))

    def _refuse(self, verb: str) -> None:
        if verb == "full":
            self._send(Failed(429, "queue_full", "The queue is full.", retry_after_seconds=3))
        else:
            self._send(Failed(400, "context_length_exceeded", "At most 100 tokens fit.", "messages"))

    def _send(self, reply: Reply) -> None:
        self.connection.sendall(dump_line(reply))

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.stopping.is_set():
            if select.select([self.connection], [], [], min(left, 0.05))[0]:
                raise Cancelled
