"""A candidate laid out on its devices: which layers lie where, and what that takes of each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.contract.plan import CPU, Device, Placement, Rung, SpeedEstimate, Term, Verdict
from entrypoint.messages.sentence import text
from entrypoint.plan.footprint import LayerSpan, Load, estimate, host_bytes, runtime_bytes
from entrypoint.plan.inputs import PlanInputs, shares_host
from entrypoint.plan.ladder import Candidate
from entrypoint.plan.speed import ReadPart, share_of, speed_estimate, token_bytes
from entrypoint.reasons.reason import Reason

Spans = tuple[LayerSpan, ...]
"""One for each device of a candidate, in their order."""


@dataclass(frozen=True)
class Budget:
    """What a candidate takes at a context of so many tokens with so many slots, against what is free."""

    inputs: PlanInputs
    candidate: Candidate
    max_model_len: int
    max_num_seqs: int

    def fits(self) -> bool:
        """Whether every device holds its part, and the host what an engine takes beside."""
        return self.host_need_bytes <= self.inputs.host.available_bytes and self._within(self._full, 100)

    @functools.cached_property
    def host_need_bytes(self) -> int:
        """What an engine on GPUs takes of the host; 0 if the host holds a part of the model: it is counted there."""
        counted = any(device is None or shares_host(device) for device in self.candidate.devices)
        return 0 if counted else host_bytes(self.candidate.precision)

    @functools.cached_property
    def placements(self) -> tuple[Placement, ...]:
        """Its layers spread as evenly as possible, one placement a device.

        Several GPUs are filled to the same share of their free memory. If the CPU is among them, it gets what the GPUs
        cannot hold. If they are too small, what is too much lies on the first device.
        """
        return tuple(
            Placement(device.uuid if device else CPU, span.first, span.layers, _total(terms), free)
            for device, span, terms, free in zip(
                self.candidate.devices, self._balanced, self._parts, self._free, strict=True
            )
        )

    @property
    def terms(self) -> tuple[Term, ...]:
        """Summed over its devices."""
        return tuple(Term(terms[0].name, _total(terms)) for terms in zip(*self._parts, strict=True))

    @property
    def need_bytes(self) -> int:
        """Of all its devices."""
        return sum(placement.need_bytes for placement in self.placements)

    @property
    def free_bytes(self) -> int:
        """On all its devices."""
        return sum(self._free)

    @property
    def short_bytes(self) -> int:
        """As `Rung.short_bytes`."""
        return sum(max(0, placement.need_bytes - placement.free_bytes) for placement in self.placements)

    @property
    def lacking_bytes(self) -> int:
        """What its devices and the host lack; 0 if it fits."""
        return self.short_bytes + max(0, self.host_need_bytes - self.inputs.host.available_bytes)

    @property
    def spread(self) -> tuple[int, ...]:
        """Layers on each of several devices, in the order of `Rung.devices`; empty for one device."""
        layers = {placement.device: placement.layers for placement in self.placements}
        return tuple(layers[name] for name in self.candidate.names) if len(layers) > 1 else ()

    @property
    def cpu_layers(self) -> int:
        """Layers that lie on the CPU beside GPUs."""
        return sum(placement.layers for placement in self.placements if placement.device == CPU)

    def rung(self, verdict: Verdict, reason: Reason, notes: Sequence[Reason] = ()) -> Rung:
        """The rung as the plan has it, its reasons as text."""
        return Rung(
            precision=self.candidate.precision,
            devices=self.candidate.names,
            compute_dtype=self.candidate.dtype,
            terms=self.terms,
            need_bytes=self.need_bytes,
            free_bytes=self.free_bytes,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            verdict=verdict,
            reason=text(reason),
            notes=tuple(map(text, notes)),
            placements=self.placements if len(self.placements) > 1 else (),
            host_need_bytes=self.host_need_bytes,
            speed=None if verdict in ("too_large", "unsupported") else self.speed,
            reached_tokens_per_second=self.inputs.tokens_per_second(self.candidate.precision, self.candidate.names),
        )

    @property
    def speed(self) -> SpeedEstimate | None:
        """What to expect of one request; None if it can't be told, as if the speed of a device's memory is unknown."""
        inputs, parts = self.inputs, []
        for device, load, span in zip(self.candidate.devices, self._loads, self._balanced, strict=True):
            share, speed = share_of(load.precision, device is None), inputs.memory_bytes_per_second(device)
            if share is None or speed is None:
                return None
            parts.append(ReadPart(token_bytes(inputs.layout, inputs.shape, load, span), speed, share))
        return speed_estimate(parts)

    @functools.cached_property
    def _free(self) -> tuple[int, ...]:
        return tuple(self.inputs.free_bytes(device) for device in self.candidate.devices)

    @functools.cached_property
    def _loads(self) -> tuple[Load, ...]:
        inputs, candidate = self.inputs, self.candidate
        load = Load(
            candidate.precision,
            candidate.dtype,
            self.max_model_len,
            self.max_num_seqs,
            avx512=inputs.host.cpu_avx512,
            native_bf16=inputs.host.cpu_bf16,
            double_quant=inputs.stored is None or inputs.stored.double_quant,
            stored_bytes=inputs.stored.bytes if inputs.stored and candidate.precision == "fp8" else None,
        )
        return tuple(self._on(load, device) for device in candidate.devices)

    def _on(self, load: Load, device: Device | None) -> Load:
        """The load with the form that quantised weights have on a device; stored nf4 stays as it is."""
        if device is not None or load.precision not in ("int8", "int4"):
            return load
        own = self.inputs.stored is None or load.precision == "int8"
        return replace(load, cpu_form=own, packed=not own and self.inputs.host.cpu_packs_int4)

    def _terms(self, index: int, span: LayerSpan) -> tuple[Term, ...]:
        """What a span of layers takes on the device at this place in the list."""
        device = self.candidate.devices[index]
        terms = estimate(self.inputs.layout, self.inputs.shape, self._loads[index], device, span)
        shared = self._host_share(device)
        return tuple(replace(term, bytes=term.bytes + shared) if term.name == "runtime" else term for term in terms)

    def _host_share(self, device: Device | None) -> int:
        """The engine's own memory on the host, if that is the budget of a GPU's part too."""
        beside = host_bytes(self.candidate.precision)
        if device is None:
            load = self._loads[self.candidate.devices.index(None)]
            return beside - runtime_bytes(None, load) if self.candidate.mixed else 0
        return beside if shares_host(device) else 0

    @functools.cached_property
    def _parts(self) -> tuple[tuple[Term, ...], ...]:
        return tuple(self._terms(index, span) for index, span in enumerate(self._balanced))

    @functools.cached_property
    def _full(self) -> Spans:
        return self._fill(100)

    @functools.cached_property
    def _balanced(self) -> Spans:
        """The fill with the least share of free memory; the CPU is not to be balanced with GPUs."""
        if None in self.candidate.devices or not self._within(self._full, 100):
            return self._full
        low, high = 0, 100
        while high - low > 1:
            percent = (low + high) // 2
            low, high = (low, percent) if self._within(self._fill(percent), percent) else (percent, high)
        return self._fill(high)

    def _fill(self, percent: int) -> Spans:
        """Gives each device from the last to the second what it holds of the last layers; the first gets the rest.

        A device gets at least one layer, and no more than `percent` of its free memory can take.
        """
        spans: list[LayerSpan] = []
        end = self.inputs.shape.layers
        for index in range(len(self._free) - 1, 0, -1):
            fewest, too_many = 1, end - index + 1
            while too_many - fewest > 1:
                count = (fewest + too_many) // 2
                holds = self._holds(index, LayerSpan(end - count, count), percent)
                fewest, too_many = (count, too_many) if holds else (fewest, count)
            spans.insert(0, LayerSpan(end - fewest, fewest))
            end -= fewest
        return (LayerSpan(0, end), *spans)

    def _within(self, spans: Spans, percent: int) -> bool:
        return all(self._holds(index, span, percent) for index, span in enumerate(spans))

    def _holds(self, index: int, span: LayerSpan, percent: int) -> bool:
        return _total(self._terms(index, span)) <= self._free[index] * percent // 100


def _total(terms: Sequence[Term]) -> int:
    return sum(term.bytes for term in terms)
