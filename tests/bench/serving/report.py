"""The table of a run, and its place in docs/serving.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.bench.serving.contestants import Contestant
from tests.bench.serving.figures import Figures, median_of, spread

Results = Mapping[Contestant, Mapping[int, list[Figures]]]
"""By contestant and concurrency, a value a round."""
COLUMNS = (
    "at once",
    "server",
    "tok/s",
    "lowest to highest",
    "first token, ms",
    "gap, ms",
    "p99 gap, ms",
    "of read bandwidth",
    "Berth's form / this",
)
KINDS = (
    ("amx_bf16", "AMX"),
    ("avx512_bf16", "AVX-512 with bf16"),
    ("avx512_vnni", "AVX-512 with VNNI"),
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
)
"""Flags of a processor, best first, and how its kind is named."""


def table(results: Results, ready_seconds: Mapping[Contestant, float], bandwidth: float | None) -> str:
    """Markdown: ready times, then a line for each concurrency and contestant. The bandwidth is in bytes a second."""
    ready = ", ".join(f"{one.name} {seconds:.1f} s" for one, seconds in ready_seconds.items())
    read = f"{bandwidth / 1e9:.1f} GB/s" if bandwidth else "not measured"
    lines = [f"Ready after (median): {ready}. A plain read: {read}.", "", _row(COLUMNS), _row("-" for _ in COLUMNS)]
    for concurrency in sorted({number for loads in results.values() for number in loads}):
        for one, loads in results.items():
            if concurrency in loads:
                lines.append(_line(results, one, concurrency, bandwidth if concurrency == 1 else None))
    return "\n".join(lines)


def _line(results: Results, one: Contestant, concurrency: int, bandwidth: float | None) -> str:
    rounds = results[one][concurrency]
    figures = median_of(rounds)
    ours = results.get(one.counterpart, {}).get(concurrency) if one.counterpart else None
    ratio = median_of(ours).tokens_per_second / figures.tokens_per_second if ours else None
    share = one.read_bytes / figures.median_gap_seconds / bandwidth if bandwidth and one.read_bytes else None
    return _row(
        (
            str(concurrency),
            one.name,
            f"{figures.tokens_per_second:.1f}",
            spread(rounds),
            f"{figures.first_token_seconds * 1000:.0f}",
            f"{figures.median_gap_seconds * 1000:.1f}",
            f"{figures.long_gap_seconds * 1000:.0f}",
            f"{share:.0%}" if share else "",
            f"{ratio:.2f}" if ratio else "",
        )
    )


def _row(cells: object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[call-overload]


def processor() -> tuple[str, str]:
    """The processor's name, and its kind: what decides the speed of its products."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("\t", 1) for line in lines if "\t" in line)
    flags = found["flags"].split()
    kind = next((kind for flag, kind in KINDS if flag in flags), "no AVX2")
    return found["model name"].removeprefix("\t").lstrip(": "), kind


def machine() -> str:
    """What a reader needs to judge the numbers."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    name, kind = processor()
    return f"{len(os.sched_getaffinity(0))} cores of {name} ({kind}), Python {platform.python_version()}, {packages}"


def title(avx2_only: bool) -> str:
    """Of the section of this kind of processor."""
    kind = processor()[1]
    return f"## {kind}, told to use AVX2 only" if avx2_only and kind != "AVX2" else f"## {kind}"


def write_report(path: Path, heading: str, text: str) -> None:
    """Replaces the section under that heading; the document's other lines stay."""
    section = f"{heading}\n\n{text}\n"
    before, found, behind = path.read_text(encoding="utf-8").partition(f"{heading}\n")
    rest = behind.partition("\n## ")
    after = f"\n## {rest[2]}" if rest[1] else ""
    path.write_text(f"{before if found else before.rstrip() + chr(10) * 2}{section}{after}", encoding="utf-8")
