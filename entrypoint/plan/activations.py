"""What a step of the engine takes beside weights and cache, by pure functions. Sizes in bytes, lengths in tokens."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from app.contract.plan import DTYPE_BYTES, Dtype, Precision
from app.layouts.cpu_products import INT4_SLICE_ELEMENTS, INT8_MOST_ROWS, PIECE_ELEMENTS, WIDENED_ELEMENTS
from app.layouts.graph_sizes import step_sizes
from app.layouts.layout import Layout
from app.layouts.nf4 import SLICE_ELEMENTS
from app.layouts.shape import Shape
from app.layouts.skeleton import cache_bytes_per_token

MIB = 1024 * 1024
PREFILL_CHUNK = 512
"""Prompt tokens computed at once; bounds the activations."""
PICKED_AT_ONCE = 1 << 20
"""Elements of the probabilities that the engine has in work at the same time, as `app.engine.backend.sampler` says."""
GRAPH_LAYER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Load:
    """What decides a rung's footprint beside the model: precision, dtype of the rest, lengths."""

    precision: Precision
    dtype: Dtype
    max_model_len: int
    max_num_seqs: int
    _: KW_ONLY
    packed: bool = False
    """nf4 in the form of bitsandbytes' AVX-512 kernel."""
    avx512: bool = False
    """Decides how the CPU's int8 is padded."""
    native_bf16: bool = True
    """Whether the CPU computes bf16; if not, slices of bf16 weights are widened for many rows."""
    cpu_form: bool = False
    """Quantised weights in the CPU's own forms; otherwise in bitsandbytes'."""
    double_quant: bool = True
    """int4 with quantised block scales; some checkpoints are stored without."""
    stored_bytes: int | None = None
    """The weights as their files hold them, for a format that is only planned."""


def activation_bytes(shape: Shape, load: Load, on_gpu: bool) -> int:
    """The most that a step needs beside weights and cache: a prefill chunk of T tokens at full context S, a token of
    every slot, or picking those.

    T·(6·H + 2·heads·head_dim) elements (hidden states and norms; queries and the attention's output), the MLP, the
    mask 2·T·S, and 16 MiB of small change: fitted above the measured peaks of two dense shapes at T 256 and 512, S 4096
    and 8192, in bf16 and fp32 on the CPU, and of five with experts (test_footprint). What attention makes of
    the context and what quantised products take comes beside, see the functions below.
    """
    size = DTYPE_BYTES[load.dtype]
    tokens, context = min(PREFILL_CHUNK, load.max_model_len), load.max_model_len
    hidden = tokens * (6 * shape.hidden + 2 * shape.heads * shape.head_dim) * size
    attention = context_bytes(shape, load, tokens, on_gpu)
    products = mlp_bytes(shape, load, tokens, on_gpu) + quantised_bytes(shape, load, tokens, on_gpu)
    # They follow each other, but of expanded latents the heap keeps gaps, and on a GPU nothing is measured.
    beside = attention + products if shape.latent or on_gpu else max(attention, products)
    forward = hidden + 2 * tokens * context + beside
    return max(forward, picking_bytes(shape, load)) + 16 * MIB


def graph_bytes(layout: Layout, shape: Shape, load: Load) -> int:
    """What recorded decode steps (CUDA graphs) take on a GPU that holds a dense model as a whole.

    256 KiB a layer and graph: vLLM tells of 0.5 GiB for 67 graphs of a model of 32 layers (unmeasured here). And the
    pool that they share, the activations of the largest: hidden states, MLP, the scores' bias, the copied cache of one
    sequence. int8 products can't be recorded; of int4's only those of one row, the others would unpack the weights.
    """
    if layout.moe or load.precision in ("int8", "fp8"):
        return 0
    sizes = step_sizes(load.max_num_seqs, load.max_model_len, one_row_alone=load.precision == "int4")
    rows, width, size = sizes[-1].rows, sizes[-1].width, DTYPE_BYTES[load.dtype]
    states = rows * (6 * shape.hidden + 4 * shape.intermediate + 4 * shape.heads * shape.head_dim) * size
    copied = width * cache_bytes_per_token(shape, size) // shape.layers if load.max_num_seqs > 1 else 0
    return len(sizes) * shape.layers * GRAPH_LAYER_BYTES + 2 * states + rows * width * (size + 1) + copied


def picking_bytes(shape: Shape, load: Load) -> int:
    """What picking a token for every slot takes: logits and log probabilities in fp32, and 52 bytes an element of those
    whose probabilities are in work, a million or one slot's (app.engine.backend.sampler; measured with 1 to 64).
    """
    logits = load.max_num_seqs * shape.vocab
    return 8 * logits + 52 * min(logits, max(PICKED_AT_ONCE, shape.vocab))


