"""How near the plan comes to what the engine really takes.

    .venv/bin/python -m tests.bench.plan_accuracy                  # on the CPU, every family, a few layers of each
    .venv/bin/python -m tests.bench.plan_accuracy --slots 1,4,16 --rungs fp32,bf16,int8,int4 --model "full vocabulary"
    python3 -m tests.bench.plan_accuracy --device gpu              # on a GPU, full-size shapes

Makes random checkpoints in the published shapes, plans each rung, starts the engine by that plan and reads its proof.
Prints planned and loaded bytes of weights (they must be equal) and the planned need, without its margin and what only
service takes, beside the measured peak: on the CPU anonymous memory, on a GPU the reserved memory and the context.
Exits 1 where weights differ, where the plan is further off than 5 % or 64 MiB (CPU) or 2 % (GPU), or where the peak
passes plan and margin.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import select
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.contract.codec import write_atomically
from app.contract.plan import Plan, Precision
from app.contract.status import Proof, Ready
from entrypoint.checkpoint.checkpoint import read_checkpoint
from entrypoint.measure import measure
from entrypoint.model_choice import ModelChoice
from entrypoint.plan.footprint import SERVICE_BYTES, Load, code_bytes
from entrypoint.plan.planner import make_plan
from entrypoint.reasons.model import ModelSet
from entrypoint.settings.settings import Settings
from entrypoint.state.api_key import AccessFiles
from entrypoint.state.app_config import app_config
from entrypoint.supervisor.engine_process import EngineRun
from tests.engine_models import on_cpu
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

MIB = 1024**2
START_SECONDS = 900.0
RUNGS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")
USUAL_RUNGS = "bf16,int8,int4"


@dataclass(frozen=True)
class Model:
    """A shape to be tried, and with which contexts."""

    name: str
    shape: CheckpointShape
    contexts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine that was planned and started."""

    model: str
    precision: str
    context: int
    slots: int
    planned_weights: int
    need_bytes: int
    margin_bytes: int
    proof: Proof
    on_gpu: bool
    later_bytes: int
    """Of the need, what is taken in service only."""

    @property
    def expected_bytes(self) -> int:
        """What the engine alone should have taken at most by the proof's end."""
        return self.need_bytes - self.margin_bytes - self.later_bytes - (0 if self.on_gpu else SERVICE_BYTES)

    @property
    def off_bytes(self) -> int:
        """Planned less measured."""
        return self.expected_bytes - self.proof.measured_bytes

    @property
    def fine(self) -> bool:
        """Exact weights, a near estimate, and never more than was planned for."""
        measured = self.proof.measured_bytes
        allowed = measured // 50 if self.on_gpu else max(64 * MIB, measured // 20)
        exact = self.planned_weights == self.proof.weights_bytes
        return exact and abs(self.off_bytes) <= allowed and -self.off_bytes <= self.margin_bytes


def models(device: str) -> tuple[Model, ...]:
    """Full size on a GPU; on the CPU a few layers, more than 1 GB in bf16 each."""
    like = CheckpointShape.published
    if device == "gpu":
        contexts = (2048, 8192, 32768)
        return (
            Model("ChatGLM3-6B", like("zai-org/chatglm3-6b"), (2048, 8192)),
            Model("GLM-4-9B-chat", like("zai-org/glm-4-9b-chat"), contexts),
            Model("GLM-4-32B-0414, 20 layers", like("zai-org/GLM-4-32B-0414", layers=20), contexts),
        )
    # In the proportions of a whole model: with few layers, embedding and head outweigh what int8 and int4 save.
    whole = CheckpointShape(hidden=2048, layers=24, head_dim=128, intermediate=6848, vocab=32768)
    flash, air = (
        like("zai-org/GLM-4.7-Flash", layers=3, vocab=65536),
        like("zai-org/GLM-4.5-Air", layers=2, vocab=65536),
    )
    return (
        Model("glm4, 1.4 B parameters", whole, (8192,)),
        Model("glm4, 6 layers, full vocabulary", replace(whole, layers=6, vocab=151552), (4096,)),
        Model("ChatGLM3-6B, 3 layers", like("zai-org/chatglm3-6b", layers=3), (2048, 8192)),
        Model("GLM-4-9B-chat, 2 layers", like("zai-org/glm-4-9b-chat", layers=2), (8192, 32768)),
        Model("glm, 3 layers", like("zai-org/GLM-4-9B-0414", model_type="glm", layers=3, vocab=65536), (8192,)),
        Model("GLM-4-9B-0414, 3 layers", like("zai-org/GLM-4-9B-0414", layers=3, vocab=65536), (2048, 8192)),
        Model("GLM-4.7-Flash, 3 layers", replace(flash, extra={**flash.extra, "n_routed_experts": 32}), (2048, 8192)),
        Model("GLM-4.5-Air, 2 layers", replace(air, extra={**air.extra, "n_routed_experts": 32}), (8192,)),
    )


