"""A checkpoint's model in each form that is compared: the engine's own on the CPU, and those that GPUs are given.

GPUs get bitsandbytes' forms. Its kernels run on the CPU too, slowly; so the forms are compared without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.contract.plan import Dtype, Precision
from app.engine.kernels.bnb import bnb_functional, bnb_nn
from app.engine.loading.checkpoint import CheckpointFiles, open_checkpoint
from tests.bench.quality.texts import Text
from tests.engine_models import engine_config, load_quietly

NF4_BLOCK = 64
OUTLIER = 6.0
"""LLM.int8() computes columns with an activation beyond it in 16 bits (arXiv 2208.07339)."""


@dataclass(frozen=True)
class Form:
    """One way to hold the weights."""

    name: str
    precision: Precision
    """That the engine loads."""
    dtype: Dtype = "bfloat16"
    change: Callable[[Any, Sequence[str]], None] | None = None
    """What is done to the loaded model and its modules of these names."""


def to_nf4(model: Any, names: Sequence[str]) -> None:
    """Rounds weights to nf4 with nested scales and back, as a GPU's product does before it multiplies."""
    for name in names:
        weight = model.get_submodule(name).weight
        codes, state = bnb_functional.quantize_4bit(
            weight.contiguous(), blocksize=NF4_BLOCK, compress_statistics=True, quant_type="nf4"
        )
        weight.copy_(bnb_functional.dequantize_4bit(codes, state))


def to_bnb_int8(model: Any, names: Sequence[str]) -> None:
    """Replaces modules by bitsandbytes' LLM.int8(), whose activations are int8 too."""
    for name in names:
        linear = model.get_submodule(name)
        rows, scale, _ = bnb_functional.int8_vectorwise_quant(linear.weight.to(torch.float16))
        module = bnb_nn.Linear8bitLt(
            linear.in_features, linear.out_features, has_fp16_weights=False, threshold=OUTLIER, device="meta"
        )
        module.weight = bnb_nn.Int8Params(rows, requires_grad=False, has_fp16_weights=False, CB=rows, SCB=scale)
        module.bias = linear.bias
        model.set_submodule(name, module.eval())


REFERENCE = Form("bf16", "bf16")
FORMS = (
    Form("fp32", "fp32", "float32"),
    Form("int8 on a CPU", "int8"),
    Form("int8 on a GPU (LLM.int8())", "bf16", change=to_bnb_int8),
    Form("int4 on a CPU", "int4"),
    Form("int4 on a GPU (nf4)", "bf16", change=to_nf4),
)
"""In the order of the table. fp32 shows how much of each figure is bf16's own rounding."""


@torch.inference_mode()
def logits_of(checkpoint: Path, form: Form, texts: Sequence[Text]) -> list[torch.Tensor]:
    """Logits [positions, vocabulary] of each text, in fp32."""
    files = open_checkpoint(checkpoint)
    longest = max(len(text.ids) for text in texts)
    model = load_quietly(files, engine_config(form.precision, form.dtype, max_model_len=longest))
    if form.change:
        form.change(model, list(_linear_names(files)))
    return [_logits(model, text) for text in texts]


def _linear_names(files: CheckpointFiles) -> Iterator[str]:
    """The modules that the engine would quantise."""
    for tensor in files.tensors:
        if tensor.parameter.linear:
            yield tensor.parameter.name.removesuffix(".weight")


def _logits(model: Any, text: Text) -> torch.Tensor:
    hidden = model.model(torch.tensor([text.ids]), use_cache=False).last_hidden_state[0]
    # Two dimensions, as the engine's backend multiplies them.
    logits: torch.Tensor = model.lm_head(hidden[list(text.positions)])
    return logits.float()
