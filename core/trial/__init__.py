"""A step tried without training: gone through without weights and card, every allocation counted, or timed for a second.

Imports: engine (in `dry_run`, `allocations` and `pace_probe`, which their own processes run), memory, models, runs, system, workspace
and the ground.
"""
