"""One run on several GPUs, in several CPU processes, or on several PCs, started by torchrun's agent
(torch.distributed.elastic).

`launch`: the agent of a PC, and how rank 0 begins, the only part that a run of one rank imports; `meeting`: where ranks
find each other; `worker`: the process of each rank, for rank 0 core.training.worker; `group`: what they exchange, by
torch.distributed; `step`: how a step is divided; `use`: the memory of each. Protocol: docs/design.md. Imports: as
core.training.
"""
