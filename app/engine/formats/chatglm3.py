"""ChatGLM3's chat format: its SentencePiece tokenizer, and a prompt that is assembled from ids, not from text.

Its control tokens are written like ordinary text (`sop`, `eop`, `[gMASK]`). Matched in text they would tear words such
as "people" apart, so they are inserted as ids only, and each part of the prompt is encoded separately.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.contract.wire import Message
from app.engine.errors import BadCheckpoint
from app.engine.formats.base import AnswerParser, Prompt, PromptRequest
from app.engine.formats.parsing.answer_parser import parser_of
from app.engine.formats.parsing.calls import python_arguments, python_call
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.segments import SegmentParser
from app.engine.formats.parsing.text import replace_surrogates
from app.engine.formats.template import check_size, configured_stops
from app.engine.formats.tools import Function, read_arguments, read_tools, refuse_call, refuse_reasoning, split_partial
from app.engine.sampling import SamplingDefaults

TOKENIZER_FILE = "tokenizer.model"
CONTROL_TOKENS = (
    *("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
"""Their ids follow those of the file's pieces, in this order."""
STOP_ROLES = ("<|user|>", "<|observation|>")
PUBLISHED_DEFAULTS = SamplingDefaults(temperature=0.8, top_p=0.8)
"""Those of the published `chat` function; the checkpoint has no file with them."""
TOOLS_SENTENCE = "Answer the following questions as best as you can. You have access to the following tools:"
"""What the published examples write before the tools."""
CALL_START = "```python\ntool_call"


class ChatGlm3Format:
    """Builds prompts from the pieces of `processor`, a SentencePiece model."""

    defaults = PUBLISHED_DEFAULTS

    def __init__(self, processor: Any, configured_stops: frozenset[int]) -> None:
        self._pieces = processor
        count = processor.get_piece_size()
        self.id_limit = count + len(CONTROL_TOKENS)
        self._control = {token: count + index for index, token in enumerate(CONTROL_TOKENS)}
        format_stops = {processor.eos_id(), *(self._control[token] for token in STOP_ROLES)}
        self.stop_ids = configured_stops | format_stops

    def prompt(self, request: PromptRequest) -> Prompt:
        functions = read_tools(request.shown_tools)
        messages, partial = split_partial(request)
        refuse_reasoning(partial)
        refuse_call(partial, functions)
        ids = [self._control["[gMASK]"], self._control["sop"]]
        for role, metadata, content in _turns(messages, functions):
            ids += [self._control[role], *self._pieces.encode(f"{metadata}\n"), *self._pieces.encode(content)]
        required_prefixes = tuple(
            (*self._pieces.encode(f"{name}\n"), *self._pieces.encode(CALL_START)) for name in request.forced_names
        )
        ids.append(self._control["<|assistant|>"])
        if partial is not None:
            ids += [*self._pieces.encode("\n"), *self._pieces.encode(partial.content)]
        return Prompt(tuple(ids), required_prefixes)

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> AnswerParser:
        segments = SegmentParser(frozenset(tool.name for tool in request.shown_tools), python_arguments)
        partial, segment_id = split_partial(request)[1], self._control["<|assistant|>"]
        return parser_of(lambda: IncrementalDetokeniser(self._decode_text), segments, partial, prompt_ids, segment_id)

    def token_bytes(self, token: int) -> bytes:
        if not self._is_text(token):
            return self.decode((token,) if token < self.id_limit else ()).encode()
        piece: str = self._pieces.id_to_piece(token)
        return bytes([int(piece[1:-1], 16)]) if self._pieces.is_byte(token) else piece.replace("▁", " ").encode()

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._pieces.encode(replace_surrogates(text)))

    def decode(self, ids: Sequence[int]) -> str:
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
        BadCheckpoint: the file is missing, is not a SentencePiece model, or has more ids than the model.
    """
    from sentencepiece import SentencePieceProcessor

    path = folder / TOKENIZER_FILE
    processor: Any = SentencePieceProcessor()  # its annotations are too incomplete for mypy
    try:
        processor.load_from_serialized_proto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise BadCheckpoint(f"{TOKENIZER_FILE} cannot be read as ChatGLM3's SentencePiece model: {error}") from error
    check_size(processor.get_piece_size() + len(CONTROL_TOKENS) - 1, vocab)
    return ChatGlm3Format(processor, configured_stops(folder, vocab))


def _turns(messages: tuple[Message, ...], functions: Sequence[Function]) -> Iterator[tuple[str, str, str]]:
    """Each turn's control token, line of metadata, and content."""
    if functions:
        tools_json = json.dumps([function.fields for function in functions], indent=4, ensure_ascii=False)
        system = messages[0].content if messages and messages[0].role == "system" else ""
        yield "<|system|>", "", "\n".join(part for part in (system, TOOLS_SENTENCE, tools_json) if part)
    for index, message in enumerate(messages):
        if functions and index == 0 and message.role == "system":
            continue
        role = "<|observation|>" if message.role == "tool" else f"<|{message.role}|>"
        if message.content or not message.tool_calls:
            yield role, "", message.content
        for call in message.tool_calls:
            yield role, call.name, python_call(read_arguments(call, index))
