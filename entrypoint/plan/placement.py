"""A rung laid out on its devices: which layers lie where, and what that takes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.contract.plan import Device, Placement, Rung, Term, Text
from entrypoint.plan.footprint import Load, Span, estimate, host_bytes, runtime_bytes
from entrypoint.plan.inputs import Question, shares_host
from entrypoint.plan.ladder import CPU, Candidate, Devices

UNJUDGED = Text("", "")
Need = Callable[[int, Span], tuple[Term, ...]]
"""Terms of a span of layers on the device with this place in the list."""


def lay_out(question: Question, candidate: Candidate, max_model_len: int, max_num_seqs: int) -> Rung:
    """The rung with its terms at these lengths, spread over its devices as evenly as its layers allow.

    Several GPUs are filled to the same share of their free memory. Where the CPU is among them, it gets what the GPUs
    cannot hold. Where it does not fit, what is too much lies on the first device.
    """
    need, free = _budget(question, candidate, max_model_len, max_num_seqs)
    spans = _balanced(question.shape.layers, candidate.devices, need, free)
    parts = [need(index, span) for index, span in enumerate(spans)]
    placements = tuple(
        Placement(device.uuid if device else CPU, span.first, span.layers, _total(part), room)
        for device, span, part, room in zip(candidate.devices, spans, parts, free, strict=True)
    )
    return Rung(
        precision=candidate.precision,
        device=candidate.device_name,
        compute_dtype=candidate.dtype,
        terms=_sum(parts),
        need_bytes=sum(placement.need_bytes for placement in placements),
        free_bytes=sum(free),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        verdict="fits",
        reason=UNJUDGED,
        placements=placements if len(placements) > 1 else (),
        host_need_bytes=_host_need(candidate),
    )


def fits(question: Question, candidate: Candidate, max_model_len: int, max_num_seqs: int) -> bool:
    """Whether every device holds its part at these lengths, and the host what an engine takes beside."""
    if _host_need(candidate) > question.host.available_bytes:
        return False
    need, free = _budget(question, candidate, max_model_len, max_num_seqs)
    return _within(_fill(question.shape.layers, need, free, 100), need, free, 100)


def lacking_bytes(question: Question, rung: Rung) -> int:
    """What it lacks on its devices and of the host; 0 where it fits."""
    return rung.short_bytes + max(0, rung.host_need_bytes - question.host.available_bytes)


def cpu_layers(rung: Rung) -> int:
    """Layers on the CPU of a rung that is spread."""
    return sum(placement.layers for placement in rung.placements if placement.device == CPU)


def _host_need(candidate: Candidate) -> int:
    """What an engine on GPUs takes of the host; where the host holds a part of the model, it is counted there."""
    counted = any(device is None or shares_host(device) for device in candidate.devices)
    return 0 if counted else host_bytes(candidate.precision)


def _budget(question: Question, candidate: Candidate, max_model_len: int, max_num_seqs: int) -> tuple[Need, list[int]]:
    """What a span takes on each device, and the free memory of each."""
    terms = [_terms(question, candidate, device, max_model_len, max_num_seqs) for device in candidate.devices]
    free = [question.free_bytes(device) for device in candidate.devices]
    return lambda index, span: terms[index](span), free


def _terms(
    question: Question, candidate: Candidate, device: Device | None, max_model_len: int, max_num_seqs: int
) -> Callable[[Span], tuple[Term, ...]]:
    """What spans of layers take on one device."""
    load = Load(
        candidate.precision,
        candidate.dtype,
        max_model_len,
        max_num_seqs,
        packed=device is None and question.host.cpu_packs_int4,
        avx512=question.host.cpu_avx512,
        double_quant=question.stored is None or question.stored.double_quant,
        stored_bytes=question.stored.bytes if question.stored and candidate.precision == "fp8" else None,
    )
    # The engine's own memory on the host, where that is the budget of a GPU's part too.
    shared, beside = 0, host_bytes(candidate.precision)
    if device is None:
        shared = beside - runtime_bytes(None, candidate.precision) if candidate.mixed else 0
    elif shares_host(device):
        shared = beside

    def terms(span: Span) -> tuple[Term, ...]:
        found = estimate(question.layout, question.shape, load, device, span)
        return tuple(replace(term, bytes=term.bytes + shared) if term.name == "runtime" else term for term in found)

    return terms


def _balanced(layers: int, devices: Devices, need: Need, free: Sequence[int]) -> list[Span]:
    """The fill with the least share of free memory; the CPU is not to be balanced with GPUs."""
    full = _fill(layers, need, free, 100)
    if None in devices or not _within(full, need, free, 100):
        return full
    low, high = 0, 100
    while high - low > 1:
        percent = (low + high) // 2
        enough = _within(_fill(layers, need, free, percent), need, free, percent)
        low, high = (low, percent) if enough else (percent, high)
    return _fill(layers, need, free, high)


def _fill(layers: int, need: Need, free: Sequence[int], percent: int) -> list[Span]:
    """Gives each device from the last to the second what it holds of the last layers; the first takes the rest.

    A device gets at least one layer, and no more than `percent` of its free memory can take.
    """
    spans: list[Span] = []
    end = layers
    for index in range(len(free) - 1, 0, -1):
        fewest, too_many = 1, end - index + 1
        while too_many - fewest > 1:
            count = (fewest + too_many) // 2
            held = _total(need(index, Span(end - count, count))) <= free[index] * percent // 100
            fewest, too_many = (count, too_many) if held else (fewest, count)
        spans.insert(0, Span(end - fewest, fewest))
        end -= fewest
    return [Span(0, end), *spans]


def _within(spans: Sequence[Span], need: Need, free: Sequence[int], percent: int) -> bool:
    return all(_total(need(index, span)) <= free[index] * percent // 100 for index, span in enumerate(spans))


def _total(terms: Sequence[Term]) -> int:
    return sum(term.bytes for term in terms)


def _sum(parts: Sequence[tuple[Term, ...]]) -> tuple[Term, ...]:
    """Term by term over all devices."""
    return tuple(Term(terms[0].name, _total(terms)) for terms in zip(*parts, strict=True))
