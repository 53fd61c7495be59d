"""The quality bench: its measures, its texts, and the forms of a small model."""

import math
from pathlib import Path

import pytest
import torch

from tests.bench.quality.__main__ import DEMO_MODEL, table
from tests.bench.quality.divergence import Divergence, divergence
from tests.bench.quality.forms import FORMS, REFERENCE, logits_of
from tests.bench.quality.texts import demo_texts, random_texts
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

TINY = CheckpointShape(hidden=128, layers=2, heads=2, kv_heads=1, head_dim=64, intermediate=256, vocab=512, context=64)


def logits(*probabilities: float) -> torch.Tensor:
    """One position."""
    return torch.tensor([probabilities]).log()


def test_divergence_is_that_of_the_reference_from_the_other() -> None:
    found = divergence([logits(0.5, 0.5), logits(0.9, 0.1)], [logits(0.25, 0.75), logits(0.9, 0.1)])
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found.positions == 2
    assert found.mean_kl == pytest.approx(kl / 2, rel=1e-5)
    assert found.p99_kl == pytest.approx(kl, rel=1e-5)
    assert found.same_top == 0.5


def test_a_constant_added_to_logits_changes_nothing() -> None:
    found = divergence([logits(0.7, 0.2, 0.1)], [logits(0.7, 0.2, 0.1) + 100])
    assert found.mean_kl == pytest.approx(0, abs=1e-6)
    assert found.same_top == 1


@pytest.mark.parametrize("other", [[], [torch.zeros(2, 3)], [torch.zeros(1, 3), torch.zeros(1, 3)]])
def test_other_positions_are_refused(other: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError):
        divergence([torch.zeros(1, 3)], other)
    with pytest.raises(ValueError):
        divergence([], [])


def test_texts_are_the_same_at_every_run() -> None:
    assert demo_texts(DEMO_MODEL, 3) == demo_texts(DEMO_MODEL, 3)
    assert random_texts(512, 2, 9) == random_texts(512, 2, 9)
    (first, second) = random_texts(512, 2, 9)
    assert first != second
    assert first.positions == tuple(range(9))


def test_the_positions_of_a_conversation_are_those_before_its_answers() -> None:
    text = demo_texts(DEMO_MODEL, 1)[0]
    assert all(0 <= position < len(text.ids) - 1 for position in text.positions)
    assert len(text.positions) < len(text.ids) - 1  # its question is not among them


def test_fewer_bits_are_farther_from_bf16(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "tiny", TINY)
    texts = random_texts(TINY.vocab, 1, 32)
    reference = logits_of(tmp_path / "tiny", REFERENCE, texts)
    kl = {form.name: divergence(reference, logits_of(tmp_path / "tiny", form, texts)).mean_kl for form in FORMS}
    fp32, int8, bnb_int8, int4, nf4 = (kl[form.name] for form in FORMS)
    assert fp32 > 0
    assert max(int8, bnb_int8) * 4 < min(int4, nf4)
    assert divergence(reference, logits_of(tmp_path / "tiny", REFERENCE, texts)).mean_kl == 0


def test_a_line_for_each_form_and_model() -> None:
    one = Divergence(100, 0.000123, 0.0045, 0.987)
    text = table({model: {form.name: one for form in FORMS} for model in ("demo", "random")}, FORMS)
    assert len(text.splitlines()) == 2 + 2 * len(FORMS)
    assert "| 0.12 | 4.5 | 98.70% |" in text
