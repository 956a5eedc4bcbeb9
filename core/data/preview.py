"""What would be learned of a data set under one model's tokenizer and template, shown before anything is trained.

A Preview keeps lengths and learned ranges, so that every max_length is answered at once. It never downloads: where the
model is not on this PC, lengths are estimated from characters and rows are not shown. Of a large set some rows, evenly
spread, are counted (always the same ones) and totals are projected. No torch, no transformers.
Cost: 1,000 short rows 0.2 s, at most about 4 s (MOST_CHARACTERS); `counts` 1 ms; `repeats` as core/data/repeats says, when first asked.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.data.conversation import characters
from core.data.facts import DataFacts
from core.data.formats import Example
from core.data.framing import Framing
from core.data.labels import ANSWERS, Learning, LongExamples, Whole, fit
from core.data.reading.choices import NOTHING_SAID, Choices
from core.data.repeats import Repeats
from core.data.shapes.refused import Refused
from core.data.shapes.tools import as_json
from core.data.store import DatasetStore
from core.data.template import Part
from core.data.text_pieces import Borders, borders, cuts
from core.data.tokenizer import Tokenizer, conversation
from core.errors import DataError, TemplateError
from core.messages import Message, msg
from core.models.library import Models
from core.recipe import Format

MOST_ROWS = 1_000
MOST_COMPARED = 200_000  # rows; about ten seconds once
MOST_CHARACTERS = 4_000_000  # of the counted rows together; SmolLM2's tokenizer reads 1.8 M a second (2 shared cores, 2026-12)
KEPT_PREVIEWS = 4

SHOWN_CHARACTERS = 4_000
LONG_PIECE = 1_000  # in a row that is too long to be shown whole, what is longer than this loses its middle
MOST_BINS = 24

# Tokens of a text whose tokenizer is not at hand: about four Latin characters to one token; most tokenizers of today
# need two tokens for three Chinese, Japanese or Korean ones. A turn's frame (<|im_start|>user ... <|im_end|>) adds the rest.
TOKENS_PER_CHARACTER = 0.25
TOKENS_PER_CJK_CHARACTER = 0.7
TOKENS_PER_TURN = 12
_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")

Rows = Sequence[tuple[int, Example]]  # the row's number in the file, and what it says
_Counted = tuple[int, list[tuple[int, int]], Borders | None]
SpanKind = Literal["given", "learned", "cut_given", "cut_learned", "more", "example"]


@dataclass(frozen=True)
class Counts:
    """What one max_length does to a set: the same rows and tokens as core.training.rows, projected if counted < rows.

    max_length: as it will be used, never above what the model can read. long_examples: what is done to longer rows.
    tokens, learned: of what is trained on, after that. pieces: what is trained on, in examples; more than rows where long
    ones are split. rows_cut, tokens_cut: rows that lose their end, and what they lose. rows_split: rows in several
    pieces. rows_dropped: left out, for being too long (drop) or for having nothing to learn within max_length;
    first_dropped: up to five of them by their number in the file. rows_refused: left out because the template refuses them.
    longest, p99, median: whole lengths of counted rows.
    exact: False where lengths are estimated from characters. is_text: all rows are plain text, which is split at its borders, never cut.
    """

    max_length: int
    long_examples: LongExamples
    rows: int
    counted: int
    tokens: int
    learned: int
    pieces: int
    rows_cut: int
    tokens_cut: int
    rows_split: int
    rows_dropped: int
    rows_refused: int
    first_dropped: tuple[int, ...]
    longest: int
    p99: int
    median: int
    exact: bool
    is_text: bool = False

    @property
    def learned_percent(self) -> float:
        return round(100 * self.learned / max(1, self.tokens), 1)


@dataclass(frozen=True)
class Bin:
    """Counted rows whose whole length is in start <= length < end (the last one: <= end), and how many of them max_length cuts."""

    start: int
    end: int
    rows: int
    cut: int


@dataclass(frozen=True)
class Span:
    """A run of characters of one kind; "more" stands for characters that are not shown, and its text is their number, as that of "example"
    is the number of the example that begins there. part: of what is learned, whether it is thinking or a tool call."""

    text: str
    kind: SpanKind
    part: Part = ""


@dataclass(frozen=True)
class RowView:
    """One row after the template. index counts the rows that can be learned from (of them), row_number is the file's.

    length: tokens before the cut; learned: tokens the loss counts; cut: tokens lost; parts: pieces that it is split into for its length;
    dropped: nothing of it is learned. examples: one for each answer where the template shows earlier ones otherwise; all are shown.
    special: the special tokens that occur. The texts of the pieces joined are the row, where none of them is "more".
    """

    index: int
    of: int
    row_number: int
    pieces: tuple[Span, ...]
    length: int
    learned: int
    cut: int
    parts: int
    dropped: bool
    special: tuple[str, ...]
    examples: int = 1


@dataclass(frozen=True, eq=False)
class Preview:
    """rows: all that can be learned from; tokenizer: None where lengths are estimated.

    Of the counted rows, which are `counted` with those that the template refuses, each example that training makes of them, most often one a row: numbers (C,) of the row in
    the file, lengths (C,) in tokens, and runs (R, 3) of learned tokens: which example, first token, token after the last. The first
    token of an example is never in a run: nothing predicts it. notes: how the template frames them. texts: where each that is plain
    text may be cut, by its number among the examples; nothing is known of where an estimated one may.
    """

    rows: Rows
    tokenizer: Tokenizer | None
    learning: Learning
    counted: int
    notes: tuple[Message, ...]
    numbers: np.ndarray
    lengths: np.ndarray
    runs: np.ndarray
    texts: dict[int, Borders] = field(default_factory=dict)
    refused: Refused = field(default_factory=Refused)

    @classmethod
    def measure(cls, rows: Rows, tokenizer: Tokenizer | None, learning: Learning = ANSWERS, every_row: bool = False) -> Preview:
        """Count some of many rows, or every row, whatever it costs. Raises TemplateError where all of them are refused."""
        counted, refused = rows if every_row else _spread(rows), Refused()
        numbers, lengths, runs = list[int](), list[int](), list[tuple[int, int, int]]()
        texts: dict[int, Borders] = {}
        framing = Framing(tokenizer.template.dialect, learning) if tokenizer else None
        for number, example in counted:
            try:
                found = [*_count(tokenizer, example, framing)] if tokenizer and framing else [_estimate(example, learning)]
            except TemplateError as error:
                refused.add(number, error.message)
                continue
            for length, learned, text in found:
                if text is not None:
                    texts[len(lengths)] = text
                runs.extend((len(lengths), start, end) for start, end in learned)
                numbers.append(number)
                lengths.append(length)
        if whole := refused.if_all(len(counted)):
            raise whole
        measured = (np.array(numbers, int), np.array(lengths, int), np.array(runs, int).reshape(-1, 3))
        return cls(rows, tokenizer, learning, len(counted), tuple(framing.notes()) if framing else (), *measured, texts, refused)

    @property
    def exact(self) -> bool:
        """Whether the model's own tokenizer counted; else all lengths are estimated from characters."""
        return self.tokenizer is not None

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.sort(self.lengths)

    @property
    def longest(self) -> int:
        return int(self._sorted[-1])

    @property
    def p99(self) -> int:
        return int(self._sorted[min(len(self._sorted) - 1, int(0.99 * len(self._sorted)))])

    @property
    def median(self) -> int:
        return int(self._sorted[len(self._sorted) // 2])

    def limit(self, max_length: int) -> int:
        """max_length as training uses it, as far as that is known without the tokenizer."""
        return self.tokenizer.limit(max_length) if self.tokenizer else max_length

    def _learned(self, limit: int) -> np.ndarray:
        """(C,) learned tokens of each counted row within its first limit tokens."""
        row, start, end = self.runs.T
        within = np.clip(np.minimum(end, limit) - start, 0, None)
        return np.bincount(row, weights=within, minlength=len(self.lengths)).astype(int)

    def _projected(self, count: int | np.integer) -> int:
        return round(int(count) * len(self.rows) / self.counted)

    def counts(self, max_length: int, long_examples: LongExamples = "cut") -> Counts:
        limit = self.limit(max_length)
        is_long = self.lengths > limit
        is_split = is_long & (long_examples == "split")
        if long_examples == "split":
            learned, (pieces, tokens) = self._learned(self.longest), self._split(limit)
            lost = np.zeros_like(self.lengths)
        else:
            learned, lost = self._learned(limit), np.maximum(self.lengths - limit, 0)
            if long_examples == "drop":
                learned = np.where(is_long, 0, learned)
            pieces, tokens = (learned > 0).astype(int), np.where(learned > 0, self.lengths - lost, 0)
        for row in (row for row in self.texts if is_long[row] and long_examples != "drop"):
            found = cuts(self.texts[row], int(self.lengths[row]), limit)
            is_split[row], lost[row], pieces[row] = True, 0, len(found)
            learned[row], tokens[row] = self.lengths[row] - 1, sum(end - start for start, end in found)
        kept = learned > 0
        return Counts(
            max_length=limit,
            long_examples=long_examples,
            rows=len(self.rows),
            counted=self.counted,
            tokens=self._projected(tokens.sum()),
            learned=self._projected(learned.sum()),
            pieces=self._projected(pieces.sum()),
            rows_cut=self._projected((lost[kept] > 0).sum()),
            tokens_cut=self._projected(lost[kept].sum()),
            rows_split=self._projected((is_split & kept).sum()),
            rows_dropped=self._projected((~kept).sum()),
            rows_refused=self._projected(self.refused.rows),
            first_dropped=tuple(map(int, self.numbers[~kept][:5])),
            longest=self.longest,
            p99=self.p99,
            median=self.median,
            exact=self.exact,
            is_text=len(self.texts) == len(self.lengths),
        )

    def _split(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """(C,) pieces of at most limit tokens in which something is learned, and the tokens of those pieces.

        Piece p holds the tokens from p (limit - 1) on, limit of them: token t is predicted in piece (t - 1) // (limit - 1).
        """
        row, start, end = self.runs.T
        first, last = (start - 1) // (limit - 1), (end - 2) // (limit - 1)
        same = np.zeros(len(row), bool)  # whether a run begins in the piece in which the one before it ended
        same[1:] = (row[1:] == row[:-1]) & (first[1:] == last[:-1])
        pieces = np.bincount(row, weights=last - first + 1 - same, minlength=len(self.lengths)).astype(int)
        ends_with = (self.lengths - 2) // (limit - 1)  # the number of a row's last piece, which is shorter than limit
        reaches_end = np.bincount(row, weights=last == ends_with[row], minlength=len(self.lengths)) > 0
        missing = limit - (self.lengths - ends_with * (limit - 1))
        return pieces, pieces * limit - np.where(reaches_end, missing, 0)

    def histogram(self, max_length: int) -> tuple[Bin, ...]:
        """At most MOST_BINS bins, equally wide but for the last, which takes what is far longer than most rows."""
        shortest, top = int(self._sorted[0]), min(self.longest, 2 * self.p99)
        width = _round_up((top - shortest) / (MOST_BINS - 1))  # one more, for no edge begins at the shortest
        first = shortest // width
        edges = [width * i for i in range(first, max(first + 1, math.ceil(top / width)) + 1)]
        edges[-1] = max(edges[-1], self.longest)
        rows, _ = np.histogram(self.lengths, edges)
        cut, _ = np.histogram(self.lengths[self.lengths > self.limit(max_length)], edges)
        values = zip(edges, edges[1:], rows, cut, strict=False)
        return tuple(Bin(start, end, int(all_of_it), int(above)) for start, end, all_of_it, above in values)

    def examples(self, max_length: int, long_examples: LongExamples) -> int:
        """How many examples training makes of the rows."""
        return self.counts(max_length, long_examples).pieces

    def facts(self) -> DataFacts:
        learned = self._learned(self.longest)
        return DataFacts(
            rows=len(self.rows) - self._projected(self.refused.rows),
            tokens=self._projected(self.lengths.sum()),
            learned_tokens=self._projected(learned.sum()),
            median_length=self.median,
            p99_length=self.p99,
            longest=self.longest,
            exact=self.exact and self.counted == len(self.rows),
            estimated=not self.exact,
        )

    @cached_property
    def repeats(self) -> Repeats | None:
        """Which rows say what an earlier one says; None where there are too many to read them all for that."""
        return Repeats.of(example for _, example in self.rows) if len(self.rows) <= MOST_COMPARED else None

    def problem(self, max_length: int, long_examples: LongExamples = "cut") -> Message | None:
        """Why training must not be started: nothing would be learned. An estimate refuses nothing."""
        limit = self.limit(max_length)
        if not self.exact or self.counts(max_length, long_examples).learned:
            return None
        if self.counted < len(self.rows):
            return msg("preview.nothing_in_sample", counted=self.counted, rows=len(self.rows), max_length=limit)
        return msg("run.nothing_to_learn", rows=len(self.rows), max_length=limit)

    def row(self, index: int, max_length: int, long_examples: LongExamples = "cut") -> RowView | None:
        """Any row with its tokens marked; None where the tokenizer is not here. Raises DataError, TemplateError."""
        if not 0 <= index < len(self.rows):
            raise DataError("preview.no_such_row", row=index + 1, rows=len(self.rows))
        if self.tokenizer is None:
            return None
        number, example = self.rows[index]
        try:
            wholes = self.tokenizer.encode_row(example, self.learning)
        except TemplateError as error:
            raise TemplateError("template.row_refused", row=number, why=error.message) from None
        shown: list[Span] = []
        lengths = learned = cut = parts = 0
        for place, whole in enumerate(wholes, 1):
            length, limit, pieces = len(whole.input_ids), self.limit(max_length), 1
            if length > limit and (long_examples == "split" or (whole.is_text and long_examples == "cut")):
                pieces, limit = len(fit(whole, limit, long_examples)), length
            elif length > limit and long_examples == "drop":
                limit = 0
            if len(wholes) > 1:
                shown.append(Span(str(place), "example"))
            shown += _shortened(_pieces(whole, limit), SHOWN_CHARACTERS // len(wholes))
            lengths, learned, parts = lengths + length, learned + sum(whole.learned[1:limit]), parts + pieces
            cut += max(0, length - limit)
        text = "".join(whole.text for whole in wholes)
        return RowView(
            index=index,
            of=len(self.rows),
            row_number=number,
            pieces=tuple(shown),
            length=lengths,
            learned=learned,
            cut=cut,
            parts=parts - len(wholes) + 1,
            dropped=learned == 0,
            special=tuple(sorted(token for token in self.tokenizer.template.all_special if token in text)),
            examples=len(wholes),
        )


class Previews:
    """The last previews that were asked for, for all threads of a process. A changed file or a new model counts anew."""

    def __init__(self, store: DatasetStore, models: Models):
        self._store, self._models = store, models
        self._kept: dict[tuple[Any, ...], Future[Preview]] = {}  # least recently used first
        self._lock = threading.Lock()

    def of(
        self,
        dataset_id: str,
        model_id: str,
        learning: Learning = ANSWERS,
        format: Format | None = None,
        choices: Choices = NOTHING_SAID,
    ) -> Preview:
        """Built by whoever asks first; others who ask meanwhile wait for it. Raises DataError, ModelError or TemplateError."""
        path = self._store.path(dataset_id)
        try:
            status = path.stat()
        except OSError:
            raise DataError("data.missing_file", file=path.name) from None
        folder = self._models.local_folder(model_id)
        choices = self._store.choices(dataset_id, choices)
        key = (folder, path, status.st_size, status.st_mtime_ns, learning, format, choices.key)
        with self._lock:
            future = self._kept.pop(key, None)
            is_first = future is None
            self._kept[key] = future = future or Future()
            while len(self._kept) > KEPT_PREVIEWS:
                del self._kept[next(iter(self._kept))]
        if is_first:
            try:
                rows = self._store.rows(dataset_id, format, choices)
                future.set_result(Preview.measure(rows, self._tokenizer(folder), learning))
            except BaseException as error:  # noqa: BLE001 - raised below, here and for whoever waits
                with self._lock:
                    self._kept.pop(key, None)  # the next who asks tries again
                future.set_exception(error)
        return future.result()

    def _tokenizer(self, folder: Path | None) -> Tokenizer | None:
        """The tokenizer of a kept preview of the same model, for it takes up to a second to read."""
        if folder is None:
            return None
        with self._lock:
            ready = [future.result() for key, future in self._kept.items() if key[0] == folder and future.done()]
        return ready[0].tokenizer if ready else Tokenizer(folder)


# --- counting --------------------------------------------------------------------------------------------------------


def _spread(rows: Rows) -> list[tuple[int, Example]]:
    """At most MOST_ROWS rows, evenly spread; fewer where those would be more than MOST_CHARACTERS together."""

    def chosen(count: int) -> list[tuple[int, Example]]:
        return [rows[i * len(rows) // count] for i in range(count)]

    counted = chosen(min(len(rows), MOST_ROWS))
    characters = sum(_characters(example) for _, example in counted)
    if characters > MOST_CHARACTERS:
        counted = chosen(max(1, len(counted) * MOST_CHARACTERS // characters))
    return counted


def _characters(example: Example) -> int:
    return len(example.text) if example.text is not None else sum(map(characters, conversation(example)))


def _count(tokenizer: Tokenizer, example: Example, framing: Framing) -> Iterable[_Counted]:
    """Of each example of a row its tokens, the runs (start, end exclusive) of those that are learned, and where plain text may be cut."""
    wholes = tokenizer.encode_row(example, framing.learning)
    framing.add(example, wholes)
    for whole in wholes:
        flags = np.zeros(len(whole.learned) + 2, np.int8)
        flags[1:-1] = whole.learned
        flags[1] = 0  # the first token has nothing before it to be predicted from
        yield (
            len(whole.learned),
            [(int(start), int(end)) for start, end in np.flatnonzero(np.diff(flags)).reshape(-1, 2)],
            borders(whole.text, whole.offsets) if whole.is_text else None,
        )


def _estimate(example: Example, learning: Learning) -> _Counted:
    """As _count, from the number of characters; an answer is learned with its end token."""
    if example.text is not None:
        length = _estimated_tokens(example.text) + 1
        return length, [(1, length)], ()
    position, runs = _estimated_tokens(example.tools or ""), []
    for turn in conversation(example):
        calls = as_json(turn["tool_calls"]) if turn.get("tool_calls") else ""
        size = _estimated_tokens(turn["content"] + turn.get("reasoning", "") + calls)
        position += TOKENS_PER_TURN + size
        if turn["role"] == "assistant":
            runs.append((position - size - 1, position))
    return position, [(1, position)] if learning.train_on == "everything" else runs, None


def _estimated_tokens(content: str) -> int:
    cjk = len(_CJK.findall(content))
    return math.ceil(TOKENS_PER_CJK_CHARACTER * cjk + TOKENS_PER_CHARACTER * (len(content) - cjk))


def _round_up(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ... that is not below width."""
    magnitude = 10 ** max(0, math.floor(math.log10(max(1.0, width))))
    return next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= width)


# --- a row with its marks --------------------------------------------------------------------------------------------


def _pieces(whole: Whole, limit: int) -> list[Span]:
    """The row's text in runs of one kind. A character that several tokens make up goes with the first of them."""
    pieces: list[Span] = []
    begin = reach = 0
    current: SpanKind = "given"
    part: Part = ""
    marks = whole.rendered.marks if whole.rendered else ()
    for i, ((start, end), learned) in enumerate(zip(whole.offsets, whole.learned, strict=True)):
        is_learned = learned and i > 0
        kind: SpanKind
        if i >= limit:
            kind = "cut_learned" if is_learned else "cut_given"
        else:
            kind = "learned" if is_learned else "given"
        at, reach = max(start, reach), max(end, reach)
        in_part: Part = next((name for first, last, name in marks if first <= at < last), "") if is_learned else ""
        if (kind, in_part) != (current, part):
            if at > begin:
                pieces.append(Span(whole.text[begin:at], current, part))
            begin, current, part = at, kind, in_part
    if begin < len(whole.text):
        pieces.append(Span(whole.text[begin:], current, part))
    return pieces


def _shortened(pieces: Sequence[Span], most: int = SHOWN_CHARACTERS) -> tuple[Span, ...]:
    """The pieces, if they have more than so many characters: long ones without their middle, then no more than so many."""
    if sum(len(piece.text) for piece in pieces) <= most:
        return tuple(pieces)
    shown: list[Span] = []
    room, hidden = most, 0
    for piece in pieces:
        for part in _without_middle(piece):
            if part.kind == "more":
                if room > 0:
                    shown.append(part)
                else:
                    hidden += int(part.text)
                continue
            if part.text[:room]:
                shown.append(Span(part.text[:room], part.kind, part.part))
            hidden += max(0, len(part.text) - room)
            room = max(0, room - len(part.text))
    if hidden:
        shown.append(Span(str(hidden), "more"))
    return tuple(shown)


def _without_middle(piece: Span) -> tuple[Span, ...]:
    hidden = len(piece.text) - LONG_PIECE
    if hidden <= 0:
        return (piece,)
    half = LONG_PIECE // 2
    return replace(piece, text=piece.text[:half]), Span(str(hidden), "more"), replace(piece, text=piece.text[-half:])
