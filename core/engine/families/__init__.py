"""Exceptions for some families: their parts besides the text model, and where transformers differs from their authors.
Torch.

Imports: as core.engine. Add what a family's forward needs: `mended`; where its text, routers and towers are, and what
keeps its bits: `parts`. How something is tried that not every family supports: `unlike`. Tokens that the weights do not
know: `vocabulary`.
"""
