"""Writes a checkpoint of tools.checkpoints in the GLM-4 shape as GGUF. Runs in llama.cpp's environment.

python weights.py CHECKPOINT_DIR OUT.gguf F16|Q8_0|Q4_0
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_self_attn_layernorm": "post_attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_mlp_layernorm": "post_ffw_norm",
}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def gguf_name(name: str) -> str:
    """The name that llama.cpp looks for, of a tensor named as in transformers."""
    module, _, kind = name.rpartition(".")
    if found := LAYER.fullmatch(module):
        return f"blk.{found[1]}.{IN_LAYER[found[2]]}.{kind}"
    return f"{OUTSIDE[module]}.{kind}"


def tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and float32 values of each tensor of a bf16 safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        stored = np.fromfile(path, np.uint16, (last - first) // 2, offset=8 + length + first)
        yield name, (stored.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def describe(writer: Any, config: dict[str, Any]) -> None:
    """The shape, as llama.cpp's GLM-4 wants it."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_vocab_size(config["vocab_size"])


def add_vocabulary(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """The checkpoint's own tokens: pieces of answers are then as long as elsewhere."""
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = [f"[unused{number}]" for number in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * config["vocab_size"]
    for token, number in stored["model"]["vocab"].items():
        tokens[number], kinds[number] = token, gguf.TokenType.NORMAL
    for added in stored["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("chatglm-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in stored["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"][0])
    writer.add_add_bos_token(False)


def main(checkpoint: Path, out: Path, form: str) -> None:
    """Matrices in that form; norms and biases stay float32, as in published files."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    kind = gguf.GGMLQuantizationType[form]
    writer = gguf.GGUFWriter(out, "glm4")
    describe(writer, config)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{form}"])
    add_vocabulary(writer, checkpoint, config)
    for name, values in tensors(checkpoint / "model.safetensors"):
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
