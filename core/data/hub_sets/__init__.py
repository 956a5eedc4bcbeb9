"""Data sets of a hub where they become data of ours: `head` shows their first rows before a download, `adding` puts what came into the store.
Imports: hub, and the rest of core.data."""
