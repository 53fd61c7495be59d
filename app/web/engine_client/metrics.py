"""Metrics of the service at the time of a scrape: from status.json and from the engine."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from app.contract.plan import Placement, Rung
from app.contract.status import Attempt, Phase, Proof, Status
from app.contract.wire import Stats, StatsRequest
from app.web.engine_client.client import (
    DrainOverError,
    EngineClient,
    EngineDiedError,
    EngineUnavailableError,
    TooManyCallsError,
)
from app.web.monitoring.status_file import StatusFile

ENGINE_SECONDS = 1.0
"""How long a scrape waits for the engine."""


class ServiceCollector(Collector):
    """Collects its metrics anew at each scrape.

    While the engine is unavailable, `berth_engine_up` is 0 and the engine's own metrics are absent, since a 0 would be
    wrong. The engine's counters start at 0 with each engine.
    """

    def __init__(self, status: StatusFile, engine: EngineClient) -> None:
        self._status = status
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Nothing: otherwise registering would collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._status.read()
        yield from _service(status)
        if status.plan is not None and status.plan.chosen is not None:
            yield from _rung(status.model_name, status.plan.chosen)
        if status.proof is not None:
            yield _proved(status.proof, status.plan.chosen if status.plan else None)
        stats = self._stats() if status.phase == "ready" else None
        yield _gauge("engine_up", "Whether the engine answered this scrape.", float(stats is not None))
        if stats is not None:
            yield from _load(stats)

    def _stats(self) -> Stats | None:
        try:
            call = self._engine.call(StatsRequest("metrics"), None)
        except (EngineUnavailableError, TooManyCallsError):
            return None
        try:
            reply = call.wait(ENGINE_SECONDS)
        except (EngineDiedError, DrainOverError):
            return None
        finally:
            call.close()
        return reply if isinstance(reply, Stats) else None


def _service(status: Status) -> Iterator[Metric]:
    phases = GaugeMetricFamily("berth_phase", "1 for the current phase, 0 for all others.", labels=["phase"])
    for phase in typing.get_args(Phase):
        phases.add_metric([phase], float(phase == status.phase))
    yield phases
    outcomes = Counter(attempt.outcome for attempt in status.attempts)
    attempts = GaugeMetricFamily(
        "berth_engine_attempts", "The engine's last 20 starts, by outcome.", labels=["outcome"]
    )
    for outcome in typing.get_args(typing.get_type_hints(Attempt)["outcome"]):
        attempts.add_metric([outcome], outcomes[outcome])
    yield attempts
    yield _counter("engine_deaths", "Unexpected ends of the engine since the service's start.", status.deaths)
    yield _gauge("start_time_seconds", "Unix time of the service's start.", status.started_at)


def _rung(model_name: str, rung: Rung) -> Iterator[Metric]:
    """The chosen rung. Its labels change with a step down the ladder; there is only one series at a time."""
    info = InfoMetricFamily("berth_rung", "The rung of the ladder that was chosen.")
    labels = {"model_name": model_name, "precision": rung.precision, "device": rung.device}
    sizes = {"max_model_len": str(rung.max_model_len), "max_num_seqs": str(rung.max_num_seqs)}
    info.add_metric([], {**labels, **sizes})
    yield info
    parts: tuple[Placement | Rung, ...] = rung.placements or (rung,)
    planned = {part.device: part.need_bytes for part in parts}
    yield _by_device("memory_planned_bytes", "Memory that the plan gives to the engine, its margin included.", planned)


def _proved(proof: Proof, rung: Rung | None) -> Metric:
    peaks = proof.measured_by_device or {rung.device if rung else "": proof.measured_bytes}
    return _by_device(
        "memory_proved_bytes", "The engine's peak during its longest request, measured at its start.", peaks
    )


def _load(stats: Stats) -> Iterator[Metric]:
    yield _gauge("num_requests_running", "Requests that have a slot.", stats.running)
    yield _gauge("num_requests_waiting", "Requests that wait for a slot.", stats.waiting)
    yield _gauge("num_slots", "Requests that can run at once.", stats.slots)
    usage = stats.cache_tokens / stats.cache_limit_tokens if stats.cache_limit_tokens else 0.0
    yield _gauge("kv_cache_usage_perc", "Share of the cache that running requests use, 0 to 1.", usage)
    batch = stats.decoded_tokens / stats.decode_steps if stats.decode_steps else 0.0
    yield _gauge("decode_batch_size", "Mean batch size of a decode step since the engine's start.", batch)
    yield _by_device("memory_used_bytes", "Memory that the engine uses now.", stats.held_bytes)
    yield _counter("engine_decode_steps", "Decode steps since the engine's start.", stats.decode_steps)
    yield _counter("engine_decoded_tokens", "Tokens decoded; per step, the mean batch size.", stats.decoded_tokens)
    yield _counter(
        "engine_prefilled_tokens", "Prompt tokens computed since the engine's start.", stats.prefilled_tokens
    )
    yield _counter("engine_reused_tokens", "Prompt tokens found in the cache.", stats.reused_tokens)


def _by_device(name: str, text: str, bytes_by_device: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"berth_{name}", text, labels=["device"])
    for device, count in bytes_by_device.items():
        family.add_metric([device], count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"berth_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"berth_{name}", text, value)
