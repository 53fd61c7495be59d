"""Why this model is served."""

from __future__ import annotations

from app.contract.plan import Text
from entrypoint.reasons.reason import Reason


class ModelSet(Reason):
    """The user set GLM_MODEL."""

    model: str


class DemoByDefault(Reason):
    """GLM_MODEL is not set, and there is no other default."""


class DefaultModel(Reason):
    """GLM_MODEL is not set."""

    model: str


class DemoInstead(Reason):
    """The default model can't be served."""

    model: str
    why: Text
