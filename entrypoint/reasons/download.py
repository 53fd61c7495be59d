"""Reasons about a download: why it stops, what it waits for, and what to do."""

from __future__ import annotations

from entrypoint.reasons.reason import Reason

# Why a download stops


class NoRoom(Reason):
    """The disk has less room than the rest of a download needs."""

    folder: str
    need_bytes: int
    free_bytes: int


class DiskFull(Reason):
    """The disk filled up during a download; `error` is what the system says."""

    folder: str
    done_bytes: int
    total_bytes: int
    error: str


class WrongHash(Reason):
    """A file came twice with other bytes than the hub lists."""

    file: str
    repo: str
    endpoint: str


class DownloadCrashed(Reason):
    """The download's process ended again and again without a byte between; a negative code is a signal."""

    deaths: int
    exit_code: int


# What a download or a plan waits for


class ContactingHub(Reason):
    """The listing of a model was requested."""

    endpoint: str
    repo: str


class ReadingHeaders(Reason):
    """The headers of a model's files are being read, so many of so many files."""

    endpoint: str
    repo: str
    done: int
    total: int


class DownloadStalled(Reason, kw_only=True):
    """No data comes; `hub_error` is what the hub answers when asked now, None if it answers well."""

    seconds: float
    done_bytes: int
    total_bytes: int
    endpoint: str
    hub_error: Reason | None
    retry_seconds: float


class HashMismatch(Reason):
    """A file has a wrong hash and is downloaded again."""

    file: str
    repo: str


class OtherDownload(Reason):
    """Another process downloads the same file."""

    file: str


# Remedies


class MakeRoom(Reason):
    """Free room, use a larger disk, or choose a smaller model."""


class MakeRoomAndRestart(Reason):
    """Free the room that the rest of a download needs."""

    need_bytes: int


class ReadLog(Reason):
    """The log has the details."""
