"""Runs of other PCs, opened from archives (core/runs/away). Imports what webui/run may."""
