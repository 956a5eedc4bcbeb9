"""Reads files in .gz, .zst, .bz2 and .xz, with limits: nothing is unpacked to disk, and a truncated file is refused."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

from core.data.reading.file_rows import Limits, Readable
from core.data.reading.suffixes import COMPRESSED
from core.errors import DataError, reason_of
from core.values import MIB

_MAX_MEMORY = 256 * MIB  # of a decoder: an .xz can ask for 4 GiB
_CHUNK = 64 << 10
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, MemoryError, ValueError)


class _Decoder(Protocol):
    """Unpacks a file as it is read."""

    def read(self, size: int, /) -> bytes: ...


# Each library is imported only for a file that needs it.
def _gzip(file: IO[bytes]) -> _Decoder:
    """Return a decoder of a gzip file; the file's bytes are unpacked as they are read."""
    import gzip

    return gzip.GzipFile(fileobj=file)


def _bz2(file: IO[bytes]) -> _Decoder:
    """Return a decoder of a bzip2 file; the file's bytes are unpacked as they are read."""
    import bz2

    return bz2.BZ2File(file)


def _zstd(file: IO[bytes]) -> _Decoder:
    """Return a decoder of a Zstandard file; the file's bytes are unpacked as they are read."""
    import pyarrow

    return pyarrow.CompressedInputStream(file, "zstd")


class _Xz:
    """The bytes of an .xz file, which may consist of several streams. lzma.LZMAFile has no limit on memory."""

    def __init__(self, file: IO[bytes]):
        self._file, self._decoder = file, lzma.LZMADecompressor(memlimit=_MAX_MEMORY)

    def read(self, size: int) -> bytes:
        """Return up to size bytes, also of several streams one after the other; b"" at the end. Raises EOFError for a
        truncated file."""
        while True:
            if self._decoder.eof:
                rest = (self._decoder.unused_data or self._file.read(_CHUNK)).lstrip(b"\0")  # padding
                if not rest:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=_MAX_MEMORY)
            else:
                rest = self._file.read(_CHUNK) if self._decoder.needs_input else b""
                if not rest and self._decoder.needs_input:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if data := self._decoder.decompress(rest, size):
                return data

    def close(self) -> None:
        """Do nothing: the file belongs to the caller, which closes it."""
        pass


_OPEN: dict[bytes, Callable[[IO[bytes]], _Decoder]] = {
    b"\x1f\x8b": _gzip,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\xfd7zXZ\0": _Xz,
}


def unpacked(file: Readable, head: bytes, limits: Limits) -> Unpacked | None:
    """Recognize a compressed file by its first bytes, and return the file inside; None for any other.

    Nothing is unpacked yet: opening or reading the result does it, and raises DataError if the file is damaged or has
    more than limits.bytes unpacked. head: the first bytes of file, at least ten.
    """
    opener = next((each for magic, each in _OPEN.items() if head.startswith(magic)), None)
    if opener is None and head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        opener = _bz2
    return Unpacked(file, opener, limits) if opener else None


class Unpacked:
    """The file inside a compressed one, with the methods of pathlib.Path that readers use.

    name: of the compressed file; suffix, stem: without the compression's. unpacked: bytes that it has, as far as it was
    read.
    """

    def __init__(self, file: Readable, opener: Callable[[IO[bytes]], _Decoder], limits: Limits):
        self.file, self.name, self._opener, self._limit, self.unpacked = file, file.name, opener, limits.bytes, 0
        path = PurePosixPath(self.name)
        inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
        self.suffix, self.stem = inner.suffix, inner.stem

    def __str__(self) -> str:
        """Return the path of the compressed file."""
        return str(self.file)

    def open(
        self, mode: str = "r", encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> Any:
        """Open the file. mode: "r" or "rb". Reading may raise DataError."""
        stream = io.BufferedReader(_Stream(self, self._opener, self._limit), _CHUNK)
        return stream if mode == "rb" else io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline=newline)


class _Stream(io.RawIOBase):
    """The unpacked bytes: no more than the limit, or a DataError."""

    def __init__(self, inside: Unpacked, opener: Callable[[IO[bytes]], _Decoder], limit: int):
        """Open the packed file. Raises DataError if it is damaged."""
        self._inside, self._limit, self._read = inside, limit, 0
        self._file = inside.file.open("rb")
        try:
            self._unpacking = opener(self._file)
        except _BROKEN as error:
            self._file.close()
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> DataError:
        """Return the DataError for a compressed file that cannot be unpacked; error: the reason, which its sentence
        gives."""
        return DataError("data.broken_compressed", file=self._inside.name, reason=reason_of(error))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill buffer with unpacked bytes and return their number, also noted in inside. Raises DataError if broken or
        larger than the limit."""
        try:
            data = self._unpacking.read(len(buffer))
        except _BROKEN as error:
            raise self._broken(error) from None
        self._read += len(data)
        # The largest of all readings: a file is opened several times, and often only its beginning is read.
        self._inside.unpacked = max(self._inside.unpacked, self._read)
        if self._read > self._limit:
            mib = self._limit // MIB
            raise DataError("data.too_large_unpacked", file=self._inside.name, limit_mib=mib)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream and the packed file that it reads. A second call does nothing."""
        if not self.closed:
            self._file.close()
        super().close()
