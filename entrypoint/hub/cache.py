"""huggingface_hub's cache on disk, as it documents it: blobs by hash, snapshots by commit, refs by branch or tag."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from entrypoint.checkpoint.safe_open import CheckpointError
from entrypoint.checkpoint.source import INDEX, SINGLE_FILE, TORCH_FILE, TORCH_INDEX, LocalFolder, indexed_files
from entrypoint.hub.listing import COMMIT
from entrypoint.paths import exists, is_file, is_folder
from entrypoint.reasons.hub import FileMissing, RevisionMissing

WEIGHT_FILES = ((INDEX, SINGLE_FILE), (TORCH_INDEX, TORCH_FILE))
"""An index, and the single file of a model without one; safetensors first, if a folder has both kinds."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class HubCache:
    """The folder of one model below HF_HOME."""

    folder: Path

    @classmethod
    def of(cls, hf_home: Path, repo: str) -> HubCache:
        """The folder of a model."""
        return cls(hf_home / "hub" / f"models--{repo.replace('/', '--')}")

    def commit(self, revision: str) -> str | None:
        """The commit of a revision when it was last downloaded."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def snapshot(self, commit: str) -> Path:
        """The folder with the files of a commit."""
        return self.folder / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        """Path of a file that is complete and checked."""
        return self.folder / "blobs" / etag

    def partial(self, etag: str) -> Path:
        """Path of a file until then; named by its hash, so that a download can resume."""
        return self.folder / "blobs" / f"{etag}.berth.incomplete"

    def stored_bytes(self, etag: str) -> int:
        """Bytes of a file that are on disk, all of them or some."""
        for path in (self.blob(etag), self.partial(etag)):
            if exists(path):
                return path.stat().st_size
        return 0

    def link(self, commit: str, name: str, etag: str) -> None:
        """Puts a complete blob into a snapshot: a link to it, or the file itself if links can't be made.

        It is atomic: an engine may be reading the snapshot, and another download making the same link.
        """
        pointer = self.snapshot(commit) / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        draft = pointer.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            draft.symlink_to(os.path.relpath(self.blob(etag), pointer.parent))
        except OSError:
            draft = self.blob(etag)
        draft.replace(pointer)

    def write_ref(self, revision: str, commit: str) -> None:
        """Records the commit of a branch or tag."""
        if not COMMIT.fullmatch(revision):
            path = self.folder / "refs" / revision
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit, encoding="ascii")

    def missing(self, revision: str) -> RevisionMissing | FileMissing | None:
        """What the snapshot of a revision lacks; None if it is complete."""
        commit = self.commit(revision)
        if commit is None or not is_folder(self.snapshot(commit)):
            return RevisionMissing(revision)
        folder = self.snapshot(commit)
        if not is_file(folder / "config.json"):
            return FileMissing(("config.json",))
        if not any(is_file(folder / name) for name in TOKENIZER_FILES):
            return FileMissing(TOKENIZER_FILES)
        weights = _missing_weights(folder)
        return None if weights is None else FileMissing((weights,))


def _missing_weights(folder: Path) -> str | None:
    """The first missing weight file, of the kind that the loader would take."""
    for index, single in WEIGHT_FILES:
        if exists(folder / index):
            try:
                names = indexed_files(str(folder / index), LocalFolder(folder).read_json(index))
            except CheckpointError:
                return index
            return next((name for name in names if not is_file(folder / name)), None)
        if is_file(folder / single):
            return None
    return SINGLE_FILE
