"""From settings to a plan's inputs: everything that is measured, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

from app.contract.plan import Device, Model, Precision, Text
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from entrypoint.hub.remote_headers import HubRefused, Reading, reason
from entrypoint.machine.gpu_notes import gpu_notes
from entrypoint.machine.gpus import probe_gpus
from entrypoint.machine.host import read_host
from entrypoint.machine.read_bandwidth import measure_read_bandwidth
from entrypoint.machine.torch_build import read_torch_build
from entrypoint.messages.sentence import text
from entrypoint.model_choice import ModelChoice, demo_instead, resolve_model
from entrypoint.plan.inputs import FailedRung, PlanInputs
from entrypoint.plan.planner import make_plan
from entrypoint.settings.settings import Settings
from entrypoint.state.ledger import Ledger, reached_speeds
from entrypoint.state.state_dir import MemoryUsage, pid_namespace
from entrypoint.timeouts import start


@dataclass(frozen=True)
class KnownSpeeds:
    """What is known of this machine's speed beside its GPUs'."""

    memory_bytes_per_second: Future[int | None]
    """Of the host; measured since the start, for a few tenths of a second."""
    ledger: Ledger
    """What rungs reached before."""


def start_read_measurement() -> Future[int | None]:
    """Starts to measure how fast the cores read memory; nothing has to wait until a plan is made."""
    return start(measure_read_bandwidth)


def read_model(settings: Settings) -> tuple[ModelChoice, Checkpoint]:
    """The requested model, its headers checked, wherever it lies; the demo if a default can't be had.

    Raises:
        SettingsError, CheckpointError, HubRefused: a model that was set by name can't be had.
    """
    choice = resolve_model(settings)
    try:
        if choice.hub is None:
            return choice, read_checkpoint(choice.folder)
        reading = Reading(settings, choice.hub, lambda _note: None, patient=not choice.is_default)
        return choice, reading.wait().checkpoint
    except (CheckpointError, HubRefused) as error:
        if not choice.is_default:
            raise
        choice = demo_instead(choice, reason(error))
        return choice, read_checkpoint(choice.folder)


def fitting_inputs(settings: Settings, held: MemoryUsage, speeds: KnownSpeeds | None = None) -> PlanInputs:
    """What `serve` would plan on: a default that doesn't fit at all gives way to the demo. Raises as `read_model`."""
    choice, checkpoint = read_model(settings)
    inputs = measure(settings, choice, checkpoint, held, speeds=speeds)
    refusal = make_plan(inputs).refusal if choice.is_default else None
    if refusal is None:
        return inputs
    choice = demo_instead(choice, refusal.why)
    return measure(settings, choice, read_checkpoint(choice.folder), held, speeds=speeds)


def measure(
    settings: Settings,
    choice: ModelChoice,
    checkpoint: Checkpoint,
    held: MemoryUsage | None = None,
    failed_rungs: tuple[FailedRung, ...] = (),
    only: tuple[Precision, tuple[str, ...]] | None = None,
    unusable: Mapping[str, Text] | None = None,
    speeds: KnownSpeeds | None = None,
) -> PlanInputs:
    """Measures GPUs and host now. What `held` says a running service holds counts as free.

    `unusable` says of GPUs, by UUID, why the engine could not use them.
    """
    held = held or MemoryUsage()
    gpus = probe_gpus(settings.environment)
    devices = tuple(replace(discounted(d, held), unusable=(unusable or {}).get(d.uuid)) for d in gpus.devices)
    shared = sum(held.gpu_bytes.get(device.uuid, 0) for device in devices if device.unified)
    in_group = held.namespace == pid_namespace()
    read_speed = speeds.memory_bytes_per_second.result() if speeds else None  # its buffer would count as used
    host = read_host(
        settings.hf_home, held.anonymous_bytes + shared, in_group, text(gpus.why_none) if gpus.why_none else None
    )
    notes = (*gpus.notes, *gpu_notes(devices, host.available_bytes))
    host = replace(host, gpu_notes=tuple(map(text, notes)), memory_bytes_per_second=read_speed)
    inputs = PlanInputs(
        settings=settings,
        model=_model(choice, checkpoint),
        layout=checkpoint.layout,
        shape=checkpoint.shape,
        host=host,
        devices=devices,
        torch=read_torch_build(),
        failed_rungs=failed_rungs,
        only=only,
        stored=checkpoint.stored,
    )
    return replace(inputs, reached=reached_speeds(speeds.ledger, inputs)) if speeds else inputs


def _model(choice: ModelChoice, checkpoint: Checkpoint) -> Model:
    return Model(
        name=choice.name,
        path=str(choice.folder),
        layout=checkpoint.layout.model_type,
        parameters=checkpoint.parameters,
        stored_bytes=checkpoint.stored_bytes,
        stored_dtype=checkpoint.stored_dtype,
        max_model_len=checkpoint.shape.context,
        why=text(choice.why),
    )


def discounted(device: Device, held: MemoryUsage) -> Device:
    """A card without what this Berth's own engine holds of it, and without that engine among its holders."""
    engine_bytes = held.gpu_bytes.get(device.uuid, 0)
    if not engine_bytes or device.free_bytes is None or device.total_bytes is None:
        return device
    return replace(device, free_bytes=min(device.total_bytes, device.free_bytes + engine_bytes), holders=())
