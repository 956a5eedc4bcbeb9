"""Optional parts of a step, each in one module. Torch.

blockwise       16-bit attention on a CPU
chunk           the loss of a chunk of positions
eight_bit       LLM.int8 whose rows can be compared
elementwise     fused norm, rotary and gate
fsdp            a base sharded over ranks
fused_lora      one LoRA product for all layers of an input
layers          stops between layers, gradient checkpointing
neftune         noisy embeddings
offload         activations in RAM
pinned          pinned RAM
pissa           initialization of an adapter
policy          the loss of drawn answers
preference      preference losses
streaming       layers in RAM
varlen          one attention kernel for packed examples

Imports: as core.engine. A first reading of a step needs none of them.
"""
