"""Bytes, by pure functions: what a rung takes, term by term. Sizes in bytes, lengths in tokens."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

from app.contract.plan import DTYPE_BYTES, Device, Precision, Term
from app.layouts.cpu_products import INT4_SLICE_ELEMENTS, INT8_PIECES, PIECE_ELEMENTS, int4_bytes, int8_bytes
from app.layouts.layout import Layout
from app.layouts.nf4 import ABSMAX_BLOCK, NF4_BLOCK, PACKED_ROWS, SLICE_ELEMENTS, WIDE_ROWS, row_slices
from app.layouts.registry import HEAP_GAP_BYTES, LOAD_PIECE_ELEMENTS
from app.layouts.shape import Parameter, Shape
from app.layouts.skeleton import cache_bytes_per_token, skeleton
from entrypoint.plan.activations import MIB, PREFILL_CHUNK, activation_bytes, graph_bytes
from entrypoint.plan.activations import Load as Load

SERVICE_BYTES = 96 * MIB
"""Anonymous memory of the supervisor and the web service, which share the container with an engine on the CPU: 77 MiB
under mixed load (tests/bench/soak), and room for a web worker whose threads are all busy."""
CODE_SIZES = 18
"""Numbers of rows that the engine's products have (row_padding in the engine); dense layers meet them in the proof."""
FEW_CODE_SIZES = 3
"""Those below the number from which a CPU without bf16 widens the weight (app.engine.kernels.cpu_kind): 2, 4, 8."""
CODE_BYTES, CODE_BYTES_A_COLUMN = 680 * 1024, 80
ATTENTION_CODE_BYTES = 8 * MIB


@dataclass(frozen=True)
class LayerSpan:
    """Layers that lie together: the embedding comes with the first of the model, final norm and head with the last."""

    first: int
    layers: int


def parameter_bytes(parameter: Parameter, load: Load) -> int:
    """Bytes of one loaded parameter, or buffer that is stored, with its quantisation state.

    In the CPU's own forms see `app.layouts.cpu_products`; else in bitsandbytes'.
    int8 (LLM.int8): a byte an element and an fp32 scale a row. int4 (nf4, double quantisation): half a byte an
    element, a uint8 absmax a block of 64, an fp32 absmax for 256 of those, the two codebooks (16 and 256 fp32)
    and an fp32 offset; packed for the CPU's kernel, a bf16 absmax a block and one codebook. Counted on bitsandbytes
    0.50.2's tensors; everything that is no nn.Linear stays in the compute dtype.
    """
    if parameter.full_precision:
        return 4 * parameter.elements
    if not parameter.linear or load.precision not in ("int8", "int4"):
        return parameter.elements * DTYPE_BYTES[load.dtype]
    if load.cpu_form:
        rows, columns = parameter.shape
        return int8_bytes(rows, columns, load.avx512) if load.precision == "int8" else int4_bytes(rows, columns)
    if load.precision == "int8":
        return parameter.elements + 4 * parameter.shape[0]
    blocks = math.ceil(parameter.elements / NF4_BLOCK)
    if load.packed:
        return math.ceil(parameter.elements / 2) + 2 * blocks + 16 * 4
    if not load.double_quant:
        return math.ceil(parameter.elements / 2) + 4 * blocks + 16 * 4
    codebooks = 16 * 4 + 256 * 4 + 4
    return math.ceil(parameter.elements / 2) + blocks + 4 * math.ceil(blocks / ABSMAX_BLOCK) + codebooks


def int4_fits_kernels(layout: Layout, shape: Shape, packed: bool) -> bool:
    """Whether int4 can hold every linear weight: whole blocks a row; bitsandbytes packs 32 rows at a time."""
    linear = (parameter.shape for parameter in skeleton(layout, shape) if parameter.linear)
    return all(columns % NF4_BLOCK == 0 and not (packed and rows % PACKED_ROWS) for rows, columns in linear)


def weights_bytes(layout: Layout, shape: Shape, load: Load, span: LayerSpan | None = None) -> int:
    """Every parameter of the loaded model, or of a part of it, each counted exactly."""
    span = span or LayerSpan(0, shape.layers)
    if load.stored_bytes is not None:
        return load.stored_bytes * span.layers // shape.layers
    sums = _sums(layout, shape, replace(load, max_model_len=1, max_num_seqs=1))
    first, last = span.first == 0, span.first + span.layers == shape.layers
    weights = sums[span.first + span.layers + 1 + last] - (0 if first else sums[span.first + 1])
    # A tied head is the embedding; far from it, it is a copy.
    return weights + (sums[1] if shape.tied and last and not first else 0)


@functools.lru_cache(maxsize=64)
def _sums(layout: Layout, shape: Shape, load: Load) -> tuple[int, ...]:
    """Running sums of bytes: nothing, with the embedding, with each layer behind it, with norm and head."""
    blocks = [0] * (shape.layers + 2)
    for parameter in skeleton(layout, shape):
        name = parameter.name.split(".")
        block = int(name[2]) + 1 if name[1] == "layers" else 0 if name[1] == "embed_tokens" else shape.layers + 1
        blocks[block] += parameter_bytes(parameter, load)
    return (0, *itertools.accumulate(blocks))


def saved_bytes(layout: Layout, shape: Shape, load: Load) -> int:
    """What quantising saves of the weights in the compute dtype; little where most of them are fused experts."""
    plain = replace(load, precision="fp32" if load.dtype == "float32" else "bf16")
    return weights_bytes(layout, shape, plain) - weights_bytes(layout, shape, load)


def kv_cache_bytes(shape: Shape, load: Load) -> int:
    """Keys and values of every slot at full length, allocated once at start."""
    return load.max_num_seqs * load.max_model_len * cache_bytes_per_token(shape, DTYPE_BYTES[load.dtype])


