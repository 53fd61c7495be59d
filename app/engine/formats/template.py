"""Chat formats whose prompt is the checkpoint's own chat template, rendered in transformers' sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.contract.wire import Failed
from app.engine.errors import BadCheckpoint, RequestError
from app.engine.formats.base import AnswerParser, Prompt, PromptRequest
from app.engine.formats.parsing.answer_parser import PlainParser, parser_of
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.text import replace_surrogates
from app.engine.formats.safe_encoder import BREAK, SafeEncoder
from app.engine.formats.token_bytes import TokenBytes
from app.engine.formats.tools import refusal, refuse_reasoning, split_partial
from app.engine.sampling import SamplingDefaults, read_generation_config


class TemplateFormat:
    """A template that is not one of GLM's published kinds: messages in, text out."""

    defaults = SamplingDefaults()
    format_stops: tuple[str, ...] = ()
    """Control tokens that end an answer whatever the checkpoint's files say."""

    def __init__(self, tokenizer: Any, configured_stops: frozenset[int]) -> None:
        """`tokenizer` is transformers' fast kind; `configured_stops` are the stop ids of the checkpoint's files."""
        self._tokenizer = tokenizer
        self.template = str(tokenizer.chat_template)
        vocab: dict[str, int] = tokenizer.get_vocab()
        self.id_limit = max(vocab.values()) + 1
        added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        self._control = {content: number for content, number in added.items() if not content.isspace()}
        format_stops = {self._control[name] for name in self.format_stops if name in self._control}
        self.stop_ids = configured_stops | format_stops
        self._encoder = SafeEncoder(tokenizer.backend_tokenizer, self._control)
        self._bytes = TokenBytes(tokenizer.backend_tokenizer, added)

    def prompt(self, request: PromptRequest) -> Prompt:
        if request.shown_tools:
            raise refusal("this model's chat template does not support tools", "tools", "unsupported_value")
        messages, partial = split_partial(request)
        refuse_reasoning(partial)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if partial is not None:
            return Prompt(self._render_partial(turns, {"content": BREAK}, partial.content))
        return Prompt(self._render(turns))

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> AnswerParser:
        return parser_of(self._detokeniser, PlainParser(), split_partial(request)[1], prompt_ids)

    def token_bytes(self, token: int) -> bytes:
        return self._bytes.of(token)

    def encode(self, text: str) -> tuple[int, ...]:
        return self._encoder.encode_plain(replace_surrogates(text))

    def decode(self, ids: Sequence[int]) -> str:
        return self._decode(ids, skip_control=False)

    def _render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **switches: bool
    ) -> tuple[int, ...]:
        """The ids up to where the answer begins. Raises RequestError."""
        rendered = self._text(self._encoder.mark(messages), tools, add_generation_prompt=True, **switches)
        return self._encoder.encode(rendered)

    def _render_partial(
        self,
        messages: list[dict[str, Any]],
        turn: dict[str, Any],
        text: str,
        tools: list[dict[str, Any]] | None = None,
        **switches: bool,
    ) -> tuple[int, ...]:
        """The ids up to the end of `text`, which replaces `BREAK` in the assistant's turn. Raises RequestError."""
        marked = [*self._encoder.mark(messages), {"role": "assistant", **turn}]
        rendered = self._text(marked, tools, add_generation_prompt=False, **switches)
        before, separator, _ = rendered.partition(BREAK)
        if not separator:
            raise refusal("this model's chat template drops the answer that is to be continued", "messages")
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
        """What the prompt says of the answer already, after the last `<|assistant|>`."""
        role = self._control.get("<|assistant|>")
        count = next((n for n, token in enumerate(reversed(prompt_ids)) if token == role), 0)
        return self.decode(prompt_ids[len(prompt_ids) - count :])


def read_tokenizer(folder: Path, vocab: int) -> Any:
    """The tokenizer of the checkpoint in `folder`, whose model has ids below `vocab`.

    Raises:
        BadCheckpoint: there is no tokenizer or no chat template, or the tokenizer has more ids than the model.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        raise BadCheckpoint(f"{folder} has no tokenizer.json, so text can be neither read nor written")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise errors of any kind here
        raise BadCheckpoint(f"the tokenizer cannot be read: {error}") from error
    if not (isinstance(tokenizer.chat_template, str) and tokenizer.chat_template):
        raise BadCheckpoint(
            "the tokenizer has no chat_template; a chat model's checkpoint is needed, not a base model's"
        )
    check_size(max(tokenizer.get_vocab().values()), vocab)
    return tokenizer


def check_size(largest: int, vocab: int) -> None:
    """Raises BadCheckpoint if the model does not have the tokenizer's largest id."""
    if largest >= vocab:
        raise BadCheckpoint(f"the tokenizer has id {largest}, the model's vocabulary ends at {vocab - 1}")


def configured_stops(folder: Path, vocab: int, *tokenizer_stops: object) -> frozenset[int]:
    """The stop ids of all the checkpoint's files: the files often disagree, and each is right.

    `tokenizer_stops` are those that the tokenizer names.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    generation_stops = read_generation_config(folder).get("eos_token_id")
    values = (config.get("eos_token_id"), generation_stops, *tokenizer_stops)
    return frozenset(stop for value in values for stop in _ids(value) if 0 <= stop < vocab)


def _ids(value: object) -> Iterable[int]:
    if isinstance(value, int):
        return (value,)
    return tuple(item for item in value if isinstance(item, int)) if isinstance(value, list) else ()
