"""The tokens of a dataset for one tokenizer, template and labelling: computed once, stored beside its rows, read by
all. No torch.

The page counts some rows, a run those that it trains and measures; what one has counted the other finds
(core/data/sets/segment). Kept by the row's own key, so that a row that was not changed is not counted again. Where
nothing can be kept (rows in memory, a full disk), they are
counted all the same. Cost: SmolLM2's tokenizer reads 1.8 M characters a second (2 shared cores, 2026-12); what is kept,
5 bytes a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from core.data.formats import Example
from core.data.labels import Learning, Whole
from core.data.sets import estimate
from core.data.sets.rows import Rows
from core.data.sets.segment import BAD, SYSTEM, TEXT, THINKS, THOUGHTS, Builder, Counted, DamagedError, Segment
from core.data.text_pieces import Borders, borders
from core.data.tokenizer import Tokenizer
from core.errors import TemplateError
from core.messages import Message
from core.workspace.names import short_id

TOLD_EACH = 20  # rows
# 16 MB in memory until they are written, and lost where a process is killed
SEGMENT_TOKENS, SEGMENT_ROWS = 4_000_000, 20_000
KEPT_WAYS = 4  # of counting one set: tokenizers, templates, what is learned
_VERSION = 1  # raised where the same tokenizer and template would give other tokens or other learned ones


@dataclass(frozen=True, eq=False)
class Placed:
    """Examples (E,): lengths in tokens; is_text; is_bad: a row's answer is marked as a bad one. runs (R, 3): which
    example, first learned token, after the last; the first token of an example is never in a run. Its ids lie in
    segments[segment] from offset on; none where lengths are estimates.
    """

    lengths: np.ndarray
    is_text: np.ndarray
    is_bad: np.ndarray
    runs: np.ndarray
    segments: tuple[Segment, ...]
    segment: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, example: int, start: int, end: int) -> list[int]:
        begin = int(self.offset[example])
        return self.segments[self.segment[example]]["ids"][begin + start : begin + end].tolist()

    def run_of(self, example: Any) -> Any:
        """The first of its runs, or of each of several."""
        # of another type all of runs would be copied
        return np.searchsorted(self.runs[:, 0], np.asarray(example, self.runs.dtype))

    def flags(self, example: int, start: int, end: int) -> list[bool]:
        """Which of an example's tokens from start to end are learned."""
        marks = np.zeros(end - start, bool)
        first, last = self.run_of((example, example + 1))
        for _, begin, after in self.runs[first:last]:
            marks[max(0, begin - start) : max(0, after - start)] = True
        return marks.tolist()


