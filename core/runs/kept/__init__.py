"""What is kept of runs: `label`, a person's words for one; `freeing`, what of one that is over may go.

Imports: as core/runs.
"""
