"""Choosing and downloading a model: the catalogue's rows, search results of the hub, downloads, models on disk.

Imports: kit, state, core. Add a fact to a row: `rows`, with its sentence. core/advice parses the words of the search.
"""
