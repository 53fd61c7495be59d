"""What web and engine say to each other on engine.sock: one connection a request, one JSON object a line.

The client sends one `EngineRequest`. A `ChatRequest` is answered with `Accepted`, any number of `Delta`s, and exactly
one `Finished` or `Failed`; the others with their one reply or `Failed`. End of file without an end means that the
engine died. Closing the connection cancels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LINE_LIMIT_BYTES = 8 * 1024 * 1024
"""Longest line either side reads; a longer one ends the connection with `Failed`."""

FinishReason = Literal["stop", "length", "tool_calls"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A function that the model asked for."""

    id: str
    name: str
    arguments: str
    """A JSON object as text, as OpenAI's wire has it."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    reasoning: str = ""
    """What the assistant thought before; which turns show it again is the chat format's."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    tool_call_id: str | None = None
    """Of a tool's turn: the call that it answers."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may ask for."""

    name: str
    function: str
    """OpenAI's function object as JSON text: name, description, parameters."""


@dataclass(frozen=True)
class ToolChoice:
    """Whether a tool may or must be asked for; `name`, with `required`, says which."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is picked; None means the checkpoint's own default."""

    temperature: float | None = None
    """0 is greedy; otherwise logits are divided by it. 0 to 2."""
    top_p: float | None = None
    """Nucleus: the smallest set of tokens whose probabilities sum to it. Above 0, at most 1."""
    top_k: int | None = None
    """Only the k likeliest; 0 is off."""
    min_p: float | None = None
    """Only tokens at least so likely as this share of the likeliest one's probability. 0 to 1; 0 is off."""
    repetition_penalty: float | None = None
    """Divides positive logits of tokens that prompt or answer hold, multiplies negative ones. Above 0; 1 is off."""
    presence_penalty: float | None = None
    """Taken off the logits of tokens that the answer holds. -2 to 2."""
    frequency_penalty: float | None = None
    """Taken off the logits of tokens for each time that the answer holds them. -2 to 2."""
    seed: int | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A conversation to be continued by one assistant turn."""

    request_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    """At most so many new tokens; None means up to the end of the context."""
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    enable_thinking: bool | None = None
    """None leaves it to the chat format."""
    logprobs: int | None = None
    """With each token its log probability, and those of so many of the likeliest, 0 to 20; None is off."""
    continue_answer: bool = False
    """The last message is an assistant's, broken off: what comes goes on where it ends."""
    client: str = ""
    """Who asks, in any words: those who wait take turns by it."""
    type: Literal["chat"] = "chat"


@dataclass(frozen=True)
class TokenizeRequest:
    """Asks for the ids of a conversation as `ChatRequest` would have them, or of a plain `prompt`; not for both."""

    request_id: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None
    type: Literal["tokenize"] = "tokenize"


@dataclass(frozen=True)
class DetokenizeRequest:
    """Asks for the text of ids, control tokens written out."""

    request_id: str
    tokens: tuple[int, ...]
    type: Literal["detokenize"] = "detokenize"


@dataclass(frozen=True)
class StatsRequest:
    """Asks how busy the engine is."""

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
    """How busy the engine is now, and since its start."""

    running: int
    waiting: int
    slots: int
    cache_tokens: int
    """Tokens of running sequences that lie in the cache."""
    cache_limit_tokens: int
    decode_steps: int
    decoded_tokens: int
    """Over `decode_steps` this is the mean batch size."""
    prefilled_tokens: int
    reused_tokens: int
    """Prompt tokens that were found in the cache."""
    held_bytes: dict[str, int] = field(default_factory=dict)
    """Memory held now, by GPU UUID or `cpu`: anonymous on the CPU, reserved and context on a GPU."""
    type: Literal["stats"] = "stats"


@dataclass(frozen=True)
class Accepted:
    """The request is valid and waits for, or has, a slot."""

    prompt_tokens: int
    type: Literal["accepted"] = "accepted"


@dataclass(frozen=True)
class ToolCallDelta:
    """More of the call at `index`: the first one of a call has its id and name, the arguments come in pieces."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class TokenChance:
    """One of the tokens that might have come."""

    text: str
    utf8: tuple[int, ...]
    """Its bytes; a token may be part of a character."""
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the answer, and the likeliest ones at its place, of the model's own distribution before sampling."""

    chosen: TokenChance
    top: tuple[TokenChance, ...] = ()


@dataclass(frozen=True)
class Delta:
    """More of the answer, in whole characters: text (never part of a stop string), thoughts, or calls."""

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
    """Of the prompt's: found in the cache, not computed again."""
    queue_seconds: float = 0.0
    """How long it waited for a slot."""
    type: Literal["finished"] = "finished"


@dataclass(frozen=True)
class Failed:
    """The request was refused or broke; `status`, `code` and `param` go into OpenAI's error shape as they are."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: int | None = None
    type: Literal["failed"] = "failed"


Reply = Accepted | Delta | Finished | Tokenized | Detokenized | Stats | Failed
