"""Conversations in memory, and answers as the test wrote them: what the stub service keeps."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from app.contract.conversations import (
    ChatSettings,
    Conversation,
    ConversationChange,
    ConversationHead,
    MessageError,
    MessageState,
    NewTurn,
    StoredMessage,
    Turn,
    TurnEvent,
)
from app.contract.wire import ToolCall


@dataclass(frozen=True)
class Piece:
    """Comes on top of what an answer holds."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class End:
    """How an answer comes to rest."""

    state: MessageState = "done"
    tokens: int | None = None
    error: MessageError | None = None


Step = Piece | End | float | threading.Event
"""What an answer is made of: something to say, seconds to wait, something to wait for."""


@dataclass
class Store:
    """All conversations; every change wakes those who wait for one."""

    held: dict[str, Conversation] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopped: set[str] = field(default_factory=set)
    closed: bool = False
    _writers: list[threading.Thread] = field(default_factory=list)

    def heads(self, search: str = "") -> list[ConversationHead]:
        """Pinned first, then the newest."""
        found = [
            held.head
            for held in self.held.values()
            if search.lower() in " ".join([held.head.title, *(m.content for m in held.messages)]).lower()
        ]
        return sorted(found, key=lambda head: (not head.pinned, -head.updated_at))

    def create(self, id: str, settings: ChatSettings) -> Conversation:
        """A new one; the one that is there when asked again."""
        now = time.time()
        return self.held.setdefault(id, Conversation(ConversationHead(id, "", False, now, now), settings, None, ()))

    def add(self, title: str, *messages: StoredMessage, age: float = 0, pinned: bool = False) -> Conversation:
        """One that was there before the test began, `age` seconds old."""
        at = time.time() - age
        head = ConversationHead(str(uuid.uuid4()), title, pinned, at, at)
        leaf = messages[-1].id if messages else None
        self.held[head.id] = Conversation(head, ChatSettings(), leaf, messages)
        return self.held[head.id]

    def change(self, id: str, change: ConversationChange) -> Conversation:
        """Applies what is not None."""
        held = self.held[id]
        head = replace(
            held.head,
            title=held.head.title if change.title is None else change.title,
            pinned=held.head.pinned if change.pinned is None else change.pinned,
        )
        self.held[id] = replace(
            held, head=head, settings=change.settings or held.settings, leaf_id=change.leaf_id or held.leaf_id
        )
        return replace(self.held[id], messages=())

    def conversation_of(self, message_id: str) -> Conversation:
        """Raises KeyError where no conversation has it."""
        for held in self.held.values():
            if any(message.id == message_id for message in held.messages):
                return held
        raise KeyError(message_id)

    def message(self, id: str) -> StoredMessage:
        """As it stands now."""
        return next(message for message in self.conversation_of(id).messages if message.id == id)

    def put(self, conversation_id: str, *messages: StoredMessage) -> None:
        """Adds messages, or changes those of the same id."""
        with self.changed:
            held = self.held[conversation_id]
            fresh = {message.id: message for message in messages}
            kept = tuple(fresh.pop(message.id, message) for message in held.messages)
            head = replace(held.head, updated_at=time.time())
            self.held[conversation_id] = replace(held, head=head, messages=(*kept, *fresh.values()))
            self.changed.notify_all()

    def delete_message(self, id: str) -> None:
        """It and everything below."""
        held = self.conversation_of(id)
        gone = {id}
        for message in held.messages:
            if message.parent_id in gone:
                gone.add(message.id)
        messages = tuple(message for message in held.messages if message.id not in gone)
        leaf = messages[-1].id if messages else None
        self.held[held.head.id] = replace(held, messages=messages, leaf_id=leaf)

    def take(self, id: str, turn: NewTurn, steps: Iterable[Step]) -> Turn:
        """Stores the question and has a thread write the answer."""
        held, question = self.held[id], None
        if turn.continues:
            answer = replace(self.message(turn.continues), state="writing", error=None)
        else:
            parent = turn.parent_id
            if turn.question_id:
                content = turn.content or ""
                question = StoredMessage(turn.question_id, parent, "user", content, time.time())
                parent = turn.question_id
                title = held.head.title or content[:40]
                self.held[id] = replace(held, head=replace(held.head, title=title))
            answer = StoredMessage(turn.answer_id, parent, "assistant", "", time.time(), "writing")
        self.put(id, *([question] if question else []), answer)
        self.held[id] = replace(self.held[id], leaf_id=answer.id)
        self.stopped.discard(answer.id)
        writer = threading.Thread(target=self._write, args=(id, answer, list(steps)))
        self._writers.append(writer)
        writer.start()
        return Turn(question, answer)

    def stop(self, id: str) -> StoredMessage:
        """Waits until the answer stands still."""
        with self.changed:
            self.stopped.add(id)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.message(id).state != "writing", timeout=10)
            return self.message(id)

    def events(self, id: str, after: int) -> Iterator[TurnEvent | None]:
        """What came behind `after`, until the answer rests; None now and then in silence."""
        start = self.message(id)
        sent = (len(start.content), len(start.reasoning)) if after == start.seq else (0, 0)
        while not self.closed:
            now = self._wait(id, after)
            if now.state != "writing":
                yield TurnEvent(now.seq, message=now)
                return
            if now.seq == after:
                yield None
            elif sent == (0, 0):
                yield TurnEvent(now.seq, message=now)
            else:
                yield TurnEvent(now.seq, now.content[sent[0] :], now.reasoning[sent[1] :], now.tool_calls)
            after, sent = now.seq, (len(now.content), len(now.reasoning))

    def close(self) -> None:
        """Ends the writers."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for writer in self._writers:
            writer.join()

    def _wait(self, id: str, after: int) -> StoredMessage:
        def newer() -> bool:
            now = self.message(id)
            return self.closed or now.seq > after or now.state != "writing"

        with self.changed:
            self.changed.wait_for(newer, timeout=0.05)
            return self.message(id)

    def _halted(self, id: str) -> bool:
        return self.closed or id in self.stopped

    def _write(self, conversation_id: str, answer: StoredMessage, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, threading.Event):
                while not step.wait(0.02) and not self._halted(answer.id):
                    pass
            elif isinstance(step, float):
                time.sleep(step)
            if self._halted(answer.id):
                break
            if isinstance(step, (Piece, End)):
                answer = grown(answer, step)
                self.put(conversation_id, answer)
        if answer.state == "writing":
            self.put(conversation_id, replace(answer, state="stopped", seq=answer.seq + 1))


def grown(answer: StoredMessage, step: Piece | End) -> StoredMessage:
    """The answer after one step."""
    if isinstance(step, End):
        numbers = {"prompt_tokens": 12, "tokens_per_second": 42.4} if step.tokens else {}
        return replace(
            answer,
            state=step.state,
            error=step.error,
            seq=answer.seq + 1,
            completion_tokens=step.tokens,
            **numbers,  # type: ignore[arg-type]
        )
    return replace(
        answer,
        content=answer.content + step.content,
        reasoning=answer.reasoning + step.reasoning,
        tool_calls=(*answer.tool_calls, *step.tool_calls),
        seq=answer.seq + 1,
    )
