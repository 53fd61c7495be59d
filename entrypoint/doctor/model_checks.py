"""The doctor's checks of what is installed and of the model: versions, bitsandbytes, hub, disk, headers, plan."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence

from app.contract.plan import Refusal, Text
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from entrypoint.doctor.check import Check, Group, Verdict
from entrypoint.hub import messages as hub_messages
from entrypoint.hub.cache import HubCache
from entrypoint.hub.client import Hub
from entrypoint.hub.listing import Deadline, HubError, HubModel
from entrypoint.hub.remote_headers import HubRefused, Reading
from entrypoint.machine.torch_build import read_torch_build
from entrypoint.measure import measure
from entrypoint.messages.phrases import at_once
from entrypoint.model_choice import ModelChoice, demo, resolve_model
from entrypoint.paths import existing
from entrypoint.plan.planner import make_plan
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.ledger import versions
from entrypoint.state.state_dir import read_usage
from entrypoint.units import size

HUB_SECONDS = 3.0
BITSANDBYTES_SECONDS = 100.0
ASKED_FOR = HubModel("zai-org/chatglm3-6b", "main")
"""Where nothing is to be downloaded, any question shows whether the hub answers."""
NATIVE_LIBRARY = """
import json
from bitsandbytes.cextension import lib
facts = vars(lib)
loaded = facts.get("_lib")
print(json.dumps([getattr(loaded, "_name", None), str(facts.get("error_msg", "no reason given"))]))
"""
REINSTALL = Text(
    "Make the environment anew: make setup, or build the image again.", "请重新创建环境：make setup，或重新构建镜像。"
)


def version_checks(settings: Settings) -> list[Check]:
    """What is installed; a package that is missing fails."""
    build, found = read_torch_build(), versions()
    cuda = f" (CUDA {build.cuda})" if build and build.cuda else " (CPU build)" if build else ""
    names = [f"python {platform.python_version()}"]
    names += [f"{name} {number}{cuda if name == 'torch' else ''}" for name, number in found.items()]
    said = Text(", ".join(names), "，".join(names))
    if "none" in found.values():
        return [Check("versions", "fail", said, REINSTALL)]
    return [Check("versions", "pass", said)]


def bitsandbytes_checks(settings: Settings) -> list[Check]:
    """Its native library, loaded in a process of its own: that takes torch, which has no place in this one."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", NATIVE_LIBRARY],
            env=dict(settings.environment),
            capture_output=True,
            text=True,
            timeout=BITSANDBYTES_SECONDS,
        )
        library, problem = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [_no_library(Text("its import takes too long", "导入时间过长"))]
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return [_no_library(Text(f"it can't be imported: {last}", f"无法导入：{last}"))]
    if library is None:
        first = problem.strip().splitlines()[0]
        return [_no_library(Text(f"its native library is not loaded: {first}", f"原生库没有加载：{first}"))]
    name = library.rpartition("/")[2]
    return [Check("bitsandbytes", "pass", Text(f"native library {name}", f"原生库 {name}"))]


def _no_library(finding: Text) -> Check:
    remedy = Text(
        f"int8 and int4 may not work until it is mended. {REINSTALL.en}",
        f"修复之前 int8 和 int4 可能无法使用。{REINSTALL.zh}",
    )
    return Check("bitsandbytes", "warn", finding, remedy)


def model_checks(settings: Settings) -> list[Check]:
    """The hub where it is needed, the model's headers, the disk for its download, and the plan."""
    try:
        choice = resolve_model(settings)
    except SettingsError as error:
        return [Check("model", "fail", Text(str(error), str(error)))]
    hub = _hub(settings, choice)
    checks = [hub, *_asked_for(settings, choice, hub.verdict == "pass")]
    if choice.is_default and any(check.verdict != "pass" for check in checks):
        checks += _here(settings, demo(choice.why))  # which then takes its place
    return checks


