"""From the Hub to a dataset of the workspace: `head` shows the first rows before a download, `adding` adds the
downloaded files.
Imports: hub, and the rest of core.data."""
