"""Writes a safetensors file in pieces, with several threads: the safetensors library needs all tensors of a file in
memory at once, 15 GB for some 7B models. Workers only (torch).

The format: 8 bytes little-endian length of the header, the header as JSON padded with spaces to 8 bytes, the raw
values.
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from threading import Lock
from typing import Self

import torch

from core.files import JsonObject

SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class SafetensorsFile:
    """A file whose header is written first and its values in any order. Use as a context manager.

    shapes: name -> (type, shape). places: name -> offset of its values.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[str, tuple[int, ...]]]):
        """Compute the header with the offsets of all tensors; nothing is written yet."""
        header: JsonObject = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (dtype, shape) in shapes.items():
            start, end = end, end + math.prod(shape) * SIZES[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        raw = json.dumps(header, separators=(",", ":")).encode()
        # The format lets a header end in blanks, so that the tensors behind it are aligned.
        raw += b" " * (-len(raw) % 8)
        self.places = {name: 8 + len(raw) + header[name]["data_offsets"][0] for name in shapes}
        self._path, self._head, self._lock = path, struct.pack("<Q", len(raw)) + raw, Lock()

    def __enter__(self) -> Self:
        """Create the file, in place of an earlier one, and write its header."""
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed at the end of `with`
        self._file.write(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, place: int, tensor: torch.Tensor) -> None:
        """Write a tensor's bytes at an offset of the file, and let the system drop them from its cache; any thread may
        call it."""
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        with self._lock:
            self._file.seek(place)
            self._file.write(raw)
        if hasattr(os, "posix_fadvise"):  # start writing to disk now, not only in files.sync_tree
            os.posix_fadvise(self._file.fileno(), place, len(raw), os.POSIX_FADV_DONTNEED)
