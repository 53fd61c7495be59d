"""The plan: what was measured, what each rung of the ladder would need, what was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["fp32", "bf16", "fp16", "int8", "int4", "fp8"]
"""fp8 is never computed here: checkpoints that are stored so are planned and refused."""
Dtype = Literal["float32", "bfloat16", "float16"]
"""Of activations, cache and the weights that are not quantised; torch's names."""
CPU = "cpu"
"""The device that is not a GPU, among GPUs' UUIDs."""
Verdict = Literal["chosen", "fits", "too_large", "unsupported", "excluded"]
TermName = Literal["weights", "kv_cache", "activations", "load_peak", "runtime", "margin"]
OriginKind = Literal["set", "measured", "default", "stepped_down"]
CPU = "cpu"
"""As a device's name, beside the GPUs' UUIDs."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8", "int4")
"""Those that the engine computes, the largest first."""
DTYPE_BYTES: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one element."""


@dataclass(frozen=True)
class Text:
    """A sentence for people, in both languages of the page; the log prints the English one."""

    en: str
    zh: str
    code: str = ""
    """What programs tell it by; empty for a sentence that is not a reason, such as the engine's own words."""
    values: dict[str, Any] = field(default_factory=dict)
    """The numbers and names in it. A reason within the reason is an object with its own `code`."""


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a GPU."""

    pid: int
    """As the driver's host counts; elsewhere it may be nobody's."""
    bytes: int | None


@dataclass(frozen=True)
class Device:
    """One GPU or MIG instance as NVML reports it; None is what the driver would not tell."""

    index: int
    """Of the GPU in PCI order; MIG instances share their GPU's."""
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    compute_capability: tuple[int, ...] | None
    driver: str
    cuda_driver: tuple[int, ...] | None = None
    """The newest CUDA version that the driver runs."""
    reserved_bytes: int = 0
    """What the driver reserves, if it says so; it can't be freed."""
    unified: bool = False
    """It shares the host's memory: what it takes is taken from `Host.available_bytes`. Its own counts are None."""
    parent: str | None = None
    """UUID of the GPU that a MIG instance is part of. A process can use one instance only."""
    holders: tuple[Holder, ...] = ()
    """Processes that the driver names; in a container often none."""
    unusable: Text | None = None
    """Why the engine could not use it, though the driver shows it."""
    memory_bytes_per_second: int | None = None
    """What its memory delivers at most, by its clock and width or by the card's data sheet; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine as seen from inside the container."""

    available_bytes: int
    ram_bytes: int
    limit_bytes: int | None
    """The container's memory limit; None if there is none below the RAM."""
    disk_free_bytes: int
    cpu_count: int
    """Cores that this process may use: its affinity within the control groups' quotas."""
    cpu_name: str
    cpu_bf16: bool
    """Whether the processor computes bf16 natively (avx512_bf16, amx_bf16, or Arm's bf16)."""
    cpu_avx512: bool = False
    """Whether torch multiplies int8 matrices without widening them."""
    cpu_packs_int4: bool = False
    """Whether bitsandbytes' CPU kernel packs 4-bit weights (avx512_bf16); their scales are bf16 then."""
    memory_bytes_per_second: int | None = None
    """What all these cores together read from memory, measured at the start; None if it was not measured."""
    held_bytes: int = 0
    """What a Berth that already runs here holds; counted as free in `available_bytes`."""
    gpu_note: Text | None = None
    """Why no GPU is seen, if that is known."""
    gpu_notes: tuple[Text, ...] = ()
    """What there is to know of the GPUs: one that was left out, shared memory, memory that others hold."""


@dataclass(frozen=True)
class Model:
    """The checkpoint, from its config.json and safetensors headers."""

    name: str
    path: str
    layout: str
    parameters: int
    stored_bytes: int
    stored_dtype: str
    max_model_len: int
    why: Text


