"""What each error of the hub and of the disk means for the user, and that programs can read it behind a pipe."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import get_args

import pytest

from app.contract.codec import dump_line, from_json
from app.contract.plan import Refusal
from app.contract.status import FetchFailed
from entrypoint.hub.listing import PUBLIC_HUB, HubError, HubErrorKind, HubModel
from entrypoint.hub.refusals import MIRROR, TOKEN_LINE, disk_refusal, hub_refusal
from entrypoint.reasons.hub import HttpError, TimedOut

MODEL = HubModel("org/model", "v1", ("/models/org/model",))
KINDS: dict[HubErrorKind, tuple[str, str, str | None]] = {
    "unreachable": ("hub_unreachable", "change_endpoint", f"HF_ENDPOINT={MIRROR}"),
    "slow": ("hub_unreachable", "change_endpoint", f"HF_ENDPOINT={MIRROR}"),
    "cut": ("hub_unreachable", "change_endpoint", f"HF_ENDPOINT={MIRROR}"),
    "unauthorised": ("token_missing", "check_name_or_token", TOKEN_LINE),
    "gated": ("model_gated", "accept_terms", TOKEN_LINE),
    "no_model": ("model_not_found", "correct_line", "GLM_MODEL=zai-org/chatglm3-6b"),
    "no_revision": ("revision_not_found", "correct_line", "GLM_REVISION=main"),
    "busy": ("rate_limited", "retry_later_or_set_token", TOKEN_LINE),
    "broken": ("hub_failed", "change_endpoint", f"HF_ENDPOINT={MIRROR}"),
}


def test_every_kind_of_error_is_in_the_table() -> None:
    assert set(KINDS) == set(get_args(HubErrorKind))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_reason_a_remedy_and_a_line(kind: HubErrorKind) -> None:
    refusal = hub_refusal(HubError(kind, HttpError(500), 500), PUBLIC_HUB, MODEL, has_token=False)
    assert (refusal.why.code, refusal.remedy.code, refusal.env_line) == KINDS[kind]
    assert refusal.why.en and refusal.why.zh and refusal.remedy.en and refusal.remedy.zh


def test_with_a_token_no_other_is_suggested_while_the_hub_limits_requests() -> None:
    error = HubError("busy", HttpError(429), 429, retry_after_seconds=30)
    refusal = hub_refusal(error, PUBLIC_HUB, MODEL, has_token=True)
    assert (refusal.remedy.code, refusal.env_line) == ("retry_later", None)
    assert refusal.why.values == {"endpoint": PUBLIC_HUB, "retry_after_seconds": 30}


def test_from_a_mirror_the_public_hub_is_suggested() -> None:
    refusal = hub_refusal(HubError("slow", TimedOut(3)), MIRROR, MODEL, has_token=False)
    assert refusal.env_line == f"HF_ENDPOINT={PUBLIC_HUB}"


def test_code_and_values_survive_the_pipe_from_the_download() -> None:
    refusal = hub_refusal(HubError("slow", TimedOut(3)), PUBLIC_HUB, MODEL, has_token=False)
    event = from_json(FetchFailed, json.loads(dump_line(FetchFailed(refusal))))
    assert event.refusal == refusal
    assert event.refusal.why.values == {
        "endpoint": PUBLIC_HUB,
        "detail": {"code": "timed_out", "seconds": 3},
        "repo": "org/model",
        "folders": ["/models/org/model"],
    }


@pytest.mark.parametrize(
    ("number", "why", "remedy"),
    [
        (errno.ENOSPC, "disk_full", "make_room_and_restart"),
        (errno.EDQUOT, "disk_full", "make_room_and_restart"),
        (errno.EACCES, "not_writable", "make_writable"),
        (errno.EROFS, "not_writable", "make_writable"),
    ],
)
def test_what_keeps_a_download_from_the_disk(tmp_path: Path, number: int, why: str, remedy: str) -> None:
    refusal: Refusal = disk_refusal(OSError(number, "as the system says it"), tmp_path, 10, 30)
    assert (refusal.why.code, refusal.remedy.code) == (why, remedy)
    assert refusal.why.values["error"] == "as the system says it"
