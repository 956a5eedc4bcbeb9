"""Where a family is not as the rest: which parts it has beside its text, and what transformers does otherwise than its makers. Torch.

Imports: as core.engine. Add what a family's forward needs: `mended`; where its text, routers and towers are, and what keeps its bits: `parts`.
"""
