"""The protocol of engine.sock between web and engine: one connection for each request, one JSON object a line.

The client sends one `EngineRequest`. The engine answers a `ChatRequest` with `Accepted`, any number of `Delta`s, and
exactly one `Finished` or `Failed`; other requests with one reply or `Failed`. If the connection ends before that, the
engine has died. Closing the connection cancels the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LINE_LIMIT_BYTES = 8 * 1024 * 1024
"""The longest line that either side reads. A longer one ends the connection with `Failed`."""

FinishReason = Literal["stop", "length", "tool_calls"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A function that the model calls."""

    id: str
    name: str
    arguments: str
    """A JSON object as text, as in OpenAI's API."""


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str
    reasoning: str = ""
    """The assistant's reasoning. The chat format decides which messages repeat it."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's message."""
    tool_call_id: str | None = None
    """Of a tool's message: the call that it answers."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    function: str
    """OpenAI's function object as JSON text: name, description, parameters."""


@dataclass(frozen=True)
class ToolChoice:
    """Whether a tool may or must be called. With `required`, `name` says which."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is sampled; None is the checkpoint's default. `limits.SAMPLING_RANGES` has the ranges."""

    temperature: float | None = None
    """0 is greedy; otherwise logits are divided by it."""
    top_p: float | None = None
    """Nucleus sampling: only the smallest set of tokens whose probabilities sum to it."""
    top_k: int | None = None
    """Only the k likeliest tokens; 0 is off."""
    min_p: float | None = None
    """Only tokens with at least this share of the likeliest one's probability; 0 is off."""
    repetition_penalty: float | None = None
    """Divides positive logits of tokens in prompt or answer, and multiplies negative ones; 1 is off."""
    presence_penalty: float | None = None
    """Subtracted from the logits of tokens in the answer."""
    frequency_penalty: float | None = None
    """Subtracted from the logits of tokens once for each time they are in the answer."""
    seed: int | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A conversation; the engine answers with the assistant's next message."""

    request_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    """The most new tokens; None is up to the end of the context."""
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    enable_thinking: bool | None = None
    """None leaves it to the chat format."""
    logprobs: int | None = None
    """Each token's log probability, and those of so many of the likeliest tokens; None is off."""
    continue_answer: bool = False
    """The last message is an assistant's, and the answer continues it."""
    client: str = ""
    """The client. The queue is fair between clients."""
    type: Literal["chat"] = "chat"


@dataclass(frozen=True)
class TokenizeRequest:
    """Asks for the prompt ids of a conversation as in `ChatRequest`, or of a plain `prompt`, not both."""

    request_id: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None
    type: Literal["tokenize"] = "tokenize"


@dataclass(frozen=True)
class DetokenizeRequest:
    """Asks for the text of ids, control tokens included."""

    request_id: str
    tokens: tuple[int, ...]
    type: Literal["detokenize"] = "detokenize"


@dataclass(frozen=True)
class StatsRequest:
    """Asks for the engine's load."""

    request_id: str
    type: Literal["stats"] = "stats"


EngineRequest = ChatRequest | TokenizeRequest | DetokenizeRequest | StatsRequest


@dataclass(frozen=True)
class Tokenized:
    """The exact prompt ids."""

    tokens: tuple[int, ...]
    max_model_len: int
    type: Literal["tokenized"] = "tokenized"


@dataclass(frozen=True)
class Detokenized:
    """The text of ids."""

    text: str
    type: Literal["detokenized"] = "detokenized"


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The engine's load now, and its counters since its start."""

    running: int
    waiting: int
    slots: int
    cache_tokens: int
    """Tokens of running sequences in the cache."""
    cache_limit_tokens: int
    decode_steps: int
    decoded_tokens: int
    """Divided by `decode_steps`, the mean batch size."""
    prefilled_tokens: int
    reused_tokens: int
    """Prompt tokens found in the cache."""
    held_bytes: dict[str, int] = field(default_factory=dict)
    """Memory in use now, by GPU UUID or `cpu`: anonymous memory on the CPU, reserved memory and context on a GPU."""
    type: Literal["stats"] = "stats"


@dataclass(frozen=True)
class Accepted:
    """The request is valid. It has a slot or waits for one."""

    prompt_tokens: int
    type: Literal["accepted"] = "accepted"


@dataclass(frozen=True)
class ToolCallDelta:
    """Part of the call at `index`. The first part has id and name; the arguments come in parts."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class TokenChance:
    """A token and its log probability."""

    text: str
    utf8: tuple[int, ...]
    """Its bytes. A token may be part of a character."""
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the answer and the likeliest tokens at its position, from the distribution before sampling."""

    chosen: TokenChance
    top: tuple[TokenChance, ...] = ()


@dataclass(frozen=True)
class Delta:
    """Part of the answer, in whole characters: text (never part of a stop string), reasoning, or calls."""

    text: str
    tokens: int
    """New tokens since the last delta."""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    type: Literal["delta"] = "delta"


@dataclass(frozen=True)
class Finished:
    """The answer is complete."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens found in the cache."""
    queue_seconds: float = 0.0
    """Time waiting for a slot."""
    type: Literal["finished"] = "finished"


@dataclass(frozen=True)
class Failed:
    """The request was refused or failed. `status`, `code` and `param` are those of OpenAI's error."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: int | None = None
    type: Literal["failed"] = "failed"


Reply = Accepted | Delta | Finished | Tokenized | Detokenized | Stats | Failed
