"""Sentences of `entrypoint.reasons.setting`: clauses that follow "measured:" or "default:"."""

from __future__ import annotations

from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons.setting import (
    CacheWithinWeights,
    ChunkBoundsMemory,
    ContextFromMemory,
    ContextKeepsGpuLayers,
    CpuSlotLimit,
    DefaultContext,
    FreeOnDevices,
    ModelLimit,
    SetByYou,
    SlotLimit,
    SlotsFromMemory,
    SlotsKeepGpuLayers,
)
from entrypoint.units import size


@sentence.register
def _(reason: SetByYou) -> Sentence:
    return Sentence("set by you", "由你设置")


@sentence.register
def _(reason: FreeOnDevices) -> Sentence:
    free = size(reason.free_bytes)
    if reason.devices == 1:
        return Sentence(f"{free} free on this device", f"该设备可用 {free}")
    return Sentence(f"{free} free on these devices", f"这些设备共可用 {free}")


@sentence.register
def _(reason: ModelLimit) -> Sentence:
    return Sentence("the model's maximum", "模型自身的上限")


@sentence.register
def _(reason: DefaultContext) -> Sentence:
    return Sentence(
        "the default; memory left over goes to more requests at once first",
        "默认值；剩余内存先用来增加同时处理的请求数",
    )


@sentence.register
def _(reason: ContextKeepsGpuLayers) -> Sentence:
    return Sentence(
        "the default; a longer context would move more layers to the CPU", "默认值；更长的上下文会使更多层落到 CPU 上"
    )


@sentence.register
def _(reason: ContextFromMemory) -> Sentence:
    free = size(reason.free_bytes)
    return Sentence(f"the longest that fits in {free} of free memory", f"可用的 {free} 所能容纳的最大长度")


@sentence.register
def _(reason: SlotsKeepGpuLayers) -> Sentence:
    return Sentence("more would move more layers to the CPU", "更多会使更多层落到 CPU 上")


@sentence.register
def _(reason: SlotLimit) -> Sentence:
    return Sentence(
        f"memory for {reason.max_num_seqs} at once, the default limit; raise it with GLM_MAX_NUM_SEQS",
        f"可同时处理 {reason.max_num_seqs} 个请求（默认上限，可用 GLM_MAX_NUM_SEQS 调高）",
    )


@sentence.register
def _(reason: SlotsFromMemory) -> Sentence:
    free, length = size(reason.free_bytes), reason.max_model_len
    return Sentence(
        f"as many as fit in {free} of free memory, with {length} tokens for each",
        f"可用的 {free} 所能容纳的最大数量，每个请求 {length} 个 token",
    )


@sentence.register
def _(reason: CpuSlotLimit) -> Sentence:
    most, one = reason.max_num_seqs, size(reason.slot_bytes)
    return Sentence(
        f"at most {most} at once on a CPU; each further one takes {one}; raise it with GLM_MAX_NUM_SEQS",
        f"CPU 上最多同时处理 {most} 个请求；每增加一个占用 {one}，可用 GLM_MAX_NUM_SEQS 调高",
    )


@sentence.register
def _(reason: CacheWithinWeights) -> Sentence:
    cache, weights, setting = size(reason.cache_bytes), size(reason.weights_bytes), reason.setting
    return Sentence(
        f"on a CPU the cache ({cache}) stays no larger than the weights ({weights}); raise it with {setting}",
        f"CPU 上 KV 缓存（{cache}）不超过权重（{weights}），可用 {setting} 调高",
    )


@sentence.register
def _(reason: ChunkBoundsMemory) -> Sentence:
    return Sentence("limits the memory that a long prompt takes", "限制长提示词占用的内存")
