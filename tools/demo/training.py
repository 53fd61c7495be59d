"""The demo model's shape and its training, with 4-bit rounding taught in the last part."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import Tokenizer, models, trainers
from transformers import AutoModelForCausalLM

from tools.checkpoints.glm_tokenizer import BYTES, CONTROL_TOKENS, bare_tokenizer
from tools.checkpoints.make_checkpoint import make_config
from tools.checkpoints.shape import CheckpointShape
from tools.demo.questions import corpus_texts
from tools.demo.samples import IGNORED, Sampler

# Every Linear reads a multiple of 64 inputs: bitsandbytes' nf4 crashes on AVX-512 CPUs otherwise.
SHAPE = CheckpointShape(
    model_type="glm4",
    hidden=256,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=64,
    intermediate=512,
    vocab=2048,
    context=2048,
)
BATCH_TOKENS = 4096
PEAK_RATE = 2e-3
WARM_UP = 100  # steps
ROUNDED_FROM = 0.5  # the share of steps after which 4-bit rounding begins


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE on the corpus, leaving room for the control tokens."""
    tokenizer = bare_tokenizer(models.BPE())
    size = SHAPE.vocab - len(CONTROL_TOKENS)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=BYTES, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator(corpus_texts(), trainer)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the corpus gives only {tokenizer.get_vocab_size()} tokens, not {size}")
    return tokenizer


def new_model() -> Any:
    """The untrained model in float32, initialised as transformers does."""
    return AutoModelForCausalLM.from_config(make_config(SHAPE), dtype=torch.float32)  # type: ignore[no-untyped-call]


@contextmanager
def rounded_to_nf4(model: Any) -> Iterator[None]:
    """Inside it, Linear modules hold their weights rounded by bitsandbytes; gradients go to the exact weights."""
    import bitsandbytes.functional as bnb  # not at the top: its import logs messages unless it was silenced

    linears = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    masters = [linear.weight.data for linear in linears]
    for linear in linears:
        weight = linear.weight.data.bfloat16()
        packed, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
        linear.weight.data = bnb.dequantize_4bit(packed, state).float()
    yield
    for linear, master in zip(linears, masters, strict=True):
        linear.weight.data = master


def answer_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens; the output layer sees only their positions."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        learnt = wanted != IGNORED
        logits = model.lm_head(hidden[learnt])
    return torch.nn.functional.cross_entropy(logits.float(), wanted[learnt])


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: a linear rise, then a linear fall to zero."""
    return min((step + 1) / WARM_UP, (steps - step) / max(1, steps - WARM_UP))


def _groups(model: Any) -> list[dict[str, Any]]:
    """Matrices decay; norms and biases don't."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]


def train(model: Any, sampler: Sampler, steps: int) -> None:
    """Trains in place for `steps` batches, printing loss and time now and then."""
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    batches = sampler.batches(BATCH_TOKENS)
    started, recent = time.monotonic(), 0.0
    model.train()
    for step in range(steps):
        ids, labels = next(batches)
        if step >= steps * ROUNDED_FROM and step % 3:  # every third step stays exact, so that 16-bit keeps up
            with rounded_to_nf4(model):
                loss = answer_loss(model, ids, labels)
                loss.backward()  # type: ignore[no-untyped-call]
        else:
            loss = answer_loss(model, ids, labels)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent = loss.item() if not step else 0.95 * recent + 0.05 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            print(f"step {step + 1}/{steps}  loss {recent:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    model.eval()