@dataclass(frozen=True, eq=False)
class Tokens(Placed):
    """Of some rows (N,) in their order, the examples (E,) that training makes of them, most often one of each.

    positions (N,): of the rows; counts (N,) examples of each, 0 where the template refuses it; row (E,): of each
    example its place among the rows; thinks (E,); unlearned (E,) earlier answers that are not learned; thoughts, system
    (N,): core/data/sets/segment. refused: place among the rows, and why. example (E,): its place in the segment.
    """

    positions: np.ndarray
    counts: np.ndarray
    row: np.ndarray
    thinks: np.ndarray
    unlearned: np.ndarray
    thoughts: np.ndarray
    system: np.ndarray
    refused: tuple[tuple[int, Message], ...]
    example: np.ndarray

    def borders(self, example: int) -> Borders:
        return self.segments[self.segment[example]].borders(int(self.example[example]))

    @cached_property
    def _begins(self) -> np.ndarray:
        """(E,) where each example would begin, if all lay end to end."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    @cached_property
    def _learned(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last of all learned runs, end to end, and (R + 1,) learned tokens before each."""
        example, start, end = self.runs.T
        begins = self._begins[example]
        return begins + start, begins + end, np.concatenate(([0], np.cumsum(end - start, dtype=np.int64)))

    def learned(self, example: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many tokens are learned from start to end (exclusive) of the examples; all three (P,)."""
        begins = self._begins[example]
        return self._learned_before(begins + np.maximum(start, end)) - self._learned_before(begins + start)

    def _learned_before(self, places: np.ndarray) -> np.ndarray:
        starts, ends, before = self._learned
        run = np.searchsorted(starts, places)  # runs that begin before it
        if not len(starts):
            return np.zeros(len(places), np.int64)
        last = np.maximum(run - 1, 0)
        return np.where(run > 0, before[last] + np.minimum(places, ends[last]) - starts[last], 0)


class Tokenised:
    """The rows of a set as one tokenizer reads them; tokenizer: None estimates their lengths, and keeps nothing.
    mapped: what is kept is not read into memory but mapped, and Windows removes no such file: for a run, whose set must
    stay."""

    def __init__(
        self, rows: Sequence[tuple[int, Example]], tokenizer: Tokenizer | None, learning: Learning, mapped: bool = False
    ):
        self._mapped = mapped
        self._rows, self._tokenizer, self._learning = rows, tokenizer, learning
        self._folder = self._place()
        self._segments: list[Segment] = []
        self._written: set[Path] = set()
        if self._folder is not None:
            for path in sorted(self._folder.glob("*.tokens")):
                try:
                    self._segments.append(Segment.read(path, mapped))
                except (OSError, ValueError, DamagedError):  # another version's too; one that was forgotten meanwhile
                    with contextlib.suppress(OSError):
                        path.unlink()

    def _place(self) -> Path | None:
        if not isinstance(self._rows, Rows) or self._rows.path is None or self._tokenizer is None:
            return None
        said = f"{_VERSION}|{version('tokenizers')}|{self._rows.key}|{self._tokenizer.fingerprint}|{self._learning}"
        return self._rows.path.parent / f"tokens-{hashlib.sha256(said.encode()).hexdigest()[:24]}"

    def of(
        self,
        positions: Sequence[int] | np.ndarray,
        tell: Callable[[int], None] = lambda ready: None,
        trains: bool = False,
    ) -> Tokens:
        """Of the rows at these positions, in this order.

        tell: is told how many of them are ready, often, and may raise; what was counted until then is kept. trains:
        their ids are wanted too, and all that is kept of them looked at beforehand.
        """
        wanted = np.asarray(positions, np.int64)
        while True:
            self._complete(wanted, tell)
            try:
                return self._gathered(wanted, trains)
            except DamagedError as error:
                self._segments.remove(error.segment)
                if error.segment.path in self._written:  # a disk that does not give back what it took
                    self._folder = None
                if error.segment.path is not None:
                    with contextlib.suppress(OSError):
                        error.segment.path.unlink()

    def _complete(self, positions: np.ndarray, tell: Callable[[int], None]) -> None:
        """Count those that nobody has."""
        missing = positions[self._where(self._keys(positions))[0] < 0]
        ready = len(positions) - len(missing)
        builder = Builder()
        try:
            tell(ready)
            for done, position in enumerate(missing.tolist()):
                if done and done % TOLD_EACH == 0:
                    tell(ready + done)
                self._count(position, builder)
                if builder.tokens >= SEGMENT_TOKENS or len(builder) >= SEGMENT_ROWS:
                    self._keep(builder)
                    builder = Builder()
        finally:
            if len(builder):
                self._keep(builder)

    def _keys(self, positions: np.ndarray) -> np.ndarray:
        return self._rows.keys(positions) if isinstance(self._rows, Rows) else positions

    def _count(self, position: int, builder: Builder) -> None:
        key = int(self._keys(np.array([position]))[0])
        example = self._rows[position][1]
        flags = THOUGHTS * any(message.reasoning for message in example.messages)
        flags |= SYSTEM * (bool(example.messages) and example.messages[0].role == "system") | BAD * example.is_bad
        try:
            if self._tokenizer is None:
                builder.add(key, flags, estimate.counted(example, self._learning))
            else:
                builder.add(
                    key, flags, [counted(whole) for whole in self._tokenizer.encode_row(example, self._learning)]
                )
        except TemplateError as error:
            builder.refuse(key, error.message)

    def _keep(self, builder: Builder) -> None:
        """On disk, where it takes them; then they are read from there, and no longer held."""
        if self._folder is not None and self._tokenizer is not None:
            path = self._folder / f"{short_id()}.tokens"
            with contextlib.suppress(OSError):
                if not self._folder.exists():
                    self._forget_the_oldest(self._folder.parent)
                builder.write(path)
                self._written.add(path)
                try:
                    self._segments.append(Segment.read(path, self._mapped))
                    return
                except (ValueError, DamagedError):  # a disk that does not give back what it took
                    pass
        self._segments.append(builder.segment())

    @staticmethod
    def _forget_the_oldest(folder: Path) -> None:
        ways = sorted(folder.glob("tokens-*"), key=lambda way: way.stat().st_mtime, reverse=True)
        for way in islice(ways, KEPT_WAYS - 1, None):
            shutil.rmtree(way, ignore_errors=True)

    def _where(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) for each key the segment that has it, -1 where none does, and its row there."""
        segment, row = np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.int64)
        low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, -1)
        for number, held in enumerate(self._segments):
            if not held.may_have(low, high):
                continue
            found = held.find(keys)
            segment, row = np.where(found >= 0, number, segment).astype(np.int32), np.where(found >= 0, found, row)
        return segment, row

    def _gathered(self, positions: np.ndarray, trains: bool) -> Tokens:
        keys = self._keys(positions)
        of_row, row_there = self._where(keys)
        first, counts, row_flags = (np.zeros(len(positions), np.int64) for _ in range(3))
        refused: list[tuple[int, Message]] = []
        for held, chosen in self._hit(of_row):
            there = row_there[chosen]
            first[chosen] = held["examples"][there]
            counts[chosen] = held["examples"][there + 1] - first[chosen]
            row_flags[chosen] = held["row_flags"][there]
            if held.refused:
                refused += [(int(i), held.refused[int(keys[i])]) for i in chosen if int(keys[i]) in held.refused]
        row, within = _spread_out(counts)
        segment, example = of_row[row], first[row] + within
        lengths, flags, unlearned = (np.zeros(len(row), np.int32) for _ in range(3))
        offset, run_first, run_count = (np.zeros(len(row), np.int64) for _ in range(3))
        for held, chosen in self._hit(segment):
            there = example[chosen]
            if trains:
                held.check()
            offset[chosen] = held["starts"][there]
            lengths[chosen] = held["starts"][there + 1] - offset[chosen]
            flags[chosen], unlearned[chosen] = held["flags"][there], held["unlearned"][there]
            run_first[chosen] = held["run_starts"][there]
            run_count[chosen] = held["run_starts"][there + 1] - run_first[chosen]
        run_example, run_within = _spread_out(run_count)
        runs = np.zeros((len(run_example), 3), np.int64)
        runs[:, 0] = run_example
        for held, chosen in self._hit(segment[run_example]):
            runs[chosen, 1:] = held["runs"].reshape(-1, 2)[run_first[run_example[chosen]] + run_within[chosen]]
        return Tokens(
            lengths, flags & TEXT > 0, row_flags[row] & BAD > 0, runs, tuple(self._segments), segment, offset,
            positions, counts, row, flags & THINKS > 0, unlearned, row_flags & THOUGHTS > 0, row_flags & SYSTEM > 0,
            tuple(sorted(refused, key=lambda found: found[0])), example,
        )  # fmt: skip

    def _hit(self, numbers: np.ndarray) -> Iterator[tuple[Segment, np.ndarray]]:
        """Each segment that is meant by some, and by which."""
        for number in np.unique(numbers):
            yield self._segments[number], np.flatnonzero(numbers == number)


def counted(whole: Whole) -> Counted:
    """What there is to count of a row's example: its tokens, the runs of learned ones, and where plain text may be
    cut."""
    flags = np.zeros(len(whole.learned) + 2, np.int8)
    flags[1:-1] = whole.learned
    flags[1] = 0  # the first token has nothing before it to be predicted from
    runs = np.flatnonzero(np.diff(flags)).reshape(-1, 2).tolist()
    text = borders(whole.text, whole.offsets) if whole.is_text else None
    thinks, unlearned = (whole.rendered.thinks, whole.rendered.unlearned) if whole.rendered else (False, 0)
    return Counted(len(whole.input_ids), runs, text, whole.input_ids, thinks, unlearned)


def _spread_out(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For (N,) counts: (sum,) which of the N each belongs to, and its number within."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
