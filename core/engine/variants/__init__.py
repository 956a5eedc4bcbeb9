"""Optional parts of a step: initialization of an adapter (PiSSA), noisy embeddings (NEFTune), offloading to RAM
(offload:
activations; streaming: layers), a sharded base (fsdp), Liger's kernels (liger), preference losses (preference), 16-bit
attention on a CPU (blockwise), one attention kernel for packed examples (varlen), LoRA's product for all layers of one
input (fused_lora), fused norm, rotary and gate (elementwise), the loss of a chunk (chunk), 4-bit weights that stay
dequantized for a backward (kept_weights), pinned RAM (pinned), LLM.int8 whose rows can be compared (eight_bit). Torch.

Imports: as core.engine. A first reading of a step needs none of them.
"""
