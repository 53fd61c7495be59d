"""Clients that stream answers through HTTP at the same time, and the moments at which their tokens came."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

SOURCE = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work number night point home water room mother area
money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city name team minute idea body back parent face level office
door health art war
"""
WORDS = SOURCE.split()
PROMPT_WORDS = 48
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Target:
    """A server that answers OpenAI's chat requests, or llama.cpp's `/completion`."""

    port: int
    model: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What its requests need beside the common fields, to tell how many tokens it counted."""
    encode: Callable[[str], list[int]] | None = None
    """For `/completion`: the ids of the prompt that a chat server makes of that text."""


@dataclass(frozen=True)
class Stream:
    """One answer: seconds on the monotonic clock."""

    asked: float
    arrivals: tuple[float, ...]
    """When each piece of text came; a piece is a token or more."""
    tokens: int


def prompt(draw: random.Random) -> str:
    """48 words; no two draws begin alike, so that no server finds one computed."""
    return " ".join(draw.choices(WORDS, k=PROMPT_WORDS))


def ask(target: Target, text: str, tokens: int) -> Stream:
    """Streams one greedy answer. Raises RuntimeError where it is refused, fails or is not `tokens` long."""
    path, body = _request(target, text, tokens)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE_SECONDS)
    lines: list[tuple[float, bytes]] = []
    try:
        asked = time.monotonic()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {response.read(500)!r}")
        while line := response.readline():
            lines.append((time.monotonic(), line))  # read later: parsing must not hold up other streams
    finally:
        connection.close()
    return _read(asked, lines, tokens)


def _request(target: Target, text: str, tokens: int) -> tuple[str, str]:
    """The route, and the body in JSON."""
    common = {"temperature": 0, "stream": True, **target.fields}
    if target.encode:
        # llama.cpp would otherwise take an earlier prompt's keys and values, or end at a stop id.
        own = {"prompt": target.encode(text), "n_predict": tokens, "cache_prompt": False, "ignore_eos": True}
        return "/completion", json.dumps({**own, **common})
    chat = {"model": target.model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    return "/v1/chat/completions", json.dumps({**chat, **common})


def _read(asked: float, lines: Sequence[tuple[float, bytes]], wanted: int) -> Stream:
    arrivals, counted = [], 0
    for moment, line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(f"the stream failed: {event['error']}")
        counted = _counted(event, counted)
        if _text(event):
            arrivals.append(moment)
    if counted != wanted or not arrivals:
        raise RuntimeError(f"{counted} tokens in {len(arrivals)} pieces came, {wanted} were wanted")
    return Stream(asked, tuple(arrivals), counted)


def _counted(event: Mapping[str, Any], before: int) -> int:
    """Tokens of the answer so far; what was counted before where the event doesn't say."""
    usage = event.get("usage") or {}
    return int(usage.get("completion_tokens", event.get("tokens_predicted", before)))


def _text(event: Mapping[str, Any]) -> bool:
    """Whether the event has a piece of text."""
    choices = event.get("choices")
    return bool(event.get("content") if choices is None else any(one["delta"].get("content") for one in choices))


def ask_together(target: Target, texts: Sequence[str], tokens: int) -> list[Stream]:
    """One stream for each text, all at once."""
    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(lambda text: ask(target, text, tokens), texts))
