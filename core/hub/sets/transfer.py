"""The files of one part of a data set, whole or by their first rows, as one file (several only of JSON, which must be read to be joined).

Below the cache folder that it is given: the hub's cache of the repository, as for a model, so that each file goes on where it ended and is
compared with its sha256; rows/<commit>/ with what has come of the first rows; whole/ with what was made of several files.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import DatasetInfo

from core import files
from core.errors import DataError
from core.hub import listing
from core.hub.cached import CachedRepo
from core.hub.listing import Listing
from core.hub.sets.join import is_packed, joined
from core.hub.sets.name import PartName
from core.hub.sets.parts import CONVERTED, Part, part_of, parts_of
from core.hub.sets.search import licence_of
from core.hub.sets.take import Taking
from core.hub.transfer import Transfer, Unwanted
from core.workspace.names import slug

ABOUT_A_ROW = 4_096  # bytes; what the first rows take on the disk is only known when they are here


class SetTransfer(Transfer):
    def __init__(self, cached: CachedRepo, part: PartName, endpoint: str, room: Callable[[int, int], None]):
        super().__init__(cached, "", endpoint, lambda folder: None, room)
        self.part = part
        self.told: dict[str, Any] = {}  # what is said of it at its end, beside its folder
        self._rows: Taking | None = None

    @property
    def done(self) -> int:
        return self._rows.done if self._rows else super().done

    def fetch(self, revision: str) -> Path:
        """The folder of the cache. Raises DataError, ModelError, and what core.hub.answers has sentences for."""
        own = listing.ask(self.part.repo, revision, self.endpoint, "dataset")
        part = part_of(parts_of(own, self._converted()), self.part.repo, (self.part.config, self.part.split))
        self.cached.folder.mkdir(parents=True, exist_ok=True)
        is_taken = bool(self.part.rows) and part.kind != "json"
        came = [self._first_rows(part)] if is_taken else self._whole(part)
        assert isinstance(own.info, DatasetInfo)
        self.told = {
            "files": [str(file) for file in came], "kind": part.kind, "commit": part.listing.commit, "licence": licence_of(own.info),
        }  # fmt: skip
        return self.cached.folder

    def _converted(self) -> Listing | None:
        """None where the hub has made no Parquet of it; any other refusal is one."""
        try:
            return listing.ask(self.part.repo, CONVERTED, self.endpoint, "dataset")
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
            return None

    def _whole(self, part: Part) -> list[Path]:
        snapshot = self.cached.folder / "snapshots" / part.listing.commit
        self._described(part.listing, part.files[0])  # which a gated repository refuses
        self._fetch_where_there_is_room(part.listing, list(part.files), snapshot)
        came = [snapshot / file.name for file in part.files]
        if (len(came) == 1 and not is_packed(came[0])) or (part.kind == "json" and not any(map(is_packed, came))):
            return came
        return joined(part, came, self._place(part))

    def _first_rows(self, part: Part) -> Path:
        about = min(part.bytes, ABOUT_A_ROW * self.part.rows)
        self.room(about, about)
        self.unit, self.total = "rows", self.part.rows
        self._rows = Taking(part, self.part.rows, self.endpoint, self._go_on)
        target = self._place(part)
        try:
            if part.kind != "parquet":
                self._rows.text(target)
                self.total = self._rows.done  # it may have fewer than were asked for
                return target
            pieces = self._rows.parquet(self.cached.cache / "rows" / part.listing.commit)
            self.total = self._rows.done
            return joined(part, pieces, target)[0]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            said = {"done": self._rows.done, "total": self.part.rows, "folder": self.cached.cache}
            raise DataError("hub_set.disk_full_in_rows", repo=self.part.repo, **said) from None

    def _place(self, part: Part) -> Path:
        folder = self.cached.cache / "whole"
        files.remove_tree(folder, files.MOMENT_S)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{slug(self.part.repo.partition('/')[2], 'data')[:60]}.{part.kind}"

    def _go_on(self) -> None:
        if self._left.is_set():
            raise Unwanted
