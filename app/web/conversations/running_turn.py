"""An answer that is being written: one thread adds to it, any number of threads read it."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import replace

from app.contract.conversations import StoredMessage, TurnEvent
from app.contract.wire import ToolCall, ToolCallDelta


class RunningTurn:
    """Keeps the whole answer, so that a slow reader needs no queue: it gets all that it missed in one event."""

    def __init__(self, conversation_id: str, answer: StoredMessage) -> None:
        self.conversation_id = conversation_id
        self.stop_requested = threading.Event()
        self._changed = threading.Condition()
        self._answer = answer
        self._content, self._reasoning = answer.content, answer.reasoning
        self._calls = list(answer.tool_calls)
        self._earlier_calls = len(self._calls)
        self._calls_seq = answer.seq
        # Lengths of content and reasoning after each event of this turn; the first pair is from before it.
        self._content_at = array("Q", [len(self._content)])
        self._reasoning_at = array("Q", [len(self._reasoning)])
        self._ended: StoredMessage | None = None

    def add(self, content: str, reasoning: str, calls: Sequence[ToolCallDelta]) -> None:
        """Adds to the answer: one event."""
        with self._changed:
            self._content += content
            self._reasoning += reasoning
            self._content_at.append(len(self._content))
            self._reasoning_at.append(len(self._reasoning))
            for call in calls:
                self._add_call(call)
                self._calls_seq = self._seq
            self._changed.notify_all()

    def end(self, message: StoredMessage) -> None:
        """Ends the answer; `message` is all of it."""
        with self._changed:
            self._ended = message
            self._changed.notify_all()

    def message(self) -> StoredMessage:
        """The current answer."""
        with self._changed:
            return self._ended or self._now()

    def wait_ended(self, seconds: float) -> StoredMessage:
        """Waits until the answer has ended, for so long at most. Returns the current answer."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended is not None, seconds)
            return self._ended or self._now()

    def after(self, seq: int, seconds: float) -> TurnEvent | None:
        """What came after event `seq`. Waits for it; None if nothing came for so long."""
        with self._changed:
            known = self._answer.seq <= seq <= self._seq
            if known:
                self._changed.wait_for(lambda: self._ended is not None or self._seq > seq, seconds)
            if known and self._seq > seq:
                return self._since(seq)
            if self._ended is not None or not known:
                message = self._ended or self._now()
                return TurnEvent(message.seq, message=message)
            return None

    @property
    def _seq(self) -> int:
        return self._answer.seq + len(self._content_at) - 1

    def _since(self, seq: int) -> TurnEvent:
        at = seq - self._answer.seq
        return TurnEvent(
            self._seq,
            self._content[self._content_at[at] :],
            self._reasoning[self._reasoning_at[at] :],
            tuple(self._calls) if self._calls_seq > seq else (),
        )

    def _now(self) -> StoredMessage:
        calls = tuple(self._calls)
        return replace(self._answer, content=self._content, reasoning=self._reasoning, tool_calls=calls, seq=self._seq)

    def _add_call(self, delta: ToolCallDelta) -> None:
        at = self._earlier_calls + delta.index
        if at >= len(self._calls):
            self._calls.append(ToolCall(delta.id or "", delta.name or "", delta.arguments))
        else:
            known = self._calls[at]
            self._calls[at] = replace(known, arguments=known.arguments + delta.arguments)