def planned(folder: Path, name: str, precision: Precision, context: int, slots: int, device: str, state: Path) -> Plan:
    """The plan of one rung; the other device is left out."""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {}
    settings = Settings(
        model=str(folder),
        precision=precision,
        max_model_len=context,
        max_num_seqs=slots,
        state_dir=state,
        require_gpu=device == "gpu",
        environment={**os.environ, **hidden},
    )
    choice = ModelChoice(name, folder, ModelSet(name))
    return make_plan(measure(settings, choice, read_checkpoint(folder)))


@contextlib.contextmanager
def started(plan: Plan, folder: Path, state: Path) -> Iterator[Proof]:
    """The engine by the plan, once it is proved; its socket lies in `state`."""
    assert plan.chosen is not None, plan.refusal
    choice, nobody = ModelChoice("bench", folder, ModelSet("bench")), AccessFiles(None, state / "sessions.json", 0)
    write_atomically(state / "config.json", app_config(choice, state, plan, nobody))
    engine = EngineRun(state / "config.json", plan.chosen, dict(os.environ))
    try:
        yield _proof(engine)
    finally:
        engine.child.stop(5.0, hurry=lambda: False)
        with contextlib.suppress(OSError):
            os.close(engine.events)


def _proof(engine: EngineRun) -> Proof:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        select.select([engine.events], [], [], 1.0)
        code = engine.child.exit_code()
        for event in engine.read_events():
            if isinstance(event, Ready):
                return event.proof
        if code is not None:
            raise RuntimeError(f"the engine ended with {code}: {engine.account}")
    raise RuntimeError(f"the engine was not ready within {START_SECONDS:.0f} s")


def rows(model: Model, rungs: Sequence[Precision], slots: Sequence[int], device: str, keep: Path) -> Iterator[Row]:
    """Every rung, context and number of slots of one model; its checkpoint is made first, unless it is kept."""
    folder = keep / model.name.replace(" ", "-").replace(",", "")
    if not (folder / "config.json").exists():
        make_checkpoint(folder, model.shape)
    checkpoint = read_checkpoint(folder)
    for precision, context, count in itertools.product(rungs, model.contexts, slots):
        with tempfile.TemporaryDirectory() as state:
            plan = planned(folder, model.name, precision, context, count, device, Path(state))
            with started(plan, folder, Path(state)) as proof:
                pass
        assert plan.chosen is not None
        terms, need = {term.name: term.bytes for term in plan.chosen.terms}, plan.chosen.need_bytes
        comes_later = device == "cpu" and checkpoint.layout.moe  # of dense layers the proof has met every size
        load = on_cpu(Load(precision, plan.chosen.compute_dtype, context, count))
        later = code_bytes(checkpoint.layout, checkpoint.shape, load) if comes_later else 0
        weights, margin, on_gpu = terms["weights"], terms["margin"], device == "gpu"
        yield Row(
            model=model.name,
            precision=precision,
            context=context,
            slots=count,
            planned_weights=weights,
            need_bytes=need,
            margin_bytes=margin,
            proof=proof,
            on_gpu=on_gpu,
            later_bytes=later,
        )


def line(row: Row) -> str:
    """One row of a Markdown table, in MiB."""
    exact = "equal" if row.planned_weights == row.proof.weights_bytes else f"{row.proof.weights_bytes:,} loaded"
    measured = row.proof.measured_bytes
    return (
        f"| {row.model} | {row.precision} | {row.context} | {row.slots} | {row.planned_weights:,} | {exact} "
        f"| {row.expected_bytes / MIB:,.0f} | {measured / MIB:,.0f} | {row.off_bytes / MIB:+,.0f} "
        f"| {row.off_bytes / measured:+.1%} | {row.margin_bytes / MIB:,.0f} | {row.proof.load_seconds:.1f} |"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Planned against measured memory.")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--model", help="only models whose name contains this")
    parser.add_argument("--rungs", default=USUAL_RUNGS, help=f"of {', '.join(RUNGS)}, separated by commas")
    parser.add_argument("--slots", default="1", help="numbers, separated by commas")
    parser.add_argument("--keep", type=Path, help="a folder for the checkpoints, kept for the next run")
    options = parser.parse_args()
    rungs: list[Precision] = [rung for rung in RUNGS if rung in options.rungs.split(",")]
    slots = [int(count) for count in options.slots.split(",")]
    head = ("model", "rung", "context", "slots", "weights, bytes", "loaded", "planned, MiB", "peak, MiB", "off, MiB")
    print(f"| {' | '.join((*head, 'off', 'margin, MiB', 'load, s'))} |\n|{'---|' * 12}", flush=True)
    fine = True
    with tempfile.TemporaryDirectory() as scratch:
        for model in models(options.device):
            if options.model and options.model not in model.name:
                continue
            for row in rows(model, rungs, slots, options.device, options.keep or Path(scratch)):
                print(line(row) + ("" if row.fine else " <- off"), flush=True)
                fine = fine and row.fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
