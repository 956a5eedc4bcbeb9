"""Zip archives, by limits: nothing is unpacked to the disk, and what a directory claims is never believed."""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from core.data.reading.rows import FileKind, Limits
from core.errors import DataError, reason_of
from core.values import MIB

MOST_DIRECTORY = 32 * MIB  # bytes; some 300,000 files
# What Python's zipfile raises for bytes that are no archive, or one of another kind than it knows.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError)
# Kinds that are zips, by a file in them.
_KINDS: dict[str, FileKind] = {"xl/workbook.xml": "xlsx", "xl/workbook.bin": "xlsb"}
_MIMETYPES: dict[bytes, FileKind] = {b"application/vnd.oasis.opendocument.spreadsheet": "ods"}


@contextlib.contextmanager
def opened(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Raises DataError where it is broken, or says that it is larger than may be."""
    if _directory_bytes(path) > MOST_DIRECTORY:
        raise DataError("data.zip_directory", file=path.name, limit_mib=MOST_DIRECTORY // MIB)
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        raise DataError("data.broken_zip", file=path.name, reason=reason_of(error)) from None
    with archive:
        unpacked = sum(each.file_size for each in archive.infolist())
        if unpacked > limits.bytes:
            raise DataError("data.too_large", file=path.name, mib=unpacked // MIB, limit_mib=limits.bytes // MIB)
        yield archive


def kind_of(path: Path, limits: Limits) -> FileKind | None:
    """Which kind of file a zip is, None for an archive. Raises DataError."""
    with opened(path, limits) as archive:
        names = set(archive.namelist())
        for name, kind in _KINDS.items():
            if name in names:
                return kind
        if "mimetype" not in names:
            return None
        try:
            with archive.open("mimetype") as file:
                return _MIMETYPES.get(file.read(100).strip())
        except BROKEN as error:
            raise DataError("data.broken_zip", file=path.name, reason=reason_of(error)) from None


def _directory_bytes(path: Path) -> int:
    """The size of a zip's directory as its end says, which zipfile would read as a whole; 0 where there is no end."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 22 - 20))
        tail = file.read()
        end = tail.rfind(b"PK\x05\x06")
        if end < 0 or len(tail) < end + 16:
            return 0
        found = int.from_bytes(tail[end + 12 : end + 16], "little")
        locator = tail[end - 20 : end] if end >= 20 else b""
        if not locator.startswith(b"PK\x06\x07"):
            return found
        file.seek(min(size, int.from_bytes(locator[8:16], "little")))
        return int.from_bytes(file.read(48)[40:48], "little")
