"""Estimates how many GiB a training step needs, and how much memory is available. No torch. Sources: docs/memory.md.

Imports: models, workspace, system and the ground. To add a family whose layers keep more: `kept_besides` in
presets/memory.yaml, which holds every constant of the estimate. `constants` reads it; `arithmetic` (a step) and
`layers` (its layers) use it for a `setup`.
"""
