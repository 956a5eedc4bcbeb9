"""The tokens of a dataset for one tokenizer, template and labelling: computed once, stored beside its rows.

The page counts some rows, a run those that it trains and validates on; both share the stored segments
(core/data/sets/segment). They are kept by the row's own key, so that an unchanged row is not counted again. If nothing
can be stored (rows in memory, a full disk), rows are counted all the same. Cost: SmolLM2's tokenizer reads 1.8 M
characters a second (2 shared cores, 2026-12); stored segments take 5 bytes a token. No torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from core.data.formats import Example
from core.data.joined_text import encode_paragraph
from core.data.labels import FullExample, Learning
from core.data.sets import estimate, segment
from core.data.sets.paragraphs import Paragraphs
from core.data.sets.segment import BAD, SYSTEM, THOUGHTS, Builder, Counted, Segment
from core.data.sets.stored_rows import Rows
from core.data.text_pieces import Borders, borders
from core.data.tokenizer import Tokenizer
from core.errors import TemplateError
from core.messages import Message

REPORT_EVERY = 20  # rows
# 4 MB, and their Python objects until they are written; lost if the process is killed
SEGMENT_TOKENS, SEGMENT_ROWS = 1_000_000, 20_000
KEPT_COUNTINGS = 4  # stored countings of one dataset: tokenizers, templates, what is learned
_VERSION = 3  # raised when the same tokenizer and template give other tokens or other learned ones


@dataclass(frozen=True, eq=False)
class Tokens:
    """The examples (E,) that training makes of some rows (N,), in the order of the rows; most often one of each.

    positions (N,): of the rows; counts (N,) examples of each, 0 if the template refuses it; thoughts, system (N,):
    marks of core/data/sets/segment. refused: place among the rows, and the reason. row (E,): place of each example's
    row; lengths (E,) in tokens; is_text, thinks (E,); is_bad (E,): the row's answer is marked as bad; unlearned (E,)
    earlier answers that are not learned. runs (R, 3): example, first learned token, after the last; the first token of
    an example is never in a run. border_lists (E,) of Arrow: borders where plain text may be cut. Token ids are those
    of example `place` of segments[segment]; none if lengths are estimates. joint (E,): above 0 if the example is a
    paragraph that continues the text of the one before it (index in JOINTS).
    """

    positions: np.ndarray
    counts: np.ndarray
    thoughts: np.ndarray
    system: np.ndarray
    refused: tuple[tuple[int, Message], ...]
    row: np.ndarray
    lengths: np.ndarray
    is_text: np.ndarray
    thinks: np.ndarray
    is_bad: np.ndarray
    unlearned: np.ndarray
    runs: np.ndarray
    border_lists: Any
    segments: tuple[Segment, ...]
    segment: np.ndarray
    place: np.ndarray
    joint: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, example: int, start: int, end: int) -> list[int]:
        """Return the token ids of an example from start to end, exclusive."""
        ids, begins = self.segments[self.segment[example]].ids
        begin = begins[self.place[example]]
        return ids[begin + start : begin + end].tolist()

    @property
    def is_joined(self) -> np.ndarray:
        """True (E,) for examples that are several rows, as only JoinedTokens has them."""
        return np.zeros(len(self), bool)

    def run_of(self, example: ArrayLike) -> np.ndarray:
        """Return the index in `runs` of the first run of learned tokens of an example, or of each of several; for an
        example without runs, where its run would stand."""
        # with another type all of runs would be copied
        return np.searchsorted(self.runs[:, 0], np.asarray(example, self.runs.dtype))

    def flags(self, example: int, start: int, end: int) -> list[bool]:
        """Return which of an example's tokens from start to end (exclusive) are learned."""
        marks = np.zeros(end - start, bool)
        first, last = self.run_of((example, example + 1))
        for _, begin, after in self.runs[first:last]:
            marks[max(0, begin - start) : max(0, after - start)] = True
        return marks.tolist()

    def borders(self, example: int) -> Borders:
        """Return where an example of plain text may be cut, in the form of `text_pieces.borders`. Only for examples
        with is_text."""
        return tuple(self.border_lists[example].as_py())

    def learned(self, example: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return (P,) how many tokens are learned from start to end (exclusive) of the examples; all three are (P,)."""
        begins = np.cumsum(self.lengths, dtype=np.int64) - self.lengths  # positions in all examples joined
        of_run, first, last = self.runs.T
        starts, ends = begins[of_run] + first, begins[of_run] + last
        before = np.concatenate(([0], np.cumsum(last - first, dtype=np.int64)))

        def count_before(places: np.ndarray) -> np.ndarray:
            """Return how many learned tokens stand before each place. places: positions in all examples joined."""
            run = np.searchsorted(starts, places)  # runs that begin before it
            return before[run] - (np.maximum(0, ends[run - 1] - places) * (run > 0) if len(ends) else 0)

        at = begins[example]
        return (count_before(at + np.maximum(start, end)) - count_before(at + start)).astype(np.int32)


class Tokenized:
    """The rows of a dataset as one tokenizer reads them.

    tokenizer: None estimates their lengths, and stores nothing. paragraphs: of the rows, if those of a text are joined.
    """

    def __init__(
        self,
        rows: Sequence[tuple[int, Example]],
        tokenizer: Tokenizer | None,
        learning: Learning,
        paragraphs: Paragraphs | None = None,
    ):
        """Read the segments that are stored for this tokenizer and learning."""
        self._rows, self._tokenizer, self._learning, self._paragraphs = rows, tokenizer, learning, paragraphs
        self._folder = self._segment_folder()
        self._counted: list[tuple[Segment, Any]] = []  # each with its table, without the ids
        for path in sorted(self._folder.glob("*.tokens")) if self._folder else ():
            self._add_segment(path)

    def _segment_folder(self) -> Path | None:
        """Return the folder of the segments, named after all that the tokens depend on; None if none are stored."""
        if not isinstance(self._rows, Rows) or self._rows.path is None or self._tokenizer is None:
            return None
        key = f"{_VERSION}|{version('tokenizers')}|{self._rows.key}|{self._tokenizer.fingerprint}|{self._learning}"
        key += "" if self._paragraphs is None else "|joined"
        return self._rows.path.parent / f"tokens-{hashlib.sha256(key.encode()).hexdigest()[:24]}"

    def _add_segment(self, path: Path) -> bool:
        """Add a segment's file, and return True; a damaged one is removed, and the result is False."""
        try:
            self._counted.append((Segment(path), segment.read(path)))
        except (OSError, ValueError):  # removed meanwhile, or damaged
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        return True

    def tokens(
        self,
        positions: Sequence[int] | np.ndarray,
        report: Callable[[int], None] = lambda ready: None,
        trains: bool = False,
    ) -> Tokens:
        """Return the tokens of the rows at these positions, in this order, counting and storing those that are missing.
        report: called often with the number of rows that are ready. It may raise; what was counted until then is
        stored. trains: True makes sure that the files for the token ids are there; Windows cannot remove a file that is
        mapped."""
        import pyarrow

        rows = np.asarray(positions, np.int64)
        keys = self._rows.keys(rows) if isinstance(self._rows, Rows) else rows
        if (known := self._paragraphs) is not None:  # the tokens depend on what stands around a paragraph
            # In three bits below the key: whether it continues a text, and one of the four JOINTS after it.
            keys = keys * 8 + (known.joint[rows] > 0) * 4 + known.after[rows]
        while True:
            self._complete(rows, keys, report)
            if trains:
                kept = [each for each in self._counted if _is_there(each[0])]
                if len(kept) < len(self._counted):
                    self._counted = kept
                    continue
            try:
                return self._gather(rows, keys)
            finally:
                pyarrow.default_memory_pool().release_unused()  # a third of the memory that a run would hold

    def _complete(self, positions: np.ndarray, keys: np.ndarray, report: Callable[[int], None]) -> None:
        """Count the rows that are in no segment, each key once, and keep them as segments, also those so far if report
        raises."""
        known = [table["key"].to_numpy() for _, table in self._counted]
        is_missing = ~np.isin(keys, np.concatenate([np.empty(0, np.int64), *known]))
        # A position that is wanted twice is counted once.
        missing = [*dict(zip(keys[is_missing].tolist(), positions[is_missing].tolist(), strict=True)).items()]
        ready = len(positions) - len(missing)
        builder = Builder()
        try:
            report(ready)
            for done, (key, position) in enumerate(missing):
                if done and done % REPORT_EVERY == 0:
                    report(ready + done)
                self._count(key, position, builder)
                if builder.tokens >= SEGMENT_TOKENS or builder.rows >= SEGMENT_ROWS:
                    self._keep(builder)
                    builder = Builder()
        finally:
            if builder.rows:
                self._keep(builder)

    def _count(self, key: int, position: int, builder: Builder) -> None:
        """Count one row's tokens into builder, estimated without a tokenizer; a row that the template refuses is added
        with the reason."""
        example = self._rows[position][1]
        marks = THOUGHTS * any(message.reasoning for message in example.messages)
        marks |= SYSTEM * (bool(example.messages) and example.messages[0].role == "system") | BAD * example.is_bad
        try:
            if self._tokenizer is None:
                builder.add(key, marks, estimate.counted(example, self._learning))
            elif example.text is not None and self._paragraphs is not None:
                continues, after = self._paragraphs.around(position)
                builder.add(key, marks, [counted(encode_paragraph(self._tokenizer, example.text, continues, after))])
            else:
                builder.add(key, marks, [counted(full) for full in self._tokenizer.encode_row(example, self._learning)])
        except TemplateError as error:
            builder.refuse(key, error.message)

    def _keep(self, builder: Builder) -> None:
        """Store what was counted: on disk if it can be written and read back, else in memory. A new folder first
        removes the oldest ones."""
        table = builder.table()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                if not self._folder.exists():
                    _remove_oldest(self._folder.parent)
                if self._add_segment(segment.write(table, self._folder)):
                    return
        self._counted.append((Segment(None, table["ids"].combine_chunks()), segment.without_ids(table)))

    def _gather(self, positions: np.ndarray, keys: np.ndarray) -> Tokens:
        """Return the examples of these rows, in their order, from all segments; rows without examples are listed as
        refused."""
        import pyarrow as pa

        tables = [table for _, table in self._counted] or [segment.without_ids(Builder().table())]
        lines, begins = pa.concat_tables(tables), np.cumsum([0, *map(len, tables)])[:-1]
        of_segment = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
        # Segments are in the order in which rows were counted; `take` puts their lines into that of the rows.
        first, counts = _lines_of(keys, lines["key"].to_numpy(), of_segment)
        marks, is_refused = lines["marks"].to_numpy()[first], lines["refused"].is_valid().to_numpy()[first]
        refused = ((i, lines["refused"][int(first[i])].as_py()) for i in np.flatnonzero(is_refused).tolist())
        counts[is_refused] = 0
        row, within = _spread_out(counts)
        at = first[row] + within
        chosen = lines.take(pa.array(at))
        runs = chosen["runs"].combine_chunks()
        run_example, _ = _spread_out(pa.compute.list_value_length(runs).to_numpy() // 2)
        learned = np.column_stack((run_example, runs.flatten().to_numpy().reshape(-1, 2)))
        is_text = chosen["borders"].is_valid().to_numpy()
        thinks, lengths, unlearned = (chosen[name].to_numpy() for name in ("thinks", "length", "unlearned"))
        return Tokens(
            positions, counts, marks & THOUGHTS > 0, marks & SYSTEM > 0,
            tuple((i, Message.model_validate_json(why)) for i, why in refused),
            row, lengths, is_text, thinks, marks[row] & BAD > 0, unlearned, learned, chosen["borders"],
            tuple(part for part, _ in self._counted), of_segment[at], (at - begins[of_segment[at]]).astype(np.int32),
            self._joints(positions, row, is_text),
        )  # fmt: skip

    def _joints(self, positions: np.ndarray, row: np.ndarray, is_text: np.ndarray) -> np.ndarray:
        """Return (E,) how each example continues the one before (an index of JOINTS), which must be the row before it
        in the set; else 0."""
        if self._paragraphs is None or not len(row):
            return np.zeros(len(row), np.uint8)
        place = positions[row]
        follows = (np.diff(place, prepend=-2) == 1) & is_text & np.append(False, is_text[:-1])
        return np.where(follows, self._paragraphs.joint[place], 0).astype(np.uint8)


def _is_there(part: Segment) -> bool:
    """Return True if a segment has token ids that can be read, False if its file is gone or damaged. The file stays
    mapped into memory."""
    try:
        return len(part.ids) > 0
    except (OSError, ValueError):  # removed, or cut short
        return False


def _remove_oldest(folder: Path) -> None:
    """Remove the oldest folders of stored tokens beside a dataset's rows, so that a new one makes KEPT_COUNTINGS;
    errors while removing are ignored."""
    countings = sorted(folder.glob("tokens-*"), key=lambda counting: counting.stat().st_mtime, reverse=True)
    for counting in islice(countings, KEPT_COUNTINGS - 1, None):
        shutil.rmtree(counting, ignore_errors=True)


def _lines_of(row_keys: np.ndarray, keys: np.ndarray, of_segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) the first line of each row and (N,) the number of its lines, which are consecutive.

    row_keys (N,): keys of the rows; keys, of_segment (L,): of all lines. A row in several segments is taken from the
    first.
    """
    is_first = np.ones(len(keys), bool)
    is_first[1:] = (keys[1:] != keys[:-1]) | (of_segment[1:] != of_segment[:-1])
    begins = np.flatnonzero(is_first)
    order = np.argsort(keys[begins], kind="stable")
    lines = order[np.searchsorted(keys[begins], row_keys, sorter=order)]
    return begins[lines], np.diff(begins, append=len(keys))[lines].astype(np.int32)


def counted(full: FullExample) -> Counted:
    """Return the counts of an example: its tokens, the runs of learned ones (never the first), and where plain text may
    be cut."""
    flags = np.zeros(len(full.learned) + 2, np.int8)
    flags[1:-1] = full.learned
    flags[1] = 0  # the first token has nothing before it to be predicted from
    runs = np.flatnonzero(np.diff(flags)).reshape(-1, 2).tolist()
    text = borders(full.text, full.offsets) if full.is_text else None
    thinks, unlearned = (full.rendered.thinks, full.rendered.unlearned) if full.rendered else (False, 0)
    return Counted(len(full.input_ids), runs, text, full.input_ids, thinks, unlearned)


def _spread_out(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays with one entry for each counted item: the index of the count that it belongs to, and its number
    within that count, from 0. counts: (N,) numbers of items."""
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return owner, np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts)
