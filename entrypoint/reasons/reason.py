"""The base of all reasons."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar, dataclass_transform

from app.contract.codec import to_json


@dataclass_transform(frozen_default=True)
class Reason:
    """Why something is as it is. A subclass holds what its sentences need: bytes, counts, names, other reasons.

    Decisions return reasons; `entrypoint.messages` turns them into sentences, and programs read `code` and `values`.

    Each subclass is a frozen dataclass without being decorated. `@dataclass(frozen=True)` compiles six methods for each
    class, which takes half a millisecond; there are 160 reasons, and all commands start by importing most of them.
    """

    _fields: ClassVar[tuple[Field[Any], ...]]

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        decorated: Any = dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
        cls._fields = fields(decorated)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        positional = [field.name for field in self._fields if not field.kw_only]
        values = dict(zip(positional, args, strict=False)) | kwargs
        if len(values) < len(args) + len(kwargs):
            raise TypeError(f"{type(self).__name__} takes {', '.join(positional) or 'nothing'} by position, each once")
        for field in self._fields:
            value = values.pop(field.name, field.default)
            if value is MISSING:
                raise TypeError(f"{type(self).__name__} lacks {field.name}")
            object.__setattr__(self, field.name, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @property
    def code(self) -> str:
        """The class's name, as programs see it: `ShortOfMemory` is `short_of_memory`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def values(self) -> dict[str, Any]:
        """The fields as JSON; a reason within this one is its code with its values."""
        return {name: _json(value) for name, value in vars(self).items()}


def _json(value: Any) -> Any:
    if isinstance(value, Reason):
        return {"code": value.code, **value.values()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    return to_json(value)
