"""The sentences of a plan for a checkpoint that is stored quantised, in English and Chinese."""

from __future__ import annotations

from app.contract.plan import Device, Refusal, Rung, Text
from entrypoint.checkpoint.quantised import Stored
from entrypoint.footprint import Load, weights_bytes
from entrypoint.question import Question
from entrypoint.units import size

FP8_CAPABILITY = (8, 9)
"""Compute capability from which a GPU multiplies FP8."""


def as_stored(stored: Stored, rung: Rung) -> Text:
    """Why this rung: it is the only one."""
    numbers = f"{size(rung.need_bytes)} / {size(rung.free_bytes)}"
    return Text(
        f"as stored ({stored.format}), and it fits: needs {size(rung.need_bytes)} of {size(rung.free_bytes)} free",
        f"按存储的格式（{stored.format}），放得下：需要/可用 {numbers}",
    )


def not_stored_so(stored: Stored, asked: str) -> Text:
    """Why another precision than the stored one can't be had."""
    return Text(
        f"the weights are stored as {stored.precision} ({stored.format}); GLM_PRECISION={asked} asks for another",
        f"权重以 {stored.precision}（{stored.format}）存储，而 GLM_PRECISION={asked} 要求另一种精度",
    )


def unsupported(question: Question, device: Device | None) -> Text | None:
    """Why a stored format can't be computed on a device; None where it can."""
    stored = question.stored
    if stored is None or stored.precision != "fp8":
        return None
    if device is not None and (device.compute_capability or (0, 0)) >= FP8_CAPABILITY:
        return Text("this engine has no FP8 kernels", "此引擎没有 FP8 内核")
    need = size(weights_bytes(question.layout, question.shape, Load("bf16", "bfloat16", 1, 1)))
    return Text(f"FP8 would expand to bf16: needs {need}", f"FP8 会展开为 bf16：需要 {need}")


def refusal(question: Question, rungs: tuple[Rung, ...]) -> Refusal | None:
    """Of a format that is computed on no device here: what it is, and what to take instead; None for others."""
    stored, name = question.stored, question.model.name
    if stored is None or stored.precision != "fp8":
        return None
    reasons = list({rung.reason.en: rung.reason for rung in rungs}.values())
    why = Text(
        f"{name} is stored as {stored.format} ({size(stored.bytes)}), which can't be computed here: "
        f"{'; '.join(reason.en for reason in reasons)}.",
        f"{name} 以 {stored.format} 存储（{size(stored.bytes)}），这里无法计算："
        f"{'；'.join(reason.zh for reason in reasons)}。",
    )
    # As the hub's FP8 checkpoints are named; a folder's neighbour need not be there.
    plain = name.removesuffix("-FP8") if "/" in name else name
    return Refusal(
        why=why,
        remedy=Text(
            "Take the 16-bit checkpoint; it is quantised to int8 or int4 while it loads, where that is needed"
            + (":" if plain != name else "."),
            "请使用 16 位的检查点；需要时会在加载过程中量化为 int8 或 int4" + ("：" if plain != name else "。"),
        ),
        env_line=f"GLM_MODEL={plain}" if plain != name else None,
    )
