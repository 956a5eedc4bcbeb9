"""Runs as folders of plain files: request, progress, results; how they end and how another continues from one. No
torch.

Imports: data, models, system, workspace and the ground. docs/design.md has the folder's files and who writes them.
Add a state: `states`, and `state.<name>` in both catalogues. Add a fact of run.json: a field of its model in
`run_json`.
"""
