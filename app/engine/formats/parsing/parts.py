"""What an answer consists of: text, reasoning and tool calls, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextPart:
    """Text of the answer; never empty."""

    text: str


@dataclass(frozen=True)
class ReasoningPart:
    """The model's reasoning before its answer; never empty."""

    text: str


@dataclass(frozen=True)
class ToolCallPart:
    """A complete tool call; `arguments` is a JSON object as text."""

    name: str
    arguments: str


AnswerPart = TextPart | ReasoningPart | ToolCallPart
