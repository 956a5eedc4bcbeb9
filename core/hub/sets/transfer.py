"""The files of one part of a dataset as the Hub has them, or its rows as one file of JSON lines.

Below the cache folder that it is given: the hub's cache of the repository, as for a model, so that each file goes on
where it ended and is compared with its sha256; rows/ with what was read of it, and how far.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from huggingface_hub.hf_api import DatasetInfo

from core import files
from core.errors import DataError
from core.hub import listing
from core.hub.cached import CachedRepo
from core.hub.listing import Listing
from core.hub.sets import library
from core.hub.sets.library import Part
from core.hub.sets.name import PartName
from core.hub.sets.search import licence_of
from core.hub.transfer import Transfer, Unwanted
from core.workspace.names import slug

ABOUT_A_ROW = 4_096  # bytes; what the first rows take on the disk is only known when they are here
# bytes of files that come whole, though only their first rows are wanted, and are read as a person's file is
SMALL = 64 << 20
PIECE = 1_000  # rows after which is written how far it is


class SetTransfer(Transfer):
    def __init__(self, cached: CachedRepo, part: PartName, endpoint: str, room: Callable[[int, int], None]):
        super().__init__(cached, "", endpoint, lambda folder: None, room)
        self.part = part
        self.told: dict[str, Any] = {}  # what is said of it at its end, beside its folder
        self._rows = 0

    @property
    def done(self) -> int:
        return self._rows if self.unit == "rows" else super().done

    def fetch(self, revision: str) -> Path:
        """The folder of the cache. Raises DataError, ModelError, and what core.hub.answers has sentences for."""
        own = listing.ask(self.part.repo, revision, self.endpoint, "dataset")
        part = library.part_named(own, (self.part.config, self.part.split))
        self.cached.folder.mkdir(parents=True, exist_ok=True)
        if self.part.rows and not (part.is_ours and part.about.bytes <= SMALL):
            came = [self._first_rows(own, part)]
        else:
            came = self._whole(own, part)
        assert isinstance(own.info, DatasetInfo)
        self.told = {"files": [str(file) for file in came], "commit": own.commit, "licence": licence_of(own.info)}
        return self.cached.folder

    def _whole(self, own: Listing, part: Part) -> list[Path]:
        snapshot = self.cached.folder / "snapshots" / own.commit
        self._described(own, part.files[0])  # which a gated repository refuses
        self._fetch_where_there_is_room(own, list(part.files), snapshot)
        came = [snapshot / file.name for file in part.files]
        if part.is_ours:
            return came
        self._left.clear()  # the end of the transfer is not that of reading it
        return [self._written(own, part, [str(path) for path in came], None)]

    def _first_rows(self, own: Listing, part: Part) -> Path:
        about = min(part.about.bytes, ABOUT_A_ROW * self.part.rows)
        self.room(about, about)
        self.unit, self.total = "rows", self.part.rows
        target = self._written(own, part, [], self.part.rows)
        self.total = self._rows  # it may have fewer than were asked for
        return target

    def _written(self, own: Listing, part: Part, here: list[str], most: int | None) -> Path:
        folder = self.cached.cache / "rows" / own.commit
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{slug(self.part.repo.partition('/')[2], 'data')[:60]}.jsonl"
        try:
            with library.refusing(self.part.repo, part.files[0].name):
                self._write(library.stream(part, own, here), target, most)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            said = {"done": self._rows, "total": most or part.about.rows or self._rows, "folder": self.cached.cache}
            raise DataError("hub_set.disk_full_in_rows", repo=self.part.repo, **said) from None
        return target

    def _write(self, rows: IterableDataset, target: Path, most: int | None) -> None:
        """One line a row, after those that a killed or paused process left: it wrote down how far it was."""
        mark = target.with_suffix(".mark")
        kept = files.read_object(mark)
        if kept and target.is_file() and target.stat().st_size >= kept["bytes"]:
            rows.load_state_dict(kept["state"])
            self._rows = kept["rows"]
        else:
            kept = {"bytes": 0}
        with open(target, "ab") as file:
            file.truncate(kept["bytes"])
            for row in islice(library.rows_of(rows), None if most is None else most - self._rows):
                if self._left.is_set():
                    raise Unwanted
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
                self._rows += 1
                if self._rows % PIECE == 0:
                    file.flush()
                    files.replace_json(mark, {"rows": self._rows, "bytes": file.tell(), "state": rows.state_dict()})
