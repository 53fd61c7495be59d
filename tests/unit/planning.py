"""Inputs of the planner, made by hand: no machine is measured."""

from __future__ import annotations

from typing import Any

from app.contract.plan import Device, Host, Model
from app.layouts.registry import LAYOUTS
from app.layouts.shape import Shape
from entrypoint.machine.torch_build import TorchBuild
from entrypoint.messages.sentence import text
from entrypoint.plan.inputs import PlanInputs
from entrypoint.reasons.model import ModelSet
from entrypoint.settings.settings import Settings
from tests.sparse import GLM4_9B

__all__ = ["CUDA_BUILD", "GIB", "GLM4_9B", "HOST", "SMALL", "gpu", "plan_inputs"]
GIB = 1024**3
SMALL = Shape(
    layers=16,
    hidden=1024,
    heads=16,
    kv_heads=2,
    head_dim=64,
    intermediate=4096,
    vocab=8192,
    context=8192,
    attention_bias=True,
    tied=False,
)
CUDA_BUILD = TorchBuild("2.13.0+cu130", "13.0", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"))
HOST = Host(
    available_bytes=64 * GIB,
    ram_bytes=64 * GIB,
    limit_bytes=None,
    disk_free_bytes=100 * GIB,
    cpu_count=8,
    cpu_name="Toy",
    cpu_bf16=True,
)


def gpu(free_gib: float, capability: tuple[int, ...] | None = (8, 6), index: int = 0) -> Device:
    return Device(index, f"GPU-{index:04d}", "Toy RTX", 80 * GIB, int(free_gib * GIB), capability, "580.95")


def plan_inputs(shape: Shape = GLM4_9B, settings: Settings | None = None, **changes: Any) -> PlanInputs:
    why = text(ModelSet("x"))
    usual: dict[str, Any] = {
        "settings": settings or Settings(model="x"),
        "model": Model("toy", "/toy", "glm4", 1, 1, "BF16", shape.context, why),
        "layout": LAYOUTS["glm4"],
        "shape": shape,
        "host": HOST,
        "torch": CUDA_BUILD,
    }
    return PlanInputs(**{**usual, **changes})
