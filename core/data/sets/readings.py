"""A workspace's cache of read files, keyed by their bytes and how they were read: reports, and rows mapped from disk.

<root>/<id>/rows-*.arrow    rows of an imported dataset, for each way of reading them; beside its source, so that they
                            are deleted with it
<root>/.rows/<key>.arrow    the same of samples and library files
<root>/.reports/<key>.json  results of `inspect_file`

All of it may be deleted at any time: the file is read again when needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from core import files
from core.data.large import dataset_process
from core.data.reading import sniff
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.encodings import LIKELY
from core.data.reading.file_rows import Source
from core.data.reading.suffixes import COMPRESSED
from core.data.sets import inspection, stored_rows
from core.data.sets.info import read_info
from core.data.sets.inspection import DataReport
from core.data.sets.stored_rows import IN_MEMORY_BYTES, InMemory, Rows
from core.errors import DataError
from core.progress import Check, go_on
from core.recipe import Format

_PACKED = 5  # times a text is larger than its compressed file
_REPORT_VERSION = 28  # raised when inspect_file returns another report for the same bytes


class Readings:
    """The cache of a workspace. root: <workspace>/datasets. Paths are those of looked-up data files, never a browser's
    input."""

    def __init__(self, root: Path):
        self.root = root
        # Path and stamp -> sha256, so that listing does not read files again; lost with the process.
        self._hashes: dict[tuple[Path, tuple[int, ...]], str] = {}

    def _sha256(self, path: Path) -> str:
        """Return the file's hash: of dataset.json if the file is imported and unchanged in size; else it is computed
        once a process for each state of the file."""
        info = read_info(path.parent) if path.parent.parent == self.root else None
        if info and info.sha256 and info.bytes == path.stat().st_size:
            return info.sha256
        stamp = path, files.stamp(path)
        if stamp not in self._hashes:
            self._hashes[stamp] = sniff.probe(path).sha256
        return self._hashes[stamp]

    def report(self, path: Path, format: Format | None = None, choices: Choices = NO_CHOICES) -> DataReport:
        """Return the report of a file, read with this format and these choices: the stored one, or a new one, for which
        the file is read and its rows are stored too. Raises DataError."""
        known = self._read_report(self._sha256(path), format, choices)
        if known is None:
            file = self._rows_file(path, self._sha256(path), format, choices)
            known, _ = self._read_anew(path, file, format, choices, go_on)
        return known

    def known_report(self, path: Path) -> DataReport | None:
        """Return the stored report, with no choices made, of a file as it is now; None if there is none or this process
        has not hashed this state of the file before. The file is not read."""
        sha256 = self._hashes.get((path, files.stamp(path)))
        return self._read_report(sha256, None) if sha256 else None

    def _read_report(self, sha256: str, format: Format | None, choices: Choices = NO_CHOICES) -> DataReport | None:
        """Return the stored report of these bytes read in this way; None if there is none."""
        return files.read_model(DataReport, self.root / ".reports" / f"{reading_key(sha256, format, choices)}.json")

    def store_report(self, report: DataReport, format: Format | None, choices: Choices) -> None:
        """Store a report for the same file, format and choices. A disk that is full or read-only is ignored."""
        folder = self.root / ".reports"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files.replace_json(
                folder / f"{reading_key(report.sha256, format, choices)}.json", report.model_dump(mode="json")
            )
        except OSError:  # a full or read-only disk: the next time inspects again, nothing else is lost
            pass

    def resolved_choices(self, path: Path, choices: Choices) -> Choices:
        """Return the choices, with those that were not made filled in by how the file was read then: column roles,
        header and sheet or encoding, joined paragraphs, or a chat's voice, gap and pseudonyms. A later reading then
        gives the same rows.

        Reads the file if it has no report yet. Raises DataError.
        """
        report = self.report(path, None, choices)
        file_choices = (
            {"sheet": report.sheet}
            if len(report.sheets) > 1
            else {"encoding": report.encoding}  # a guess, which another version may change
            if report.encoding in LIKELY
            else {}
        )
        defaults = Choices(
            columns=dict(report.roles) or None, header=None if report.header else report.header, **file_choices
        )
        if chat := report.chat:
            defaults = Choices(voice=chat.voice, gap_hours=chat.gap_hours, pseudonyms=chat.pseudonyms, **file_choices)
        if report.continued:
            defaults = defaults.model_copy(update={"join_paragraphs": True})
        return choices.with_defaults(defaults)

    def rows(self, path: Path, format: Format | None, choices: Choices, check: Callable[[], None]) -> Rows:
        """Return the rows, mapped from disk if these bytes were read in this way before, else read now. check: may
        raise. Raises DataError if no row can be trained."""
        file = self._rows_file(path, self._sha256(path), format, choices)
        rows = stored_rows.open_rows(file)
        if rows is None:
            _, rows = self._read_anew(path, file, format, choices, lambda rows=0: check())
        if not len(rows):
            raise self.report(path, format, choices).refusal(path.name)
        return rows

    def read_into(self, folder: Path, source: Source, choices: Choices, check: Check) -> DataReport:
        """Read a file that is being imported: write its rows into a file of folder, the dataset's, and return its
        report. Raises DataError, OSError."""
        return read_rows(source, folder / _rows_name(source.sha256, None, choices), None, choices, check)

    def _rows_file(self, path: Path, sha256: str, format: Format | None, choices: Choices) -> Path:
        """Return the path of the rows: beside an imported source, so that they are deleted with it; else in .rows."""
        own = path.parent.parent == self.root
        return (path.parent if own else self.root / ".rows") / _rows_name(sha256, format, choices)

    def _read_anew(
        self, path: Path, file: Path, format: Format | None, choices: Choices, check: Check
    ) -> tuple[DataReport, Rows]:
        """Read a file once; return its report, which is also stored, and its rows, stored in `file`.

        If the rows cannot be stored, such as on a full disk, those of a file of at most IN_MEMORY_BYTES are held in
        memory; for a larger one raises DataError.
        """
        try:
            report = read_rows(path, file, format, choices, check)
            rows = stored_rows.open_rows(file)
        except OSError as error:
            if path.stat().st_size > IN_MEMORY_BYTES:
                raise DataError("data.cannot_store", name=path.name, reason=error.strerror or str(error)) from error
            rows = None
        if rows is None:
            # The disk is full: few rows fit into memory.
            held = InMemory()
            report = inspection.inspect_file(path, format, choices=choices, keep=held.add)
            rows = held.rows()
        self.store_report(report, format, choices)
        return report, rows


def read_rows(path: Path | Source, file: Path, format: Format | None, choices: Choices, check: Check) -> DataReport:
    """Read a file once: return its report and write its rows to `file`; a large one in a process of its own. check:
    called with the rows so far, and may raise. Raises DataError, OSError."""
    data_file: object = path
    size = 0
    if isinstance(path, Source):
        data_file = path.stamps[0][0] if len(path.stamps) == 1 else path.path
        size = getattr(path.path, "unpacked", 0)
    if isinstance(data_file, Path):
        factor = _PACKED if data_file.suffix in COMPRESSED else 1
        if dataset_process.is_needed(bytes=max(size, factor * data_file.stat().st_size)):
            return dataset_process.report(
                data_file, "read", str(file), format or "", choices.model_dump_json(), check=check
            )
    with stored_rows.writing_rows(file) as writer:
        return inspection.inspect_file(path, format, choices=choices, keep=writer.add, check=check)


def _rows_name(sha256: str, format: Format | None, choices: Choices) -> str:
    """Return the name of the Arrow file that stores the rows of these bytes, read with this format and these choices by
    this version of the app."""
    return f"rows-{_REPORT_VERSION}-{reading_key(sha256, format, choices)[:24]}.arrow"


def reading_key(sha256: str, format: Format | None, choices: Choices) -> str:
    """Return a hash that is equal for the same bytes, read in the same way by the same version of this app."""
    return hashlib.sha256(f"{sha256}|{format}|{_REPORT_VERSION}|{choices.key}".encode()).hexdigest()
