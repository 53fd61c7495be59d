"""The engine's life cycle: load, prove, serve, stop."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.contract import exits
from app.contract.config import AppConfig, EngineConfig
from app.contract.plan import CPU, gpus_of
from app.contract.status import Proof, Proving, Ready
from app.engine.errors import EngineError
from app.engine.runtime import gpu, process
from app.engine.runtime.events import EventWriter, Heartbeat, LoadProgress, ProofProgress
from app.engine.runtime.memory import DeviceMeters, HeapBound, HostMeter, MemoryMeter
from app.engine.serving.scheduler import QueueLimits, Scheduler
from app.engine.serving.solo_pace import SoloPace

if TYPE_CHECKING:
    from app.engine.build import LoadedModel

STOP_SECONDS = 5.0
"""How long connections may take to send their last reply when the engine stops."""

log = logging.getLogger(__name__)


class Service:
    """One engine; `run` in the main thread, `terminate` from any."""

    def __init__(self, events: EventWriter) -> None:
        self.events = events
        self._lock = threading.Lock()
        self._scheduler: Scheduler | None = None
        self._meters: DeviceMeters | None = None
        self._planned_bytes = 0

    def terminate(self) -> None:
        """SIGTERM: running answers finish, waiting ones are refused; before `ready` there is nothing to finish."""
        with self._lock:
            if self._scheduler is None:
                os._exit(exits.OK)
            log.info("stopping")
            self._scheduler.close()

    def memory_text(self) -> str:
        """The message of an out-of-memory error: what was used, and what was planned."""
        numbers = f"{self._planned_bytes} bytes planned"
        if self._meters is not None:
            with contextlib.suppress(RuntimeError):  # a GPU that is out of memory may not even report its usage
                used, peak = self._meters.now(), self._meters.peaks()
                numbers = f"{sum(used.values())} bytes held, {sum(peak.values())} at most, {numbers}"
                if len(used) > 1:
                    each = ", ".join(f"{used[device]} of at most {peak[device]} on {device}" for device in used)
                    numbers = f"{numbers} ({each})"
        return f"out of memory: {numbers}"

    def _used_bytes(self) -> dict[str, int]:
        """By device; empty if a GPU does not report it, as when it is out of memory."""
        with contextlib.suppress(RuntimeError):
            return self._meters.now() if self._meters is not None else {}
        return {}

    def run(self, config: AppConfig) -> None:
        """Runs until terminated. Raises the error that ends the engine."""
        if config.ENGINE is None:
            raise EngineError("config.json has no ENGINE: there is no plan yet")
        engine = config.ENGINE
        self._planned_bytes = engine.planned_bytes
        gpus = gpus_of(engine.devices)
        if gpus:
            gpu.prepare()
        by_device: dict[str, MemoryMeter] = {uuid: gpu.GpuMeter(uuid, index) for index, uuid in enumerate(gpus)}
        if CPU in engine.devices:
            by_device[CPU] = HostMeter()
        meters = self._meters = DeviceMeters(by_device)
        self._start(config, engine, meters)

    def _start(self, config: AppConfig, engine: EngineConfig, meters: DeviceMeters) -> None:
        # torch takes a second to import; before that a wrong checkpoint is reported and SIGTERM obeyed.
        from app.engine.loading.checkpoint import checkpoint_folder, open_checkpoint

        started = time.monotonic()
        folder = checkpoint_folder(config.MODEL_PATH)
        checkpoint = open_checkpoint(folder)
        progress = LoadProgress(self.events, checkpoint.total_bytes)
        from app.engine.runtime.fast_import import import_quickly

        import_quickly(lambda: _import_model_packages(checkpoint.layout.native))
        from app.engine import build, proof

        if gpus := gpus_of(engine.devices):
            gpu.check_cuda(gpus)
        loaded = build.load(checkpoint, engine, progress)
        load_seconds = time.monotonic() - started
        self.events.send(Proving(load_seconds, loaded.weights_bytes))
        log.info("loaded %d bytes of weights in %.1f s", loaded.weights_bytes, load_seconds)
        proof_started = time.monotonic()
        proof.prove(loaded.backend, loaded.chat, ProofProgress(self.events))
        process.return_freed_memory()
        peaks = meters.peaks()
        result = Proof(
            engine.planned_bytes,
            sum(peaks.values()),
            loaded.weights_bytes,
            load_seconds,
            time.monotonic() - proof_started,
            peaks if len(peaks) > 1 else {},
        )
        meters.stop()
        log.info("proved in %.1f s: %d bytes at most", result.proof_seconds, result.measured_bytes)
        used = meters.now()
        # If no layer is on the CPU, steps take next to nothing of the host.
        bound = HeapBound(peaks[CPU] - used[CPU] if CPU in peaks else 0)
        self._serve(config, engine, loaded, Ready(result, sum(used.values()), used), bound)

    def _serve(
        self, config: AppConfig, engine: EngineConfig, loaded: LoadedModel, ready: Ready, bound: HeapBound
    ) -> None:
        from app.engine.serving.server import EngineServer

        pace = SoloPace()
        heartbeat = Heartbeat(self.events, pace.tokens_per_second)

        def between_steps() -> None:
            heartbeat.beat()
            bound.trim()

        limits = QueueLimits(config.QUEUE_LIMIT, config.REQUEST_SECONDS)
        scheduler = Scheduler(loaded.backend, loaded.chat, limits, between_steps, pace)
        socket_path = Path(config.ENGINE_SOCKET)
        server = EngineServer(
            socket_path, scheduler, loaded.chat, loaded.defaults, engine.max_model_len, self._used_bytes
        )
        with self._lock:
            self._scheduler = scheduler
        self.events.send(ready)
        log.info("ready on %s", socket_path)
        try:
            scheduler.run()
        finally:
            server.stop(STOP_SECONDS)


def _import_model_packages(native: str) -> None:
    from app.engine import build, proof  # noqa: F401
    from app.engine.loading import load

    load.native_classes(native)
