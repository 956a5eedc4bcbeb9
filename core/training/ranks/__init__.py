"""One run on several GPUs, or in several CPU processes: rank 0 is the run's worker and leads, the others compute for
it.

`begun`, `helpers`: rank 0's side, the only part that a run of one rank imports; `machines`, `meeting`: ranks on other
PCs; `step`: how a step is divided; `group`: torch.distributed; `worker`: the process of every other rank. Their
protocol: docs/design.md. Imports: as core.training.
"""
