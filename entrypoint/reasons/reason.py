"""The base of all reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from app.contract.codec import to_json


@dataclass(frozen=True)
class Reason:
    """Why something is as it is. A subclass holds what its sentences need: bytes, counts, names, other reasons.

    Decisions return reasons; `entrypoint.messages` turns them into sentences, and programs read `code` and `values`.
    """

    @property
    def code(self) -> str:
        """The class's name, as programs see it: `ShortOfMemory` is `short_of_memory`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def values(self) -> dict[str, Any]:
        """The fields as JSON; a reason within this one is its code with its values."""
        return {field.name: _json(getattr(self, field.name)) for field in fields(self)}


def _json(value: Any) -> Any:
    if isinstance(value, Reason):
        return {"code": value.code, **value.values()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    return to_json(value)
