"""Sampling parameters: those of a request, filled in with the checkpoint's defaults."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.contract.wire import SamplingParams
from app.engine.errors import BadCheckpoint

SEED_LIMIT = 1 << 64
"""Seeds have 64 bits; larger ones wrap around."""
MIN_TEMPERATURE = 1e-3
"""Below, sampling is as good as greedy, and logits divided by the temperature come close to float32's limit."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling parameters without any default left open."""

    temperature: float
    """0 is greedy."""
    top_p: float
    top_k: int
    """0 is off."""
    seed: int
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always chosen."""
        return self.temperature < MIN_TEMPERATURE

    @property
    def truncates(self) -> bool:
        """Whether some tokens are excluded."""
        return bool(self.top_k or self.top_p < 1 or self.min_p)

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens count."""
        return self.repetition_penalty != 1 or bool(self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True)
class SamplingDefaults:
    """The values of a checkpoint's generation_config.json; without `do_sample` they mean greedy, as in transformers."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def resolve(self, params: SamplingParams) -> Sampling:
        """Fills in what a request leaves open; a missing seed is drawn."""
        seed = int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed % SEED_LIMIT
        return Sampling(
            temperature=_or_default(params.temperature, self.temperature),
            top_p=_or_default(params.top_p, self.top_p),
            top_k=self.top_k if params.top_k is None else params.top_k,
            seed=seed,
            min_p=_or_default(params.min_p, self.min_p),
            repetition_penalty=_or_default(params.repetition_penalty, self.repetition_penalty),
            presence_penalty=_or_default(params.presence_penalty, 0.0),
            frequency_penalty=_or_default(params.frequency_penalty, 0.0),
        )


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value


GREEDY_DEFAULTS = SamplingDefaults()


def read_defaults(folder: Path, fallback: SamplingDefaults = GREEDY_DEFAULTS) -> SamplingDefaults:
    """Reads generation_config.json; `fallback` is used if the checkpoint has none, or it has no `do_sample`.

    Raises:
        BadCheckpoint: it is not JSON, or a value in it is not a number.
    """
    fields = read_generation_config(folder)
    penalty = _number(fields, "repetition_penalty", fallback.repetition_penalty)
    if penalty == 0:
        raise BadCheckpoint("generation_config.json: repetition_penalty is 0; a number above 0 is needed")
    if "do_sample" not in fields:
        return replace(fallback, repetition_penalty=penalty)
    if fields["do_sample"] is not True:
        return SamplingDefaults(repetition_penalty=penalty)
    return SamplingDefaults(
        temperature=_number(fields, "temperature", 1.0),
        top_p=_number(fields, "top_p", 1.0),
        top_k=int(_number(fields, "top_k", 0)),
        min_p=_number(fields, "min_p", 0.0),
        repetition_penalty=penalty,
    )


def read_generation_config(folder: Path) -> dict[str, Any]:
    """The parsed generation_config.json; empty if there is none. Raises BadCheckpoint."""
    path = folder / "generation_config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path.name} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise BadCheckpoint(f"{path.name} is not a JSON object")
    return fields


def _number(fields: dict[str, Any], name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
        raise BadCheckpoint(f"generation_config.json: {name} is {value!r}; a number is needed")
    return float(value)
