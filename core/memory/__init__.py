"""How many GiB a training step needs, counted beforehand, and what there is to use. No torch. docs/memory.md has the sources.

Imports: models, workspace, system and the ground.
Add a family that keeps more in its layers: `kept_besides` in presets/memory.yaml. A number of the arithmetic: presets/memory.yaml,
read by `constants`, used by `arithmetic` (a step) and `layers` (what one layer keeps) for a `setup`.
"""
