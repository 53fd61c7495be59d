"""What the service says about itself in each phase, made of the contract's own classes."""

from __future__ import annotations

import time
from dataclasses import replace

from app.contract.plan import Device, Host, Model, Origin, Plan, Precision, Refusal, Rung, Term, Text, Verdict
from app.contract.status import Attempt, Death, LoadStage, Phase, Progress, Proof, Status, StepProgress
from entrypoint.messages.sentence import text
from entrypoint.reasons.plan import FitsToo, HighestThatFits, PrecisionExcluded, ShortOfMemory
from entrypoint.reasons.refusal import ModelTooLarge, SettingMakesItFit
from entrypoint.reasons.setting import DefaultContext, SetByYou

GIB = 1024**3
STARTED = time.time() - 9
GPU = "GPU-5f0c4a2e-1111-2222-3333-444455556666"


def rung(
    precision: Precision, devices: tuple[str, ...], weights: float, free: float, verdict: Verdict, why: Text
) -> Rung:
    """A rung whose need follows from its weights (GiB)."""
    parts = {"weights": weights, "kv_cache": 0.31, "activations": 0.22, "load_peak": 0.4, "runtime": 0.5, "margin": 0.3}
    terms = tuple(Term(name, int(size * GIB)) for name, size in parts.items())  # type: ignore[arg-type]
    return Rung(
        precision=precision,
        devices=devices,
        compute_dtype="bfloat16",
        terms=terms,
        need_bytes=sum(term.bytes for term in terms),
        free_bytes=int(free * GIB),
        max_model_len=8192,
        max_num_seqs=1,
        verdict=verdict,
        reason=why,
    )


TOO_LARGE = text(ShortOfMemory((GPU,), int(19.24 * GIB), int(15.3 * GIB), int(3.94 * GIB)))
FITS = text(FitsToo("int8", (GPU,), same_devices=True))
CHOSEN = text(HighestThatFits(devices=(GPU,), need_bytes=int(11.03 * GIB), free_bytes=int(15.3 * GIB)))
RUNGS = (
    rung("bf16", (GPU,), 17.51, 15.3, "too_large", TOO_LARGE),
    rung("int8", (GPU,), 9.3, 15.3, "chosen", CHOSEN),
    rung("int4", (GPU,), 5.6, 15.3, "fits", FITS),
    rung("bf16", ("cpu",), 17.51, 24.0, "fits", text(FitsToo("int8", (GPU,), same_devices=False))),
)
SET = text(SetByYou())
PLAN = Plan(
    model=Model(
        name="zai-org/glm-4-9b-chat-hf",
        path="/models/glm-4-9b",
        layout="glm",
        parameters=9_399_951_360,
        stored_bytes=int(17.51 * GIB),
        stored_dtype="bfloat16",
        max_model_len=131072,
        why=SET,
    ),
    host=Host(
        available_bytes=int(24.0 * GIB),
        ram_bytes=int(62.7 * GIB),
        limit_bytes=32 * GIB,
        disk_free_bytes=212 * GIB,
        cpu_count=16,
        cpu_name="AMD EPYC 7763 64-Core Processor",
        cpu_bf16=False,
    ),
    devices=(Device(0, GPU, "NVIDIA RTX 4080", 16 * GIB, int(15.3 * GIB), (8, 9), "570.86.15"),),
    rungs=RUNGS,
    chosen=RUNGS[1],
    refusal=None,
    origins=(
        Origin("GLM_MODEL", "zai-org/glm-4-9b-chat-hf", "set", SET),
        Origin("GLM_PRECISION", "int8", "measured", CHOSEN),
        Origin("GLM_MAX_MODEL_LEN", "8192", "default", text(DefaultContext())),
    ),
)
REFUSAL = Refusal(
    why=text(
        ModelTooLarge(
            model="zai-org/glm-4-9b-chat-hf",
            precision="bf16",
            devices=(GPU,),
            max_model_len=2048,
            max_num_seqs=1,
            need_bytes=int(19.24 * GIB),
            free_bytes=int(15.3 * GIB),
            short_bytes=int(3.94 * GIB),
            limit=None,
        )
    ),
    remedy=text(
        SettingMakesItFit(
            setting="GLM_PRECISION",
            precision="int8",
            devices=(GPU,),
            max_model_len=8192,
            need_bytes=int(11.03 * GIB),
        )
    ),
    env_line="GLM_PRECISION=auto",
)


