"""How far int8 and int4 are from bf16: divergence of the next-token distributions, on the CPU.

    .venv/bin/python -m tests.bench.quality [--texts 48] [--prompts 4] [--cache .bench]
    ATEN_CPU_CAPABILITY=avx2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2 .venv/bin/python -m tests.bench.quality --models demo

The demo model over conversations like those it was trained on, and a random GLM-4 shape of 256 M parameters over random
prompts. Prints a Markdown table for docs/benchmarks.md. The random model's checkpoint is made once, in `.bench`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

# Read when torch is imported: threads that spin at every barrier slow each other down if the cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from entrypoint.machine.cgroup import cpu_count
from tests.bench.quality.divergence import Divergence, divergence
from tests.bench.quality.forms import FORMS, REFERENCE, Form, logits_of
from tests.bench.quality.texts import Text, demo_texts, random_texts
from tests.bench.serving.checkpoint import SHAPE, speaking_checkpoint
from tests.bench.serving.report import machine
from tests.paths import TOP

DEMO_MODEL = TOP / "app" / "demo_model"
PROMPT_TOKENS = 256
MODELS = ("demo", "random")
TITLES = {"demo": "demo model", "random": "random 256 M"}
COLUMNS = ("weights", "model", "mean KL, 1/1000 nat", "99 % of positions below", "same likeliest token")


def compare(checkpoint: Path, forms: Sequence[Form], texts: Sequence[Text]) -> dict[str, Divergence]:
    """Each form beside the reference, by its name."""
    reference = logits_of(checkpoint, REFERENCE, texts)
    found = {}
    for form in forms:
        began = time.monotonic()
        found[form.name] = divergence(reference, logits_of(checkpoint, form, texts))
        print(f"{form.name}: {time.monotonic() - began:.0f} s, {found[form.name]}", flush=True)
    return found


def table(found: dict[str, dict[str, Divergence]], forms: Sequence[Form]) -> str:
    """Markdown, a line for each form and model."""
    lines = [_row(COLUMNS), _row(["-"] * len(COLUMNS))]
    for form in forms:
        for model, results in found.items():
            one = results[form.name]
            figures = (f"{1000 * one.mean_kl:.2g}", f"{1000 * one.p99_kl:.2g}", f"{one.same_top:.2%}")
            lines.append(_row((form.name, TITLES[model], *figures)))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Compares, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--texts", type=int, default=48, help="conversations of the demo model")
    parser.add_argument("--prompts", type=int, default=4, help=f"of the random model, of {PROMPT_TOKENS} tokens")
    parser.add_argument("--cache", type=Path, default=TOP / ".bench", help="where the random checkpoint is kept")
    asked = parser.parse_args()
    torch.set_num_threads(cpu_count())
    found = {}
    for model in asked.models:
        if model == "demo":
            checkpoint, texts = DEMO_MODEL, demo_texts(DEMO_MODEL, asked.texts)
        else:
            checkpoint = speaking_checkpoint(asked.cache)
            texts = random_texts(SHAPE.vocab, asked.prompts, PROMPT_TOKENS)
        print(f"{TITLES[model]}: {sum(len(text.positions) for text in texts)} positions", flush=True)
        found[model] = compare(checkpoint, FORMS, texts)
    print(f"\n{machine()}\n\n{table(found, FORMS)}")


if __name__ == "__main__":
    main()
