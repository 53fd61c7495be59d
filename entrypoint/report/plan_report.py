"""A plan as people read it, in one order everywhere: what was chosen and why, each other rung with what it lacks, where
every value comes from, and what was measured. The page and `/api/plan` keep the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.contract.plan import CPU, Device, Host, Origin, OriginKind, Plan, Rung, TermName, Verdict, gpus_of
from entrypoint.messages.phrases import at_once
from entrypoint.report.speeds import memory_speed, speed, speed_range
from entrypoint.report.styled_table import (
    BLANK,
    Line,
    StyledText,
    TableRow,
    Unit,
    labelled,
    plain,
    table,
    table_width,
    unit_for,
)
from entrypoint.units import size

LOG_WIDTH = 118
Groups = Mapping[str, tuple[TermName, ...]]
TERMS: Groups = {
    "weights": ("weights",),
    "cache": ("kv_cache",),
    "activations": ("activations",),
    "loading": ("load_peak",),
    "runtime": ("runtime",),
    "margin": ("margin",),
}
FEWER_TERMS: Groups = {
    "weights": ("weights",),
    "cache": ("kv_cache",),
    "activations": ("activations",),
    "overhead": ("load_peak", "runtime", "margin"),
}
"""For a narrow terminal, and for tables with a row for each length."""
FORM_CODE = "weight_form"
SPEED_TITLE = "tok/s est."
"""Of one request, estimated."""
MARKS: Mapping[Verdict, str] = {"chosen": "→", "fits": " ", "too_large": "✗", "unsupported": "✗", "excluded": "-"}
STYLES: Mapping[Verdict, str] = {"chosen": "bold green", "too_large": "red", "unsupported": "red", "excluded": "dim"}
KINDS: Mapping[OriginKind, str] = {
    "set": "set by you",
    "measured": "measured",
    "default": "default",
    "stepped_down": "stepped down",
}


def plan_lines(plan: Plan, width: int = LOG_WIDTH) -> list[str]:
    """The same as plain lines without empty ones, for a log without a terminal."""
    return [line for line in plain(report(plan, width)) if line]


def report(plan: Plan, width: int) -> list[Line]:
    """All parts of a plan, an empty line between them."""
    parts = [headline(plan, width), ladder(plan, width), _origins(plan, width), machine(plan, width)]
    return [line for part in parts if part for line in (*part, BLANK)][:-1]


def headline(plan: Plan, width: int) -> list[Line]:
    """What was chosen and why, or the refusal with the line to change."""
    lines: list[Line] = []
    if rung := plan.chosen:
        slots = at_once(rung.max_num_seqs).en
        where = place(plan.devices, rung.devices)
        what = f"{rung.precision} on {where}, {rung.max_model_len} tokens of context, {slots}"
        lines += labelled("Chosen", what, width, "bold green")
        lines += labelled("", "; ".join((rung.reason.en, *remarks(rung))), width)
        lines += labelled("", f"the cache takes {size(rung.slot_bytes)} for each request", width)
        if expected := speed(rung):
            lines += labelled("", expected, width)
        for form in (text for text in rung.notes if text.code == FORM_CODE):
            lines += labelled("", form.en, width)
    if plan.refusal:
        lines += labelled("Refused", plan.refusal.why.en, width, "bold red")
        lines += labelled("", plan.refusal.remedy.en, width)
        if plan.refusal.env_line:
            lines += labelled("", plan.refusal.env_line, width, "bold")
    return lines


def ladder(plan: Plan, width: int) -> list[Line]:
    """Every rung with its terms in one unit, the chosen one first."""
    if not plan.rungs:
        return []
    unit = unit_for(max(rung.need_bytes for rung in plan.rungs))
    estimates = any(rung.speed for rung in plan.rungs)
    for groups, with_speed in ((TERMS, estimates), (FEWER_TERMS, estimates), (FEWER_TERMS, False)):
        titles = [f"  {unit.name}", "need", "free", *groups, *([SPEED_TITLE] * with_speed), ""]
        rows = [_row(plan, rung, groups, unit, with_speed) for rung in plan.in_order]
        if table_width(titles, rows) <= width:
            break
    return table(titles, rows, width, frozenset({0, len(titles) - 1}))


def machine(plan: Plan, width: int) -> list[Line]:
    """The model and what was measured."""
    model, host = plan.model, plan.host
    facts = f"{model.name}: {model.parameters / 1e6:,.1f} M parameters, {size(model.stored_bytes)} as "
    lines = labelled("Model", f"{facts}{model.stored_dtype}, context up to {model.max_model_len}", width)
    limit = f", container limit {size(host.limit_bytes)}" if host.limit_bytes else ""
    lines += labelled("Memory", f"{size(host.available_bytes)} free of {size(host.ram_bytes)} RAM{limit}", width)
    if host.held_bytes:
        lines += labelled("", f"{size(host.held_bytes)} of it used by a running Berth", width)
    bf16 = "native bf16" if host.cpu_bf16 else "bf16 computed as fp32"
    reads = f", reads {memory_speed(host.memory_bytes_per_second)}" if host.memory_bytes_per_second else ""
    lines += labelled("CPU", f"{host.cpu_count} of {host.cpu_name}, {bf16}{reads}", width)
    for device in plan.devices:
        lines += _device(device, width)
    return lines + _gpu_notes(host, width)


def place(devices: Sequence[Device], names: Sequence[str]) -> str:
    """`GPU 0`, `CPU`, or several as `GPU 0+1`, from a rung's devices."""
    indices = {device.uuid: str(device.index) for device in devices}
    gpus = "+".join(indices.get(name, name) for name in gpus_of(names))
    return "+".join([f"GPU {gpus}"] * bool(gpus) + ["CPU"] * (CPU in names))