def base(phase: Phase, seconds: float = 3) -> Status:
    """A status without a plan, in its phase for so long."""
    now = time.time()
    return Status(
        phase=phase,
        since=now - seconds,
        started_at=now - seconds - 4,
        version="0.1.0",
        model_name="zai-org/glm-4-9b-chat-hf",
        model_why=Text("set by you with GLM_MODEL", "由你用 GLM_MODEL 设置"),
        address="http://127.0.0.1:8000",
    )


def planned(phase: Phase, seconds: float = 3) -> Status:
    """A status with the plan that chose int8."""
    return replace(base(phase, seconds), plan=PLAN, precision="int8", max_model_len=8192, max_num_seqs=1)


def loading(done: float, total: float = 9.3, note: Text | None = None) -> Status:
    """So many GiB of all are read."""
    status = planned("loading", 9)
    if not done:
        return replace(status, load_stage="starting_process")
    stage: LoadStage = "reading" if done < total else "preparing"
    progress = Progress(int(done * GIB), int(total * GIB), STARTED, eta_seconds=(total - done) / 0.8)
    return replace(status, progress=progress, load_stage=stage, note=note)


def proving(done: int, total: int = 12, share: float = 0.25, left: float | None = 8.2) -> Status:
    """So many steps of the proof are done."""
    return replace(planned("proving", 3), steps=StepProgress(done, total, share, left))


def downloading(done: float, total: float = 17.51, rate: float = 0.052, note: Text | None = None) -> Status:
    """So many GiB are on this disk; `rate` in GiB a second."""
    left = (total - done) / rate if rate else None
    progress = Progress(int(done * GIB), int(total * GIB), STARTED, left, bytes_per_second=rate * GIB)
    return replace(planned("downloading", 64), progress=progress, note=note)


def ready() -> Status:
    """The model answers."""
    proof = Proof(int(11.03 * GIB), int(10.41 * GIB), int(9.2 * GIB), load_seconds=12.5, proof_seconds=2.1)
    attempt = Attempt("int8", GPU, 1, time.time() - 20, None, "ready")
    return replace(planned("ready"), proof=proof, attempts=(attempt,))


def demo_ready() -> Status:
    """The bundled model answers."""
    why = Text(
        "The bundled demo model, because GLM_MODEL is not set; set it to a hub id or a folder for a real one.",
        "未设置 GLM_MODEL，因此使用内置的演示模型；把它设为模型库编号或文件夹即可使用真正的模型。",
    )
    return replace(ready(), model_name="demo", model_why=why)


def failed() -> Status:
    """Precision set to bf16, which does not fit."""
    excluded = text(PrecisionExcluded("bf16", fits=True))
    rungs = (
        RUNGS[0],
        replace(RUNGS[1], verdict="excluded", reason=excluded),
        replace(RUNGS[2], verdict="excluded", reason=excluded),
    )
    plan = replace(PLAN, rungs=rungs, chosen=None, refusal=REFUSAL)
    return replace(base("failed"), plan=plan, refusal=REFUSAL)


def recovering() -> Status:
    """The kernel killed the engine; it comes back."""
    death = Death(
        at=time.time() - 4,
        cause="killed_by_kernel_oom",
        phase="ready",
        exit_code=None,
        signal=9,
        why=Text(
            "The kernel killed the engine: the container's memory limit of 32.00 GiB was reached.",
            "内核终止了引擎：已达到容器的内存上限 32.00 GiB。",
        ),
        remedy=Text(
            "Another process in the container took memory after the plan was made; stop it, or raise the limit.",
            "规划之后，容器里的另一个进程占用了内存；请停止它，或提高上限。",
        ),
        limit_bytes=32 * GIB,
        peak_bytes=int(31.98 * GIB),
    )
    return replace(planned("recovering"), last_death=death, deaths=2)
