"""Datasets on the hub: search, details and first rows before a download, the download of a part or of its first rows.

Which files a set has is `parts`; `about` asks the hub for it, `viewer` the datasets server beside it, which tells rows and sizes. `transfer`
fetches the files of one part below its download, `take` its first rows alone, `join` makes one file of several. A repository's own
Python is never run.
Imports: the rest of core.hub, and below it.
"""
