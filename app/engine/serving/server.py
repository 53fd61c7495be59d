"""The Unix socket: one connection a request, one thread a connection."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.contract.wire import (
    Accepted,
    ChatRequest,
    Detokenized,
    DetokenizeRequest,
    Failed,
    Reply,
    StatsRequest,
    Tokenized,
    TokenizeRequest,
)
from app.engine.errors import RequestError
from app.engine.formats.base import ChatFormat, Conversation
from app.engine.sampling import SamplingDefaults
from app.engine.serving.admission import check_ids, new_token_limit, read_request
from app.engine.serving.answer import AnswerRequest
from app.engine.serving.connection import SEND_SECONDS, ClientGone, discard, pump, read_line, send
from app.engine.serving.outbox import Outbox
from app.engine.serving.scheduler import Scheduler

CONNECTIONS = 256
"""More at once are refused; the web worker has fewer threads."""

log = logging.getLogger(__name__)


class Server:
    """Accepts connections as soon as it exists. `held` tells the memory that the engine holds, in bytes by device.

    Raises OSError from the constructor when the socket cannot be bound.
    """

    def __init__(
        self,
        path: Path,
        scheduler: Scheduler,
        chat: ChatFormat,
        defaults: SamplingDefaults,
        max_model_len: int,
        held: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._path = path
        self._scheduler = scheduler
        self._chat = chat
        self._defaults = defaults
        self._max_model_len = max_model_len
        self._held = held
        self._open = 0
        self._changed = threading.Condition()
        self._listener = _listen(path)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def stop(self, seconds: float) -> None:
        """Stops accepting, removes the socket, and waits for the connections' last words."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0, timeout=seconds)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0 or not self._path.exists():
                    return
                log.exception("accept failed")
                time.sleep(0.1)
                continue
            with self._changed:
                self._open += 1
                crowded = self._open > CONNECTIONS
            serve = threading.Thread(target=self._serve, args=(connection, crowded), name="connection", daemon=True)
            try:
                serve.start()
            except RuntimeError as error:  # no memory for its stack, or no more threads for this user
                log.error("a connection has no thread: %s", error)
                connection.close()
                self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _serve(self, connection: socket.socket, crowded: bool) -> None:
        try:
            with connection:
                connection.settimeout(SEND_SECONDS)
                if crowded:
                    send(connection, Failed(429, "queue_full", "too many connections", retry_after_seconds=1))
                else:
                    self._talk(connection)
        except ClientGone:
            pass
        except Exception:
            log.exception("a connection failed")
        finally:
            self._leave()

    def _talk(self, connection: socket.socket) -> None:
        outbox = Outbox(connection)
        try:
            asked = read_request(read_line(connection))
            if not isinstance(asked, ChatRequest):
                send(connection, self._reply(asked))
                return
            request = self._admit(asked, outbox)
            try:
                pump(connection, outbox)
            finally:
                self._scheduler.cancel(request)
        except RequestError as refused:
            send(connection, refused.reply)
            discard(connection)
        except ClientGone:
            raise
        except Exception:
            # Said, because a connection that just ends means that the engine died.
            log.exception("a request failed")
            send(connection, Failed(500, "internal_error", "the engine failed at this request; its log says how"))
        finally:
            outbox.close()

    def _reply(self, asked: TokenizeRequest | DetokenizeRequest | StatsRequest) -> Reply:
        """To what needs no slot. Raises RequestError."""
        if isinstance(asked, StatsRequest):
            return replace(self._scheduler.stats(), held_bytes=self._held())
        if isinstance(asked, DetokenizeRequest):
            check_ids(asked, self._chat.id_limit)
            return Detokenized(self._chat.decode(asked.tokens))
        if asked.prompt is not None:
            return Tokenized(self._chat.encode(asked.prompt), self._max_model_len)
        conversation = Conversation(asked.messages, asked.tools, thinking=asked.enable_thinking)
        return Tokenized(self._chat.prompt(conversation).ids, self._max_model_len)

    def _admit(self, asked: ChatRequest, outbox: Outbox) -> AnswerRequest:
        """Puts a request into the queue. Raises RequestError."""
        self._scheduler.check_room(asked.client)
        conversation = Conversation(
            asked.messages, asked.tools, asked.tool_choice, asked.enable_thinking, asked.continue_answer
        )
        prompt = self._chat.prompt(conversation)
        request = AnswerRequest(
            request_id=asked.request_id[:64],
            prompt_ids=prompt.ids,
            sampling=self._defaults.resolve(asked.sampling),
            limit=new_token_limit(len(prompt.ids), asked.max_tokens, self._max_model_len),
            stop=asked.stop,
            conversation=conversation,
            openings=prompt.openings,
            logprobs=asked.logprobs,
            client=asked.client,
        )
        outbox.put(Accepted(len(prompt.ids)))
        self._scheduler.submit(request, outbox)
        return request


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # the socket's mode is 0600 from its first moment
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(128)
    return listener
