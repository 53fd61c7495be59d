"""ChatGLM3's way of speaking: its SentencePiece tokenizer, and a prompt that is put together from ids, not from text.

Its control tokens are written like ordinary text (`sop`, `eop`, `[gMASK]`): matched in text they would tear words such
as "people" apart, so they are only ever put in as ids, and each part of the prompt is encoded by itself.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.contract.wire import Message
from app.engine.errors import BadCheckpoint
from app.engine.formats.base import Conversation, Parser, Prompt
from app.engine.formats.parsing.answer_parser import parser_of
from app.engine.formats.parsing.calls import python_arguments, python_call
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.segments import SegmentParser
from app.engine.formats.parsing.text import replace_surrogates
from app.engine.formats.template import check_size, configured_stops
from app.engine.formats.tools import Function, read_arguments, read_tools, refuse_call, refuse_thoughts, split_begun
from app.engine.sampling import SamplingDefaults

TOKENIZER_FILE = "tokenizer.model"
CONTROL_TOKENS = (
    *("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
"""Their ids follow those of the file's pieces, in this order."""
STOP_ROLES = ("<|user|>", "<|observation|>")
PUBLISHED_DEFAULTS = SamplingDefaults(temperature=0.8, top_p=0.8)
"""Of the published `chat` function; the checkpoint has no file that says them."""
TOOLS_SENTENCE = "Answer the following questions as best as you can. You have access to the following tools:"
"""What the published examples say before the tools."""
CALL_START = "```python\ntool_call"


class ChatGlm3Format:
    """Builds prompts from the pieces of `processor`, a SentencePiece model."""

    defaults = PUBLISHED_DEFAULTS

    def __init__(self, processor: Any, configured: frozenset[int]) -> None:
        self._pieces = processor
        count = processor.get_piece_size()
        self.id_limit = count + len(CONTROL_TOKENS)
        self._control = {token: count + place for place, token in enumerate(CONTROL_TOKENS)}
        own = {processor.eos_id(), *(self._control[token] for token in STOP_ROLES)}
        self.stop_ids = configured | own

    def prompt(self, conversation: Conversation) -> Prompt:
        """See `ChatFormat.prompt`."""
        functions = read_tools(conversation.shown_tools)
        messages, begun = split_begun(conversation)
        refuse_thoughts(begun)
        refuse_call(begun, functions)
        ids = [self._control["[gMASK]"], self._control["sop"]]
        for role, metadata, content in _turns(messages, functions):
            ids += [self._control[role], *self._pieces.encode(f"{metadata}\n"), *self._pieces.encode(content)]
        openings = tuple(
            (*self._pieces.encode(f"{name}\n"), *self._pieces.encode(CALL_START)) for name in conversation.forced_names
        )
        ids.append(self._control["<|assistant|>"])
        if begun is not None:
            ids += [*self._pieces.encode("\n"), *self._pieces.encode(begun.content)]
        return Prompt(tuple(ids), openings)

    def parser(self, conversation: Conversation, prompt_ids: Sequence[int]) -> Parser:
        """See `ChatFormat.parser`."""
        segments = SegmentParser(frozenset(tool.name for tool in conversation.shown_tools), python_arguments)
        begun, turn = split_begun(conversation)[1], self._control["<|assistant|>"]
        return parser_of(lambda: IncrementalDetokeniser(self._decode_text), segments, begun, prompt_ids, turn)

    def token_bytes(self, token: int) -> bytes:
        """See `ChatFormat.token_bytes`."""
        if not self._is_text(token):
            return self.decode((token,) if token < self.id_limit else ()).encode()
        piece: str = self._pieces.id_to_piece(token)
        return bytes([int(piece[1:-1], 16)]) if self._pieces.is_byte(token) else piece.replace("▁", " ").encode()

    def encode(self, text: str) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        return tuple(self._pieces.encode(replace_surrogates(text)))

    def decode(self, ids: Sequence[int]) -> str:
        """See `ChatFormat.decode`."""
        names = {number: token for token, number in self._control.items()}
        runs = itertools.groupby(ids, key=self._is_text)
        return "".join(
            self._decode_text(tuple(run))
            if is_text
            else "".join(names.get(token) or self._pieces.id_to_piece(token) for token in run)
            for is_text, run in runs
        )

    def _decode_text(self, ids: Sequence[int]) -> str:
        text: str = self._pieces.decode([token for token in ids if self._is_text(token)])
        return text

    def _is_text(self, token: int) -> bool:
        if not 0 <= token < self._pieces.get_piece_size():
            return False
        return not (self._pieces.is_control(token) or self._pieces.is_unknown(token))


def load_chatglm3(folder: Path, vocab: int) -> ChatGlm3Format:
    """Reads tokenizer.model in `folder`, whose model knows ids below `vocab`.

    Raises:
        BadCheckpoint: the file is missing, is no SentencePiece model, or has more ids than the model.
    """
    from sentencepiece import SentencePieceProcessor

    path = folder / TOKENIZER_FILE
    processor: Any = SentencePieceProcessor()  # its annotations are too partial to check against
    try:
        processor.load_from_serialized_proto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise BadCheckpoint(f"{TOKENIZER_FILE} cannot be read as ChatGLM3's SentencePiece model: {error}") from error
    check_size(processor.get_piece_size() + len(CONTROL_TOKENS) - 1, vocab)
    return ChatGlm3Format(processor, configured_stops(folder, vocab))


def _turns(messages: tuple[Message, ...], functions: Sequence[Function]) -> Iterator[tuple[str, str, str]]:
    """Each turn's control token, line of metadata, and content."""
    if functions:
        shown = json.dumps([function.fields for function in functions], indent=4, ensure_ascii=False)
        own = messages[0].content if messages and messages[0].role == "system" else ""
        yield "<|system|>", "", "\n".join(part for part in (own, TOOLS_SENTENCE, shown) if part)
    for place, message in enumerate(messages):
        if functions and place == 0 and message.role == "system":
            continue
        role = "<|observation|>" if message.role == "tool" else f"<|{message.role}|>"
        if message.content or not message.tool_calls:
            yield role, "", message.content
        for call in message.tool_calls:
            yield role, call.name, python_call(read_arguments(call, place))
