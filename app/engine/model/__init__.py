"""The forward pass: KV cache, attention, dense layers, CUDA graphs."""
