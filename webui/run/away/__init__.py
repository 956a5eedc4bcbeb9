"""Runs of other PCs, opened on this page: the archive that core/runs/away checks. Imports what webui/run may."""
