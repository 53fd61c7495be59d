"""The doctor's checks of the installation and the model: versions, bitsandbytes, hub, disk, headers, plan."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from app.contract.plan import Refusal, Rung, Text
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from entrypoint.doctor.check import Check, CheckGroup, Verdict, appended, check
from entrypoint.hub.cache import HubCache
from entrypoint.hub.client import Hub
from entrypoint.hub.listing import Deadline, HubError, HubModel
from entrypoint.hub.refusals import hub_refusal, no_room
from entrypoint.hub.remote_headers import HubRefused, Reading
from entrypoint.machine.torch_build import read_torch_build
from entrypoint.measure import measure
from entrypoint.messages.phrases import at_once
from entrypoint.model_choice import ModelChoice, demo, resolve_model
from entrypoint.paths import existing
from entrypoint.plan.planner import make_plan
from entrypoint.reasons.doctor import (
    BitsandbytesNotImportable,
    BitsandbytesNotLoaded,
    BitsandbytesTimedOut,
    BitsandbytesWorks,
    HubAnswers,
    HubNotUsed,
    ModelNotChecked,
    ModelReadable,
    NothingToDownload,
    Reinstall,
    ReinstallBitsandbytes,
    RoomForDownload,
    Versions,
)
from entrypoint.reasons.files import InvalidCheckpoint, InvalidSetting
from entrypoint.reasons.reason import Reason
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.ledger import versions
from entrypoint.state.state_dir import read_usage

HUB_SECONDS = 3.0
BITSANDBYTES_SECONDS = 100.0
ANY_MODEL = HubModel("zai-org/chatglm3-6b", "main")
"""Requested to see whether the hub answers, if there is nothing to download."""
NATIVE_LIBRARY = """
import json
from bitsandbytes.cextension import lib
attributes = vars(lib)
library = attributes.get("_lib")
print(json.dumps([getattr(library, "_name", None), str(attributes.get("error_msg", "no error message"))]))
"""


def version_checks(settings: Settings) -> list[Check]:
    """Versions of the installed packages; fails if one is missing."""
    build, installed = read_torch_build(), versions()
    cuda = f" (CUDA {build.cuda})" if build and build.cuda else " (CPU build)" if build else ""
    packages = [f"python {platform.python_version()}"]
    packages += [f"{name} {version}{cuda if name == 'torch' else ''}" for name, version in installed.items()]
    if "none" in installed.values():
        return [check("versions", "fail", Versions(tuple(packages)), Reinstall())]
    return [check("versions", "pass", Versions(tuple(packages)))]


def bitsandbytes_checks(settings: Settings) -> list[Check]:
    """Its native library, loaded in a process of its own: the import loads torch, which this process must not."""
    try:
        process = subprocess.run(
            [sys.executable, "-c", NATIVE_LIBRARY],
            env=dict(settings.environment),
            capture_output=True,
            text=True,
            timeout=BITSANDBYTES_SECONDS,
        )
        library, error = json.loads(process.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [_no_library(BitsandbytesTimedOut(BITSANDBYTES_SECONDS))]
    except (IndexError, ValueError):
        return [_no_library(BitsandbytesNotImportable((process.stderr.strip().splitlines() or ["no output"])[-1]))]
    if library is None:
        return [_no_library(BitsandbytesNotLoaded(error.strip().splitlines()[0]))]
    return [check("bitsandbytes", "pass", BitsandbytesWorks(library.rpartition("/")[2]))]


def _no_library(finding: Reason) -> Check:
    return check("bitsandbytes", "warn", finding, ReinstallBitsandbytes())


def model_checks(settings: Settings) -> list[Check]:
    """The hub if it is needed, the model's headers, the disk for its download, and the plan."""
    try:
        choice = resolve_model(settings)
    except SettingsError as error:
        return [check("model", "fail", InvalidSetting(str(error)))]
    hub = _hub(settings, choice)
    checks = [hub, *_chosen_model(settings, choice, hub.verdict == "pass")]
    if choice.is_default and any(result.verdict != "pass" for result in checks):
        checks += _local(settings, demo(choice.why))  # which takes its place
    return checks


