"""A training step tried without training: simulated without weights or GPU with every allocation counted; and how long
a run will take.

Imports: engine (in `dry_run` and `allocations`, which their own process runs), memory, models, runs,
system, workspace and the ground. Add a new part of a step to the dry run: `dry_run` (it goes through engine/step
itself), its kind of memory in `allocations`. How the speed is predicted: `pace` from earlier runs,
`computed_pace` without one.
"""
