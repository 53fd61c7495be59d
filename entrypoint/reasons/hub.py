"""Reasons about the model hub: how a request ended, why a model can't be had, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.reasons.reason import Reason

# How a single request ended


@dataclass(frozen=True)
class HttpError(Reason):
    """The hub answered with an error."""

    status: int


@dataclass(frozen=True)
class TimedOut(Reason):
    """A request, or several under one deadline, took longer than `seconds`."""

    seconds: float


@dataclass(frozen=True)
class NoData(Reason):
    """The connection stands, and nothing came for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class NoConnection(Reason):
    """No connection can be made; `error` may be empty."""

    error: str


@dataclass(frozen=True)
class ConnectionLost(Reason):
    """The connection ended in the middle of an answer."""


@dataclass(frozen=True)
class BadProxy(Reason):
    """The proxy in the environment can't be used. Its address is left out: it may hold a password."""


@dataclass(frozen=True)
class RequestFailed(Reason):
    """Any other failure; `error` is the name of the exception's class."""

    error: str


@dataclass(frozen=True)
class FileTooShort(Reason):
    """A file ended before its listed size."""

    file: str
    received_bytes: int
    size_bytes: int


# Why a model can't be had


@dataclass(frozen=True, kw_only=True)
class HubUnreachable(Reason):
    """The hub does not answer, and no folder of the model was found."""

    endpoint: str
    detail: Reason
    repo: str
    folders: tuple[str, ...]


@dataclass(frozen=True)
class HubFailed(Reason):
    """The hub answers with an error that says nothing about the model."""

    endpoint: str
    detail: Reason


@dataclass(frozen=True)
class TokenRefused(Reason):
    """The hub answers 401 to a request with HF_TOKEN."""

    endpoint: str
    repo: str


@dataclass(frozen=True)
class TokenMissing(Reason):
    """The hub answers 401 to a request without a token: the model is private or does not exist."""

    endpoint: str
    repo: str
    folders: tuple[str, ...]


@dataclass(frozen=True)
class ModelGated(Reason):
    """The terms of the model have to be accepted first."""

    endpoint: str
    repo: str
    detail: Reason


@dataclass(frozen=True, kw_only=True)
class ModelNotFound(Reason):
    """Neither the hub nor a folder has the model."""

    endpoint: str
    repo: str
    detail: Reason
    folders: tuple[str, ...]


@dataclass(frozen=True)
class RevisionNotFound(Reason):
    """The hub has the model, but not this branch, tag or commit."""

    endpoint: str
    repo: str
    revision: str


@dataclass(frozen=True)
class RateLimited(Reason):
    """The hub accepts no more requests for now (HTTP 429)."""

    endpoint: str
    retry_after_seconds: float | None


@dataclass(frozen=True)
class NotCached(Reason):
    """HF_HUB_OFFLINE is set, and the cache lacks something of the model."""

    repo: str
    missing: Reason
    folder: str


@dataclass(frozen=True)
class RevisionMissing(Reason):
    """The cache has no snapshot of a revision."""

    revision: str


@dataclass(frozen=True)
class FileMissing(Reason):
    """A snapshot lacks a file; any one of `names` would do."""

    names: tuple[str, ...]


# Remedies; those that end in a colon are followed by a line for .env


@dataclass(frozen=True)
class ChangeEndpoint(Reason):
    """Check the network, or set HF_ENDPOINT."""


@dataclass(frozen=True)
class CheckNameOrToken(Reason):
    """Check the model's name, or set HF_TOKEN."""


@dataclass(frozen=True)
class AcceptTerms(Reason):
    """Accept the model's terms on its page, then set HF_TOKEN."""

    page: str


@dataclass(frozen=True)
class CorrectLine(Reason):
    """The line that follows is wrong in .env."""


@dataclass(frozen=True)
class RetryLater(Reason):
    """Start again later."""


@dataclass(frozen=True)
class RetryLaterOrSetToken(Reason):
    """Start again later, or set HF_TOKEN, which raises the limit."""


@dataclass(frozen=True)
class AllowDownload(Reason):
    """Set HF_HUB_OFFLINE=0."""