@dataclass(frozen=True)
class Term:
    """One summand of a rung's need."""

    name: TermName
    bytes: int


@dataclass(frozen=True)
class Placement:
    """Layers that lie together on one device, in the order of a forward pass."""

    device: str
    """`cpu` or the GPU's UUID."""
    first_layer: int
    layers: int
    need_bytes: int
    free_bytes: int


@dataclass(frozen=True, kw_only=True)
class SpeedEstimate:
    """What to expect of one request alone with a short context: for each token the weights are read once."""

    low_tokens_per_second: float
    high_tokens_per_second: float
    read_bytes: int
    """What a token reads of the weights; of experts those that it passes through."""
    memory_bytes_per_second: int
    """How fast the memory of the rung's devices delivers that."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One precision on one device or several: what it would take here, and the verdict."""

    precision: Precision
    devices: tuple[str, ...]
    """`cpu` and GPUs' UUIDs: GPUs as they are numbered, then `cpu`."""
    device: str = field(init=False)
    """The same in one string, with `+` between."""
    compute_dtype: Dtype
    terms: tuple[Term, ...]
    need_bytes: int
    free_bytes: int
    max_model_len: int
    max_num_seqs: int
    verdict: Verdict
    reason: Text
    notes: tuple[Text, ...] = ()
    """What else is to be known of it, beside the reason: that quantising saves little, for one."""
    placements: tuple[Placement, ...] = ()
    """One a device if the rung is spread over several; their needs and what is free add up to the rung's."""
    host_need_bytes: int = 0
    """Host memory that an engine on GPUs takes beside; 0 if it is among the terms."""
    slot_bytes: int = field(init=False)
    """Cache of one request at full length: what one more at once takes."""
    speed: SpeedEstimate | None = None
    """An estimate; None if the speed of a device's memory is unknown."""
    reached_tokens_per_second: float | None = None
    """What an earlier run on this machine measured for one request alone; None if there was none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", joined(self.devices))
        cache = sum(term.bytes for term in self.terms if term.name == "kv_cache")
        object.__setattr__(self, "slot_bytes", cache // self.max_num_seqs)

    @property
    def gpus(self) -> tuple[str, ...]:
        """UUIDs, in the order in which the engine sees the GPUs: `cuda:0`, `cuda:1`..."""
        return gpus_of(self.devices)

    @property
    def uses_cpu(self) -> bool:
        """Whether layers lie on the CPU."""
        return CPU in self.devices

    @property
    def short_bytes(self) -> int:
        """How much is lacking on its devices; 0 if it fits. What is left on one is of no use to another."""
        parts = self.placements or (self,)
        return sum(max(0, part.need_bytes - part.free_bytes) for part in parts)


def joined(devices: Sequence[str]) -> str:
    """Names of devices as one string, which JSON has as `device`."""
    return "+".join(devices)


def gpus_of(devices: Sequence[str]) -> tuple[str, ...]:
    """The GPUs among the names of devices."""
    return tuple(name for name in devices if name != CPU)


@dataclass(frozen=True)
class Origin:
    """Where one value of the config comes from."""

    name: str
    value: str
    kind: OriginKind
    why: Text


@dataclass(frozen=True)
class Refusal:
    """Why nothing can be started, and the line of `.env` that would change it."""

    why: Text
    remedy: Text
    env_line: str | None


@dataclass(frozen=True)
class Plan:
    """Exactly one of `chosen` (one of `rungs`) and `refusal` is set."""

    model: Model
    host: Host
    devices: tuple[Device, ...]
    rungs: tuple[Rung, ...]
    chosen: Rung | None
    refusal: Refusal | None
    origins: tuple[Origin, ...]

    @property
    def in_order(self) -> tuple[Rung, ...]:
        """The chosen rung first, the others in the ladder's own order: as people read them."""
        return tuple(sorted(self.rungs, key=lambda rung: rung.verdict != "chosen"))
