"""What requests to the model took, for Prometheus: counters and histograms that outlive every engine.

Names have vLLM's stems wherever they mean the same, so that its dashboards need another prefix only. The prefix is
ours: `vllm:` would tell a dashboard that the engine is vLLM, and Prometheus keeps the colon for recording rules.
"""

from __future__ import annotations

import threading
import typing
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from app.contract.wire import Finished, FinishReason

_MAX_CODES = 40
"""Codes of failures that get a series of their own; all come from this program, so that this is never reached."""
_WAIT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)
_GAP_BUCKETS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_ANSWER_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600, 1800)


class RequestMetrics:
    """Counts requests to the model, each one once with its end. Threads may share it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._codes: set[str] = set()
        self._lock = threading.Lock()
        self._count_tokens()
        self._time_requests()
        self._success = self._counter(
            "request_success", "Requests that were answered to the end.", ("finished_reason",)
        )
        self._failure = self._counter(
            "request_failure",
            "Requests without a complete answer, by the error's code; client_left: nobody waited for it any more.",
            ("code",),
        )
        for reason in typing.get_args(FinishReason):
            self._success.labels(reason)

    def _count_tokens(self) -> None:
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of answers that have begun, cached ones too.")
        self._generation = self._counter("generation_tokens", "Tokens generated.")
        self._queries = self._counter("prefix_cache_queries", "Prompt tokens of finished answers.")
        self._hits = self._counter("prefix_cache_hits", "Of these: found in the cache, not computed again.")

    def _time_requests(self) -> None:
        self._first = self._histogram(
            "time_to_first_token_seconds", "From the request's arrival to the first token.", _WAIT_BUCKETS
        )
        self._gap = self._histogram(
            "inter_token_latency_seconds", "Between two arrivals of tokens in one answer.", _GAP_BUCKETS
        )
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Of a finished answer: first token to last, over the tokens after the first.",
            _GAP_BUCKETS,
        )
        self._queue = self._histogram("request_queue_time_seconds", "Waiting for a slot.", _WAIT_BUCKETS)
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "From the request's arrival to its answer's end.", _ANSWER_BUCKETS
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"berth_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"berth_{name}", text, registry=self.registry, buckets=buckets)

    def first_token(self, seconds: float, prompt_tokens: int) -> None:
        """An answer begins, `seconds` after its request arrived."""
        self._first.observe(seconds)
        self._prompt.inc(prompt_tokens)

    def tokens(self, count: int, gap_seconds: float | None) -> None:
        """New tokens; `gap_seconds` since the ones before, None for the first."""
        self._generation.inc(count)
        if gap_seconds is not None:
            self._gap.observe(gap_seconds)

    def finished(self, end: Finished, seconds: float, decode_seconds: float) -> None:
        """A complete answer: `seconds` in all, `decode_seconds` of them from its first token to its last."""
        self._success.labels(end.finish_reason).inc()
        self._whole.observe(seconds)
        self._queue.observe(end.queue_seconds)
        self._queries.inc(end.prompt_tokens)
        self._hits.inc(end.cached_tokens)
        if end.completion_tokens > 1:
            self._per_token.observe(decode_seconds / (end.completion_tokens - 1))

    def failed(self, code: str) -> None:
        """A request that ends in any other way."""
        with self._lock:
            if code not in self._codes and len(self._codes) >= _MAX_CODES:
                code = "other"
            self._codes.add(code)
        self._failure.labels(code).inc()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        return generate_latest(_WithoutCreated(self.registry))


class _WithoutCreated(Collector):
    """The registry less the time at which each series began: half of all lines, and the library's switch is global."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
