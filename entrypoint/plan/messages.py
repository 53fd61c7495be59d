"""The sentences of a plan, in English and Chinese, each with its numbers."""

from __future__ import annotations

from app.contract.plan import Host, Rung, Text
from entrypoint.checkpoint.quantised import StoredFormat
from entrypoint.settings.settings import Settings
from entrypoint.units import size


def place(rung: Rung) -> Text:
    """Where a rung runs."""
    names = rung.device.split("+")
    gpus = len(names) - ("cpu" in names)
    if not gpus:
        return Text("the CPU", "CPU")
    where = Text("the GPU", "显卡") if gpus == 1 else Text(f"{gpus} GPUs together", f"{gpus} 张显卡")
    return Text(f"{where.en} and the CPU", f"{where.zh}和 CPU") if "cpu" in names else where


def at_once(rung: Rung) -> Text:
    """How many requests it answers together."""
    if rung.max_num_seqs == 1:
        return Text("one request at a time", "逐个处理请求")
    return Text(f"up to {rung.max_num_seqs} requests at once", f"同时处理最多 {rung.max_num_seqs} 个请求")


def chosen(rung: Rung, settings: Settings) -> Text:
    """Why this rung."""
    numbers = f"{size(rung.need_bytes)} / {size(rung.free_bytes)}"
    spread = _spread(rung)
    if settings.precision:
        return Text(
            f"set by you, and it fits{spread.en}: needs {size(rung.need_bytes)} of {size(rung.free_bytes)} free",
            f"由你指定，{spread.zh}放得下：需要/可用 {numbers}",
        )
    if rung.placements and "cpu" in rung.device.split("+"):
        return Text(
            f"no GPU holds it, but it fits{spread.en}: needs {size(rung.need_bytes)} of {size(rung.free_bytes)} free",
            f"仅用显卡放不下，{spread.zh}放得下：需要/可用 {numbers}",
        )
    return Text(
        f"the highest precision that fits{spread.en}: needs {size(rung.need_bytes)} of {size(rung.free_bytes)} free",
        f"{spread.zh}放得下的最高精度：需要/可用 {numbers}",
    )


def _spread(rung: Rung) -> Text:
    """How the layers of a rung on several devices are divided."""
    if not rung.placements:
        return Text("", "")
    # As `place` names them: the CPU last, though it comes first in a forward pass.
    ordered = sorted(rung.placements, key=lambda placement: placement.device == "cpu")
    counts = [str(placement.layers) for placement in ordered]
    where = place(rung)
    zh = _spaced("分布在", where.zh, f"上（{' + '.join(counts)} 层）")
    return Text(f" on {where.en} ({' + '.join(counts)} layers)", zh)


def _spaced(before: str, middle: str, after: str = "") -> str:
    """Chinese around a middle that may begin or end with a number or a Latin word: there a space belongs."""
    gap, gap_after = " " * middle[0].isascii(), " " * (middle[-1].isascii() and after != "")
    return before + gap + middle + gap_after + after


def shortened(rung: Rung, wanted: int) -> Text:
    """Why the lowest rung with less context than was aimed at."""
    spread = _spread(rung)
    return Text(
        f"fits{spread.en} with a context of {rung.max_model_len} instead of {wanted} tokens: "
        f"needs {size(rung.need_bytes)} of {size(rung.free_bytes)} free",
        f"上下文由 {wanted} 缩短到 {rung.max_model_len} 个词元后，{spread.zh}放得下："
        f"需要/可用 {size(rung.need_bytes)} / {size(rung.free_bytes)}",
    )


def lacking(rung: Rung, host: Host) -> Text:
    """What a rung that does not fit lacks: memory of its devices, or the host's for loading."""
    large = too_large(rung)
    if rung.host_need_bytes <= host.available_bytes:
        if not rung.placements or rung.need_bytes > rung.free_bytes:
            return large
        return Text(
            f"{large.en}, since a layer can't be divided between devices", f"{large.zh}，因为同一层不能拆分到多个设备"
        )
    loading = too_little_ram(rung, host)
    return Text(f"{large.en}; {loading.en}", f"{large.zh}；{loading.zh}") if rung.short_bytes else loading


def too_little_ram(rung: Rung, host: Host) -> Text:
    """The host, or what the container may use of it, is too small even to load a model onto GPUs."""
    need, free = size(rung.host_need_bytes), size(host.available_bytes)
    if host.limit_bytes:
        limit = size(host.limit_bytes)
        return Text(
            f"Container RAM limit {limit}; loading needs {need}, and {free} are free",
            f"容器内存上限 {limit}；加载需要 {need}，可用 {free}",
        )
    return Text(f"loading needs {need} of RAM, and {free} are free", f"加载需要 {need} 内存，可用 {free}")


def too_large(rung: Rung) -> Text:
    """What a rung lacks."""
    return Text(
        f"needs {size(rung.need_bytes)}, {size(rung.free_bytes)} are free: {size(rung.short_bytes)} short",
        f"需要 {size(rung.need_bytes)}，可用 {size(rung.free_bytes)}：差 {size(rung.short_bytes)}",
    )


def fits_too(rung: Rung, better: Rung) -> Text:
    """Why a rung that fits is not taken."""
    if rung.device == better.device:
        return Text("fits too; a higher precision was chosen", "也放得下；已选择更高的精度")
    was = "were" if "+" in better.device else "was"
    return Text(f"fits too; {place(better).en} {was} chosen", _spaced("也放得下；已选择", place(better).zh))


def not_asked(asked: str, fits: bool) -> Text:
    """Why a rung beside the one that was set is not taken."""
    if fits:
        return Text(f"would fit; GLM_PRECISION={asked} excludes it", f"放得下；但 GLM_PRECISION={asked} 排除了它")
    return Text(f"would not fit; GLM_PRECISION={asked} excludes it", f"放不下；而且 GLM_PRECISION={asked} 排除了它")


ODD_SHAPE = Text(
    "bitsandbytes' 4-bit kernels need rows in whole blocks of 64; this model's are not",
    "bitsandbytes 的 4 位内核要求每行为 64 的整数倍，这个模型不满足",
)


def experts_stay(reason: Text, precision: str, saved: int, weights: int) -> Text:
    """A quantised rung's reason, and how little quantising does for a mixture of experts."""
    return Text(
        f"{reason.en}; {precision} saves only {size(saved)}: bitsandbytes does not quantise experts, "
        f"{size(weights)} of weights remain",
        f"{reason.zh}；{precision} 只省下 {size(saved)}：bitsandbytes 不量化专家层，权重仍占 {size(weights)}",
    )


def kept(precision: str) -> Text:
    """Why another rung is not taken after a death in service."""
    return Text(f"{precision} served before and is tried again first", f"先前使用 {precision}，先再试一次")


def as_stored(stored: StoredFormat, rung: Rung) -> Text:
    """Why this rung: it is the only one."""
    numbers = f"{size(rung.need_bytes)} / {size(rung.free_bytes)}"
    return Text(
        f"as stored ({stored.format}), and it fits: needs {size(rung.need_bytes)} of {size(rung.free_bytes)} free",
        f"按存储的格式（{stored.format}），放得下：需要/可用 {numbers}",
    )


def not_stored_so(stored: StoredFormat, asked: str) -> Text:
    """Why another precision than the stored one can't be had."""
    return Text(
        f"the weights are stored as {stored.precision} ({stored.format}); GLM_PRECISION={asked} asks for another",
        f"权重以 {stored.precision}（{stored.format}）存储，而 GLM_PRECISION={asked} 要求另一种精度",
    )
