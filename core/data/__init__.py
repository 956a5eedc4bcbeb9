"""Datasets, from a file to token ids in training order: rows, formats, chat template, labels. No torch.

Imports: models, workspace, system and the ground.
Add a file type: a reader in `reading`. Add a data format: a shape and a function in `formats`, its name in
`recipe.Format`. Add a
sample set: presets/samples/<name>.jsonl, .yaml, .heldout.yaml.
"""
