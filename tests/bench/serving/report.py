"""The table of a run, and its place in docs/serving.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.bench.serving.figures import Figures, median_of, spread

Results = Mapping[str, Mapping[int, list[Figures]]]
"""By server and concurrency, a value a round."""
NAMES = {"berth": "Berth", "batching": "`transformers serve --continuous-batching`", "plain": "`transformers serve`"}
TARGETS = {1: 1.2, 4: 1.3, 16: 1.4, 32: 1.75}
"""Of Berth's throughput, in bf16, as ratios to the batching mode's."""
COLUMNS = ("at once", "server", "tok/s", "lowest to highest", "first token, ms", "p99 gap, ms", "Berth / this")


def table(results: Results, ready_seconds: Mapping[str, float]) -> str:
    """Markdown: ready times, then a line for each concurrency and server."""
    ready = ", ".join(f"{NAMES[server]} {seconds:.1f} s" for server, seconds in ready_seconds.items())
    rows = [f"Ready after (median): {ready}.", "", _row(COLUMNS), _row("-" for _ in COLUMNS)]
    for concurrency in sorted({number for loads in results.values() for number in loads}):
        ours = results.get("berth", {}).get(concurrency)
        for server, loads in results.items():
            one = median_of(loads[concurrency])
            ratio = median_of(ours).tokens_per_second / one.tokens_per_second if ours and server != "berth" else None
            rows.append(
                _row(
                    (
                        str(concurrency),
                        NAMES[server],
                        f"{one.tokens_per_second:.1f}",
                        spread(loads[concurrency]),
                        f"{one.first_token_seconds * 1000:.0f}",
                        f"{one.gap_seconds * 1000:.0f}",
                        f"{ratio:.2f}" if ratio else "",
                    )
                )
            )
    return "\n".join(rows)


def _row(cells: object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[call-overload]


def processor() -> str:
    """The processor's name, and what of it decides the speed of 16-bit products."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("\t", 1) for line in lines if "\t" in line)
    name = found["model name"].removeprefix("\t").lstrip(": ")
    flags = found["flags"].split()
    known = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(known) or 'no bf16 products'})"


def machine() -> str:
    """What a reader needs to judge the numbers."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes"))
    return f"{len(os.sched_getaffinity(0))} cores of {processor()}, Python {platform.python_version()}, {packages}"


def write_report(path: Path, precision: str, text: str, rounds: int) -> None:
    """Replaces this precision's section; the document's other lines stay."""
    title = f"## {precision}"
    command = f"`python -m tests.bench.serving --precision {precision} --rounds {rounds}`"
    section = f"{title}\n\n{command} on {machine()}.\n\n{text}\n"
    before, found, behind = path.read_text(encoding="utf-8").partition(f"{title}\n")
    rest = behind.partition("\n## ")
    after = f"\n## {rest[2]}" if rest[1] else ""
    path.write_text(f"{before if found else before.rstrip() + chr(10) * 2}{section}{after}", encoding="utf-8")
