"""Labels and deleting: `label` is what a person notes about a run, `freeing` deletes parts of a finished one.

Imports: as core/runs.
"""
