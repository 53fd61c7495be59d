"""Where every value of the config comes from, in English and Chinese."""

from __future__ import annotations

from app.contract.plan import Origin, OriginKind, Rung, Text
from entrypoint.plan.activations import PREFILL_CHUNK
from entrypoint.plan.inputs import Question
from entrypoint.units import size

SET = Text("set by you", "由你设置")


def origins(question: Question, rung: Rung | None, usual_context: int) -> tuple[Origin, ...]:
    """Every value of the config with where it comes from; `usual_context` is aimed at where none is set."""
    settings, model = question.settings, question.model
    rows = [Origin("GLM_MODEL", model.name, "set" if settings.model else "default", model.why)]
    if rung is None:
        return tuple(rows)
    stepped = bool(question.only) or any(not barred.max_num_seqs for barred in question.barred)
    measured: OriginKind = "stepped_down" if stepped else "measured"
    rows.append(Origin("GLM_PRECISION", rung.precision, "set" if settings.precision else measured, rung.reason))
    free = size(rung.free_bytes)
    where = Text(f"{free} were free there", f"那里可用 {free}")
    rows.append(Origin("device", rung.device, "measured", where))
    for name, value, given, reason in (
        ("GLM_MAX_MODEL_LEN", rung.max_model_len, settings.max_model_len, _context(question, rung, usual_context)),
        ("GLM_MAX_NUM_SEQS", rung.max_num_seqs, settings.max_num_seqs, _slots(question, rung)),
    ):
        fewer = name == "GLM_MAX_NUM_SEQS" and question.fewer_slots(rung.precision, rung.device)
        kind: OriginKind = "set" if given else "stepped_down" if fewer else measured
        rows.append(Origin(name, str(value), kind, SET if given else reason))
    chunk = Text("bounds the memory that a long prompt takes", "限制长提示占用的内存")
    rows.append(Origin("prefill_chunk", str(PREFILL_CHUNK), "default", chunk))
    return tuple(rows)


def _context(question: Question, rung: Rung, usual: int) -> Text:
    """Why this context, where Berth chose it."""
    free = size(rung.free_bytes)
    if rung.max_model_len == question.shape.context:
        return Text("all that the model has", "模型自身的上限")
    if _mixed(rung):
        return Text("the usual: a longer one would push more layers onto the CPU", "默认值：更长会使更多层落到 CPU 上")
    if rung.max_model_len == usual:
        return Text(
            "the usual; what is left buys more requests at once first", "默认值；剩余内存先用来增加同时处理的请求"
        )
    return Text(
        f"what {free} free memory buys, at most the model's own", f"由可用内存 {free} 决定，不超过模型自身的上限"
    )


def _slots(question: Question, rung: Rung) -> Text:
    """Why so many requests at once, where Berth chose it."""
    if fewer := question.fewer_slots(rung.precision, rung.device):
        return fewer.why
    if _mixed(rung):
        return Text("more would push more layers onto the CPU", "更多会使更多层落到 CPU 上")
    if rung.max_num_seqs == question.most_slots:
        return Text(
            f"there is memory for up to {rung.max_num_seqs} at once, the most unless you set more",
            f"内存可同时处理最多 {rung.max_num_seqs} 个请求；除非你设置更大的值，不会再多",
        )
    free, length = size(rung.free_bytes), rung.max_model_len
    return Text(
        f"what {free} free memory buys, each with room for {length} tokens",
        f"由可用内存 {free} 决定，每个请求可容纳 {length} 个词元",
    )


def _mixed(rung: Rung) -> bool:
    return bool(rung.placements) and "cpu" in rung.device.split("+")
