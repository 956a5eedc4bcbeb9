"""Runs of other PCs, as the page opens them: the archive that core/runs/away checks. Imports what webui/run may."""
