"""One run on several cards, or in several processes of a processor: rank 0 is the run's worker and leads, the others compute for it.

`begun`, `helpers`: rank 0's end, the only part that a run of one rank reads; `machines`, `meeting`: ranks of other PCs;
`step`: how a step is dealt; `group`: the numbers that travel, by torch.distributed; `worker`: the process of every other rank. What they promise each other: docs/design.md. Imports: as core.training.
"""
