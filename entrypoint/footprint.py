"""Bytes, by pure functions: what a rung takes, term by term. Sizes in bytes, lengths in tokens."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

from app.contract.plan import Device, Dtype, Precision, Term
from app.layouts import LOAD_PIECE_ELEMENTS, Layout, Parameter, Shape, cache_bytes_per_token, skeleton

MIB = 1024 * 1024
PREFILL_CHUNK = 512
"""Prompt tokens computed at once; bounds the activations."""
NF4_BLOCK = 64
NF4_NESTED_BLOCK = 256
NF4_PACKED_ROWS = 32
SERVICE_BYTES = 56 * MIB
"""Anonymous memory of the supervisor and the web service, which share the container with an engine on the CPU."""

DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Load:
    """What decides a rung's footprint beside the model: precision, dtype of the rest, lengths."""

    precision: Precision
    dtype: Dtype
    max_model_len: int
    max_num_seqs: int
    packed: bool = False
    """int4 in the form of bitsandbytes' AVX-512 kernel."""
    avx512: bool = False
    """Whether the CPU multiplies int8 without widening the weight."""
    double_quant: bool = True
    """int4 with quantised block scales; some checkpoints are stored without."""
    stored_bytes: int | None = None
    """The weights as their files hold them, for a format that is only planned."""


@dataclass(frozen=True)
class Span:
    """Layers that lie together: the embedding comes with the first of the model, final norm and head with the last."""

    first: int
    layers: int


def parameter_bytes(parameter: Parameter, load: Load) -> int:
    """Bytes of one loaded parameter, or buffer that is stored, with its quantisation state.

    int8 (LLM.int8): a byte an element and an fp32 scale a row. int4 (nf4, double quantisation): half a byte an
    element, a uint8 absmax a block of 64, an fp32 absmax for 256 of those, the two codebooks (16 and 256 fp32)
    and an fp32 offset; packed for the CPU's kernel, a bf16 absmax a block and one codebook. Counted on bitsandbytes
    0.50.2's tensors; everything that is no nn.Linear stays in the compute dtype.
    """
    if parameter.full_precision:
        return 4 * parameter.elements
    if not parameter.linear or load.precision not in ("int8", "int4"):
        return parameter.elements * DTYPE_BYTES[load.dtype]
    if load.precision == "int8":
        return parameter.elements + 4 * parameter.shape[0]
    blocks = math.ceil(parameter.elements / NF4_BLOCK)
    if load.packed:
        return math.ceil(parameter.elements / 2) + 2 * blocks + 16 * 4
    if not load.double_quant:
        return math.ceil(parameter.elements / 2) + 4 * blocks + 16 * 4
    codebooks = 16 * 4 + 256 * 4 + 4
    return math.ceil(parameter.elements / 2) + blocks + 4 * math.ceil(blocks / NF4_NESTED_BLOCK) + codebooks


def int4_fits_kernels(layout: Layout, shape: Shape, packed: bool) -> bool:
    """Whether bitsandbytes can quantise every linear weight: whole blocks a row, packed 32 rows at a time."""
    linear = (parameter.shape for parameter in skeleton(layout, shape) if parameter.linear)
    return all(columns % NF4_BLOCK == 0 and not (packed and rows % NF4_PACKED_ROWS) for rows, columns in linear)


def weights_bytes(layout: Layout, shape: Shape, load: Load, span: Span | None = None) -> int:
    """Every parameter of the loaded model, or of a part of it, each counted exactly."""
    span = span or Span(0, shape.layers)
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


