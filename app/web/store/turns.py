"""Taking in a turn: the question is stored before anybody thinks about an answer, and the same request only once."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from app.contract.conversations import ChatSettings, NewTurn, StoredMessage, Turn
from app.web.http.errors import ApiError, bad_field
from app.web.store.conversations import count_of, row_of
from app.web.store.database import Database
from app.web.store.messages import LOST_EVENTS, branch_to, insert_message
from app.web.store.tables import conversations, message_of, message_values, messages, settings_of

TITLE_COLUMNS = 60
"""Chinese characters take two."""


MAX_MESSAGES = 10_000
"""Of one conversation."""


@dataclass(frozen=True)
class Begun:
    """A turn as it is stored."""

    turn: Turn
    branch: tuple[StoredMessage, ...]
    """From the first message to the question; of an answer that goes on, to the answer itself."""
    settings: ChatSettings
    fresh: bool
    """False where it was asked for before: there is nothing to do."""


def begin_turn(database: Database, conversation_id: str, new: NewTurn, *, running: bool) -> Begun:
    """Stores question and empty answer, or finds them. `running`: somebody is writing this very answer.

    Raises:
        ApiError: 404, 409 for ids that are taken or an answer that is still being written, 400 for a tree that
            can't be; 503 and 507 as `Database`.
    """
    with database.write() as connection:
        conversation = row_of(connection, conversation_id)
        found = _find(connection, new.answer_id)
        if found is not None and found.conversation_id != conversation_id:
            raise _taken("answer_id")
        if new.continues is not None:
            turn, fresh = _go_on(connection, found, new, running=running)
        elif found is not None:
            turn, fresh = _asked_before(connection, message_of(found), new), False
        else:
            turn, fresh = _add(connection, conversation_id, new), True
        if fresh:
            _touch(connection, conversation, turn)
        last = turn.answer.id if new.continues is not None else (turn.answer.parent_id or "")
        return Begun(turn, branch_to(connection, last) if fresh else (), settings_of(conversation), fresh)


def _go_on(connection: Connection, found: Row[Any] | None, new: NewTurn, *, running: bool) -> tuple[Turn, bool]:
    if found is None:
        raise bad_field("continues", "is no message of this conversation")
    answer = message_of(found)
    if answer.role != "assistant":
        raise bad_field("continues", "is no answer")
    grown = new.seq is not None and new.seq != answer.seq
    if running or answer.state == "done" or (grown and answer.state != "writing"):
        return Turn(None, answer), False
    seq = answer.seq + LOST_EVENTS if answer.state == "writing" else answer.seq
    answer = replace(answer, state="writing", error=None, seq=seq)
    connection.execute(update(messages).where(messages.c.id == answer.id).values(**message_values(answer)))
    return Turn(None, answer), True


def _asked_before(connection: Connection, answer: StoredMessage, new: NewTurn) -> Turn:
    if new.question_id is None:
        if answer.parent_id != new.parent_id:
            raise _taken("answer_id")
        return Turn(None, answer)
    if answer.parent_id != new.question_id:
        raise _taken("answer_id")
    found = _find(connection, new.question_id)
    if found is None or found.content != new.content or found.parent_id != new.parent_id:
        raise _taken("question_id")
    return Turn(message_of(found), answer)


def _add(connection: Connection, conversation_id: str, new: NewTurn) -> Turn:
    if count_of(connection, conversation_id) + 2 > MAX_MESSAGES:
        raise ApiError(409, f"A conversation holds at most {MAX_MESSAGES} messages.", "conversation_full")
    _check_parent(connection, conversation_id, new)
    now, question = time.time(), None
    if new.question_id is not None:
        if _find(connection, new.question_id) is not None:
            raise _taken("question_id")
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
    found = _find(connection, new.parent_id)
    if found is None or found.conversation_id != conversation_id:
        raise bad_field("parent_id", "is no message of this conversation")
    if new.question_id is None and found.role == "assistant":
        raise bad_field("parent_id", "is an answer; another answer needs the question")
    if new.question_id is not None and found.role != "assistant":
        raise bad_field("parent_id", "is a question; an edited question's parent is the answer before it")


def _touch(connection: Connection, conversation: Row[Any], turn: Turn) -> None:
    values: dict[str, Any] = {"leaf_id": turn.answer.id, "updated_at": time.time()}
    if not conversation.title and turn.question is not None:
        values["title"] = title_of(turn.question.content)
    connection.execute(update(conversations).where(conversations.c.id == conversation.id).values(**values))


def _find(connection: Connection, message_id: str) -> Row[Any] | None:
    return connection.execute(select(messages).where(messages.c.id == message_id)).first()


def _taken(param: str) -> ApiError:
    return ApiError(409, f"{param}: belongs to another message already; make a new id", "id_taken", param)


def title_of(question: str) -> str:
    """The first words of a question, on one line, cut between words where there are spaces."""
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
