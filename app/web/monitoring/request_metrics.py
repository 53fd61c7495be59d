"""Prometheus metrics of requests to the model: counters and histograms that survive the engine's restarts.

A metric has vLLM's name if it means the same, so that vLLM's dashboards only need another prefix. The prefix is not
`vllm:`, because the engine is not vLLM, and because Prometheus reserves the colon for recording rules.
"""

from __future__ import annotations

import threading
import typing
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from app.contract.wire import Finished, FinishReason

MOST_CODES = 40
"""Error codes with a series of their own. All codes come from this program, so this is never reached."""
_WAIT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)
_GAP_BUCKETS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_ANSWER_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600, 1800)


class RequestMetrics:
    """Counts each request to the model once, at its end. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._codes: set[str] = set()
        self._lock = threading.Lock()
        self._make_token_counters()
        self._make_histograms()
        self._success = self._counter("request_success", "Requests with a complete answer.", ("finished_reason",))
        self._failure = self._counter(
            "request_failure",
            "Requests without a complete answer, by error code; client_left: the client disconnected.",
            ("code",),
        )
        for reason in typing.get_args(FinishReason):
            self._success.labels(reason)

    def _make_token_counters(self) -> None:
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of started answers, cached ones included.")
        self._generation = self._counter("generation_tokens", "Tokens generated.")
        self._queries = self._counter("prefix_cache_queries", "Prompt tokens of finished answers.")
        self._hits = self._counter("prefix_cache_hits", "Those of them that were found in the cache.")

    def _make_histograms(self) -> None:
        self._first = self._histogram(
            "time_to_first_token_seconds", "Time from the request's arrival to the first token.", _WAIT_BUCKETS
        )
        self._gap = self._histogram(
            "inter_token_latency_seconds", "Time between two arrivals of tokens in one answer.", _GAP_BUCKETS
        )
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Time from a finished answer's first token to its last, divided by the tokens after the first.",
            _GAP_BUCKETS,
        )
        self._queue = self._histogram("request_queue_time_seconds", "Time waiting for a slot.", _WAIT_BUCKETS)
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "Time from the request's arrival to the end of its answer.", _ANSWER_BUCKETS
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"berth_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"berth_{name}", text, registry=self.registry, buckets=buckets)

    def first_token(self, seconds: float, prompt_tokens: int) -> None:
        """Counts the start of an answer, `seconds` after its request arrived."""
        self._first.observe(seconds)
        self._prompt.inc(prompt_tokens)

    def tokens(self, count: int, gap_seconds: float | None) -> None:
        """Counts new tokens, `gap_seconds` after the ones before; None for the first."""
        self._generation.inc(count)
        if gap_seconds is not None:
            self._gap.observe(gap_seconds)

    def finished(self, end: Finished, seconds: float, decode_seconds: float) -> None:
        """Counts a complete answer: `seconds` in all, `decode_seconds` from its first token to its last."""
        self._success.labels(end.finish_reason).inc()
        self._whole.observe(seconds)
        self._queue.observe(end.queue_seconds)
        self._queries.inc(end.prompt_tokens)
        self._hits.inc(end.cached_tokens)
        if end.completion_tokens > 1:
            self._per_token.observe(decode_seconds / (end.completion_tokens - 1))

    def failed(self, code: str) -> None:
        """Counts a request without a complete answer, by its error's code."""
        with self._lock:
            if code not in self._codes and len(self._codes) >= MOST_CODES:
                code = "other"
            self._codes.add(code)
        self._failure.labels(code).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4."""
        return generate_latest(_WithoutCreated(self.registry))


class _WithoutCreated(Collector):
    """The registry without each series' creation time, half of all lines. The library can only drop them globally."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
