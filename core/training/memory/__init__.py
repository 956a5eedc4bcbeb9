"""The memory of a run: its longest batch tried before the first step (`probe`), and what it uses meanwhile (`use`). Torch.

Imports: as core.training. What a full card does to a step is core/engine/out_of_memory.
"""
