"""Plans for cards that are not here: the inputs are this machine's, its GPUs are replaced."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.contract.plan import PRECISIONS, Device, Plan, Rung
from entrypoint.machine.torch_build import TorchBuild
from entrypoint.plan.footprint import host_bytes
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.planner import LEAST_CONTEXT, make_plan
from entrypoint.settings.settings import SettingsError

UNITS = {"gib": 1024**3, "mib": 1024**2, "gb": 1000**3}
MOST_CARDS = 16
SIZE = re.compile(r"(?:([1-9][0-9]?)x)?([0-9]{1,7}(?:\.[0-9]{1,3})?)\s*(GiB|MiB|GB)", re.IGNORECASE)
CAPABILITY = re.compile(r"([0-9]{1,2})\.([0-9])")
DEFAULT_CAPABILITY = (8, 6)
LEAST_KEPT_BYTES = 512 * 1024**2
KEPT_SHARE = 80
IMAGE_TORCH = TorchBuild("2.13.0+cu130", "13.0", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"))
"""What the published image for GPUs holds."""


@dataclass(frozen=True)
class Cards:
    """Cards of one kind: as the user wrote them, how many, and each one's memory as nvidia-smi shows it."""

    text: str
    count: int
    total_bytes: int


@dataclass(frozen=True)
class HypotheticalPlan:
    """One plan of the `plan` command; if `asked` is None, it is for this machine."""

    asked: str | None
    plan: Plan
    every: tuple[Rung, ...] = ()
    """With `--all`: each rung at each length."""


def parse_cards(text: str) -> tuple[Cards, ...]:
    """`8GiB,2x24GiB` and the like. Raises SettingsError naming the part that is wrong."""
    return tuple(_cards(part.strip()) for part in text.split(","))


def parse_capability(text: str | None) -> tuple[int, int]:
    """A compute capability such as 7.5; None is the usual one. Raises SettingsError."""
    if text is None:
        return DEFAULT_CAPABILITY
    match = CAPABILITY.fullmatch(text.strip())
    if not match:
        raise SettingsError(f"--compute-capability {text}: should be a number such as 7.5, 8.6 or 12.0")
    return int(match[1]), int(match[2])


def kept_bytes(total_bytes: int) -> int:
    """What the driver keeps of an idle card: 512 MiB, or an eightieth of its memory if that is more.

    Told by others, not measured here: T4 about 450 MiB of 15 GiB (KAI-Scheduler 2212), a card of 48 GiB 569 MiB, A100
    912 MB (nvml-wrapper 57).
    """
    return max(LEAST_KEPT_BYTES, total_bytes // KEPT_SHARE)


def what_if(
    inputs: PlanInputs, cards: Cards, capability: tuple[int, int] = DEFAULT_CAPABILITY, cpu: bool = False
) -> PlanInputs:
    """The same inputs with these idle cards instead of what is here, in a host that can load onto them.

    `cpu` offers this machine's CPU and RAM, too.
    """
    reserved = min(cards.total_bytes, kept_bytes(cards.total_bytes))
    devices = tuple(
        Device(
            index=index,
            uuid=f"what-if-{index}",
            name=f"a card of {cards.text.rpartition('x')[2]}",
            total_bytes=cards.total_bytes,
            free_bytes=cards.total_bytes - reserved,
            compute_capability=capability,
            driver="assumed",
            reserved_bytes=reserved,
        )
        for index in range(cards.count)
    )
    host = replace(inputs.host, gpu_note=None, gpu_notes=())
    if not cpu:  # such cards are in a host that can load onto them
        enough = max(host_bytes(precision) for precision in PRECISIONS)
        host = replace(host, available_bytes=max(host.available_bytes, enough), ram_bytes=max(host.ram_bytes, enough))
    return replace(inputs, host=host, devices=devices, torch=IMAGE_TORCH, cpu=cpu)


def every_rung(inputs: PlanInputs) -> tuple[Rung, ...]:
    """Each rung at 2048 tokens, twice that and so on up to the model's own context; rung by rung."""
    plans = [at_context(inputs, context).rungs for context in contexts(inputs.shape.context)]
    # If one card is enough at a short length, there is no rung for several: the longest list has all in order.
    fullest = max(plans, key=len)
    order = dict.fromkeys(_kind(rung) for rung in (*fullest, *itertools.chain(*plans)))
    return tuple(rung for kind in order for rungs in plans for rung in rungs if _kind(rung) == kind)


def _kind(rung: Rung) -> tuple[tuple[str, ...], str]:
    return rung.devices, rung.precision


def contexts(longest: int) -> tuple[int, ...]:
    """2048 and its doubles below the model's own context, then that."""
    lengths = []
    length = LEAST_CONTEXT
    while length < longest:
        lengths.append(length)
        length *= 2
    return (*lengths, longest)


def at_context(inputs: PlanInputs, context: int) -> Plan:
    """The plan with this context set, and one slot if their number isn't set."""
    slots = inputs.settings.max_num_seqs or 1
    settings = replace(inputs.settings, max_model_len=context, max_num_seqs=slots)
    return make_plan(replace(inputs, settings=settings))


def nearest_miss(inputs: PlanInputs, rungs: Sequence[Rung]) -> Rung | None:
    """If nothing fits: what lacks least at the shortest context that Berth would choose. None if nothing could run."""
    if inputs.settings.max_model_len is None:
        rungs = at_context(inputs, min(LEAST_CONTEXT, inputs.shape.context)).rungs
    return min((rung for rung in rungs if rung.verdict == "too_large"), key=lambda rung: rung.short_bytes, default=None)


def _cards(part: str) -> Cards:
    match = SIZE.fullmatch(part)
    count = int(match[1] or 1) if match else 0
    total = round(float(match[2]) * UNITS[match[3].lower()]) if match else 0
    if not total or count > MOST_CARDS:
        raise SettingsError(
            f"--vram {part!r}: should be a card's memory with its unit, such as 8GiB, 24GB or 15360MiB, "
            f"or up to {MOST_CARDS} cards, such as 2x24GiB; separate several with commas"
        )
    return Cards(part, count, total)
