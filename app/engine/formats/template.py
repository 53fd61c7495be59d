"""Formats whose prompt is the checkpoint's own chat template, rendered in transformers' sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.contract.wire import Failed
from app.engine.errors import BadCheckpoint, RequestError
from app.engine.formats.base import Conversation, Parser, Prompt
from app.engine.formats.parsing.answer_parser import PlainParser, parser_of
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.text import replace_surrogates
from app.engine.formats.safe_encoder import BREAK, SafeEncoder
from app.engine.formats.token_bytes import TokenBytes
from app.engine.formats.tools import refusal, refuse_thoughts, split_begun
from app.engine.sampling import SamplingDefaults, read_generation_config


class TemplateFormat:
    """A template that is none of GLM's published kinds: messages in, text out."""

    defaults = SamplingDefaults()
    own_stops: tuple[str, ...] = ()
    """Control tokens that end an answer whatever the checkpoint's files say."""

    def __init__(self, tokenizer: Any, configured: frozenset[int]) -> None:
        """`tokenizer` is transformers' fast kind; `configured` are the stop ids of the checkpoint's files."""
        self._tokenizer = tokenizer
        self.template = str(tokenizer.chat_template)
        vocab: dict[str, int] = tokenizer.get_vocab()
        self.id_limit = max(vocab.values()) + 1
        added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        self._control = {content: number for content, number in added.items() if not content.isspace()}
        self.stop_ids = configured | {self._control[name] for name in self.own_stops if name in self._control}
        self._encoder = SafeEncoder(tokenizer.backend_tokenizer, self._control)
        self._bytes = TokenBytes(tokenizer.backend_tokenizer, added)

    def prompt(self, conversation: Conversation) -> Prompt:
        """See `ChatFormat.prompt`."""
        if conversation.shown_tools:
            raise refusal("this model's chat template has no place for tools", "tools", "unsupported_value")
        messages, begun = split_begun(conversation)
        refuse_thoughts(begun)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if begun is not None:
            return Prompt(self._render_begun(turns, {"content": BREAK}, begun.content))
        return Prompt(self._render(turns))

    def parser(self, conversation: Conversation, prompt_ids: Sequence[int]) -> Parser:
        """See `ChatFormat.parser`."""
        return parser_of(self._detokeniser, PlainParser(), split_begun(conversation)[1], prompt_ids)

    def token_bytes(self, token: int) -> bytes:
        """See `ChatFormat.token_bytes`."""
        return self._bytes.of(token)

    def encode(self, text: str) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        return self._encoder.encode_plain(replace_surrogates(text))

    def decode(self, ids: Sequence[int]) -> str:
        """See `ChatFormat.decode`."""
        return self._decode(ids, skip_control=False)

    def _render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **switches: bool
    ) -> tuple[int, ...]:
        """The ids up to where the answer begins. Raises RequestError."""
        rendered = self._text(self._encoder.mark(messages), tools, add_generation_prompt=True, **switches)
        return self._encoder.encode(rendered)

    def _render_begun(
        self,
        messages: list[dict[str, Any]],
        turn: dict[str, Any],
        text: str,
        tools: list[dict[str, Any]] | None = None,
        **switches: bool,
    ) -> tuple[int, ...]:
        """The ids up to the end of `text`, which stands at the `BREAK` in the assistant's turn. Raises RequestError."""
        marked = [*self._encoder.mark(messages), {"role": "assistant", **turn}]
        rendered = self._text(marked, tools, add_generation_prompt=False, **switches)
        before, found, _ = rendered.partition(BREAK)
        if not found:
            raise refusal("this model's chat template doesn't show the answer that is to go on", "messages")
        return self._encoder.encode(before + self._encoder.mark(text))

    def _text(self, marked: list[dict[str, Any]], tools: list[dict[str, Any]] | None, **switches: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                marked, tools=self._encoder.mark(tools), tokenize=False, **switches
            )
            return text
        except Exception as error:  # templates are programs: besides jinja2's errors they raise Python's own
            text = f"the model's chat format refuses this conversation: {error}"
            raise RequestError(Failed(400, "invalid_conversation", text, param="messages")) from error

    def _detokeniser(self) -> IncrementalDetokeniser:
        return IncrementalDetokeniser(lambda ids: self._decode(ids, skip_control=True))

    def _decode(self, ids: Sequence[int], *, skip_control: bool) -> str:
        # Not by transformers' own `decode`, which takes four times as long for the same text, twice a token.
        text: str = self._tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_control)
        return text

    def _answer_start(self, prompt_ids: Sequence[int]) -> str:
        """What the prompt already says of the answer, behind the last `<|assistant|>`."""
        role = self._control.get("<|assistant|>")
        behind = next((n for n, token in enumerate(reversed(prompt_ids)) if token == role), 0)
        return self.decode(prompt_ids[len(prompt_ids) - behind :])


def read_tokenizer(folder: Path, vocab: int) -> Any:
    """The tokenizer of the checkpoint in `folder`, whose model knows ids below `vocab`.

    Raises:
        BadCheckpoint: there is no tokenizer or no chat template, or the tokenizer has more ids than the model.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        raise BadCheckpoint(f"{folder} has no tokenizer.json, so there is no way to read or write text")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise what they like here
        raise BadCheckpoint(f"the tokenizer cannot be read: {error}") from error
    if not (isinstance(tokenizer.chat_template, str) and tokenizer.chat_template):
        raise BadCheckpoint(
            "the tokenizer has no chat_template; a chat model's checkpoint is needed, not a base model's"
        )
    check_size(max(tokenizer.get_vocab().values()), vocab)
    return tokenizer


def check_size(largest: int, vocab: int) -> None:
    """Raises BadCheckpoint where the tokenizer's largest id is none of the model's."""
    if largest >= vocab:
        raise BadCheckpoint(f"the tokenizer has id {largest}, the model's vocabulary ends at {vocab - 1}")


def configured_stops(folder: Path, vocab: int, *more: object) -> frozenset[int]:
    """Everything that any of the checkpoint's files calls an end: they often disagree, and each is meant.

    `more` is what the tokenizer calls one.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (config.get("eos_token_id"), read_generation_config(folder).get("eos_token_id"), *more)
    return frozenset(stop for value in named for stop in _ids(value) if 0 <= stop < vocab)


def _ids(value: object) -> Iterable[int]:
    if isinstance(value, int):
        return (value,)
    return tuple(item for item in value if isinstance(item, int)) if isinstance(value, list) else ()