def _asked_for(settings: Settings, choice: ModelChoice, hub_answers: bool) -> list[Check]:
    if choice.hub is None:
        free = size(shutil.disk_usage(existing(settings.hf_home)).free)
        disk = Text(f"{free} free at HF_HOME; nothing to download", f"HF_HOME 处可用 {free}；无需下载")
        return [Check("disk", "pass", disk), *_here(settings, choice)]
    if hub_answers:
        return _remote(settings, choice, choice.hub)
    unread = Text(
        f"{choice.name} is not on this machine, and the hub was not reached",
        f"{choice.name} 不在这台机器上，且无法访问模型站点",
    )
    return [Check("model", _needed(choice), unread)]


def _needed(choice: ModelChoice) -> Verdict:
    """A default that can't be had is replaced by the demo; what was asked for by name is not."""
    return "warn" if choice.is_default else "fail"


def _hub(settings: Settings, choice: ModelChoice) -> Check:
    if settings.hf_offline:
        return Check("hub", "pass", Text("not asked: HF_HUB_OFFLINE=1", "不访问：HF_HUB_OFFLINE=1"))
    endpoint, model = settings.hf_endpoint, choice.hub or ASKED_FOR
    bad: Verdict = _needed(choice) if choice.hub else "warn"
    try:
        Hub(endpoint, settings.hf_token).listing(model.repo, model.revision, Deadline(HUB_SECONDS))
    except HubError as error:
        if error.status is None or choice.hub is not None:
            return _refused("hub", bad, hub_messages.refusal(error, endpoint, model, settings.hf_token is not None))
    except CheckpointError as error:
        return Check("hub", bad, Text(str(error), str(error)))
    return Check("hub", "pass", Text(f"{endpoint} answers", f"{endpoint} 有响应"))


def _refused(name: str, verdict: Verdict, refusal: Refusal) -> Check:
    line = f" {refusal.env_line}" if refusal.env_line else ""
    return Check(name, verdict, refusal.why, Text(refusal.remedy.en + line, refusal.remedy.zh + line))


def _here(settings: Settings, choice: ModelChoice) -> list[Check]:
    try:
        return _plan(settings, choice, read_checkpoint(choice.folder))
    except CheckpointError as error:
        return [Check("model", _needed(choice), Text(str(error), str(error)))]


def _remote(settings: Settings, choice: ModelChoice, model: HubModel) -> list[Check]:
    try:
        remote = Reading(settings, model, lambda _note: None, patient=not choice.is_default).wait()
    except HubRefused as error:
        return [_refused("model", _needed(choice), error.refusal)]
    except CheckpointError as error:
        return [Check("model", _needed(choice), Text(str(error), str(error)))]
    cache, free = HubCache.of(settings.hf_home, choice.name), shutil.disk_usage(existing(settings.hf_home)).free
    need = sum(max(0, file.size - cache.there(file.etag)) for file in remote.files)
    disk = Check(
        "disk",
        "pass",
        Text(
            f"{size(free)} free at HF_HOME, the download takes {size(need)}",
            f"HF_HOME 处可用 {size(free)}，下载需要 {size(need)}",
        ),
    )
    if need > free:
        disk = _refused("disk", _needed(choice), hub_messages.disk_short(settings.hf_home, need, free))
    return [disk, *_plan(settings, choice, remote.checkpoint)]


def _plan(settings: Settings, choice: ModelChoice, checkpoint: Checkpoint) -> list[Check]:
    count = f"{checkpoint.parameters / 1e6:,.1f}"
    model = Check("model", "pass", Text(f"{choice.name}: {count} M parameters", f"{choice.name}：{count} M 参数"))
    plan = make_plan(measure(settings, choice, checkpoint, read_usage(settings.state_dir)))
    if plan.chosen is None:
        assert plan.refusal is not None
        return [model, _refused("plan", _needed(choice), plan.refusal)]
    rung = plan.chosen
    finding = Text(
        f"{rung.precision}, {rung.max_model_len} tokens of context, {at_once(rung.max_num_seqs).en}: {rung.reason.en}",
        f"{rung.precision}，上下文 {rung.max_model_len} 个词元，{at_once(rung.max_num_seqs).zh}：{rung.reason.zh}",
    )
    return [model, Check("plan", "pass", finding)]


MODEL: Sequence[Group] = (
    Group("versions", 20, version_checks),
    Group("bitsandbytes", BITSANDBYTES_SECONDS + 10, bitsandbytes_checks),
    Group("model", 100, model_checks),
)
