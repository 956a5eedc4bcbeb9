"""Base models: known ones, their shapes, where they are, whose Python they may run; adapters as folders. No torch.

Imports: hub, workspace and the ground. `library.Models` is the one door to a model's files.
Add a known model: presets/models.yaml. Add what a config.json may say: `shapes`. Where files come from: `starter`,
`core/hub`.
"""