def lacks(rung: Rung, unit: Unit) -> str:
    """The verdict in a word or two."""
    if rung.verdict != "too_large":
        return rung.verdict
    return f"{unit.number(rung.short_bytes)} short" if rung.short_bytes else "too large"


def note(rung: Rung) -> str:
    """What the numbers of a rung don't show; the reason of the chosen one stands above the table."""
    if rung.verdict == "chosen":
        return ""
    reason = () if rung.reason.code == "short_of_memory" else (rung.reason.en,)
    return "; ".join((*reason, *remarks(rung)))


def remarks(rung: Rung) -> tuple[str, ...]:
    """What is to be known of a rung beside its reason; what int8 and int4 are has a line of its own."""
    return tuple(text.en for text in rung.notes if text.code != FORM_CODE)


def numbers(rung: Rung, groups: Groups, unit: Unit) -> tuple[str, ...]:
    """Sums of the rung's terms, one a group."""
    terms = {term.name: term.bytes for term in rung.terms}
    return tuple(unit.number(sum(terms.get(name, 0) for name in names)) for names in groups.values())


def _row(plan: Plan, rung: Rung, groups: Groups, unit: Unit, with_speed: bool) -> TableRow:
    style = STYLES.get(rung.verdict, "")
    faint = "dim" if rung.verdict in ("unsupported", "excluded") else "bold" if rung.verdict == "chosen" else ""
    name = f"{MARKS[rung.verdict]} {rung.precision} {place(plan.devices, rung.devices)}"
    cells = (
        StyledText(name, style),
        StyledText(unit.number(rung.need_bytes), faint),
        StyledText(unit.number(rung.free_bytes), faint),
        *(StyledText(number, faint or "dim") for number in numbers(rung, groups, unit)),
        *([StyledText(speed_range(rung.speed, "-") if rung.speed else "", faint)] * with_speed),
        StyledText(lacks(rung, unit), style),
    )
    notes = (note(rung),) if note(rung) else ()
    return TableRow(cells, (*placements(plan, rung), *notes))


def placements(plan: Plan, rung: Rung) -> tuple[str, ...]:
    """Which layers would lie where, a device a line: `GPU 0: layers 0-27, 21.40 GiB of 23.50 GiB`."""
    if rung.verdict == "too_large":  # what is too much would all be shown on one device
        return ()
    return tuple(
        f"{place(plan.devices, (part.device,))}: {layers(part.first_layer, part.layers)}, "
        f"{size(part.need_bytes)} of {size(part.free_bytes)}"
        for part in rung.placements
    )


def layers(first: int, count: int) -> str:
    """`layers 0-27`."""
    if count == 0:
        return "no layer"
    return f"layer {first}" if count == 1 else f"layers {first}-{first + count - 1}"


def _origins(plan: Plan, width: int) -> list[Line]:
    if not plan.origins:
        return []
    names = max(len(origin.name) for origin in plan.origins) + 2
    values = {origin.name: _value(plan, origin) for origin in plan.origins}
    room = min(24, max(map(len, values.values()))) + 2
    lines: list[Line] = [(StyledText("Settings and where they come from", "dim"),)]
    for origin in plan.origins:
        value = values[origin.name]
        head: Line = (StyledText(f"  {origin.name.ljust(names)}"), StyledText(value.ljust(room), "bold"))
        why = "see above" if plan.chosen and origin.why == plan.chosen.reason else origin.why.en
        why = why if why.lower().startswith(KINDS[origin.kind]) else f"{KINDS[origin.kind]}: {why}"
        rest = labelled("", why, width, "dim", indent=2 + names + room)
        lines += [(*head, *rest[0][1:]), *rest[1:]] if len(value) <= room - 2 else [head, *rest]
    return lines


def _value(plan: Plan, origin: Origin) -> str:
    """A device by its place; the UUID stands with what was measured."""
    return place(plan.devices, plan.chosen.devices) if origin.name == "device" and plan.chosen else origin.value


def _device(device: Device, width: int) -> list[Line]:
    memory = "shares the host's memory" if device.unified else "memory not reported by the driver"
    if device.free_bytes is not None and device.total_bytes is not None:
        memory = f"{size(device.free_bytes)} free of {size(device.total_bytes)}"
    if device.reserved_bytes:
        memory += f", {size(device.reserved_bytes)} reserved by the driver"
    capability = ".".join(map(str, device.compute_capability or ())) or "unknown"
    if device.memory_bytes_per_second:
        memory += f", {memory_speed(device.memory_bytes_per_second)}"
    text = f"{device.name}: {memory}, compute capability {capability}, driver {device.driver}, {device.uuid}"
    lines = labelled(f"GPU {device.index}", text, width)
    if device.unusable:
        lines += labelled("", device.unusable.en, width, "red")
    return lines


def _gpu_notes(host: Host, width: int) -> list[Line]:
    lines = labelled("GPU", f"none. {host.gpu_note.en}", width) if host.gpu_note else []
    for text in host.gpu_notes:
        lines += labelled("", text.en, width)
    return lines
