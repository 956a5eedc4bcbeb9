"""Runs as folders of plain files: request, progress and results; how runs end and how another run continues from one.

No torch. Imports: data, models, system, workspace and the ground. docs/design.md lists the folder's files and their
writers. To add a state: `states`, and `state.<name>` in the three catalogues. To add a fact to run.json: a field of its
model in `run_json`.
"""
