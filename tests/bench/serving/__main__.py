"""Berth beside llama.cpp and `transformers serve` on the CPU.

    .venv/bin/python -m tests.bench.serving [--rounds 3] [--precision bf16,int8,int4] [--write docs/serving.md]
    .venv/bin/python -m tests.bench.serving --servers berth,llama --precision int8 --rounds 1 --concurrency 1,16
    .venv/bin/python -m tests.bench.serving --cpu avx2

Streams through HTTP on loopback: a random GLM-4 shape of 256 M parameters, distinct prompts of 48 words, 64 new tokens,
no early end. In each round each server is started by itself, warmed up and loaded; rounds are interleaved and medians
taken, so that whatever else the machine does meets all of them. Environments and weights are made once, in `.bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from entrypoint.machine.read_bandwidth import measure_read_bandwidth
from tests.bench.serving.checkpoint import speaking_checkpoint
from tests.bench.serving.client import Target, ask_together, prompt
from tests.bench.serving.contestants import LLAMA_FORMS, SERVERS, Contestant, contestants
from tests.bench.serving.environments import features, llama_environment, llama_weights, rival_environment
from tests.bench.serving.figures import Figures, figures_of
from tests.bench.serving.report import Results, machine, table, title, write_report
from tests.bench.serving.servers import Started, berth, llama, rival
from tests.processes.avx2_only import AVX2_ONLY
from tests.processes.service import TOP

NEW_TOKENS, WARM_TOKENS = 64, 8
REPEATS = {1: 4, 4: 2}
"""Loads a round where one alone would be a short one."""


def start(
    one: Contestant, checkpoint: Path, cpu: dict[str, str], cache: Path
) -> contextlib.AbstractContextManager[Started]:
    """Starts it; its environment and weights exist."""
    if one.server == "berth":
        return berth(checkpoint, one.precision, cpu)
    if one.server == "llama":
        return llama(llama_environment(cache), checkpoint, one.form)
    return rival(rival_environment(cache), checkpoint, one.precision, cpu, batching=one.server == "batching")


def measure(target: Target, concurrency: int, draw: random.Random) -> Figures:
    """One concurrency, after a short load of the same width."""
    ask_together(target, [prompt(draw) for _ in range(concurrency)], WARM_TOKENS)
    loads = [
        ask_together(target, [prompt(draw) for _ in range(concurrency)], NEW_TOKENS)
        for _ in range(REPEATS.get(concurrency, 1))
    ]
    return figures_of(loads)


def options() -> argparse.Namespace:
    """The command's options; its lists are comma-separated."""

    def names(known: list[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            if unknown := set(parts := text.split(",")) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
            return parts

        return read

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    precisions = list(LLAMA_FORMS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=names(list(SERVERS)), default=["berth", "llama", "batching"])
    parser.add_argument("--concurrency", type=numbers, default=[1, 4, 16, 32])
    parser.add_argument("--precision", type=names(precisions), default=precisions)
    parser.add_argument("--cpu", choices=["avx2"], help="torch's libraries use no more of the CPU than that")
    parser.add_argument("--cache", type=Path, default=TOP / ".bench", help="where environments and weights are kept")
    parser.add_argument("--write", type=Path, help="puts the table of this kind of processor into that document")
    return parser.parse_args()


def main() -> None:
    """Runs the rounds and prints the report."""
    asked = options()
    cpu = AVX2_ONLY if asked.cpu else {}
    checkpoint = speaking_checkpoint(asked.cache)
    ones = contestants(asked.servers, asked.precision)
    for one in ones:
        if one.server == "llama":  # before anything is measured
            llama_weights(llama_environment(asked.cache), checkpoint, one.form)
    results: Results = defaultdict(lambda: defaultdict(list))
    ready: dict[Contestant, list[float]] = defaultdict(list)
    reads: list[int] = []
    for number in range(asked.rounds):
        for one in ones:
            if one.server == "plain" and number:
                continue  # it answers one at a time, which takes minutes and varies little
            if read := measure_read_bandwidth():
                reads.append(read)
            # All servers of a round and precision get the same prompts.
            draw = random.Random(f"{number} {one.precision}")
            with start(one, checkpoint, cpu, asked.cache) as started:
                ready[one].append(started.ready_seconds)
                print(f"round {number + 1}: {one.name} ready after {started.ready_seconds:.1f} s", flush=True)
                for concurrency in asked.concurrency:
                    figures = measure(started.target, concurrency, draw)
                    results[one][concurrency].append(figures)
                    print(f"  {concurrency:3} at once: {figures}", flush=True)
    seconds = {one: statistics.median(values) for one, values in ready.items()}
    used = "; ".join(f"{SERVERS[server]}: {features(asked.cache, server, cpu)}" for server in asked.servers)
    print(text := table(results, seconds, statistics.median(reads) if reads else None))
    head = f"Rounds: {asked.rounds}, on {machine()}. Instructions in use: {used}."
    print(head)
    if asked.write:
        write_report(asked.write, title(bool(asked.cpu)), f"{head}\n\n{text}")


if __name__ == "__main__":
    main()
