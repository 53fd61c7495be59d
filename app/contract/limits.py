"""The bounds of a request and of the service, for those who check them and for those who describe them.

`MOST_` counts things, `MAX_` measures one. Only the standard library is used here: the supervisor reads this, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

QUEUE_LIMIT = 64
"""Requests that may wait for a slot."""
MOST_SLOTS = 16
"""Requests at once that Berth chooses by itself at most."""
MOST_CPU_SLOTS = 4
"""The same for a model on the CPU: its memory is also that of everything else on the machine."""
LARGEST_MAX_NUM_SEQS = 64
"""The most slots that GLM_MAX_NUM_SEQS may ask for.

Each takes a thread of the web service, beside those of the queue, and one of the engine's 256 connections.
"""
THREADS_BESIDE_STREAMS = 48
"""Threads of the web service beside one for each slot and each place in the queue.

They serve pages that read answers while these are written, and keep health and status answering whatever streams do.
"""


@dataclass(frozen=True)
class Range:
    """The values that a number may have, both ends included."""

    low: float
    high: float
    whole: bool = False
    """Whether only integers are allowed."""
    open_low: bool = False
    """Whether `low` itself is excluded."""

    def holds(self, value: float) -> bool:
        """Whether a value is in the range. NaN is not."""
        return self.low <= value <= self.high and not (self.open_low and value == self.low)


MAX_INTEGER = 2**31 - 1
"""The largest token id and number of tokens."""
SAMPLING_RANGES: Mapping[str, Range] = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, open_low=True),
    "top_k": Range(0, MAX_INTEGER, whole=True),  # 0 is off
    "min_p": Range(0, 1),
    "repetition_penalty": Range(0.01, 10),  # a logit divided by less may become infinite
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "seed": Range(-(2**63), 2**63 - 1, whole=True),
}
"""By field of `wire.SamplingParams`."""
MAX_TOKENS_RANGE = Range(1, MAX_INTEGER, whole=True)
MOST_LOGPROBS = 20
"""Alternatives that may be listed for each token, as at OpenAI."""

MOST_STOP_STRINGS = 64
"""OpenAI takes 4."""
MAX_STOP_CHARACTERS = 256

MOST_MESSAGES = 16_384
"""In a request over /v1."""
MOST_CALLS = 128
"""Tool calls in a message."""
MAX_CALL_ID_CHARACTERS = 256

MOST_TOOLS = 128
MAX_FUNCTION_CHARACTERS = 65_536
"""Of one function object, or of one call's arguments, as JSON."""
MAX_TOOLS_BYTES = 256 * 1024
"""Of all function objects together, as the engine reads them."""
MAX_JSON_DEPTH = 64
"""Lists and objects within each other, in a function object or in arguments."""
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
"""OpenAI's rule for a tool's name. Neither a control token nor a tag can be written with it. Match it in full."""

MOST_TOKENIZE_IDS = 2**20
"""Token ids in a request to /detokenize: as many as the longest context of any GLM."""

MOST_STORED_MESSAGES = 10_000
"""In a conversation, so a branch isn't deeper either."""
MAX_CONTENT_CHARACTERS = 1_000_000
"""Of a stored message, and of a system prompt."""
MAX_TITLE_CHARACTERS = 200
MAX_SEARCH_CHARACTERS = 200
MOST_LISTED = 200
"""Conversations in one part of the list."""
MAX_SEQ = 2**53 - 1
"""The largest number of an event: JavaScript counts no further."""
