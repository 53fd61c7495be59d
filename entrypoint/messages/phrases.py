"""Parts of sentences that several modules need."""

from __future__ import annotations

from collections.abc import Sequence

from app.contract.plan import CPU, gpus_of
from entrypoint.messages.sentence import Sentence


def place(devices: Sequence[str]) -> Sentence:
    """Where a rung runs: on these devices."""
    count = len(gpus_of(devices))
    if not count:
        return Sentence("the CPU", "CPU")
    gpus = Sentence("the GPU", "显卡") if count == 1 else Sentence(f"{count} GPUs together", f"{count} 张显卡")
    return Sentence(f"{gpus.en} and the CPU", f"{gpus.zh}和 CPU") if CPU in devices else gpus


def memory_zh(devices: Sequence[str]) -> str:
    """The Chinese word for the devices' memory; English has one word for both kinds."""
    if CPU not in devices:
        return "显存"
    return "显存和内存" if gpus_of(devices) else "内存"


def at_once(max_num_seqs: int) -> Sentence:
    """How many requests are answered together."""
    if max_num_seqs == 1:
        return Sentence("one request at a time", "一次处理一个请求")
    return Sentence(f"up to {max_num_seqs} requests at once", f"可同时处理 {max_num_seqs} 个请求")


def spaced(*parts: str) -> str:
    """Chinese joined so that a space stands between a Chinese character and a Latin letter or a number."""
    text = ""
    for part in parts:
        # Punctuation has its own space.
        borders = text[-1:].isalnum() and part[:1].isalnum() and text[-1:].isascii() != part[:1].isascii()
        text += " " * borders + part
    return text
