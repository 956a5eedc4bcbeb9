"""Downloads the files of one part of a dataset, or its rows as one file of JSON lines.

Below the given cache folder: the hub's cache of the repository, as for a model, so that each file is resumed and
compared with its sha256; and rows/ with the rows read so far, and their number.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from datasets import IterableDataset
from huggingface_hub.hf_api import DatasetInfo

from core import files
from core.errors import DataError
from core.files import JsonObject
from core.hub import listing
from core.hub.cached import CachedRepo
from core.hub.listing import Listing
from core.hub.sets import library
from core.hub.sets.library import Part
from core.hub.sets.name import PartName
from core.hub.sets.search import licence_of
from core.hub.transfer import Transfer, TransferStopped
from core.workspace.names import slug

ABOUT_A_ROW = 4_096  # bytes; the disk space of the first rows is known only after their download
# bytes of files that are downloaded whole though only their first rows were requested, and read as local files
SMALL = 64 << 20
PIECE = 1_000  # rows between two saved positions


class SetTransfer(Transfer):
    """A transfer of a part of a dataset. result: the fields to report at its end, besides its folder."""

    def __init__(self, cached: CachedRepo, part: PartName, endpoint: str, check_disk: Callable[[int, int], None]):
        super().__init__(cached, "", endpoint, lambda folder: None, check_disk)
        self.part = part
        self.result: JsonObject = {}
        self._rows = 0

    @property
    def done(self) -> int:
        """Bytes so far, or rows if unit says so."""
        return self._rows if self.unit == "rows" else super().done

    def fetch(self, revision: str) -> Path:
        """Download a part, set result, and return the cache folder: its files, or its first rows if only some are
        requested and the files are not small. Raises DataError, ModelError, and errors that core.hub.hub_errors
        knows."""
        repository = listing.fetch_listing(self.part.repo, revision, self.endpoint, "dataset")
        part = library.part_named(repository, (self.part.config, self.part.split))
        self.cached.folder.mkdir(parents=True, exist_ok=True)
        if self.part.rows and not (part.has_own_reader and part.about.bytes <= SMALL):
            paths = [self._first_rows(repository, part)]
        else:
            paths = self._all_files(repository, part)
        assert isinstance(repository.info, DatasetInfo)
        self.result = {
            "files": [str(file) for file in paths],
            "commit": repository.commit,
            "licence": licence_of(repository.info),
        }
        return self.cached.folder

    def _all_files(self, repository: Listing, part: Part) -> list[Path]:
        """Download all files of a part and return their paths; they are converted to one file of JSON lines if no
        reader of ours knows their kind."""
        snapshot = self.cached.folder / "snapshots" / repository.commit
        self._head(repository, part.files[0])  # refused if the repository is gated
        self._check_disk_and_fetch(repository, list(part.files), snapshot)
        paths = [snapshot / file.name for file in part.files]
        if part.has_own_reader:
            return paths
        self._stopped.clear()  # only the transfer has ended, not the reading
        return [self._write_rows(repository, part, [str(path) for path in paths], None)]

    def _first_rows(self, repository: Listing, part: Part) -> Path:
        """Write the requested number of first rows as JSON lines, without downloading the files, and return the file;
        unit and total then count rows."""
        about = min(part.about.bytes, ABOUT_A_ROW * self.part.rows)
        self.check_disk(about, about)
        self.unit, self.total = "rows", self.part.rows
        target = self._write_rows(repository, part, [], self.part.rows)
        self.total = self._rows  # it may have fewer than requested
        return target

    def _write_rows(self, repository: Listing, part: Part, local_files: list[str], limit: int | None) -> Path:
        """Write the rows, at most limit, as a .jsonl file in the cache, and return it. Raises DataError on a full
        disk."""
        folder = self.cached.cache / "rows" / repository.commit
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{slug(self.part.repo.partition('/')[2], 'data')[:60]}.jsonl"
        try:
            with library.refusing(self.part.repo, part.files[0].name):
                self._write(library.stream(part, repository, local_files), target, limit)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            values = {"done": self._rows, "total": limit or part.about.rows or self._rows, "folder": self.cached.cache}
            raise DataError("hub_set.disk_full_in_rows", repo=self.part.repo, **values) from None
        return target

    def _write(self, rows: IterableDataset, target: Path, limit: int | None) -> None:
        """Append one JSON line a row up to limit, after the position that a killed or paused process saved; save it
        every PIECE rows. Raises TransferStopped."""
        mark = target.with_suffix(".mark")
        saved = files.read_object(mark)
        if saved and target.is_file() and target.stat().st_size >= saved["bytes"]:
            rows.load_state_dict(saved["state"])
            self._rows = saved["rows"]
        else:
            saved = {"bytes": 0}
        with open(target, "ab") as file:
            file.truncate(saved["bytes"])
            for row in islice(library.rows_of(rows), None if limit is None else limit - self._rows):
                if self._stopped.is_set():
                    raise TransferStopped
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
                self._rows += 1
                if self._rows % PIECE == 0:
                    file.flush()
                    files.replace_json(mark, {"rows": self._rows, "bytes": file.tell(), "state": rows.state_dict()})
