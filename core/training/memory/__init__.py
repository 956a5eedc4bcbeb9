"""The memory of a run: a trial of its longest batch before the first step (`probe`), and its use during training
(`use`). Torch.

Imports: as core.training. Running out of memory in a step: core/engine/out_of_memory.
"""
