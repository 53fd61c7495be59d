"""One row of the table of settings: where a field of `Settings` comes from, and what the documents say about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Section = Literal["The model", "Address", "Access", "Folders", "Behaviour"]
"""A heading of `.env.example`."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One variable of the environment. `help` and the defaults are Markdown, as docs/configuration.md shows them."""

    name: str
    parse: Callable[[str], Any]
    """Raises ValueError that says what would be right."""
    fallback: str | None
    """Another variable that counts if this one is unset."""
    secret: bool
    """No error, no representation and no child process shows it."""
    help: str
    """Empty for a variable of the image or of compose.yaml, which no user sets."""
    default: str
    container_default: str
    """If it differs: the default inside the container."""
    example: str
    """The value in `.env.example`."""
    section: Section

    @property
    def is_public(self) -> bool:
        """Whether users set it."""
        return bool(self.help)

    def variable(self, values: Mapping[str, str]) -> str:
        """The name to read. Kubernetes sets GLM_PORT to an address for a service named glm; that counts as unset."""
        value = values.get(self.name, "")
        return self.fallback if self.fallback and (not value or value.startswith("tcp://")) else self.name


def option(
    name: str,
    parse: Callable[[str], T],
    default: T,
    help: str = "",
    *,
    default_text: str = "",
    container_default: str = "",
    example: str = "",
    section: Section = "The model",
    fallback: str | None = None,
    secret: bool = False,
    show: bool = True,
) -> T:
    """A field of `Settings`; at runtime a dataclass field with its `Option` as metadata.

    `default_text` is the default as documents show it, `example` the value in `.env.example`; each is the plain default
    if it is not passed. Without `show`, the field is not in the representation, although its variable is no secret.
    """
    shown = default_text or str(default)
    row = Option(
        name=name,
        parse=parse,
        fallback=fallback,
        secret=secret,
        help=help,
        default=shown,
        container_default=container_default,
        example=example or shown.strip("`"),
        section=section,
    )
    column: Any = field(default=default, repr=show and not secret, metadata={"option": row})
    return column  # type: ignore[no-any-return]


def options_of(table: type[Any]) -> dict[str, Option]:
    """The rows of a dataclass, by field, in order."""
    rows: tuple[Field[Any], ...] = fields(table)
    return {row.name: row.metadata["option"] for row in rows if "option" in row.metadata}
