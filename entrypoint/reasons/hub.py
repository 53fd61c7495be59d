"""Reasons about the model hub: how a request ended, why a model can't be had, and what to do."""

from __future__ import annotations

from entrypoint.reasons.reason import Reason

# How a single request ended


class HttpError(Reason):
    """The hub answered with an error."""

    status: int


class TimedOut(Reason):
    """A request, or several under one deadline, took longer than `seconds`."""

    seconds: float


class NoData(Reason):
    """The connection stands, and nothing came for `seconds`."""

    seconds: float


class NoConnection(Reason):
    """No connection can be made; `error` may be empty."""

    error: str


class ConnectionLost(Reason):
    """The connection ended in the middle of an answer."""


class BadProxy(Reason):
    """The proxy in the environment can't be used. Its address is left out: it may hold a password."""


class RequestFailed(Reason):
    """Any other failure; `error` is the name of the exception's class."""

    error: str


class FileTooShort(Reason):
    """A file ended before its listed size."""

    file: str
    received_bytes: int
    size_bytes: int


# Why a model can't be had


class HubUnreachable(Reason, kw_only=True):
    """The hub does not answer, and no folder of the model was found."""

    endpoint: str
    detail: Reason
    repo: str
    folders: tuple[str, ...]


class HubFailed(Reason):
    """The hub answers with an error that says nothing about the model."""

    endpoint: str
    detail: Reason


class TokenRefused(Reason):
    """The hub answers 401 to a request with HF_TOKEN."""

    endpoint: str
    repo: str


class TokenMissing(Reason):
    """The hub answers 401 to a request without a token: the model is private or does not exist."""

    endpoint: str
    repo: str
    folders: tuple[str, ...]


class ModelGated(Reason):
    """The terms of the model have to be accepted first."""

    endpoint: str
    repo: str
    detail: Reason


class ModelNotFound(Reason, kw_only=True):
    """Neither the hub nor a folder has the model."""

    endpoint: str
    repo: str
    detail: Reason
    folders: tuple[str, ...]


class RevisionNotFound(Reason):
    """The hub has the model, but not this branch, tag or commit."""

    endpoint: str
    repo: str
    revision: str


class RateLimited(Reason):
    """The hub accepts no more requests for now (HTTP 429)."""

    endpoint: str
    retry_after_seconds: float | None


class NotCached(Reason):
    """HF_HUB_OFFLINE is set, and the cache lacks something of the model."""

    repo: str
    missing: Reason
    folder: str


class RevisionMissing(Reason):
    """The cache has no snapshot of a revision."""

    revision: str


class FileMissing(Reason):
    """A snapshot lacks a file; any one of `names` would do."""

    names: tuple[str, ...]


# Remedies; those that end in a colon are followed by a line for .env


class ChangeEndpoint(Reason):
    """Check the network, or set HF_ENDPOINT."""


class CheckNameOrToken(Reason):
    """Check the model's name, or set HF_TOKEN."""


class AcceptTerms(Reason):
    """Accept the model's terms on its page, then set HF_TOKEN."""

    page: str


class CorrectLine(Reason):
    """The line that follows is wrong in .env."""


class RetryLater(Reason):
    """Start again later."""


class RetryLaterOrSetToken(Reason):
    """Start again later, or set HF_TOKEN, which raises the limit."""


class AllowDownload(Reason):
    """Set HF_HUB_OFFLINE=0."""
