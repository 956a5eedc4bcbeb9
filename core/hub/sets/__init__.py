"""Datasets on the hub: search, details and first rows before a download, the download of a part or of its first rows.

`library` wraps the `datasets` library, for two processes alone: `look_worker` answers `about`, and `transfer`
downloads. A repository's own Python is never run.
Imports: the rest of core.hub, and below it.
"""
