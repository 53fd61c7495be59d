"""Chat formats: conversations to prompt ids, new ids to what they say, one room per way that GLM generations speak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.contract.wire import Message, Tool, ToolChoice
from app.engine.sampling import SamplingDefaults


@dataclass(frozen=True)
class Conversation:
    """What the next assistant turn answers, and how it may."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    thinking: bool | None = None
    """None leaves it to the format."""
    continues: bool = False
    """The last message is the assistant's, broken off, and the answer goes on with it."""

    @property
    def shown_tools(self) -> tuple[Tool, ...]:
        """The tools that the model is told of."""
        return () if self.tool_choice.mode == "none" else self.tools

    @property
    def forced_names(self) -> tuple[str, ...]:
        """The tools of which the answer must call one; empty where it need not."""
        if self.tool_choice.mode != "required":
            return ()
        named = self.tool_choice.name
        return tuple(tool.name for tool in self.tools) if named is None else (named,)


@dataclass(frozen=True)
class Prompt:
    """The conversation up to where the assistant's answer begins, and what the answer must begin with."""

    ids: tuple[int, ...]
    openings: tuple[tuple[int, ...], ...] = ()
    """As in `TokenRequest`."""


@dataclass(frozen=True)
class Said:
    """Text of the answer; never empty."""

    text: str


@dataclass(frozen=True)
class Thought:
    """What the model thinks before it answers; never empty."""

    text: str


@dataclass(frozen=True)
class Called:
    """A whole tool call; `arguments` is a JSON object as text."""

    name: str
    arguments: str


Piece = Said | Thought | Called


class Parser(Protocol):
    """Reads one answer's ids as they come; whatever the pieces' borders, the same answer gives the same in all.

    A call is told when it is complete: only then is it known to be one, and nothing told has to be taken back. What
    turns out to be no call, or is cut off by the length limit, is text as it was written.
    """

    def push(self, token: int) -> tuple[Piece, ...]:
        """What is certain now, in order."""

    def end(self) -> tuple[Piece, ...]:
        """What was held back, when no more ids come."""


class ChatFormat(Protocol):
    """How one checkpoint speaks. Every method is safe from any thread."""

    stop_ids: frozenset[int]
    """Ids that end an answer and are not part of it."""
    defaults: SamplingDefaults
    """How to sample where the checkpoint's files say nothing."""
    id_limit: int
    """Ids from here on mean nothing to the tokenizer."""

    def prompt(self, conversation: Conversation) -> Prompt:
        """The exact ids that the model is given.

        Raises:
            RequestError: the format has no place for such a conversation, or can't go on with such an answer.
        """

    def parser(self, conversation: Conversation, prompt_ids: Sequence[int]) -> Parser:
        """A fresh one, for one answer to the conversation whose prompt has these ids."""

    def token_bytes(self, token: int) -> bytes:
        """What one id stands for in text, which may be part of a character; a control token's name.

        Nothing where the tokenizer has no such id: models have more.
        """

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of plain text; control tokens in it are text too."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids below `id_limit`, control tokens written out."""
