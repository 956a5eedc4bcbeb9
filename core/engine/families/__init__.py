"""Exceptions for some families: their parts besides the text model, and where transformers differs from their authors.
Torch.

Imports: as core.engine. Add what a family's forward needs: `mended`; where its text, routers and towers are, and what
keeps its bits: `parts`. `unsupported` suppresses errors of what not every family supports; `vocabulary` refuses tokens
that the weights have no row for.
"""
