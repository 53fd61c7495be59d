"""The engine's Unix socket: one connection a request, one thread a connection."""

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
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.sampling import SamplingDefaults
from app.engine.serving.admission import check_ids, new_token_limit, read_request
from app.engine.serving.answer import AnswerRequest
from app.engine.serving.connection import SEND_SECONDS, ClientGone, discard, read_line, send, send_replies
from app.engine.serving.outbox import Outbox
from app.engine.serving.scheduler import REQUEST_FAILED, Scheduler

CONNECTIONS = 256
"""More connections at once are refused; the web worker has fewer threads."""

log = logging.getLogger(__name__)


class EngineServer:
    """Accepts connections as soon as it is created. `used_bytes` returns the engine's memory in bytes by device.

    Raises:
        OSError: the socket cannot be bound.
    """

    def __init__(
        self,
        path: Path,
        scheduler: Scheduler,
        chat: ChatFormat,
        defaults: SamplingDefaults,
        max_model_len: int,
        used_bytes: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._path = path
        self._scheduler = scheduler
        self._chat = chat
        self._defaults = defaults
        self._max_model_len = max_model_len
        self._used_bytes = used_bytes
        self._open = 0
        self._changed = threading.Condition()
        self._listener = _listen(path)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def stop(self, seconds: float) -> None:
        """Stops accepting, removes the socket, and waits so many seconds for connections to send their last reply."""
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
                too_many = self._open > CONNECTIONS
            serve = threading.Thread(target=self._serve, args=(connection, too_many), name="connection", daemon=True)
            try:
                serve.start()
            except RuntimeError as error:  # no memory for its stack, or too many threads of this user
                log.error("no thread can be started for a connection: %s", error)
                connection.close()
                self._connection_closed()

    def _connection_closed(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _serve(self, connection: socket.socket, too_many: bool) -> None:
        try:
            with connection:
                connection.settimeout(SEND_SECONDS)
                if too_many:
                    send(connection, Failed(429, "queue_full", "too many connections", retry_after_seconds=1))
                else:
                    self._handle(connection)
        except ClientGone:
            pass
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connection_closed()

    def _handle(self, connection: socket.socket) -> None:
        outbox = Outbox(connection)
        try:
            request = read_request(read_line(connection))
            if not isinstance(request, ChatRequest):
                send(connection, self._reply(request))
                return
            admitted = self._admit(request, outbox)
            try:
                send_replies(connection, outbox)
            finally:
                self._scheduler.cancel(admitted)
        except RequestError as error:
            send(connection, error.reply)
            discard(connection)
        except ClientGone:
            raise
        except Exception:
            # A reply is sent, because a connection that ends without one means that the engine died.
            log.exception("a request failed")
            send(connection, REQUEST_FAILED)
        finally:
            outbox.close()

    def _reply(self, request: TokenizeRequest | DetokenizeRequest | StatsRequest) -> Reply:
        """The reply to a request that needs no slot. Raises RequestError."""
        if isinstance(request, StatsRequest):
            return replace(self._scheduler.stats(), held_bytes=self._used_bytes())
        if isinstance(request, DetokenizeRequest):
            check_ids(request, self._chat.id_limit)
            return Detokenized(self._chat.decode(request.tokens))
        if request.prompt is not None:
            return Tokenized(self._chat.encode(request.prompt), self._max_model_len)
        prompt = PromptRequest(request.messages, request.tools, thinking=request.enable_thinking)
        return Tokenized(self._chat.prompt(prompt).ids, self._max_model_len)

    def _admit(self, request: ChatRequest, outbox: Outbox) -> AnswerRequest:
        """Puts a request into the queue. Raises RequestError."""
        self._scheduler.check_capacity(request.client)
        prompt_request = PromptRequest(
            request.messages, request.tools, request.tool_choice, request.enable_thinking, request.continue_answer
        )
        prompt = self._chat.prompt(prompt_request)
        admitted = AnswerRequest(
            request_id=request.request_id[:64],
            prompt_ids=prompt.ids,
            sampling=self._defaults.resolve(request.sampling),
            limit=new_token_limit(len(prompt.ids), request.max_tokens, self._max_model_len),
            stop=request.stop,
            prompt=prompt_request,
            required_prefixes=prompt.required_prefixes,
            logprobs=request.logprobs,
            client=request.client,
        )
        outbox.put(Accepted(len(prompt.ids)))
        self._scheduler.submit(admitted, outbox)
        return admitted


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