@functools.lru_cache(maxsize=64)
def load_transient_bytes(layout: Layout, shape: Shape, packs_int8: bool = False) -> int:
    """What loading takes at its worst moment beside the weights in place.

    The engine reads pieces of `LOAD_PIECE_ELEMENTS`, of which a quantised one takes up to 16 bytes an element; the
    block scales of a 4-bit weight are kept whole in fp32, 4 bytes for 64 elements. Of the CPU's int8, the pieces
    that are being packed are in memory twice, and one more is being filled.
    """
    largest = max(parameter.elements for parameter in skeleton(layout, shape) if parameter.linear)
    packing = (INT8_PIECES + 1) * min(largest, PIECE_ELEMENTS) if packs_int8 else 0
    return 16 * LOAD_PIECE_ELEMENTS + largest // 16 + packing


def runtime_bytes(device: Device | None, load: Load) -> int:
    """What runs whatever the model: interpreter and libraries, on a GPU the CUDA context and workspaces.

    CPU: `SERVICE_BYTES`, and the engine's own: anonymous memory with the demo model 267 MiB, with bitsandbytes 374,
    some 60 of them the model's (tests/bench/startup prints them), and the heap's gaps. GPU: context 0.5 GiB, 0.7 GiB
    from compute capability 9.0 on; cuBLAS workspace 8 or 32 MiB (pytorch PR 86509, unsloth-zoo 1053, pytorch PR 120925;
    unmeasured).
    """
    if device is None:
        return SERVICE_BYTES + HEAP_GAP_BYTES + (284 if _uses_bitsandbytes(load) else 216) * MIB
    hopper = (device.compute_capability or (0, 0)) >= (9, 0)
    return (720 + 64) * MIB if hopper else (512 + 16) * MIB


def _uses_bitsandbytes(load: Load) -> bool:
    return load.precision in ("int8", "int4") and not load.cpu_form


def tokenizer_bytes(layout: Layout, shape: Shape) -> int:
    """What a tokenizer.json takes in the engine: 704 bytes an id, measured on 151,552 ids with 318,000 merges.

    A tokenizer.model, with 65,024 or 151,552 ids, is within `runtime_bytes`.
    """
    return 0 if layout.tokenizer_model else 704 * shape.vocab


@functools.lru_cache(maxsize=64)
def code_bytes(layout: Layout, shape: Shape, load: Load) -> int:
    """What oneDNN keeps of compiled code, for each shape of a 16-bit weight and number of rows that come.

    Measured on a processor with AMX, all rows of a shape: 11 MiB with 256 columns, 14 to 15 with 1024, 17 to 21 with
    4096, 25 with 13696; attention 5. Of a quantised model fused experts are such weights, and of int4 the slices
    that many rows are multiplied with. fp32 keeps none, and without AVX-512 oneDNN multiplies no bf16.
    """
    if load.dtype == "float32" or not (load.native_bf16 or load.avx512):
        return 0
    precision, int4_slice = load.precision, INT4_SLICE_ELEMENTS if load.cpu_form else SLICE_ELEMENTS
    fewest = 3 if precision in ("int8", "int4") else 2
    parameters = skeleton(layout, shape)
    kinds = {parameter.shape[-2:] for parameter in parameters if len(parameter.shape) >= fewest}
    slices = {
        (end - start, parameter.shape[1])
        for parameter in parameters
        if precision == "int4" and load.native_bf16 and (load.packed or load.cpu_form) and parameter.linear
        for start, end in row_slices(parameter.rows, parameter.shape[1], int4_slice)
    }
    wide = PREFILL_CHUNK // WIDE_ROWS * sum(map(_code_bytes, slices))
    sizes = CODE_SIZES if load.native_bf16 else FEW_CODE_SIZES
    return ATTENTION_CODE_BYTES + sizes * sum(map(_code_bytes, kinds)) + wide


def _code_bytes(weight: tuple[int, ...]) -> int:
    """For one number of rows."""
    return CODE_BYTES + CODE_BYTES_A_COLUMN * weight[1]


def host_bytes(precision: Precision) -> int:
    """What an engine that lies on GPUs takes of the host's memory: its runtime, CUDA's own, and a piece in fp32.

    512 MiB for what CUDA and its libraries keep on the host: unmeasured.
    """
    return runtime_bytes(None, Load(precision, "bfloat16", 1, 1)) + 512 * MIB + 4 * LOAD_PIECE_ELEMENTS


def estimate(
    layout: Layout, shape: Shape, load: Load, device: Device | None, span: LayerSpan | None = None
) -> tuple[Term, ...]:
    """The terms of a rung on a device (None is the CPU), or of its part there; their sum is what has to be free.

    Loading ends before the cache is made, so `load_peak` is only what loading takes beyond cache and activations.
    """
    weights = weights_bytes(layout, shape, load, span)
    cache = kv_cache_bytes(replace(shape, layers=span.layers) if span else shape, load)
    activations = activation_bytes(shape, load, device is not None)
    packs_int8 = load.cpu_form and load.precision == "int8"
    peak = max(0, load_transient_bytes(layout, shape, packs_int8) - cache - activations)
    runtime = runtime_bytes(device, load)
    if device is None:
        runtime += tokenizer_bytes(layout, shape) + code_bytes(layout, shape, load)
    elif span is None or span.layers == shape.layers:
        runtime += graph_bytes(layout, shape, load)
    margin = max(64 * MIB, (weights + cache + activations + peak) * 3 // 100)
    return (
        Term("weights", weights),
        Term("kv_cache", cache),
        Term("activations", activations),
        Term("load_peak", peak),
        Term("runtime", runtime),
        Term("margin", margin),
    )
