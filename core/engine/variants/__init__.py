"""Optional parts of a step, each in one module. Torch.

blockwise     16-bit attention on a CPU              neftune       noisy embeddings chunk         the loss of a chunk of
positions       offload       activations in RAM compiled      torch.compile for elementwise          pinned
pinned RAM eight_bit     LLM.int8 whose rows can be compared    pissa         initialization of an adapter elementwise
fused norm, rotary and gate            preference    preference losses fsdp          a sharded base
streaming     layers in RAM fused_lora    one LoRA product per input             varlen        one attention kernel for
packed examples kept_weights  4-bit weights dequantized once per layer and backward liger         Liger's kernels

Imports: as core.engine. A first reading of a step needs none of them.
"""