def context_bytes(shape: Shape, load: Load, tokens: int, on_gpu: bool) -> int:
    """What one layer's attention makes of S cached tokens.

    Latent attention expands them at each step to heads·(2·nope + rope + value) elements a token, 27.5 KiB for
    GLM-4.7-Flash (transformers 5.23, `expand_kv`), and those of all slots when each gets a token. Where its keys and
    values differ in size, the CPU's fused kernel takes neither: 12·heads·T·S for the scores (measured). Else, on a CPU
    with AMX, it reorders all keys and values of 16 bits for a prompt (measured; counted on every CPU). Grouped heads
    are repeated on a GPU, where a mask makes SDPA do so: 2·heads·head_dim a token (read, unmeasured).
    """
    context, size, latent = load.max_model_len, DTYPE_BYTES[load.dtype], shape.latent
    reorders = not on_gpu and size == 2
    if not latent:
        heads = shape.heads if on_gpu else shape.kv_heads if reorders else 0
        return 2 * heads * shape.head_dim * context * size
    expanded = shape.heads * (2 * latent.nope_dim + latent.rope_dim + latent.value_dim) * context * size
    prefill = shape.heads * (shape.head_dim + latent.value_dim) * context * size if reorders else 0
    slots, decode = load.max_num_seqs, 0
    if not on_gpu and latent.value_dim != shape.head_dim:
        prefill, decode = (12 * shape.heads * rows * context for rows in (tokens, slots))
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

    bitsandbytes' int8: 8·T·N + T·K (int32 and fp16 outputs, int8 input). Columns that meet an activation beyond 6 are
    multiplied in 16 bits, for which bitsandbytes widens them at 9 bytes an element (int8, and two of fp32): with random
    weights that is most of the down projection's I·hidden (measured); a trained model's are few, but nothing bounds
    them. Its int4: the whole weight in the compute dtype while many tokens are multiplied; where the CPU's kernel
    packs, slices of it (`app.engine.kernels.nf4_linear`) at 12 bytes an element, half of them gaps in the heap
    (measured); where it has no bf16, what widening takes as well. The CPU's own forms: see `_cpu_form_bytes`.
    """
    width = _widest(shape)
    if not on_gpu and (load.cpu_form or load.precision == "bf16"):
        return _cpu_form_bytes(shape, load, tokens)
    if load.precision == "int8":
        product = tokens * (8 * width + shape.hidden)
        return max(product, 9 * shape.intermediate * shape.hidden)
    if load.precision == "int4":
        if load.packed:
            return 12 * SLICE_ELEMENTS
        return width * shape.hidden * DTYPE_BYTES[load.dtype] + (0 if on_gpu else _widened_bytes(shape, load, tokens))
    return 0


def _cpu_form_bytes(shape: Shape, load: Load, tokens: int) -> int:
    """int8: of 128 rows, the activations in fp32 and both parts (4 + 8 bytes and 2 of FBGEMM's own), and of one piece's
    outputs both parts in int32 and fp32 and their sum. int4: a slice at 12 bytes an element. bf16: see
    `_widened_bytes`. Measured by tests/bench/plan_accuracy.
    """
    columns, width = max(shape.hidden, shape.intermediate), _widest(shape)
    if load.precision == "int8":
        return min(tokens, INT8_MOST_ROWS) * (14 * columns + 20 * min(width, PIECE_ELEMENTS // shape.hidden))
    if load.precision == "int4":
        return 12 * INT4_SLICE_ELEMENTS
    return _widened_bytes(shape, load, tokens)


def _widened_bytes(shape: Shape, load: Load, tokens: int) -> int:
    """bf16 products where the CPU has no bf16: a slice and all activations in fp32, and a slice's outputs."""
    if load.native_bf16 or load.dtype == "float32":
        return 0
    columns = max(shape.hidden, shape.intermediate)
    return 4 * (WIDENED_ELEMENTS + tokens * (columns + WIDENED_ELEMENTS // columns))


def _widest(shape: Shape) -> int:
    """Outputs of the widest linear layer; with experts, gate and up are two."""
    if not shape.experts:
        return 2 * shape.intermediate
    latent = shape.latent
    expanded = shape.heads * (latent.nope_dim + latent.value_dim) if latent else 0
    shared = shape.experts.shared * shape.experts.intermediate
    return max(shape.intermediate, shared, shape.heads * shape.head_dim, expanded)
