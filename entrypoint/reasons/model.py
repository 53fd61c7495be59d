"""Why this model is served."""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.plan import Text
from entrypoint.reasons.reason import Reason


@dataclass(frozen=True)
class ModelSet(Reason):
    """The user set GLM_MODEL."""

    model: str


@dataclass(frozen=True)
class DemoByDefault(Reason):
    """GLM_MODEL is not set, and there is no other default."""


@dataclass(frozen=True)
class DefaultModel(Reason):
    """GLM_MODEL is not set."""

    model: str


@dataclass(frozen=True)
class DemoInstead(Reason):
    """The default model can't be served."""

    model: str
    why: Text
