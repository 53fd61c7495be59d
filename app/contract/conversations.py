"""The JSON bodies of the conversations' API under /api.

    GET    /api/conversations?search=&before=&limit=   ConversationPage, pinned first, then the newest
    POST   /api/conversations                          NewConversation -> 201 Conversation
    POST   /api/conversations/import                   Export -> 201 ConversationPage of those added
    GET    /api/conversations/export                   Export of all of them
    GET    /api/conversations/<id>                     Conversation
    PATCH  /api/conversations/<id>                     ConversationChange -> Conversation without its messages
    DELETE /api/conversations/<id>                     204
    GET    /api/conversations/<id>/export?format=      json: Export of this one; markdown: text, `&lang=en` or `zh`
    POST   /api/conversations/<id>/turns               NewTurn -> 201 Turn
    GET    /api/turns/<message id>/events?after=<seq>  text/event-stream of TurnEvent, after number `after`
    POST   /api/turns/<message id>/stop                StoredMessage, once it has ended
    DELETE /api/messages/<id>                          204: it and all messages below it

A conversation is a tree: regenerated answers and edited questions are siblings, children of the same parent. A turn is
one answer; the service writes it whether anybody reads or not.

Errors have the shape of /v1. Codes of their own: 404 `conversation_not_found`, `message_not_found`; 409 `id_taken`;
429 `too_many_turns`, `too_many_readers`; 503 `storage_unavailable` with the reason; 507 `storage_full`: nothing was
stored, and the same request can be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.contract.wire import ToolCall

MessageState = Literal["writing", "done", "stopped", "length", "interrupted", "failed"]
"""`writing` while the answer grows. `interrupted`: web service or engine ended during it. `failed`: see `error`.
`interrupted`, `stopped`, `length` and `failed` answers keep their text, and can be continued."""
ChatRole = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How a conversation is answered; None is the model's default."""

    system_prompt: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    enable_thinking: bool | None = None


@dataclass(frozen=True)
class MessageError:
    """Why an answer failed, as in the API's errors."""

    code: str
    message: str


@dataclass(frozen=True)
class StoredMessage:
    """A stored message, or the current state of an answer that is being written."""

    id: str
    parent_id: str | None
    """None for a first message. Its edited versions are siblings."""
    role: ChatRole
    content: str
    created_at: float
    """Unix time, seconds."""
    state: MessageState = "done"
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    error: MessageError | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None
    """From the first token to the last."""
    seq: int = 0
    """Number of the last event that is included: continue with `?after=`."""


@dataclass(frozen=True)
class ConversationHead:
    """A conversation in the list."""

    id: str
    title: str
    """The first words of its first question until it is renamed; empty before that question."""
    pinned: bool
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class ConversationPage:
    """A page of the list."""

    conversations: tuple[ConversationHead, ...]
    before: str | None
    """Cursor for the next page; None on the last one."""


@dataclass(frozen=True)
class Conversation:
    """A conversation with its messages."""

    head: ConversationHead
    settings: ChatSettings
    leaf_id: str | None
    """The end of the branch that was shown last."""
    messages: tuple[StoredMessage, ...]
    """Parents before children, siblings from oldest to newest."""


@dataclass(frozen=True)
class NewConversation:
    """Body of a new, empty conversation."""

    id: str
    """A UUID in lower case that the page makes, so that a repeated request makes no second conversation."""
    settings: ChatSettings = ChatSettings()


@dataclass(frozen=True)
class ConversationChange:
    """The fields to change; None leaves a field as it is."""

    title: str | None = None
    pinned: bool | None = None
    settings: ChatSettings | None = None
    leaf_id: str | None = None


@dataclass(frozen=True)
class NewTurn:
    """Asks for an answer. Ids are UUIDs in lower case that the page makes: the same ids again give the same turn.

    A new question: `content` and `question_id` are set, `parent_id` is the answer before it or None. Another answer to
    a question: `parent_id` is that question. To continue an answer: `continues` and `answer_id` are its id.
    """

    answer_id: str
    parent_id: str | None = None
    question_id: str | None = None
    content: str | None = None
    continues: str | None = None
    seq: int | None = None
    """With `continues`: the answer's `seq` that the page knows. If the answer has grown since, it isn't continued."""


@dataclass(frozen=True)
class Turn:
    """A started turn: the question is stored, the answer is being written."""

    question: StoredMessage | None
    answer: StoredMessage


@dataclass(frozen=True)
class TurnEvent:
    """Part of an answer. A reader gets all that it missed in one event, so `seq` may jump."""

    seq: int
    """The event's number, for `?after=`."""
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """If there are new calls, all calls so far; they replace the earlier ones."""
    message: StoredMessage | None = None
    """Replaces everything that the reader has. In the last event of a turn its state is not `writing`. It is `writing`
    in the first event for a reader that knows an older state of the answer than this turn's start."""


@dataclass(frozen=True)
class Export:
    """An exported file, which can be imported again."""

    conversations: tuple[Conversation, ...]
    format: Literal["berth-conversations"] = "berth-conversations"
    version: Literal[1] = 1
