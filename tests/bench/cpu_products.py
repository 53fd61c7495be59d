"""One product on the CPU, by form and rows: the engine's bf16, int8 and int4 beside plain ones and bitsandbytes'.

    .venv/bin/python -m tests.bench.cpu_products [--shape 4096x4096] [--rows 1,4,16,32,128,512]
    FBGEMM_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
        .venv/bin/python -m tests.bench.cpu_products --without-bitsandbytes

Prints milliseconds, the least of several passes over weights that together are larger than the processor's caches, and
for int8 the share of a plain read of the weights at one row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from app.engine.kernels.bf16_linear import bf16_linear
from app.engine.kernels.int4_linear import Int4Linear, packed_codes, quantised
from app.engine.kernels.int8_linear import Int8Linear, pack_rows, quantised_rows
from app.layouts.cpu_products import int8_piece_rows
from tests.bench.serving.report import machine

READ_BYTES = 256 << 20
"""Weights of each form, together."""
PASSES = 4

Product = Callable[[torch.Tensor], torch.Tensor]


def int8_product(weight: torch.Tensor) -> Product:
    """The engine's form."""
    rows, columns = weight.shape
    codes, scale = quantised_rows(weight)
    step = int8_piece_rows(columns)
    module = Int8Linear(columns, rows, None)
    module.pieces = [pack_rows(codes[at : at + step], scale[at : at + step]) for at in range(0, rows, step)]
    return module


def int4_product(weight: torch.Tensor) -> Product:
    """The engine's form; rows must be a multiple of 64."""
    codes, groups = quantised(weight)
    module = Int4Linear(weight.shape[1], weight.shape[0], None)
    module.codes, module.groups = packed_codes(codes), groups.transpose(0, 1).contiguous()
    return module


def bf16_product(weight: torch.Tensor) -> Product:
    """The engine's form."""
    stored = weight.bfloat16()
    return lambda x: bf16_linear(x.bfloat16(), stored)


def plain_product(weight: torch.Tensor, dtype: torch.dtype) -> Product:
    """torch's own."""
    stored = weight.to(dtype)
    return lambda x: torch.nn.functional.linear(x.to(dtype), stored)


def bitsandbytes_product(weight: torch.Tensor, precision: str) -> Product:
    """bitsandbytes', as the engine used it on CPUs until 0.50.2."""
    from app.engine.kernels.bnb import bnb_nn

    rows, columns = weight.shape
    module: Any
    if precision == "int8":
        module = bnb_nn.Linear8bitLt(columns, rows, False, has_fp16_weights=False, threshold=6.0)
        module.weight = bnb_nn.Int8Params(weight.half(), requires_grad=False, has_fp16_weights=False)
    else:
        module = bnb_nn.Linear4bit(columns, rows, False, compute_dtype=torch.float32, quant_type="nf4")
        module.weight = bnb_nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    product: Product = module.to("cpu")
    return product


def forms(with_bitsandbytes: bool) -> Iterator[tuple[str, float, Callable[[torch.Tensor], Product]]]:
    """Each form's name, its bytes an element, and what makes it of an fp32 weight."""
    yield "fp32", 4, lambda weight: plain_product(weight, torch.float32)
    yield "bf16, torch's own", 2, lambda weight: plain_product(weight, torch.bfloat16)
    yield "bf16", 2, bf16_product
    yield "int8", 1, int8_product
    yield "int4", 0.5625, int4_product
    if with_bitsandbytes:
        yield "bitsandbytes int8", 1, lambda weight: bitsandbytes_product(weight, "int8")
        yield "bitsandbytes nf4", 0.516, lambda weight: bitsandbytes_product(weight, "int4")


@torch.inference_mode()
def milliseconds(products: Sequence[Product], x: torch.Tensor) -> float:
    """For one product: the least of several passes over all."""
    passes = []
    for _ in range(PASSES):
        began = time.perf_counter()
        for product in products:
            product(x)
        passes.append((time.perf_counter() - began) / len(products))
    return min(passes) * 1000


def read_milliseconds(elements: int) -> float:
    """A plain read of so many bytes that are in no cache."""
    words = torch.ones(READ_BYTES // 8, dtype=torch.int64)
    reads = []
    for _ in range(PASSES):
        began = time.perf_counter()
        words.sum()
        reads.append((time.perf_counter() - began) * elements / READ_BYTES)
    return min(reads) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="4096x4096", help="outputs x inputs")
    parser.add_argument("--rows", default="1,4,16,32,128,512")
    parser.add_argument("--without-bitsandbytes", action="store_true")
    asked = parser.parse_args()
    outputs, inputs = (int(part) for part in asked.shape.split("x"))
    rows = [int(part) for part in asked.rows.split(",")]
    weight = torch.randn(outputs, inputs) * 0.02
    print(f"{asked.shape}, {machine()}, ATen with {torch.backends.cpu.get_cpu_capability()}\n")
    print(f"| form | {' | '.join(map(str, rows))} |\n|---|{'---|' * len(rows)}")
    for name, size, make in forms(not asked.without_bitsandbytes):
        copies = max(1, int(READ_BYTES / size / weight.numel()))
        products = [make(weight) for _ in range(copies)]
        times = [milliseconds(products, torch.randn(count, inputs)) for count in rows]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in times)} |", flush=True)
        del products
    print(f"\nA plain read of {outputs * inputs} bytes takes {read_milliseconds(outputs * inputs):.2f} ms.")


if __name__ == "__main__":
    main()
