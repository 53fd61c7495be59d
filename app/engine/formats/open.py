"""Chooses a checkpoint's chat format by its files, never by its name."""

from __future__ import annotations

import logging
from pathlib import Path

from app.engine.errors import BadCheckpoint
from app.engine.formats.base import ChatFormat
from app.engine.formats.chatglm3 import TOKENIZER_FILE, load_chatglm3
from app.engine.formats.glm4 import Glm4Format
from app.engine.formats.glm45 import Glm45Format
from app.engine.formats.parsing.tagged import CALL, KEY
from app.engine.formats.rank_tokenizer import read_rank_tokenizer
from app.engine.formats.template import TemplateFormat, configured_stops, read_tokenizer
from app.engine.loading.checkpoint import CheckpointFiles
from app.layouts.chatglm import is_sentencepiece

log = logging.getLogger(__name__)


def open_format(checkpoint: CheckpointFiles) -> ChatFormat:
    """Reads the tokenizer beside the weights. Raises BadCheckpoint."""
    return load_format(checkpoint.folder, checkpoint.shape.vocab)


def load_format(folder: Path, vocab: int) -> ChatFormat:
    """Reads the tokenizer of the checkpoint in `folder`, whose model has ids below `vocab`.

    Later GLMs come with `tokenizer.json` and a template. Of the two kinds of `tokenizer.model`, SentencePiece is
    ChatGLM3's and a list of ranks GLM-4-9B-chat's.

    Raises:
        BadCheckpoint: there is no tokenizer, it cannot be read, or it has more ids than the model.
    """
    chat: ChatFormat
    if (folder / "tokenizer.json").is_file() or not (folder / TOKENIZER_FILE).is_file():
        chat = _by_template(folder, vocab)
    elif is_sentencepiece(_first_bytes(folder / TOKENIZER_FILE)):
        chat = load_chatglm3(folder, vocab)
    else:
        chat = Glm4Format(read_rank_tokenizer(folder, vocab), configured_stops(folder, vocab))
    log.info("chat format: %s; stop ids %s", type(chat).__name__, sorted(chat.stop_ids))
    return chat


def _by_template(folder: Path, vocab: int) -> TemplateFormat:
    tokenizer = read_tokenizer(folder, vocab)
    tokens, template = tokenizer.get_vocab().keys(), tokenizer.chat_template
    configured = configured_stops(folder, vocab, tokenizer.eos_token_id)
    if {"[gMASK]", "<|assistant|>", "<|observation|>"} <= tokens:
        if CALL in template and KEY in template:
            return Glm45Format(tokenizer, configured)
        if "metadata" in template:
            return Glm4Format(tokenizer, configured)
    return TemplateFormat(tokenizer, configured)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error}") from error
