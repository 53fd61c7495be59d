"""What an error of the hub or of the disk means for the user: the reason, the remedy, and the line for .env."""

from __future__ import annotations

import errno
from pathlib import Path

from app.contract.plan import Refusal
from entrypoint.hub.listing import PUBLIC_HUB, HubError, HubModel
from entrypoint.messages.sentence import text
from entrypoint.paths import make_writable, not_writable
from entrypoint.reasons import download, hub
from entrypoint.reasons.reason import Reason

MIRROR = "https://hf-mirror.com"
"""Suggested if the public hub can't be reached; others run it, and Berth never uses it by itself."""
TOKEN_LINE = "HF_TOKEN=hf_..."
NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def hub_refusal(error: HubError, endpoint: str, model: HubModel, has_token: bool) -> Refusal:
    """Why a model can't be had, and the line of `.env` that would change it."""
    repo, detail, folders = model.repo, error.detail, model.folders
    match error.kind:
        case "unreachable" | "slow" | "cut":
            why = hub.HubUnreachable(endpoint=endpoint, detail=detail, repo=repo, folders=folders)
            return _refuse(why, hub.ChangeEndpoint(), other_endpoint(endpoint))
        case "unauthorised":
            unauthorised = hub.TokenRefused(endpoint, repo) if has_token else hub.TokenMissing(endpoint, repo, folders)
            return _refuse(unauthorised, hub.CheckNameOrToken(), TOKEN_LINE)
        case "gated":
            return _refuse(hub.ModelGated(endpoint, repo, detail), hub.AcceptTerms(f"{endpoint}/{repo}"), TOKEN_LINE)
        case "no_model":
            not_found = hub.ModelNotFound(endpoint=endpoint, repo=repo, detail=detail, folders=folders)
            return _refuse(not_found, hub.CorrectLine(), "GLM_MODEL=zai-org/chatglm3-6b")
        case "no_revision":
            return _refuse(hub.RevisionNotFound(endpoint, repo, model.revision), hub.CorrectLine(), "GLM_REVISION=main")
        case "busy":
            limited = hub.RateLimited(endpoint, error.retry_after_seconds)
            if has_token:
                return _refuse(limited, hub.RetryLater())
            return _refuse(limited, hub.RetryLaterOrSetToken(), TOKEN_LINE)
        case _:
            return _refuse(hub.HubFailed(endpoint, detail), hub.ChangeEndpoint(), other_endpoint(endpoint))


def not_cached(repo: str, missing: Reason, folder: Path) -> Refusal:
    """HF_HUB_OFFLINE is set, and the cache is not enough."""
    return _refuse(hub.NotCached(repo, missing, str(folder)), hub.AllowDownload(), "HF_HUB_OFFLINE=0")


def no_room(folder: Path, need_bytes: int, free_bytes: int) -> Refusal:
    """The disk has less room than the rest of the download needs."""
    return _refuse(download.NoRoom(str(folder), need_bytes, free_bytes), download.MakeRoom(), "GLM_MODEL=demo")


def disk_refusal(error: OSError, folder: Path, done_bytes: int, total_bytes: int) -> Refusal:
    """Why the cache could not be written during a download."""
    if error.errno in NO_ROOM_ERRORS:
        full = download.DiskFull(str(folder), done_bytes, total_bytes, error.strerror or "no room")
        return _refuse(full, download.MakeRoomAndRestart(total_bytes - done_bytes))
    return _refuse(not_writable(folder, error), make_writable(folder, "HF_HOME"))


def wrong_hash(file: str, repo: str, endpoint: str) -> Refusal:
    """A file came twice with other bytes than the hub lists."""
    return _refuse(download.WrongHash(file, repo, endpoint), hub.ChangeEndpoint(), other_endpoint(endpoint))


def download_crashed(deaths: int, exit_code: int) -> Refusal:
    """The process that downloads ended again and again without receiving a byte."""
    return _refuse(download.DownloadCrashed(deaths, exit_code), download.ReadLog())


def other_endpoint(endpoint: str) -> str:
    """The line of `.env` that names another hub."""
    return f"HF_ENDPOINT={MIRROR if endpoint == PUBLIC_HUB else PUBLIC_HUB}"


def _refuse(why: Reason, remedy: Reason, env_line: str | None = None) -> Refusal:
    return Refusal(text(why), text(remedy), env_line)
