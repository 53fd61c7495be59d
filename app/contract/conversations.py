"""What the page and the service say to each other about conversations: the bodies under /api, as JSON.

    GET    /api/conversations?search=&before=&limit=   ConversationPage, pinned first, then the newest
    POST   /api/conversations                          NewConversation -> 201 Conversation
    POST   /api/conversations/import                   Export -> 201 ConversationPage of what was added
    GET    /api/conversations/export                   Export of all of them
    GET    /api/conversations/<id>                     Conversation
    PATCH  /api/conversations/<id>                     ConversationChange -> Conversation without its messages
    DELETE /api/conversations/<id>                     204
    GET    /api/conversations/<id>/export?format=      json: Export of this one; markdown: text, `&lang=en` or `zh`
    POST   /api/conversations/<id>/turns               NewTurn -> 201 Turn
    GET    /api/turns/<message id>/events?after=<seq>  text/event-stream of TurnEvent, behind the one numbered `after`
    POST   /api/turns/<message id>/stop                StoredMessage, once it stands still
    DELETE /api/messages/<id>                          204: it and everything that answers it

A conversation is a tree: regenerated answers and edited questions are siblings, children of the same parent. A turn is
one answer; the service writes it whether anybody listens or not.

Errors have the shape of /v1. Codes of their own: 404 `conversation_not_found`, `message_not_found`; 409 `id_taken`;
429 `too_many_turns`, `too_many_readers`; 503 `storage_unavailable` with the reason; 507 `storage_full`: nothing was
stored, the same request can be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.contract.wire import ToolCall

MessageState = Literal["writing", "done", "stopped", "length", "interrupted", "failed"]
"""`writing` while the answer grows. `interrupted`: web service or engine ended in the middle. `failed`: see `error`.
`interrupted`, `stopped`, `length` and `failed` answers keep what had come, and can be continued."""
ChatRole = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How a conversation is answered; None means the model's own default."""

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
    """Why an answer failed, in the words of the API's error shape."""

    code: str
    message: str


@dataclass(frozen=True)
class StoredMessage:
    """One message as it is stored; an answer that is being written as it stands now."""

    id: str
    parent_id: str | None
    """None for a first message; one that is edited has a sibling there."""
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
    """Events of the turn that this holds already: what `?after=` goes on from."""


@dataclass(frozen=True)
class ConversationHead:
    """What the list shows."""

    id: str
    title: str
    """From the first words, until somebody renames it; empty before there are any."""
    pinned: bool
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class ConversationPage:
    """A part of the list."""

    conversations: tuple[ConversationHead, ...]
    before: str | None
    """For the next part; None at the end."""


@dataclass(frozen=True)
class Conversation:
    """All of one conversation."""

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
    """A UUID in lower case that the page makes: asking again after a lost reply makes no second one."""
    settings: ChatSettings = ChatSettings()


@dataclass(frozen=True)
class ConversationChange:
    """What to change; None leaves a thing as it is."""

    title: str | None = None
    pinned: bool | None = None
    settings: ChatSettings | None = None
    leaf_id: str | None = None


@dataclass(frozen=True)
class NewTurn:
    """Asks for an answer. Ids are UUIDs in lower case that the page makes: asking again with the same ones gives the
    same turn.

    A question: `content` and `question_id` are set, `parent_id` is the answer before it or None. An answer to a
    question that stands: `parent_id` is that question. Going on with a broken-off answer: `continues` is its id, and
    `answer_id` the same.
    """

    answer_id: str
    parent_id: str | None = None
    question_id: str | None = None
    content: str | None = None
    continues: str | None = None
    seq: int | None = None
    """With `continues`: the answer's `seq` as the page knows it. One that has grown since is not continued again."""


@dataclass(frozen=True)
class Turn:
    """A turn that was taken in: the question is stored, the answer is being written."""

    question: StoredMessage | None
    answer: StoredMessage


@dataclass(frozen=True)
class TurnEvent:
    """More of an answer. What a reader missed comes in one event, so `seq` may leap."""

    seq: int
    """What `?after=` goes on from once this event is read."""
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """All calls so far, where there are new ones; they take the place of those before."""
    message: StoredMessage | None = None
    """Takes the place of all that the reader has. At rest (its state is not `writing`) in the last event of a turn;
    still `writing` in the first event for a reader who knows an older beginning than this turn's."""


@dataclass(frozen=True)
class Export:
    """Conversations to keep elsewhere, and to take in again."""

    conversations: tuple[Conversation, ...]
    format: Literal["berth-conversations"] = "berth-conversations"
    version: Literal[1] = 1
