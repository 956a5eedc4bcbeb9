"""Datasets, from a file to token ids in training order: rows, formats, chat template, labels. No torch.

Imports: models, workspace, system and the files of floor 1. To add a file type: a reader in `reading`. To add a data
format: a shape and a function in `formats`, its name in `recipe.Format`. To add a sample dataset:
presets/samples/<name>.jsonl, .yaml, .heldout.yaml.
"""
