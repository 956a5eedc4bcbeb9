"""Reads zip archives with limits: nothing is unpacked to disk, and the sizes in the directory are never trusted."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from core.data.reading.file_rows import Limits, Readable
from core.data.reading.suffixes import FileKind
from core.errors import DataError, reason_of
from core.progress import Check, go_on
from core.values import MIB

MAX_DIRECTORY = 32 * MIB  # bytes; some 300,000 files
MAX_HELD = 256 * MIB  # bytes
_CHUNK = 64 << 10
# Exceptions of Python's zipfile for damaged or unsupported archives.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
)
# Kinds that are zips, by a file in them.
_KINDS: dict[str, FileKind] = {"xl/workbook.xml": "xlsx", "xl/workbook.bin": "xlsb", "word/document.xml": "docx"}
_MIMETYPES: dict[bytes, FileKind] = {
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/epub+zip": "epub",
}


def seekable(path: Readable) -> IO[bytes]:
    """Open a file so that it is seekable: one of an archive is read into memory. Raises DataError if it is too large
    for that."""
    # Parquet's contents are listed at its end.
    file = path.open("rb")
    if file.seekable():
        return file
    with file:
        held = file.read(MAX_HELD + 1)
    if len(held) > MAX_HELD:
        raise DataError("data.too_large", file=path.name, mib=len(held) // MIB, limit_mib=MAX_HELD // MIB)
    return io.BytesIO(held)


@contextlib.contextmanager
def open_zip(path: Readable, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Context manager: an opened archive. Raises DataError if it is damaged, or if its directory or stated size is
    above the limit."""
    with seekable(path) as file:
        # Before zipfile opens it, which reads the directory at once.
        if _directory_bytes(file) > MAX_DIRECTORY:
            raise DataError("data.zip_directory", file=path.name, limit_mib=MAX_DIRECTORY // MIB)
        try:
            archive = zipfile.ZipFile(file)
        except BROKEN as error:
            raise DataError("data.broken_zip", file=path.name, reason=reason_of(error)) from None
        with archive:
            unpacked = sum(each.file_size for each in archive.infolist())
            if unpacked > limits.bytes:
                raise DataError("data.too_large", file=path.name, mib=unpacked // MIB, limit_mib=limits.bytes // MIB)
            yield archive


def kind_of(path: Readable, limits: Limits) -> FileKind | None:
    """Return the kind of file that a zip is by its members, None for an archive. Raises DataError if it is damaged."""
    with open_zip(path, limits) as archive:
        names = set(archive.namelist())
        for name, kind in _KINDS.items():
            if name in names:
                return kind
        # OpenDocument and EPUB name their kind there.
        if "mimetype" not in names:
            return None
        try:
            with archive.open("mimetype") as file:
                return _MIMETYPES.get(file.read(100).strip())
        except BROKEN as error:
            raise DataError("data.broken_zip", file=path.name, reason=reason_of(error)) from None


def _directory_bytes(file: IO[bytes]) -> int:
    """Return the size in bytes of a zip's directory, also of a zip64, which zipfile would read completely; 0 if it has
    no end record."""
    size = file.seek(0, 2)
    # A comment of up to 64 KiB may follow the end record; zip64's locator stands before it.
    file.seek(max(0, size - (1 << 16) - 22 - 20))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 16:
        return 0
    stated = int.from_bytes(tail[end + 12 : end + 16], "little")
    locator = tail[end - 20 : end] if end >= 20 else b""
    if not locator.startswith(b"PK\x06\x07"):
        return stated
    file.seek(min(size, int.from_bytes(locator[8:16], "little")))
    return int.from_bytes(file.read(48)[40:48], "little")


class Member:
    """A file in an archive, with the methods of pathlib.Path that readers use. Opened anew each time, like a file."""

    def __init__(self, archive: Path, info: zipfile.ZipInfo):
        self.archive, self._info = archive, info
        self.name = info.filename
        self.suffix, self.stem = PurePosixPath(self.name).suffix, PurePosixPath(self.name).stem
        self.size = info.file_size

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    @property
    def flaw(self) -> str:
        """Key of the sentence why it is not read (encrypted, a link, a path outside the archive); "" if it is."""
        if self._info.flag_bits & 1:
            return "data.member_password"
        if stat.S_ISLNK(self._info.external_attr >> 16):
            return "data.member_link"
        parts = self.name.replace("\\", "/").split("/")
        return "data.member_outside" if ".." in parts or self.name.startswith(("/", "\\")) or ":" in parts[0] else ""

    def open(
        self, mode: str = "r", encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> Any:
        """Open the file in the archive. mode: "r" or "rb". Reading may raise DataError, e.g. beyond the limit for
        unpacked bytes."""
        unpacked = io.BufferedReader(_Unpacked(self.archive, self._info), _CHUNK)
        return (
            unpacked if mode == "rb" else io.TextIOWrapper(unpacked, encoding=encoding, errors=errors, newline=newline)
        )


class _Unpacked(io.RawIOBase):
    """The bytes of a member as zipfile unpacks them: no more than its directory states, or a DataError."""

    def __init__(self, archive: Path, info: zipfile.ZipInfo):
        """Open the member at its header. Raises DataError if the archive is damaged."""
        self._name = info.filename
        file = archive.open("rb")
        try:  # ZipFile.open would read the whole directory again, for each of 5,000 files
            file.seek(info.header_offset)
            head = file.read(30)
            if head[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile("header")
            file.seek(sum(struct.unpack("<HH", head[26:30])), 1)
            self._file = zipfile.ZipExtFile(file, "r", info, None, True)
        except BROKEN as error:
            file.close()
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> DataError:
        """Return the DataError for a member of an archive that cannot be unpacked; error: the reason, which its
        sentence gives."""
        return DataError("data.broken_zip", file=self._name, reason=reason_of(error))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)
        except BROKEN as error:
            raise self._broken(error) from None

    def close(self) -> None:
        self._file.close()
        super().close()


def members(path: Path, limits: Limits) -> list[Member]:
    """Return the files of an archive. Raises DataError."""
    with open_zip(path, limits) as archive:
        return [Member(path, info) for info in archive.infolist() if not info.is_dir()]


def pack(files: Sequence[tuple[str, Path]], target: Path, check: Check = go_on) -> None:
    """Write files under these names into a new zip; the same files always give the same bytes. check: called for each
    MiB, and may raise. Raises FileExistsError if the target exists."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file in files:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as packed:
                while chunk := source.read(MIB):
                    check()
                    packed.write(chunk)
