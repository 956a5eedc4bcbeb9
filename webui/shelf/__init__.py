"""Where a person chooses and gets a model: the catalogue's rows, search results of the hub, the
downloads, models on disk.

Imports: kit, state, core. Add what a row says: `rows`, with its sentence. What is understood of words is core/advice's.
"""
