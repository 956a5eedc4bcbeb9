"""Base models: known ones, their shapes, where they are stored; adapters as folders. No torch.

Imports: hub, workspace and the ground. `library.Models` is the one entry point to a model's files. To add a known
model: presets/models.yaml. To read more of config.json: `shapes`. Sources of files: `starter`, `core/hub`.
"""
