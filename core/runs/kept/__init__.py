"""Keeping and deleting runs: `label` is a person's words for one, `freeing` what of a finished one can be deleted.

Imports: as core/runs.
"""
