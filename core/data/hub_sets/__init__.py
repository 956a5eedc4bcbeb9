"""Datasets of the Hub, added to the workspace: `head` checks the first rows before a download, `adding` adds the
downloaded files.

Imports: hub, and the rest of core.data.
"""
