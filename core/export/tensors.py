"""Verifies an export with little memory: reads it back from disk and compares it tensor by tensor with what it should
be.

An adapter is a copy: its bytes are the run's. Of a merged model every number is compared with W + s * B @ A
(DoRA: with the lengths it has learned) of base and adapter, a few rows at a time: it may be off by one place in the
type it is written in, because two products of the same numbers may round differently, and such places may not be many.
So a matrix of zeros, the base's own, or one that belongs elsewhere is found, however little it changes what a model
says. Workers only (torch).
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from core.export.merge import Check, Progress
from core.export.pairs import Pair
from core.export.stored import FLOATS, Base
from core.models.weights import open_tensors

AT_ONCE = 1 << 22  # numbers of one tensor that are compared at once: 16 MiB in float32, a few times over
# Of the numbers of a tensor: sums in another order round few of them to the other side.
MAX_OTHER_SIDE = 0.01
# Of the largest number in its row, eight units in the last place of float32: where W and s * B @ A nearly cancel out,
# their sum is smaller than what the order of the additions makes of it, and no step at the sum itself would cover that.
CANCELLED = 2.0**-20


@dataclass(frozen=True)
class Comparison:
    """How many tensors were compared, and which are not what they should be."""

    tensors: int
    off: tuple[str, ...]


class Reader:
    """The tensors of a folder, read when they are asked for; its files stay open while it lasts."""

    def __init__(self, base: Base):
        self.base = base
        self._held = ExitStack()
        self._open: dict[Path, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._held.close()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Of what has no rows, all of it."""
        stored = self.base.tensors[name]
        file = self._open.get(stored.file)
        if file is None:
            file = self._open[stored.file] = self._held.enter_context(open_tensors(stored.file))
        return file.get_slice(name)[start:stop] if stored.shape else file.get_tensor(name)

    def whole(self, name: str) -> torch.Tensor:
        return self.rows(name, 0, (self.base.tensors[name].shape or (0,))[0])


class MergedFolder(Reader):
    """A merged model, as it lies on the disk. names: the tensors that it has; expected: those of the base, which it
    should have."""

    def __init__(self, written: Base, base: Base):
        super().__init__(written)
        self.names, self.expected = list(written.tensors), list(base.tensors)
        self._original = base

    def shape(self, name: str) -> tuple[int, ...]:
        return self.base.tensors[name].shape

    def rounded(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """rows as they should have been written, in float32."""
        return rows.to(self._original.written_as(name)).float() if rows.is_floating_point() else rows

    def step(self, name: str, rounded: torch.Tensor) -> torch.Tensor:
        """How far one more or one less at the last place is, at most."""
        return (
            one_step(rounded, self._original.written_as(name))
            if rounded.is_floating_point()
            else torch.zeros_like(rounded)
        )


class Tuned:
    """W + s * B @ A of a base and its adapter, in float32, as many rows as are asked for."""

    def __init__(self, base: Reader, adapter: Path, pairs: dict[str, Pair]):
        self.base, self._pairs = base, pairs
        self.adapter = read_all(adapter / "adapter_model.safetensors")

    def changes(self, name: str) -> bool:
        return name in self._pairs

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
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
        return tuned * (self.adapter[pair.magnitude][start:stop].float() / tuned.norm(dim=1))[:, None]


def one_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance between neighbours of dtype at values, at most; float32."""
    limits = torch.finfo(dtype)
    return values.abs() * limits.eps + limits.smallest_normal * limits.eps


def read_all(file: Path) -> dict[str, torch.Tensor]:
    with open_tensors(file) as opened:
        return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 - it is no mapping


def compare(tuned: Tuned, written: MergedFolder, progress: Progress, check: Check) -> Comparison:
    """Every tensor that is there or should be."""
    off = sorted(set(written.names) ^ set(written.expected))
    both = [name for name in written.expected if name not in off]
    sizes = {name: tuned.base.base.tensors[name].shape for name in both}
    for done, name in enumerate(both):
        if written.shape(name) != sizes[name] or not _alike(tuned, written, name, sizes[name], check):
            off.append(name)
        progress((done + 1) / len(both))
    return Comparison(len(both), tuple(off))


def _alike(tuned: Tuned, written: MergedFolder, name: str, shape: tuple[int, ...], check: Check) -> bool:
    others = total = 0
    for start, stop in _pieces(shape):
        check()
        expected = written.rounded(name, tuned.rows(name, start, stop))
        found = written.rows(name, start, stop)
        found = found.float() if found.is_floating_point() else found
        total += expected.numel()
        if torch.equal(found, expected):
            continue
        allowed = written.step(name, expected)
        if tuned.changes(name):
            allowed = allowed + CANCELLED * expected.abs().amax(-1, keepdim=True)
        if not bool(((found - expected).abs() <= allowed).all()):  # False also for what is not a number
            return False
        others += int((found != expected).sum())
    return others <= MAX_OTHER_SIDE * total


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    rows, columns = (shape or (1,))[0], 1
    for size in shape[1:]:
        columns *= size
    at_once = max(1, AT_ONCE // max(1, columns))
    for start in range(0, rows, at_once):
        yield start, min(rows, start + at_once)


def same_bytes(run: Path, export: Path) -> Comparison:
    """An adapter that was copied: every file of the run's folder, byte for byte, and no number in it that is none."""
    files = sorted(file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file())
    off = [
        name
        for name in files
        if not (export / name).is_file() or not filecmp.cmp(run / name, export / name, shallow=False)
    ]
    with open_tensors(export / "adapter_model.safetensors") as file:
        names = list(file.keys())
        off += [name for name in names if not bool(file.get_tensor(name).isfinite().all())]
    return Comparison(len(names), tuple(off))
