"""Trains the bundled demo model, or checks it.

    python -m tools.demo.train           writes app/demo_model (under 20 minutes on two cores)
    python -m tools.demo.train --check   share of questions answered word for word at 16-bit, int8 and int4

Two threads and a fixed seed: the same machine gives the same model again.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that `python tools/demo/train.py` works too
# Read when torch is imported: threads that spin at every barrier slow each other down if the cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tokenizers import Tokenizer

from tools.checkpoints.glm_tokenizer import save_tokenizer
from tools.checkpoints.make_checkpoint import make_config, published_fields, write_json
from tools.demo.check import CHECKED_PRECISIONS, QuestionAnswer, load, load_tokenizer, quiet, wrong_answers
from tools.demo.questions import LANGUAGES, OffTopic, load_questions
from tools.demo.samples import Sampler
from tools.demo.training import SHAPE, new_model, train, train_tokenizer

DEMO_MODEL = Path(__file__).parents[2] / "app" / "demo_model"
MIN_SHARE = 0.95  # that each precision must reach
THREADS = 2  # the results depend on the number


def save(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the model rounded to bf16, its configs and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder, SHAPE.context)
    config = make_config(SHAPE)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written readable by its owner alone
    fields = published_fields(config) | {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    write_json(folder / "config.json", fields)
    stops = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    write_json(folder / "generation_config.json", stops | {"do_sample": True, "temperature": 0.6, "top_p": 0.8})


def train_demo(folder: Path, steps: int, seed: int) -> None:
    """Trains from random weights and saves into `folder`."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder, SHAPE.context)  # also gives the tokenizer its control tokens
    model = new_model()
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters, {steps} steps")
    train(model, Sampler(tokenizer, seed), steps)
    save(model, tokenizer, folder)


def trained(every: bool) -> list[QuestionAnswer]:
    """Trained wordings with their answers: one per question, in turn, or every one."""
    questions = enumerate(load_questions())
    picked = [(q, q.wordings if every else (q.wordings[n % len(q.wordings)],)) for n, q in questions]
    return [(text, question.answer) for question, texts in picked for text in texts]


def held_out() -> list[QuestionAnswer]:
    return [(text, question.answer) for question in load_questions() for text in question.held_out]


def off_topic(count: int = 30) -> list[QuestionAnswer]:
    """Off-topic questions of kinds that weren't trained, `count` in each language."""
    random = Random(0)
    kinds = [OffTopic(language) for language in LANGUAGES]
    return [(kind.draw(random, kind.held_out), kind.answer) for kind in kinds for _ in range(count)]


def check(folder: Path, every: bool, verbose: bool) -> bool:
    """Prints the shares at each precision; returns whether every precision answers enough trained wordings."""
    tokenizer = load_tokenizer(folder)
    passed = True
    for precision in CHECKED_PRECISIONS:
        started = time.monotonic()
        model = load(folder, precision)
        shares = {}
        for name, pairs in (("trained", trained(every)), ("held-out", held_out()), ("off-topic", off_topic())):
            wrong = wrong_answers(model, tokenizer, pairs)
            shares[name] = 1 - len(wrong) / len(pairs)
            for question, text in wrong if verbose else ():
                print(f"  {precision} {name}: {question!r} -> {text!r}")
        passed &= shares["trained"] >= MIN_SHARE
        text = "  ".join(f"{name} {share:6.1%}" for name, share in shares.items())
        print(f"{precision:5} {text}  ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{len(trained(every))} trained wordings of {len(load_questions())} questions; needed: {MIN_SHARE:.0%}")
    return passed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="train_demo", description="Train or check the bundled demo model.")
    parser.add_argument("--check", action="store_true", help="check the model instead of training it")
    parser.add_argument("--all", action="store_true", help="check every trained wording, not one per question")
    parser.add_argument("--verbose", action="store_true", help="print the wrong answers")
    parser.add_argument("--folder", type=Path, default=DEMO_MODEL)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    quiet()
    if options.check:
        return 0 if check(options.folder, options.all, options.verbose) else 1
    started = time.monotonic()
    train_demo(options.folder, options.steps, options.seed)
    print(f"trained and saved in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
