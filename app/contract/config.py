"""config.json: the app config that the entrypoint writes, Flask loads and the engine reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from app.contract.codec import ContractError, from_json
from app.contract.plan import Dtype, Origin, Precision


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How to run the model, in full: nothing is left for a library to decide."""

    precision: Precision
    compute_dtype: Dtype
    devices: tuple[str, ...]
    """`cpu` and GPUs' UUIDs. The engine process sees these GPUs alone, in this order."""
    device_map: dict[str, str]
    """Module name to `cpu` or `cuda:0`, `cuda:1`...: the empty one for a model on one device, otherwise each one of
    `model.embed_tokens`, `model.layers.N`, `model.norm` and `lm_head`."""
    max_model_len: int
    max_num_seqs: int
    prefill_chunk: int
    """Prompt tokens computed at once; bounds the activations."""
    planned_bytes: int
    cpu_threads: int
    """Cores that the engine may use, as the supervisor has counted them."""


@dataclass(frozen=True)
class AppConfig:
    """The keys of config.json. They are upper case because Flask ignores others.

    The web worker starts before there is a plan; until then `ENGINE` is None.
    """

    MODEL_NAME: str
    MODEL_PATH: str
    STATUS_FILE: str
    ENGINE_SOCKET: str
    QUEUE_LIMIT: int
    """Requests that may wait for a slot; a further one gets a 429."""
    REQUEST_SECONDS: int = 0
    """How long a request may wait and run; 0 is unlimited."""
    KEY_FILE: str | None = None
    """Holds the key that API and sign-in ask for, mode 0600; None if access is open (GLM_AUTH=off)."""
    SESSIONS_FILE: str | None = None
    """The signed-in browsers, written by the web service, mode 0600."""
    TRUSTED_PROXIES: int = 0
    """How many proxies in front are trusted to say who asks, by which scheme, host and path prefix."""
    DATABASE: str | None = None
    """The SQLite file of the conversations."""
    ENGINE: EngineConfig | None = None
    ORIGINS: tuple[Origin, ...] = ()


def read_config(path: Path) -> AppConfig:
    """Reads config.json.

    Raises:
        ContractError: it is missing, not JSON, or lacks a key.
    """
    try:
        return from_json(AppConfig, json.loads(path.read_text(encoding="utf-8")), path.name)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, ContractError) else ContractError(f"{path}: {error}") from error
