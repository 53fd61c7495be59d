"""One answer: tokens from the backend; text, reasoning and tool calls for the client."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.contract.wire import Delta, Finished, FinishReason, TokenChance, TokenLogprob, ToolCallDelta
from app.engine.backend.interface import Backend, Logprobs, TokenRequest
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.formats.parsing.parts import AnswerPart, ReasoningPart, TextPart
from app.engine.sampling import Sampling
from app.engine.serving.stop_strings import StopMatcher


@dataclass(frozen=True)
class AnswerRequest:
    """An admitted request: the prompt and `limit` new tokens fit into the context."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    limit: int
    stop: tuple[str, ...] = ()
    prompt: PromptRequest = field(default_factory=lambda: PromptRequest(()))
    required_prefixes: tuple[tuple[int, ...], ...] = ()
    """As in `TokenRequest`."""
    logprobs: int | None = None
    """As in `TokenRequest`."""
    client: str = ""
    """As in `ChatRequest`."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def token_request(self) -> TokenRequest:
        """The request to the backend."""
        return TokenRequest(self.prompt_ids, self.sampling, self.required_prefixes, self.logprobs)


def answer(request: AnswerRequest, backend: Backend, chat: ChatFormat) -> Iterator[Delta | Finished]:
    """Generates one answer on a backend that does nothing else: deltas as they become certain, then `Finished`.

    Raises:
        Exception: the sequence failed, with `NonFiniteLogits` if the model's output was not finite.
    """
    writer, slot = AnswerWriter(request, chat), backend.add_request(request.token_request())
    try:
        while not writer.done:
            for new in backend.step():
                if isinstance(new.token, Exception):
                    raise new.token
                yield from writer.push(new.token, new.logprobs)
    finally:
        backend.finish_request(slot)


class AnswerWriter:
    """Counts, parses and cuts one answer; whoever runs the model pushes its tokens.

    Stop strings apply to the text, neither to reasoning nor to tool calls. An answer that calls tools and then stops is
    finished by `tool_calls`. One that reaches its limit is finished by `length`, and a call that this cuts off is text.

    Log probabilities belong to every token, in order, except a control token that ends the answer. They come with the
    delta that counts the token; at the end a delta without text may bring the rest. If a stop string ends the answer,
    those that were not sent yet are dropped with it.
    """

    def __init__(self, request: AnswerRequest, chat: ChatFormat) -> None:
        self._request = request
        self._stop_ids = chat.stop_ids
        self._bytes = chat.token_bytes
        self._parser = chat.parser(request.prompt, request.prompt_ids)
        self._matcher = StopMatcher(request.stop)
        self._count = 0
        self._reported = 0
        """Tokens that a delta has counted."""
        self._calls = 0
        self._logprobs: list[TokenLogprob] = []
        """Not sent yet."""
        self.done = False
        """True after `Finished` was returned; then nothing more may be pushed."""

    def push(self, token: int, logprobs: Logprobs | None = None) -> tuple[Delta | Finished, ...]:
        """The replies that this token makes certain; the last is `Finished` if the answer ends."""
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
        """Ends the answer: text held back, unless it ends in a stop string after all, and `Finished`."""
        replies = self._replies(self._parser.end())
        if self.done:
            return replies
        replies += self._text_delta(self._matcher.flush())
        rest = (self._delta(),) if self._logprobs else ()
        return (*replies, *rest, self._finished(reason))

    def _replies(self, parts: tuple[AnswerPart, ...]) -> tuple[Delta | Finished, ...]:
        replies: list[Delta | Finished] = []
        for part in parts:
            if isinstance(part, TextPart):
                match = self._matcher.feed(part.text)
                replies += self._text_delta(match.text)
                if match.stopped:
                    return (*replies, self._finished("stop"))
            elif isinstance(part, ReasoningPart):
                replies.append(self._delta(reasoning=part.text))
            else:
                replies += self._text_delta(self._matcher.flush())
                call = ToolCallDelta(self._calls, self._call_id(), part.name, part.arguments)
                replies.append(self._delta(calls=(call,)))
                self._calls += 1
        return tuple(replies)

    def _text_delta(self, text: str) -> tuple[Delta, ...]:
        return (self._delta(text),) if text else ()

    def _delta(self, text: str = "", reasoning: str = "", calls: tuple[ToolCallDelta, ...] = ()) -> Delta:
        """A delta that counts the tokens since the last one."""
        new, self._reported = self._count - self._reported, self._count
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Delta(text, new, reasoning, calls, logprobs)

    def _chance(self, token: int, logprob: float) -> TokenChance:
        token_bytes = self._bytes(token)
        return TokenChance(token_bytes.decode("utf-8", "replace"), tuple(token_bytes), logprob)

    def _call_id(self) -> str:
        name = f"{self._request.request_id}:{self._calls}"
        return f"call_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    def _finished(self, reason: FinishReason) -> Finished:
        self.done = True
        reason = "tool_calls" if reason == "stop" and self._calls else reason
        return Finished(reason, len(self._request.prompt_ids), self._count)