def activation_bytes(shape: Shape, load: Load, on_gpu: bool) -> int:
    """The most that one prefill chunk of T tokens at full context S, or one token of every slot, needs beside weights
    and cache.

    T·(6·H + 2·heads·head_dim) elements (hidden states and norms; queries and the attention's output), the MLP, the
    mask 2·T·S, each slot's logits as computed and in fp32, sampling's copies of one slot's 16·V, and 16 MiB of small
    change: fitted above the measured peaks of two dense shapes at T 256 and 512, S 4096 and 8192, in bf16 and fp32 on
    the CPU with 1 to 16 slots, and of five with experts (tests/unit/test_footprint). What attention makes of the
    context and what quantised products take comes beside, see the functions below.
    """
    size = DTYPE_BYTES[load.dtype]
    tokens, context = min(PREFILL_CHUNK, load.max_model_len), load.max_model_len
    hidden = tokens * (6 * shape.hidden + 2 * shape.heads * shape.head_dim) * size
    rest = 2 * tokens * context + (16 + load.max_num_seqs * (size + 4)) * shape.vocab + 16 * MIB
    beside = mlp_bytes(shape, load, tokens, on_gpu) + context_bytes(shape, load, tokens, on_gpu)
    return hidden + rest + beside + quantised_bytes(shape, load, tokens, on_gpu)


def context_bytes(shape: Shape, load: Load, tokens: int, on_gpu: bool) -> int:
    """What one layer's attention makes of S cached tokens.

    Latent attention expands them at each step to heads·(2·nope + rope + value) elements a token, 27.5 KiB for
    GLM-4.7-Flash (transformers 5.23, `expand_kv`), and those of all slots when each gets a token. Where its keys and
    values differ in size, the CPU's fused kernel takes neither: 12·heads·T·S for the scores (measured). Grouped heads
    are repeated on a GPU, where a mask makes SDPA do so: 2·heads·head_dim a token (read, unmeasured).
    """
    context, size, latent = load.max_model_len, DTYPE_BYTES[load.dtype], shape.latent
    if not latent:
        return 2 * shape.heads * shape.head_dim * context * size if on_gpu else 0
    expanded = shape.heads * (2 * latent.nope_dim + latent.rope_dim + latent.value_dim) * context * size
    uneven = not on_gpu and latent.value_dim != shape.head_dim
    slots = load.max_num_seqs
    prefill, decode = (12 * shape.heads * rows * context if uneven else 0 for rows in (tokens, slots))
    return max(expanded + prefill, slots * expanded + decode)


def mlp_bytes(shape: Shape, load: Load, tokens: int, on_gpu: bool) -> int:
    """What one layer's MLP takes for T tokens of which each passes k experts.

    Dense and shared: 4·T·I elements, the gate-up product, its halves and their product. Experts: the router's weight in
    fp32, 4·experts·H; on the CPU the engine's own loop holds the tokens of one expert at a time, T·(4·I + 3·H)
    elements, and sums in fp32, 12·T·H bytes; on a GPU transformers' grouped product stores all pairs,
    T·k·(4·I + 2·H) elements and 8·T·k·H bytes of weighted sums (read, unmeasured).
    """
    size, hidden = DTYPE_BYTES[load.dtype], shape.hidden
    dense = 4 * tokens * shape.intermediate * size
    if not (experts := shape.experts):
        return dense
    inner = experts.intermediate
    if on_gpu:
        routed = tokens * experts.per_token * ((4 * inner + 2 * hidden) * size + 8 * hidden)
    else:
        routed = tokens * ((4 * inner + 3 * hidden) * size + 12 * hidden)
    return max(dense, 4 * tokens * experts.shared * inner * size, routed) + 4 * experts.count * hidden


def quantised_bytes(shape: Shape, load: Load, tokens: int, on_gpu: bool) -> int:
    """What the hungriest quantised product takes for itself: the widest (K = hidden, N see `_widest`), or a later one.

    int8: 8·T·N + T·K on a GPU (int32 and fp16 outputs, int8 input); on the CPU 16·T·N (measured), and without
    AVX-512 the weight in fp32 beside it. Columns that meet an activation beyond 6 are multiplied in 16 bits, for which
    bitsandbytes widens them at 9 bytes an element (int8, and two of fp32): with random weights that is most of the
    down projection's I·hidden (measured); a trained model's are few, but nothing bounds them.
    int4: the whole weight in the compute dtype while many tokens are multiplied, nothing where the CPU's kernel packs
    (measured).
    """
    width = _widest(shape)
    if load.precision == "int8":
        widened = 0 if load.avx512 else 4 * width * shape.hidden
        product = tokens * (8 * width + shape.hidden) if on_gpu else 16 * tokens * width + widened
        return max(product, 9 * shape.intermediate * shape.hidden)
    if load.precision == "int4" and not load.packed:
        return width * shape.hidden * DTYPE_BYTES[load.dtype]
    return 0