def _chosen_model(settings: Settings, choice: ModelChoice, hub_answers: bool) -> list[Check]:
    if choice.hub is None:
        return [check("disk", "pass", NothingToDownload(_free_bytes(settings))), *_local(settings, choice)]
    if hub_answers:
        return _remote(settings, choice, choice.hub)
    return [check("model", _failure(choice), ModelNotChecked(choice.name))]


def _failure(choice: ModelChoice) -> Verdict:
    """The demo replaces a default model that can't be had, but never a model that the user chose."""
    return "warn" if choice.is_default else "fail"


def _hub(settings: Settings, choice: ModelChoice) -> Check:
    if settings.hf_offline:
        return check("hub", "pass", HubNotUsed())
    endpoint, model = settings.hf_endpoint, choice.hub or ANY_MODEL
    failure: Verdict = _failure(choice) if choice.hub else "warn"
    try:
        Hub(endpoint, settings.hf_token).listing(model.repo, model.revision, Deadline(HUB_SECONDS))
    except HubError as error:
        if error.status is None or choice.hub is not None:
            return _refused("hub", failure, hub_refusal(error, endpoint, model, settings.hf_token is not None))
    except CheckpointError as error:
        return check("hub", failure, InvalidCheckpoint(str(error)))
    return check("hub", "pass", HubAnswers(endpoint))


def _refused(name: str, verdict: Verdict, refusal: Refusal) -> Check:
    line = refusal.env_line or ""
    return Check(name, verdict, refusal.why, appended(refusal.remedy, Text(f" {line}".rstrip(), line)))


def _local(settings: Settings, choice: ModelChoice) -> list[Check]:
    try:
        return _plan(settings, choice, read_checkpoint(choice.folder))
    except CheckpointError as error:
        return [check("model", _failure(choice), InvalidCheckpoint(str(error)))]


def _remote(settings: Settings, choice: ModelChoice, model: HubModel) -> list[Check]:
    try:
        remote = Reading(settings, model, lambda _note: None, patient=not choice.is_default).wait()
    except HubRefused as error:
        return [_refused("model", _failure(choice), error.refusal)]
    except CheckpointError as error:
        return [check("model", _failure(choice), InvalidCheckpoint(str(error)))]
    cache, free = HubCache.of(settings.hf_home, choice.name), _free_bytes(settings)
    need = sum(max(0, file.size - cache.stored_bytes(file.etag)) for file in remote.files)
    disk = check("disk", "pass", RoomForDownload(free, need))
    if need > free:
        disk = _refused("disk", _failure(choice), no_room(settings.hf_home, need, free))
    return [disk, *_plan(settings, choice, remote.checkpoint)]


def _free_bytes(settings: Settings) -> int:
    return shutil.disk_usage(existing(settings.hf_home)).free


def _plan(settings: Settings, choice: ModelChoice, checkpoint: Checkpoint) -> list[Check]:
    model = check("model", "pass", ModelReadable(choice.name, checkpoint.parameters))
    plan = make_plan(measure(settings, choice, checkpoint, read_usage(settings.state_dir)))
    if plan.chosen is None:
        assert plan.refusal is not None
        return [model, _refused("plan", _failure(choice), plan.refusal)]
    return [model, Check("plan", "pass", _chosen_rung(plan.chosen))]


def _chosen_rung(rung: Rung) -> Text:
    """What was chosen, then why."""
    requests = at_once(rung.max_num_seqs)
    return replace(
        rung.reason,
        en=f"{rung.precision}, context of {rung.max_model_len} tokens, {requests.en}; {rung.reason.en}",
        zh=f"{rung.precision}，上下文 {rung.max_model_len} 个 token，{requests.zh}；{rung.reason.zh}",
    )


MODEL_GROUPS: Sequence[CheckGroup] = (
    CheckGroup("versions", 20, version_checks),
    CheckGroup("bitsandbytes", BITSANDBYTES_SECONDS + 10, bitsandbytes_checks),
    CheckGroup("model", 100, model_checks),
)
