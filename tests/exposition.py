"""Reads Prometheus' text format with its own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Exposition:
    """One scrape. An absent sample is a KeyError."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self._samples, f"twice: {key}"
                self._samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples[f"berth_{name}", frozenset(labels.items())]

    def names(self) -> set[str]:
        return {name for name, _ in self._samples}

    def series(self, name: str) -> dict[str, float]:
        """Samples by the value of their only label."""
        samples = {labels: value for (known, labels), value in self._samples.items() if known == f"berth_{name}"}
        return {next(iter(labels))[1]: value for labels, value in samples.items()}