def _widest(shape: Shape) -> int:
    """Outputs of the widest linear layer; with experts, gate and up are two."""
    if not shape.experts:
        return 2 * shape.intermediate
    latent = shape.latent
    expanded = shape.heads * (latent.nope_dim + latent.value_dim) if latent else 0
    shared = shape.experts.shared * shape.experts.intermediate
    return max(shape.intermediate, shared, shape.heads * shape.head_dim, expanded)


@functools.lru_cache(maxsize=64)
def load_transient_bytes(layout: Layout, shape: Shape) -> int:
    """What loading takes at its worst moment beside the weights in place.

    The engine reads pieces of `LOAD_PIECE_ELEMENTS`, of which a quantised one takes up to 16 bytes an element; the
    block scales of a 4-bit weight are kept whole in fp32, 4 bytes for 64 elements.
    """
    largest = max(parameter.elements for parameter in skeleton(layout, shape) if parameter.linear)
    return 16 * LOAD_PIECE_ELEMENTS + largest // 16


def runtime_bytes(device: Device | None, precision: Precision) -> int:
    """What runs whatever the model: interpreter and libraries, on a GPU the CUDA context and workspaces.

    CPU: `SERVICE_BYTES`, and the engine's own: anonymous memory with the demo model 278 MiB, with bitsandbytes 315,
    some 20 of them the model's (tests/bench/startup prints them). GPU: context 0.5 GiB, 0.7 GiB from compute capability
    9.0 on; cuBLAS workspace 8 or 32 MiB (pytorch PR 86509, unsloth-zoo 1053, pytorch PR 120925; unmeasured).
    """
    if device is None:
        return SERVICE_BYTES + (304 if precision in ("int8", "int4") else 272) * MIB
    hopper = (device.compute_capability or (0, 0)) >= (9, 0)
    return (720 + 64) * MIB if hopper else (512 + 16) * MIB


def tokenizer_bytes(layout: Layout, shape: Shape) -> int:
    """What a tokenizer.json takes in the engine: 704 bytes an id, measured on 151,552 ids with 318,000 merges.

    A tokenizer.model, with 65,024 or 151,552 ids, is within `runtime_bytes`.
    """
    return 0 if layout.tokenizer_model else 704 * shape.vocab


def host_bytes(precision: Precision) -> int:
    """What an engine that lies on GPUs takes of the host's memory: its runtime, CUDA's own, and a piece in fp32.

    512 MiB for what CUDA and its libraries keep on the host: unmeasured.
    """
    return runtime_bytes(None, precision) + 512 * MIB + 4 * LOAD_PIECE_ELEMENTS


def estimate(
    layout: Layout, shape: Shape, load: Load, device: Device | None, span: Span | None = None
) -> tuple[Term, ...]:
    """The terms of a rung on a device (None is the CPU), or of its part there; their sum is what has to be free.

    Loading ends before the cache is made, so `load_peak` is only what loading takes beyond cache and activations.
    """
    weights = weights_bytes(layout, shape, load, span)
    cache = kv_cache_bytes(replace(shape, layers=span.layers) if span else shape, load)
    activations = activation_bytes(shape, load, device is not None)
    peak = max(0, load_transient_bytes(layout, shape) - cache - activations)
    runtime = runtime_bytes(device, load.precision) + (0 if device else tokenizer_bytes(layout, shape))
    margin = max(64 * MIB, (weights + cache + activations + peak) * 3 // 100)
    return (
        Term("weights", weights),
        Term("kv_cache", cache),
        Term("activations", activations),
        Term("load_peak", peak),
        Term("runtime", runtime),
        Term("margin", margin),
    )
