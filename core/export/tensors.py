"""Verifies an export with little memory: reads it from disk and compares it tensor by tensor with the expected values.

An adapter is a copy with the same bytes. Every number of a merged model is compared with W + s * B @ A (DoRA: with its
learned magnitudes) of base and adapter, a few rows at a time: it may be off by one unit in the last place of its type,
because two products of the same numbers may round differently, and only few numbers may be. This finds a matrix of
zeros, one of the unchanged base or one in the wrong place, however little it changes the answers. Workers only (torch).
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open

from core.export.merge import Check, Progress
from core.export.pairs import Pair
from core.export.stored import FLOATS, Base
from core.models.weights import open_tensors

AT_ONCE = 1 << 22  # numbers of one tensor compared at once: 16 MiB in float32 for each of a few copies
# Share of a tensor's numbers that may differ: sums in another order round a few to the neighbouring value.
MAX_OTHER_SIDE = 0.01
# Tolerance relative to the largest number of the row, eight units in the last place of float32: if W and s * B @ A
# nearly cancel out, the order of the additions changes the sum by more than one step at the sum itself.
CANCELLED = 2.0**-20


@dataclass(frozen=True)
class Comparison:
    """Number of compared tensors, and the names of those that differ."""

    tensors: int
    off: tuple[str, ...]


class Reader:
    """The tensors of a folder, read on request; its files stay open until the end of the context."""

    def __init__(self, base: Base):
        self.base = base
        self._stack = ExitStack()
        self._open: dict[Path, safe_open] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._stack.close()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows start to stop of a tensor as it is stored; all of a scalar."""
        stored = self.base.tensors[name]
        file = self._open.get(stored.file)
        if file is None:
            file = self._open[stored.file] = self._stack.enter_context(open_tensors(stored.file))
        return file.get_slice(name)[start:stop] if stored.shape else file.get_tensor(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a whole tensor as it is stored."""
        return self.rows(name, 0, (self.base.tensors[name].shape or (0,))[0])


class MergedFolder(Reader):
    """A merged model on disk. names: its tensors; expected: the base's tensors, which it should have."""

    def __init__(self, written: Base, base: Base):
        super().__init__(written)
        self.names, self.expected = list(written.tensors), list(base.tensors)
        self._original = base

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor as it was written, not that of the base's."""
        return self.base.tensors[name].shape

    def rounded(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of the tensor `name`, rounded to the type that a merged model stores it in.

        The result is float32, except that integers stay as they are. rows: the expected values.
        """
        return rows.to(self._original.written_as(name)).float() if rows.is_floating_point() else rows

    def step(self, name: str, rounded: torch.Tensor) -> torch.Tensor:
        """Return for each number of rounded the distance to its neighbour in the type that the tensor is written as; 0
        for integers."""
        return (
            one_step(rounded, self._original.written_as(name))
            if rounded.is_floating_point()
            else torch.zeros_like(rounded)
        )


class Tuned:
    """W + s * B @ A of a base and its adapter in float32, a range of rows at a time."""

    def __init__(self, base: Reader, adapter: Path, pairs: dict[str, Pair]):
        """Read all tensors of the adapter into memory; base is read a range of rows at a time. pairs: as of
        `lora_pairs`, by the names in the base's files."""
        self.base, self._pairs = base, pairs
        self.adapter = read_all(adapter / "adapter_model.safetensors")

    def changes(self, name: str) -> bool:
        """Return whether the adapter changes the tensor of this name in the files."""
        return name in self._pairs

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows start to stop of the tensor in float32 with the adapter applied, as DoRA too; integers as they
        are."""
        weight = self.base.rows(name, start, stop)
        if self.base.base.tensors[name].dtype in FLOATS:
            weight = weight.float()
        if (pair := self._pairs.get(name)) is None:
            return weight
        tuned = weight + pair.scale * pair.product(
            self.adapter[pair.a].float(), self.adapter[pair.b].float(), start, stop
        )
        if pair.magnitude is None:
            return tuned
        # DoRA (arXiv 2402.09353): the rows keep their direction and get learned lengths.
        return tuned * (self.adapter[pair.magnitude][start:stop].float() / tuned.norm(dim=1))[:, None]


def one_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Upper bound of the distance between neighbouring values of dtype around each value; float32."""
    limits = torch.finfo(dtype)
    return values.abs() * limits.eps + limits.smallest_normal * limits.eps


def read_all(file: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a safetensors file by name, as copies that outlive the open file."""
    with open_tensors(file) as opened:
        return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 - it is no mapping


def compare(tuned: Tuned, written: MergedFolder, progress: Progress, check: Check) -> Comparison:
    """Compare every tensor that exists or should exist in the written folder with the tuned base; return how many are
    in both, and `off`, the names of those missing, superfluous, of another shape or value. check may raise between
    pieces."""
    # A superfluous tensor is wrong too: another program may read it in place of the right one.
    off = sorted(set(written.names) ^ set(written.expected))
    both = [name for name in written.expected if name not in off]
    sizes = {name: tuned.base.base.tensors[name].shape for name in both}
    for done, name in enumerate(both):
        if written.shape(name) != sizes[name] or not _alike(tuned, written, name, sizes[name], check):
            off.append(name)
        progress((done + 1) / len(both))
    return Comparison(len(both), tuple(off))


def _alike(tuned: Tuned, written: MergedFolder, name: str, shape: tuple[int, ...], check: Check) -> bool:
    """Return whether a written tensor equals the expected one but for at most a share MAX_OTHER_SIDE of numbers that
    were rounded the other way."""
    differing = total = 0
    for start, stop in _pieces(shape):
        check()
        expected = written.rounded(name, tuned.rows(name, start, stop))
        actual = written.rows(name, start, stop)
        actual = actual.float() if actual.is_floating_point() else actual
        total += expected.numel()
        if torch.equal(actual, expected):
            continue
        allowed = written.step(name, expected)
        if tuned.changes(name):
            allowed = allowed + CANCELLED * expected.abs().amax(-1, keepdim=True)
        if not bool(((actual - expected).abs() <= allowed).all()):  # False also for NaN
            return False
        # Within one step each, but many of them would be a systematic error, such as another scale.
        differing += int((actual != expected).sum())
    return differing <= MAX_OTHER_SIDE * total


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows of at most AT_ONCE numbers, at least one row."""
    rows, columns = (shape or (1,))[0], 1
    for size in shape[1:]:
        columns *= size
    at_once = max(1, AT_ONCE // max(1, columns))
    for start in range(0, rows, at_once):
        yield start, min(rows, start + at_once)


def same_bytes(run: Path, export: Path) -> Comparison:
    """Compare an exported adapter with the run's folder, every file of it byte by byte, and check that all its numbers
    are finite. off: names of files or tensors that fail."""
    files = sorted(file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file())
    off = [
        name
        for name in files
        if not (export / name).is_file() or not filecmp.cmp(run / name, export / name, shallow=False)
    ]
    with open_tensors(export / "adapter_model.safetensors") as file:
        # Equal files may hold NaN.
        names = list(file.keys())
        off += [name for name in names if not bool(file.get_tensor(name).isfinite().all())]
    return Comparison(len(names), tuple(off))
