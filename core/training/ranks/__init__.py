"""One run on several GPUs, in several CPU processes, or on several PCs, started by torchrun's agent
(torch.distributed.elastic).

`agent`: starts the ranks of a PC; `rank_process`: the process of each rank, for rank 0 core.training.worker; `meeting`:
the store where ranks find each other; `joining`: rank 0 joins the others; `group`: what they exchange, by
torch.distributed; `step`: how a step is divided; `use`: the memory of each. A run of one rank imports only `agent` and
`joining`. Protocol: docs/design.md. Imports: as core.training.
"""
