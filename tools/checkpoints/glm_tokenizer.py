"""A byte-level BPE tokenizer with GLM-4's control tokens and chat format, written as transformers reads it."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

# In the order of GLM-4's ids, so that relative positions agree with published checkpoints.
CONTROL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
STOP_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")

# GLM-4's format. Roles are spelt out: a role joined into "<|...|>" could smuggle in a control token.
CHAT_TEMPLATE = """[gMASK]<sop>
{%- for message in messages %}
{%- if message.role == 'system' %}{{ '<|system|>\\n' + message.content }}
{%- elif message.role == 'user' %}{{ '<|user|>\\n' + message.content }}
{%- elif message.role == 'assistant' %}{{ '<|assistant|>\\n' + (message.content or '') }}
{%- elif message.role in ('tool', 'observation') %}{{ '<|observation|>\\n' + message.content }}
{%- else %}{{ raise_exception('unknown role: ' + message.role) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

# Words, up to three digits, punctuation, line ends: the split that GLM-4 (and cl100k) uses.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MIN_VOCAB = len(BYTES) + len(CONTROL_TOKENS)


def bare_tokenizer(model: models.BPE) -> Tokenizer:
    """A byte-level tokenizer around `model`; control tokens are added by `save_tokenizer`."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _made_up_words() -> Iterator[tuple[str, str]]:
    """Merges (left, letter) of ever longer letter strings, so that each new token can be built."""
    letters = "eatoinshrdlucmfwypvbgkjqxz"
    level = ["Ġ", *letters]  # Ġ is the byte-level alphabet's space
    while True:
        longer = [(left, letter) for left in level for letter in letters]
        yield from longer
        level = [left + letter for left, letter in longer]


def filler_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` ids, control tokens included, in which every id decodes to text.

    Benchmarks that stream from random weights then see characters for every token.
    """
    merges = list(islice(_made_up_words(), vocab_size - MIN_VOCAB))
    tokens = BYTES + [left + letter for left, letter in merges]
    vocab = {token: number for number, token in enumerate(tokens)}
    return bare_tokenizer(models.BPE(vocab=vocab, merges=merges))


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int, template: str = CHAT_TEMPLATE) -> None:
    """Adds the control tokens after the last id and writes tokenizer.json and tokenizer_config.json.

    `context` is in tokens, `template` the chat template.
    """
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "chat_template": template,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def control_ids(vocab_size: int) -> dict[str, int]:
    """The control tokens' ids in a tokenizer that holds `vocab_size` ids in all."""
    first = vocab_size - len(CONTROL_TOKENS)
    return {token: first + number for number, token in enumerate(CONTROL_TOKENS)}
