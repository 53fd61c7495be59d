"""Reasons about folders and checkpoint files."""

from __future__ import annotations

from entrypoint.reasons.reason import Reason


class NotWritable(Reason, kw_only=True):
    """A folder that Berth needs can't be written."""

    folder: str
    error: str
    """What the system says."""
    parent: str
    """The folder itself, or its nearest parent that exists."""
    owner: str
    """Name of the user who owns `parent`; empty if the system has none for its uid."""
    owner_uid: int
    uid: int
    """Berth's own."""


class MakeWritable(Reason):
    """The remedy: change the owner of `parent`, or set `setting` to another folder."""

    parent: str
    uid: int
    setting: str


class InvalidCheckpoint(Reason):
    """A checkpoint that can't be used; `error` is the one line of a CheckpointError, in English only."""

    error: str


class InvalidSetting(Reason):
    """A setting that can't be used; `error` is the text of a SettingsError, in English only."""

    error: str
