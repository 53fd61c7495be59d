"""Sentences of `entrypoint.reasons.plan`: clauses without a full stop."""

from __future__ import annotations

from entrypoint.messages.phrases import memory_zh, place, spaced
from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons.plan import (
    ContainerLimit,
    ExpertsStay,
    Fit,
    FitsAsStored,
    FitsShorter,
    FitsToo,
    FitsWithCpu,
    Fp8Expands,
    GpuUnusable,
    HighestThatFits,
    LayersIndivisible,
    NoFp8Kernels,
    PrecisionExcluded,
    RanOutBefore,
    RanOutWithSlots,
    RowsNotInBlocks,
    ServedBefore,
    SetAndFits,
    ShortOfMemory,
    ShortOfRam,
    StoredOtherwise,
    WeightForm,
)
from entrypoint.units import size


def _numbers(fit: Fit) -> Sentence:
    need, free = size(fit.need_bytes), size(fit.free_bytes)
    return Sentence(f"needs {need} of {free} free", f"需要 {need}，可用 {free}")


def _spread(fit: Fit) -> Sentence:
    """How the layers are divided; nothing for one device."""
    if not fit.layers:
        return Sentence("", "")
    where, counts = place(fit.devices), " + ".join(map(str, fit.layers))
    return Sentence(f" on {where.en} ({counts} layers)", spaced("分布在", where.zh, f"上（{counts} 层），"))


@sentence.register
def _(reason: HighestThatFits) -> Sentence:
    spread, numbers = _spread(reason), _numbers(reason)
    return Sentence(
        f"the highest precision that fits{spread.en}: {numbers.en}",
        f"{spread.zh}{memory_zh(reason.devices)}放得下的最高精度：{numbers.zh}",
    )


@sentence.register
def _(reason: SetAndFits) -> Sentence:
    spread, numbers = _spread(reason), _numbers(reason)
    return Sentence(
        f"set by you, and it fits{spread.en}: {numbers.en}",
        f"由你指定，{spread.zh}{memory_zh(reason.devices)}放得下：{numbers.zh}",
    )


@sentence.register
def _(reason: FitsWithCpu) -> Sentence:
    spread, numbers = _spread(reason), _numbers(reason)
    return Sentence(
        f"GPU memory alone is too small, but it fits{spread.en}: {numbers.en}",
        f"仅靠显存放不下，{spread.zh.removesuffix('，')}才放得下：{numbers.zh}",
    )


@sentence.register
def _(reason: FitsShorter) -> Sentence:
    spread, numbers = _spread(reason), _numbers(reason)
    length, target = reason.max_model_len, reason.target_model_len
    return Sentence(
        f"fits{spread.en} with a context of {length} instead of {target} tokens: {numbers.en}",
        f"上下文从 {target} 缩短到 {length} 个 token 后，{spread.zh}{memory_zh(reason.devices)}放得下：{numbers.zh}",
    )


@sentence.register
def _(reason: FitsAsStored) -> Sentence:
    spread, numbers = _spread(reason), _numbers(reason)
    return Sentence(
        f"as stored ({reason.format}), and it fits{spread.en}: {numbers.en}",
        f"按存储的格式（{reason.format}），{spread.zh}{memory_zh(reason.devices)}放得下：{numbers.zh}",
    )


@sentence.register
def _(reason: ShortOfMemory) -> Sentence:
    need, free, short = size(reason.need_bytes), size(reason.free_bytes), size(reason.short_bytes)
    return Sentence(
        f"needs {need}, {free} free: {short} short",
        f"需要 {need} {memory_zh(reason.devices)}，可用 {free}，差 {short}",
    )


@sentence.register
def _(reason: LayersIndivisible) -> Sentence:
    return Sentence("a layer can't be divided between devices", "同一层不能拆分到多个设备")


@sentence.register
def _(reason: ContainerLimit) -> Sentence:
    limit = size(reason.limit_bytes)
    return Sentence(f"The container's memory limit is {limit}", f"容器内存上限为 {limit}")


@sentence.register
def _(reason: ShortOfRam) -> Sentence:
    need, free = size(reason.need_bytes), size(reason.free_bytes)
    limit = size(reason.limit.limit_bytes) if reason.limit else None
    bound = Sentence(f" (container limit {limit})", f"（容器上限 {limit}）") if limit else Sentence("", "")
    return Sentence(
        f"loading needs {need} of RAM, {free} is free{bound.en}", f"加载需要 {need} 内存，可用 {free}{bound.zh}"
    )


