"""Rows written from documents by a model, each checked against its source: `passages` divides a document, `writers` are
the models that write, `drafts` reads what they wrote, `checks` keeps or drops it, `making` holds all of it on disk.
No torch.

Imports: core.chat, and the floors below.
"""
