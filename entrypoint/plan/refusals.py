"""What a refused plan says: why nothing can be started, and the line of `.env` that would change it."""

from __future__ import annotations

from app.contract.plan import Host, Refusal, Rung, Text
from entrypoint.plan.inputs import Question
from entrypoint.plan.messages import place, too_little_ram
from entrypoint.units import size


def no_gpu(host: Host) -> Refusal:
    """A GPU is required and none is seen."""
    note = host.gpu_note or Text("No GPU is seen.", "没有看到显卡。")
    return Refusal(
        why=Text(f"GLM_REQUIRE_GPU=1, and no GPU is seen. {note.en}", f"GLM_REQUIRE_GPU=1，但没有看到显卡。{note.zh}"),
        remedy=Text(
            "Give the container a GPU (docker/compose.gpu.yaml), or allow the CPU with this line in .env:",
            "请把显卡交给容器（docker/compose.gpu.yaml），或在 .env 中用这一行允许使用 CPU：",
        ),
        env_line="GLM_REQUIRE_GPU=0",
    )


BLANK = Text("", "")
RELAXED = {"GLM_PRECISION": "auto", "GLM_REQUIRE_GPU": "0"}


def nothing_fits(
    question: Question, rungs: tuple[Rung, ...], smallest: Rung | None, name: str | None, would: Rung | None
) -> Refusal:
    """No rung may be used: what the smallest lacks, and the setting whose change helps (a plan was made to be sure)."""
    why = _lack(question, rungs, smallest)
    if name in RELAXED and would:
        remedy = Text(
            f"This line in .env makes it fit, as {would.precision} on {place(would).en} "
            f"with {would.max_model_len} tokens of context ({size(would.need_bytes)}):",
            f"在 .env 中写上这一行就放得下：{place(would).zh}，{would.precision}，"
            f"上下文 {would.max_model_len} 个词元（{size(would.need_bytes)}）：",
        )
        return Refusal(why, remedy, f"{name}={RELAXED[name]}")
    if name and would:
        return _reduce(why, name, would)
    return _smaller_model(question, why)


def _reduce(why: Text, name: str, would: Rung) -> Refusal:
    """The setting is a number, and a smaller one would fit."""
    value = would.max_num_seqs if name == "GLM_MAX_NUM_SEQS" else would.max_model_len
    each, each_zh = "", ""
    if name == "GLM_MAX_NUM_SEQS":
        each = f", with {would.max_model_len} tokens of context for each"
        each_zh = f"，每个请求的上下文为 {would.max_model_len} 个词元"
    remedy = Text(
        f"Reduce {name} to {value} or less: {would.precision} on {place(would).en} then needs "
        f"{size(would.need_bytes)}{each}. In .env:",
        f"请把 {name} 减小到 {value} 或更小：{place(would).zh}，{would.precision}，"
        f"需要 {size(would.need_bytes)}{each_zh}。在 .env 中写上：",
    )
    return Refusal(why, remedy, f"{name}={value}")


def _container_limit(rung: Rung, host: Host) -> Text:
    """What bounds a rung that takes host memory, where it is less than the machine has."""
    if host.limit_bytes is None or "cpu" not in rung.device.split("+"):
        return BLANK
    limit = size(host.limit_bytes)
    return Text(f" The container's RAM limit is {limit}.", f"容器内存上限为 {limit}。")


def _lack(question: Question, rungs: tuple[Rung, ...], smallest: Rung | None) -> Text:
    """What the smallest plan needs, of the device or of the host; or why no rung can be used at all."""
    model = question.model.name
    if smallest is None:
        first = rungs[0].reason
        return Text(f"No precision can be used here: {first.en}.", f"没有可用的精度：{first.zh}。")
    if not smallest.short_bytes and smallest.host_need_bytes > question.host.available_bytes:
        loading = too_little_ram(smallest, question.host)
        return Text(f"{model} can't be loaded: {loading.en}.", f"无法加载 {model}：{loading.zh}。")
    need, free, short = size(smallest.need_bytes), size(smallest.free_bytes), size(smallest.short_bytes)
    length, limit = smallest.max_model_len, _container_limit(smallest, question.host)
    several = smallest.max_num_seqs > 1
    slots = Text(f" for each of {smallest.max_num_seqs} requests", f" × {smallest.max_num_seqs}") if several else BLANK
    return Text(
        f"{model} does not fit. Smallest plan ({smallest.precision} on {place(smallest).en}, "
        f"{length} tokens{slots.en}) needs {need}, free {free}, short {short}.{limit.en}",
        f"{model} 放不下。最小方案（{place(smallest).zh}，{smallest.precision}，{length} 个词元{slots.zh}）"
        f"需要 {need}，可用 {free}，差 {short}。{limit.zh}",
    )


def _smaller_model(question: Question, why: Text) -> Refusal:
    demo = question.model.name == "demo"
    return Refusal(
        why=why,
        remedy=Text(
            "Give this machine or container more memory" + ("." if demo else ", or choose a smaller model, such as:"),
            "请为这台机器或容器提供更多内存" + ("。" if demo else "，或选择更小的模型，例如："),
        ),
        env_line=None if demo else "GLM_MODEL=demo",
    )


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
