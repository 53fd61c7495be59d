"""Starts a turn: stores the question before generation begins, and the same request only once."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from app.contract.conversations import ChatSettings, NewTurn, StoredMessage, Turn
from app.contract.limits import MOST_STORED_MESSAGES
from app.web.store.conversations import count_of, row_of
from app.web.store.database import Database
from app.web.store.errors import ConflictError, invalid_field
from app.web.store.messages import LOST_EVENTS, branch_to, insert_message
from app.web.store.tables import conversations, message_of, message_values, messages, settings_of

TITLE_COLUMNS = 60
"""Of a title. Chinese characters take two."""


@dataclass(frozen=True)
class StartedTurn:
    """A turn that is stored."""

    turn: Turn
    branch: tuple[StoredMessage, ...]
    """From the first message to the question, or to the answer itself if that is continued."""
    settings: ChatSettings
    fresh: bool
    """False if the same request came before: then there is nothing to do."""


def begin_turn(database: Database, conversation_id: str, new: NewTurn, *, running: bool) -> StartedTurn:
    """Stores the question and an empty answer, or finds them. `running`: this answer is being written now.

    Raises:
        NotFoundError: there is no such conversation.
        ConflictError: an id is taken, or the conversation is full.
        InvalidFieldError: a parent doesn't exist or has the wrong role.
        StoreError: as `Database`.
    """
    with database.write() as connection:
        conversation = row_of(connection, conversation_id)
        row = _find(connection, new.answer_id)
        if row is not None and row.conversation_id != conversation_id:
            raise _id_taken("answer_id")
        if new.continues is not None:
            turn, fresh = _continue(connection, row, new, running=running)
        elif row is not None:
            turn, fresh = _repeated(connection, message_of(row), new), False
        else:
            turn, fresh = _add(connection, conversation_id, new), True
        if fresh:
            _touch(connection, conversation, turn)
        last = turn.answer.id if new.continues is not None else (turn.answer.parent_id or "")
        return StartedTurn(turn, branch_to(connection, last) if fresh else (), settings_of(conversation), fresh)


def _continue(connection: Connection, row: Row[Any] | None, new: NewTurn, *, running: bool) -> tuple[Turn, bool]:
    if row is None:
        raise invalid_field("continues", "is not a message of this conversation")
    answer = message_of(row)
    if answer.role != "assistant":
        raise invalid_field("continues", "is not an answer")
    grown = new.seq is not None and new.seq != answer.seq
    if running or answer.state == "done" or (grown and answer.state != "writing"):
        return Turn(None, answer), False
    seq = answer.seq + LOST_EVENTS if answer.state == "writing" else answer.seq
    answer = replace(answer, state="writing", error=None, seq=seq)
    connection.execute(update(messages).where(messages.c.id == answer.id).values(**message_values(answer)))
    return Turn(None, answer), True


def _repeated(connection: Connection, answer: StoredMessage, new: NewTurn) -> Turn:
    """The turn that the same request made before. Raises ConflictError if it was another request."""
    if new.question_id is None:
        if answer.parent_id != new.parent_id:
            raise _id_taken("answer_id")
        return Turn(None, answer)
    if answer.parent_id != new.question_id:
        raise _id_taken("answer_id")
    row = _find(connection, new.question_id)
    if row is None or row.content != new.content or row.parent_id != new.parent_id:
        raise _id_taken("question_id")
    return Turn(message_of(row), answer)


def _add(connection: Connection, conversation_id: str, new: NewTurn) -> Turn:
    if count_of(connection, conversation_id) + 2 > MOST_STORED_MESSAGES:
        raise ConflictError(f"A conversation holds at most {MOST_STORED_MESSAGES} messages.", "conversation_full")
    _check_parent(connection, conversation_id, new)
    now, question = time.time(), None
    if new.question_id is not None:
        if _find(connection, new.question_id) is not None:
            raise _id_taken("question_id")
        question = StoredMessage(new.question_id, new.parent_id, "user", new.content or "", now)
        insert_message(connection, question, conversation_id)
    parent_id = question.id if question else new.parent_id
    answer = StoredMessage(new.answer_id, parent_id, "assistant", "", now, "writing")
    insert_message(connection, answer, conversation_id)
    return Turn(question, answer)


def _check_parent(connection: Connection, conversation_id: str, new: NewTurn) -> None:
    """A question follows an answer or nothing; an answer follows a question."""
    if new.parent_id is None:
        return
    parent = _find(connection, new.parent_id)
    if parent is None or parent.conversation_id != conversation_id:
        raise invalid_field("parent_id", "is not a message of this conversation")
    if new.question_id is None and parent.role == "assistant":
        raise invalid_field("parent_id", "is an answer; another answer needs the question")
    if new.question_id is not None and parent.role != "assistant":
        raise invalid_field("parent_id", "is a question; an edited question's parent is the answer before it")


def _touch(connection: Connection, conversation: Row[Any], turn: Turn) -> None:
    """The conversation's branch now ends at the answer; its first question becomes its title."""
    values: dict[str, Any] = {"leaf_id": turn.answer.id, "updated_at": time.time()}
    if not conversation.title and turn.question is not None:
        values["title"] = title_of(turn.question.content)
    connection.execute(update(conversations).where(conversations.c.id == conversation.id).values(**values))


def _find(connection: Connection, message_id: str) -> Row[Any] | None:
    return connection.execute(select(messages).where(messages.c.id == message_id)).first()


def _id_taken(param: str) -> ConflictError:
    return ConflictError(f"{param}: is the id of another message; make a new one", "id_taken", param)


def title_of(question: str) -> str:
    """The first words of a question, on one line, cut at a space if there is one."""
    words = " ".join("".join(map(_printable, question[: 8 * TITLE_COLUMNS])).split()).lstrip("#*>-`_ ")
    columns, end = 0, 0
    for character in words:
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > TITLE_COLUMNS - 1:
            break
        end += 1
    if end == len(words):
        return words
    space = words.rfind(" ", end // 2, end + 1)
    return words[: space if space > 0 else end].rstrip(" ,.;:，。；：、") + "…"


def _printable(character: str) -> str:
    return " " if unicodedata.category(character).startswith("C") else character
