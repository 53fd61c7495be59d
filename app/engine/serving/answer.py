"""One answer: tokens from the backend, text, thoughts and calls for the client."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.contract.wire import Delta, Finished, FinishReason, TokenChance, TokenLogprob, ToolCallDelta
from app.engine.backend.interface import Backend, Logprobs, TokenRequest
from app.engine.formats.base import ChatFormat, Conversation, Piece, Said, Thought
from app.engine.sampling import Sampling
from app.engine.serving.stop_strings import StopMatcher


@dataclass(frozen=True)
class AnswerRequest:
    """An admitted request: the prompt fits, and `limit` new tokens behind it."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    limit: int
    stop: tuple[str, ...] = ()
    conversation: Conversation = field(default_factory=lambda: Conversation(()))
    openings: tuple[tuple[int, ...], ...] = ()
    """As in `TokenRequest`."""
    logprobs: int | None = None
    """As in `TokenRequest`."""
    client: str = ""
    """As in `ChatRequest`."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def tokens(self) -> TokenRequest:
        """What the backend is asked."""
        return TokenRequest(self.prompt_ids, self.sampling, self.openings, self.logprobs)


def answer(request: AnswerRequest, backend: Backend, chat: ChatFormat) -> Iterator[Delta | Finished]:
    """One answer by itself, for a backend that does nothing else: what is said as it becomes certain, then `Finished`.

    Raises:
        Exception: the sequence failed, by `NonFiniteLogits` where the model broke down on it.
    """
    writer, slot = AnswerWriter(request, chat), backend.start(request.tokens())
    try:
        while not writer.done:
            for new in backend.step():
                if isinstance(new.token, Exception):
                    raise new.token
                yield from writer.push(new.token, new.logprobs)
    finally:
        backend.stop(slot)


class AnswerWriter:
    """Counts, reads and cuts one answer, a token at a time; whoever runs the model pushes them.

    Stop strings are looked for in what is said, not in thoughts nor in calls. An answer that calls tools and then
    stops is finished by `tool_calls`; one that the limit ends by `length`, and a call that it cuts off is text.

    Log probabilities are of every token but the control token that ends the answer, in order: they come with the delta
    that counts the token, at the end with one that says nothing. Where a stop string ends the answer, those that were
    not told before are left out with it.
    """

    def __init__(self, request: AnswerRequest, chat: ChatFormat) -> None:
        self._request = request
        self._stop_ids = chat.stop_ids
        self._bytes = chat.token_bytes
        self._parser = chat.parser(request.conversation, request.prompt_ids)
        self._matcher = StopMatcher(request.stop)
        self._count = 0
        self._told = 0
        """Tokens that a delta has reported."""
        self._calls = 0
        self._logprobs: list[TokenLogprob] = []
        """Not told yet."""
        self.done = False
        """After `Finished` was given; nothing more may be pushed."""

    def push(self, token: int, logprobs: Logprobs | None = None) -> tuple[Delta | Finished, ...]:
        """What this token makes certain; ends with `Finished` where the answer does."""
        self._count += 1
        if token in self._stop_ids:
            return self.end("stop")
        if logprobs is not None:
            top = tuple(self._chance(other, value) for other, value in logprobs.top)
            self._logprobs.append(TokenLogprob(self._chance(token, logprobs.chosen), top))
        replies = self._replies(self._parser.push(token))
        if not self.done and self._count >= self._request.limit:
            replies += self.end("length")
        return replies

    def end(self, reason: FinishReason = "length") -> tuple[Delta | Finished, ...]:
        """No more tokens come: what was held back, unless it ends in a stop string after all, and `Finished`."""
        replies = self._replies(self._parser.end())
        if self.done:
            return replies
        replies += self._said(self._matcher.flush())
        rest = (self._delta(),) if self._logprobs else ()
        return (*replies, *rest, self._finished(reason))

    def _replies(self, pieces: tuple[Piece, ...]) -> tuple[Delta | Finished, ...]:
        replies: list[Delta | Finished] = []
        for piece in pieces:
            if isinstance(piece, Said):
                cut = self._matcher.feed(piece.text)
                replies += self._said(cut.text)
                if cut.stopped:
                    return (*replies, self._finished("stop"))
            elif isinstance(piece, Thought):
                replies.append(self._delta(reasoning=piece.text))
            else:
                replies += self._said(self._matcher.flush())
                call = ToolCallDelta(self._calls, self._call_id(), piece.name, piece.arguments)
                replies.append(self._delta(calls=(call,)))
                self._calls += 1
        return tuple(replies)

    def _said(self, text: str) -> tuple[Delta, ...]:
        return (self._delta(text),) if text else ()

    def _delta(self, text: str = "", reasoning: str = "", calls: tuple[ToolCallDelta, ...] = ()) -> Delta:
        """With the tokens since the last one."""
        new, self._told = self._count - self._told, self._count
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Delta(text, new, reasoning, calls, logprobs)

    def _chance(self, token: int, logprob: float) -> TokenChance:
        spelt = self._bytes(token)
        return TokenChance(spelt.decode("utf-8", "replace"), tuple(spelt), logprob)

    def _call_id(self) -> str:
        name = f"{self._request.request_id}:{self._calls}"
        return f"call_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    def _finished(self, reason: FinishReason) -> Finished:
        self.done = True
        reason = "tool_calls" if reason == "stop" and self._calls else reason
        return Finished(reason, len(self._request.prompt_ids), self._count)
