"""Whether a download has room on the disk, beside what other downloads are about to fill."""

from __future__ import annotations

import shutil

from core.errors import ModelError
from core.hub.answers import in_words
from core.hub.cached import CachedRepo

DISK_MARGIN = 1.1


def refuse_full_disk(cached: CachedRepo, missing: int, spoken_for: int) -> None:
    """missing: bytes that a model still needs; spoken_for: that others do which have their room. Raises ModelError."""
    needed, free = int(missing * DISK_MARGIN), shutil.disk_usage(cached.folder.parent).free
    if missing and needed > free - spoken_for:
        said = {"needed": in_words(needed), "free": in_words(free), "folder": cached.cache}
        if needed > free:
            raise ModelError("hub.disk_full", repo=cached.repo_id, **said)
        raise ModelError("hub.disk_full_by_others", repo=cached.repo_id, others=in_words(spoken_for), **said)
