"""Which memory each operator reads and writes, told to the null card's check for races (NULLCARD_RACES=1,
null/races.h).

An operator on the card is work on its current stream: what its schema marks as written is written, all else is
read. The host's own operators are told where they touch pinned memory. Not seen: what Python reads from pinned
memory without an operator (numpy, tolist).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import torch
from torch.utils._pytree import tree_leaves

library = ctypes.CDLL(None)
library.nullcard_touch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
library.nullcard_work.argtypes = [ctypes.c_void_p]
library.nullcard_race.restype = ctypes.c_char_p
HOST = ctypes.c_void_p(-1).value
COPIES = {"copy_", "_to_copy"}  # whose part in RAM the runtime sees


class Race(RuntimeError):
    """Two accesses to the same memory that nothing orders."""


def begin(stream: int, op, args, kwargs) -> None:
    """Before an operator runs on a stream."""
    library.nullcard_work(stream)
    is_copy = op._schema.name.split("::")[-1] in COPIES
    for tensor, writes in _given(op, args, kwargs):
        if tensor.device.type == "cuda":
            _touch(stream, tensor, writes, op)
        elif not is_copy:
            _touch(HOST, tensor, writes, op)


def on_host(op, args, kwargs) -> None:
    """Before an operator of the processor alone."""
    for tensor, writes in _given(op, args, kwargs):
        _touch(HOST, tensor, writes, op)


def end(stream: int, op, made) -> None:
    """After it: made is what it returned, in memory that was perhaps waited for meanwhile."""
    library.nullcard_work(stream)
    for tensor in tree_leaves(made):
        if isinstance(tensor, torch.Tensor) and tensor.device.type == "cuda":
            _touch(stream, tensor, True, op)


def _given(op, args, kwargs) -> Iterator[tuple[torch.Tensor, bool]]:
    for place, argument in enumerate(op._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        writes = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in tree_leaves(value):
            if (
                isinstance(tensor, torch.Tensor)
                and tensor.device.type in ("cuda", "cpu")
                and tensor.layout == torch.strided
            ):
                yield tensor, writes


def _touch(stream: int, tensor: torch.Tensor, writes: bool, op) -> None:
    if not tensor.numel():
        return
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    size = (last + 1) * tensor.element_size()
    if library.nullcard_touch(stream, tensor.data_ptr(), size, int(writes), op._schema.name.encode()):
        raise Race(library.nullcard_race().decode())
