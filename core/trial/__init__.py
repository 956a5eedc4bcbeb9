"""A training step tried without training: simulated without weights or GPU with every allocation counted, or timed for
a second.

Imports: engine (in `dry_run`, `allocations` and `pace_probe`, which their own processes run), memory, models, runs,
system, workspace and the ground. Add a new part of a step to the dry run: `dry_run` (it goes through engine/step
itself), its kind of memory in `allocations`. How the speed is predicted from earlier runs: `pace`.
"""
