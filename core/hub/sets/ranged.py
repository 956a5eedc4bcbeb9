"""A hub file as a seekable file, read by HTTP ranges, so that Parquet gives its first rows without the rest."""

from __future__ import annotations

import io
from collections.abc import Callable

from huggingface_hub.utils import get_session, hf_raise_for_status

from core.hub.answers import NotAHub
from core.hub.listing import TIMEOUT_S, File, Listing


class RangedFile(io.RawIOBase):
    """size must be known. check: asked before each request; what it raises ends the reading. Raises HTTPError and NotAHub."""

    def __init__(self, listing: Listing, file: File, endpoint: str, check: Callable[[], None] = lambda: None):
        super().__init__()
        self._url, self._headers = listing.address(file, endpoint)
        self._size, self._at, self._check = file.size or 0, 0, check

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # Buffer is a type of Python 3.12
        view = memoryview(buffer).cast("B")
        last = min(self._at + len(view), self._size) - 1
        if last < self._at:
            return 0
        self._check()
        asked, filled = f"bytes={self._at}-{last}", 0
        with get_session().stream("GET", self._url, headers=self._headers | {"Range": asked}, timeout=TIMEOUT_S) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:
                raise NotAHub  # it sends the whole of it
            for chunk in response.iter_raw():
                self._check()
                if filled + len(chunk) > last + 1 - self._at:
                    raise NotAHub
                view[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
        self._at += filled
        return filled
