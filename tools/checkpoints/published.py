"""The published models of published_shapes.json as inputs of the planner: no file, no hub, no GPU is needed,
and the answers are the same on every machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.contract.plan import Host, Model
from entrypoint.checkpoint.checkpoint import checkpoint_from_config
from entrypoint.messages.sentence import text
from entrypoint.plan.hypothetical import Cards, what_if
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.planner import make_plan
from entrypoint.reasons.model import ModelSet
from entrypoint.settings.settings import Settings
from tools.checkpoints.shape import NOT_CONFIG, PUBLISHED_SHAPES

GIB = 1024**3
SIZES = range(4, 142)
RUNGS = ("int4", "int8", "bf16")
"""From the lowest."""
HOST = Host(
    available_bytes=64 * GIB,
    ram_bytes=64 * GIB,
    limit_bytes=None,
    disk_free_bytes=1024 * GIB,
    cpu_count=16,
    cpu_name="none in particular",
    cpu_bf16=True,
)
CHATGLM = {"multi_query_attention": True, "add_qkv_bias": True}
"""What every published config of this layout says beside its sizes."""


@dataclass(frozen=True)
class CardPlan:
    """What one card of so many GiB would get; precision None is nothing."""

    gib: int
    precision: str | None
    max_model_len: int = 0
    max_num_seqs: int = 0


@cache
def published() -> dict[str, dict[str, Any]]:
    """What is known of each published model, by hub id."""
    entries = json.loads(PUBLISHED_SHAPES.read_text(encoding="utf-8"))
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def published_config(name: str) -> dict[str, Any]:
    """The config.json of a published model, as far as the plan depends on it."""
    entry = published()[name]
    config = {key: value for key, value in entry.items() if key not in NOT_CONFIG}
    extras = CHATGLM if entry["model_type"] == "chatglm" else {}
    return {**extras, **config, "model_type": entry["model_type"]}


@cache
def published_inputs(name: str) -> PlanInputs:
    """What `plan` asks on a machine without a GPU and with 64 GiB free; `what_if` puts cards into it."""
    checkpoint = checkpoint_from_config(published_config(name), name)
    model = Model(
        name=name,
        path="",
        layout=checkpoint.layout.model_type,
        parameters=checkpoint.parameters,
        stored_bytes=checkpoint.stored_bytes,
        stored_dtype=checkpoint.stored_dtype,
        max_model_len=checkpoint.shape.context,
        why=text(ModelSet(name)),
    )
    return PlanInputs(
        settings=Settings(model=name), model=model, layout=checkpoint.layout, shape=checkpoint.shape, host=HOST
    )


@cache
def sweep(name: str, sizes: range = SIZES) -> tuple[CardPlan, ...]:
    """What `plan --vram` answers for each size, in GiB."""
    inputs = published_inputs(name)
    plans = []
    for gib in sizes:
        chosen = make_plan(what_if(inputs, Cards(f"{gib}GiB", 1, gib * GIB))).chosen
        if chosen:
            plans.append(CardPlan(gib, chosen.precision, chosen.max_model_len, chosen.max_num_seqs))
        else:
            plans.append(CardPlan(gib, None))
    return tuple(plans)
