"""Berth beside `transformers serve`, plain and with continuous batching, on the CPU.

    .venv/bin/python -m tests.bench.serving [--rounds 3] [--precision bf16] [--write docs/serving.md]
    .venv/bin/python -m tests.bench.serving --servers berth --rounds 1 --concurrency 1,16

Streams through HTTP on loopback: a random GLM-4 shape of 256 M parameters, distinct prompts of 48 words, 64 new tokens,
no early end. In each round each server is started by itself, warmed up and loaded; rounds are interleaved and medians
taken, so that whatever else the machine does meets all of them. Environment and checkpoint are made once, in `.bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
from collections import defaultdict
from pathlib import Path

from tests.bench.serving.checkpoint import speaking_checkpoint
from tests.bench.serving.client import Target, ask_together, prompt
from tests.bench.serving.figures import Figures, figures_of
from tests.bench.serving.report import Results, table, write_report
from tests.bench.serving.servers import TOP, Started, berth, rival, rival_environment

NEW_TOKENS, WARM_TOKENS = 64, 8
REPEATS = {1: 4, 4: 2}
"""Loads a round where one alone would be a short one."""
SERVERS = ("berth", "batching", "plain")


def start(server: str, checkpoint: Path, precision: str, cache: Path) -> contextlib.AbstractContextManager[Started]:
    """One of `SERVERS`."""
    if server == "berth":
        return berth(checkpoint, precision)
    return rival(rival_environment(cache), checkpoint, precision, batching=server == "batching")


def measure(target: Target, concurrency: int, draw: random.Random) -> Figures:
    """One concurrency, after a short load of the same width."""
    ask_together(target, [prompt(draw) for _ in range(concurrency)], WARM_TOKENS)
    loads = [
        ask_together(target, [prompt(draw) for _ in range(concurrency)], NEW_TOKENS)
        for _ in range(REPEATS.get(concurrency, 1))
    ]
    return figures_of(loads)


def options() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=lambda text: text.split(","), default=list(SERVERS))
    parser.add_argument("--concurrency", type=numbers, default=[1, 4, 16, 32])
    parser.add_argument("--precision", choices=["bf16", "int8", "int4"], default="bf16")
    parser.add_argument("--cache", type=Path, default=TOP / ".bench", help="where environment and checkpoint are kept")
    parser.add_argument("--write", type=Path, help="puts the table of this precision into that document")
    return parser.parse_args()


def main() -> None:
    asked = options()
    checkpoint = speaking_checkpoint(asked.cache)
    results: Results = defaultdict(lambda: defaultdict(list))
    ready: dict[str, list[float]] = defaultdict(list)
    for number in range(asked.rounds):
        for server in asked.servers:
            if server == "plain" and number:
                continue  # it answers one at a time, which takes minutes and varies little
            draw = random.Random(f"{number} {server}")
            with start(server, checkpoint, asked.precision, asked.cache) as started:
                ready[server].append(started.ready_seconds)
                print(f"round {number + 1}: {server} ready after {started.ready_seconds:.1f} s", flush=True)
                for concurrency in asked.concurrency:
                    figures = measure(started.target, concurrency, draw)
                    results[server][concurrency].append(figures)
                    print(f"  {concurrency:3} at once: {figures}", flush=True)
    seconds = {server: statistics.median(values) for server, values in ready.items()}
    print(text := table(results, seconds))
    if asked.write:
        write_report(asked.write, asked.precision, text, asked.rounds)


if __name__ == "__main__":
    main()
