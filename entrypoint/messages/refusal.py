"""Sentences of `entrypoint.reasons.refusal`. A remedy that ends in a colon is followed by a line of `.env`."""

from __future__ import annotations

from entrypoint.messages.phrases import memory_zh, place, spaced
from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons.refusal import (
    AllowCpu,
    CannotLoad,
    FormatUnsupported,
    ModelTooLarge,
    MoreMemory,
    NoGpuSeen,
    NoPrecisionUsable,
    SettingMakesItFit,
    SmallerSettingFits,
    Use16BitCheckpoint,
)
from entrypoint.units import size


@sentence.register
def _(reason: NoGpuSeen) -> Sentence:
    en, zh = (reason.note.en, reason.note.zh) if reason.note else ("No GPU is visible.", "看不到显卡。")
    return Sentence(f"GLM_REQUIRE_GPU=1, but there is no GPU. {en}", f"GLM_REQUIRE_GPU=1，但没有显卡。{zh}")


@sentence.register
def _(reason: AllowCpu) -> Sentence:
    return Sentence(
        "Give the container a GPU (docker/compose.gpu.yaml), or allow the CPU with this line in .env:",
        "请把显卡交给容器（docker/compose.gpu.yaml），或在 .env 中用这一行允许使用 CPU：",
    )


@sentence.register
def _(reason: NoPrecisionUsable) -> Sentence:
    why = sentence(reason.reason)
    return Sentence(f"No precision can be used here: {why.en}.", f"没有可用的精度：{why.zh}。")


@sentence.register
def _(reason: CannotLoad) -> Sentence:
    why = sentence(reason.reason)
    return Sentence(f"{reason.model} can't be loaded: {why.en}.", f"无法加载 {reason.model}：{why.zh}。")


@sentence.register
def _(reason: ModelTooLarge) -> Sentence:
    need, free, short = size(reason.need_bytes), size(reason.free_bytes), size(reason.short_bytes)
    where, length, slots = place(reason.devices), reason.max_model_len, reason.max_num_seqs
    each = Sentence(f" for each of {slots} requests", f" × {slots}") if slots > 1 else Sentence("", "")
    bound = sentence(reason.limit) if reason.limit else None
    en = (
        f"{reason.model} does not fit. The smallest plan ({reason.precision} on {where.en}, {length} tokens{each.en}) "
        f"needs {need}; {free} is free, {short} short."
    )
    zh = (
        f"{reason.model} 放不下。最省的方案（{where.zh}、{reason.precision}、上下文 {length}{each.zh}）"
        f"也要 {need} {memory_zh(reason.devices)}，可用 {free}，差 {short}。"
    )
    return Sentence(f"{en} {bound.en}.", f"{zh}{bound.zh}。") if bound else Sentence(en, zh)


@sentence.register
def _(reason: SettingMakesItFit) -> Sentence:
    where, need = place(reason.devices), size(reason.need_bytes)
    return Sentence(
        f"It fits as {reason.precision} on {where.en}, with {reason.max_model_len} tokens of context ({need}), "
        "if you add this line to .env:",
        f"在 .env 中加入这一行就放得下：{where.zh}、{reason.precision}、上下文 {reason.max_model_len}（{need}）：",
    )


@sentence.register
def _(reason: SmallerSettingFits) -> Sentence:
    where, need = place(reason.devices), size(reason.need_bytes)
    length = reason.max_model_len
    each = Sentence("", "")
    if length is not None:
        each = Sentence(f", with {length} tokens of context for each", f"，每个请求的上下文为 {length} 个 token")
    return Sentence(
        f"Reduce {reason.setting} to {reason.value} or less: {reason.precision} on {where.en} then needs {need}"
        f"{each.en}. In .env:",
        f"请把 {reason.setting} 减小到 {reason.value} 或更小：{where.zh}、{reason.precision}，需要 {need}{each.zh}。"
        "在 .env 中写上：",
    )


@sentence.register
def _(reason: MoreMemory) -> Sentence:
    need = size(reason.need_bytes)
    if place(reason.devices).en == "the GPU":
        en, zh = f"Use a GPU with at least {need} of free memory", f"这张显卡的显存不够，至少需要 {need} 可用显存"
    else:
        en, zh = "Give this machine or container more memory", "请为这台机器或容器提供更多内存"
    if not reason.smaller_model:
        return Sentence(f"{en}.", f"{zh}。")
    return Sentence(f"{en}, or choose a smaller model, such as:", f"{zh}，或选择更小的模型，例如：")


@sentence.register
def _(reason: FormatUnsupported) -> Sentence:
    why = [sentence(each) for each in reason.reasons]
    stored = size(reason.stored_bytes)
    return Sentence(
        f"{reason.model} is stored as {reason.format} ({stored}), which can't be computed here: "
        f"{'; '.join(each.en for each in why)}.",
        spaced(f"{reason.model} 以", reason.format, f"存储（{stored}），这里无法计算：")
        + f"{'；'.join(each.zh for each in why)}。",
    )


@sentence.register
def _(reason: Use16BitCheckpoint) -> Sentence:
    en = "Use the 16-bit checkpoint; it is quantised to int8 or int4 while it loads if necessary"
    zh = "请使用 16 位的权重；加载时会按需量化为 int8 或 int4"
    return Sentence(f"{en}:", f"{zh}：") if reason.model else Sentence(f"{en}.", f"{zh}。")
