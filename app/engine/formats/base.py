"""Chat formats turn messages into prompt ids and new ids into the parts of an answer, one for each GLM generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.contract.wire import Message, Tool, ToolChoice
from app.engine.formats.parsing.parts import AnswerPart
from app.engine.sampling import SamplingDefaults


@dataclass(frozen=True)
class PromptRequest:
    """A conversation that the model is to answer, and how it may."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    thinking: bool | None = None
    """None leaves it to the format."""
    continues: bool = False
    """The last message is an interrupted answer of the assistant, which the model continues."""

    @property
    def shown_tools(self) -> tuple[Tool, ...]:
        """The tools that the prompt describes."""
        return () if self.tool_choice.mode == "none" else self.tools

    @property
    def forced_names(self) -> tuple[str, ...]:
        """The tools of which the answer must call one; empty if it need not."""
        if self.tool_choice.mode != "required":
            return ()
        name = self.tool_choice.name
        return tuple(tool.name for tool in self.tools) if name is None else (name,)


@dataclass(frozen=True)
class Prompt:
    """The prompt's ids up to where the answer begins, and what the answer must begin with."""

    ids: tuple[int, ...]
    required_prefixes: tuple[tuple[int, ...], ...] = ()
    """As in `TokenRequest`."""


class AnswerParser(Protocol):
    """Parses one answer's ids as they come; however they are split, the parts are the same in all.

    A call is returned when it is complete: only then is it certain, and nothing has to be taken back. What turns out
    not to be a call, or is cut off by the length limit, is text as it was written.
    """

    def push(self, token: int) -> tuple[AnswerPart, ...]:
        """The parts that are certain now, in order."""

    def end(self) -> tuple[AnswerPart, ...]:
        """The parts that were held back; no more ids come."""


class ChatFormat(Protocol):
    """The chat format of one checkpoint. Every method is thread-safe."""

    stop_ids: frozenset[int]
    """Ids that end an answer and are not part of it."""
    defaults: SamplingDefaults
    """Sampling parameters for values that the checkpoint's files leave open."""
    id_limit: int
    """The tokenizer has ids below this one only."""

    def prompt(self, request: PromptRequest) -> Prompt:
        """The exact ids for the model.

        Raises:
            RequestError: the format can't express such a conversation, or can't continue such an answer.
        """

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> AnswerParser:
        """A new parser for one answer to the request, whose prompt has these ids."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id's text, which may be part of a character; a control token's name.

        Empty if the tokenizer has no such id: models have more ids than tokenizers.
        """

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of plain text; control tokens in it are text too."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids below `id_limit`, with control tokens by name."""