@sentence.register
def _(reason: ExpertsStay) -> Sentence:
    precision, saved, weights = reason.precision, size(reason.saved_bytes), size(reason.weights_bytes)
    return Sentence(
        f"{precision} saves only {saved}: experts are not quantised, {weights} of weights remain",
        f"{precision} 只省下 {saved}：专家层不会量化，权重仍占 {weights}",
    )


CPU_FORMS = {
    "int8": Sentence(
        "on the CPU a scale for each row, activations keep 12 to 15 bits",
        "在 CPU 上每行一个缩放系数，激活值保留 12 到 15 位",
    ),
    "int4": Sentence(
        "on the CPU groups of 64 with a scale and a zero point", "在 CPU 上每 64 个一组，各有缩放系数和零点"
    ),
}
GPU_FORMS = {
    "int8": Sentence("on the GPU bitsandbytes' LLM.int8()", "在 GPU 上为 bitsandbytes 的 LLM.int8()"),
    "int4": Sentence("on the GPU bitsandbytes' nf4, blocks of 64", "在 GPU 上为 bitsandbytes 的 nf4，每块 64 个"),
}


@sentence.register
def _(reason: WeightForm) -> Sentence:
    forms = [CPU_FORMS[reason.precision]] if reason.on_cpu else []
    forms += [GPU_FORMS[reason.precision]] if reason.on_gpu else []
    return Sentence(
        f"{reason.precision}: {'; '.join(form.en for form in forms)}",
        f"{reason.precision}：{'；'.join(form.zh for form in forms)}",
    )


@sentence.register
def _(reason: FitsToo) -> Sentence:
    if reason.same_devices:
        return Sentence("fits too; a higher precision was chosen", "也放得下；已选择更高的精度")
    where = place(reason.chosen_devices)
    was = "was" if len(reason.chosen_devices) == 1 else "were"
    return Sentence(f"fits too; {where.en} {was} chosen", spaced("也放得下；已选择", where.zh))


@sentence.register
def _(reason: PrecisionExcluded) -> Sentence:
    setting = f"GLM_PRECISION={reason.requested}"
    if reason.fits:
        return Sentence(f"not considered: {setting} is set; it would fit", f"放得下（但你已指定 {setting}）")
    return Sentence(f"not considered: {setting} is set; it would not fit", f"放不下（且你已指定 {setting}）")


@sentence.register
def _(reason: ServedBefore) -> Sentence:
    return Sentence(
        f"not considered: {reason.precision} worked before, so it is retried first",
        f"未考虑：{reason.precision} 之前运行正常，所以先重试它",
    )


@sentence.register
def _(reason: RanOutBefore) -> Sentence:
    planned, setting = size(reason.planned_bytes), f"GLM_PRECISION={reason.precision}"
    return Sentence(
        f"not considered: it ran out of memory here before (planned {planned}); {setting} forces another try",
        f"未考虑：之前在这台机器上内存不足（预估 {planned}）；设置 {setting} 可强制重试",
    )


@sentence.register
def _(reason: RanOutWithSlots) -> Sentence:
    slots = reason.max_num_seqs
    return Sentence(
        f"memory ran out here with {slots} at once; GLM_MAX_NUM_SEQS={slots} forces another try",
        f"之前同时处理 {slots} 个请求时内存不足；设置 GLM_MAX_NUM_SEQS={slots} 可强制重试",
    )


@sentence.register
def _(reason: GpuUnusable) -> Sentence:
    return Sentence(reason.why.en, reason.why.zh)


@sentence.register
def _(reason: RowsNotInBlocks) -> Sentence:
    return Sentence(
        "4-bit kernels need rows in whole blocks of 64; this model's are not",
        "4 位内核要求每行长度为 64 的整数倍，这个模型不满足",
    )


@sentence.register
def _(reason: NoFp8Kernels) -> Sentence:
    return Sentence("this engine has no FP8 kernels", "此引擎没有 FP8 内核")


@sentence.register
def _(reason: Fp8Expands) -> Sentence:
    need = size(reason.need_bytes)
    return Sentence(f"FP8 would expand to bf16: needs {need}", f"FP8 会展开为 bf16：需要 {need}")


@sentence.register
def _(reason: StoredOtherwise) -> Sentence:
    stored, setting = f"{reason.stored} ({reason.format})", f"GLM_PRECISION={reason.requested}"
    return Sentence(
        f"the weights are stored as {stored}, but {setting} is set",
        f"权重以 {reason.stored}（{reason.format}）存储，但你已指定 {setting}",
    )
