"""A preview of a dataset before training: what would be trained with one model's tokenizer and template.

A Preview keeps the arrays that training reads too (core/data/sets/tokens), so that every max_length is answered at
once. It never downloads: without the model on this PC, lengths are estimated from characters and rows are not shown. Of
a large dataset some rows, evenly spread, are counted (always the same ones) and totals are projected. No torch, no
transformers. Cost: 1,000 short rows 0.2 s, at most about 4 s (MAX_CHARACTERS); `counts` 1 ms; `repeats` as
core/data/repeats says, at its first use.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from core import files
from core.data import joined_text
from core.data.conversation import characters
from core.data.facts import DataFacts
from core.data.findings.row_words import RowWords
from core.data.formats import Example
from core.data.framing import Framing
from core.data.labels import ANSWERS, FullExample, Learning, LongExamples
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.repeats import Repeats
from core.data.sets.joined import JoinedTokens
from core.data.sets.pairs import Pairs, Rated
from core.data.sets.paragraphs import Paragraphs
from core.data.sets.pieces import Pieces
from core.data.sets.row_view import RowView
from core.data.sets.tokens import Tokenized, Tokens
from core.data.shapes.refused import RefusedRows
from core.data.store import DatasetStore
from core.data.template_process import IsolatedTemplate
from core.data.tokenizer import Tokenizer, conversation
from core.data.validation_split import own_validation, paragraphs_of
from core.errors import DataError, TemplateError
from core.language import main_language
from core.messages import Message, msg
from core.models.library import Models
from core.recipe import Data, Format
from core.values import round_up

MAX_ROWS = 1_000
MAX_ANSWERS = 10_000  # rows; about 0.2 seconds once
MAX_COMPARED = 200_000  # rows; about ten seconds once
MAX_COMPARED_NEARLY = 50_000  # rows; about two seconds once
# in the counted rows; SmolLM2's tokenizer reads 1.8 M a second (2 shared cores, 2026-12)
MAX_CHARACTERS = 4_000_000
KEPT_PREVIEWS = 12  # enough for two visitors, each with three samples on the page
MAX_BINS = 24
MAX_STRETCHES = 20  # of texts whose rows are joined
FIRST_ROWS = 20

Rows = Sequence[tuple[int, Example]]  # (number in the file, example)

LOOKED_AT, TOGETHER = 200, 10  # rows whose language is judged; those that are joined for it, as they may be short


@dataclass(frozen=True)
class Counts:
    """The effect of one max_length on a dataset: the rows and tokens of core.training.tokenizing, projected if
    counted < rows.

    max_length: as it will be used, never above what the model can read. long_examples: what is done to longer rows.
    tokens, learned: of what is trained on, after that. pieces: what is trained on, in examples; more than rows where
    long ones are split. rows_cut, tokens_cut: rows that lose their end, and what they lose. rows_split: rows in several
    pieces. rows_dropped: left out, for being too long (drop) or for having nothing to learn within max_length;
    first_dropped: up to five of them by their number in the file. rows_refused: left out because the template refuses
    them. longest, p99, median: full lengths of counted rows. exact: False if lengths are estimated from characters.
    is_text: all rows are plain text, which is split at its borders, never cut. is_joined: there are paragraphs of a
    text, which are joined.
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
    is_joined: bool = False

    @property
    def learned_percent(self) -> float:
        """Return the share of the learned tokens among all tokens in percent, with one decimal; 0 without tokens."""
        return round(100 * self.learned / max(1, self.tokens), 1)


@dataclass(frozen=True)
class Bin:
    """Counted rows with start <= full length < end (the last bin: <= end), and how many of them max_length cuts."""

    start: int
    end: int
    rows: int
    cut: int


@dataclass(frozen=True, eq=False)
class Preview:
    """The counted rows of a dataset and their tokens.

    rows: all that can be trained; tokenizer: None if lengths are estimated. tokens: of the counted rows, including
    refused ones. notes: how the template frames them; refused: rows that the template refuses. paragraphs: of the rows,
    if those of a text are joined.
    """

    rows: Rows
    tokenizer: Tokenizer | None
    learning: Learning
    tokens: Tokens
    notes: tuple[Message, ...] = ()
    refused: RefusedRows = field(default_factory=RefusedRows)
    paragraphs: Paragraphs | None = None

    @cached_property
    def language(self) -> str | None:
        """Code of the language of the first rows, by their answers, or by all turns if these are too short or too
        similar; None if it cannot be determined."""
        rows = [RowWords(number, example) for number, example in islice(self.rows, LOOKED_AT)]
        for texts in ([row.answer for row in rows], [f"{row.question} {row.answer}" for row in rows]):
            parts = (" ".join(texts[at : at + TOGETHER]) for at in range(0, len(texts), TOGETHER))
            if language := main_language([*parts]):
                return language
        return None

    @classmethod
    def measure(
        cls, rows: Rows, tokenizer: Tokenizer | None, learning: Learning = ANSWERS, every_row: bool = False
    ) -> Preview:
        """Tokenize evenly spread rows, or every row, whatever it costs, and count how they are framed and refused.
        Raises TemplateError if all of them are refused."""
        paragraphs = None if learning.pairs or learning.rated else paragraphs_of(rows)
        counted = np.arange(len(rows)) if every_row else _spread(rows, paragraphs)
        refused = RefusedRows()
        tokens = Tokenized(rows, tokenizer, learning, paragraphs).tokens(counted)
        for place, why in tokens.refused:
            refused.add(rows[int(counted[place])][0], why)
        if error := refused.if_all(len(counted)):
            raise error
        framing = Framing(tokenizer.template.dialect, learning) if tokenizer else None
        if framing:
            framing.add(tokens)
        return cls(rows, tokenizer, learning, tokens, tuple(framing.notes()) if framing else (), refused, paragraphs)

    @property
    def exact(self) -> bool:
        """True if the model's own tokenizer counted; else all lengths are estimated from characters."""
        return self.tokenizer is not None

    @property
    def counted(self) -> int:
        """Number of rows that were counted."""
        return len(self.tokens.positions)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens (E,) of each example of the counted rows, before anything is cut or split."""
        return self.tokens.lengths

    @cached_property
    def _sorted_lengths(self) -> np.ndarray:
        """Return the tokens of each counted row before truncation, ascending."""
        return np.sort(self.lengths)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest example of the counted rows, before anything is cut."""
        return int(self._sorted_lengths[-1])

    @property
    def p99(self) -> int:
        """Number of tokens that at most about one in a hundred examples of the counted rows exceeds, before anything is
        cut."""
        return int(self._sorted_lengths[min(len(self._sorted_lengths) - 1, int(0.99 * len(self._sorted_lengths)))])

    @property
    def median(self) -> int:
        """Number of tokens of an example of middle length among the counted rows, before anything is cut."""
        return int(self._sorted_lengths[len(self._sorted_lengths) // 2])

    def limit(self, max_length: int) -> int:
        """Return max_length, or the model's context length if that is less; without the tokenizer max_length unchanged,
        as the context length is not known then."""
        return self.tokenizer.limit(max_length) if self.tokenizer else max_length

    def _projected(self, count: int | np.integer) -> int:
        """Scale a number of the counted rows (or of their tokens or examples) up to all rows of the dataset,
        rounded."""
        return round(int(count) * len(self.rows) / self.counted)

    def counts_of(self, data: Data) -> Counts:
        """Return the counts for the lengths that a recipe sets."""
        return self.counts(data.max_length, data.long_examples, data.overlap)

    def counts(self, max_length: int, long_examples: LongExamples = "cut", overlap: int = 0) -> Counts:
        """Return the rows, tokens and pieces that training makes of the dataset at this limit, projected from the
        counted rows to all. The limit is max_length, or less if the model cannot read as many tokens.

        long_examples: "cut" trains the first tokens of a longer row, "split" all of it in pieces, "drop" none of it;
        plain text is split unless dropped. overlap: tokens that a piece of plain text repeats of the one before. Both
        have no effect for preference pairs and rated answers, of which those that are too long are dropped.
        """
        limit = self.limit(max_length)
        if self.learning.pairs or self.learning.rated:
            pieces: Pieces = (Pairs if self.learning.pairs else Rated).within(self.tokens, limit)
        else:
            pieces = Pieces.from_tokens(self.tokens, limit, long_examples, overlap)
        # Counts are of the rows that were tokenized, projected to all of them.
        dropped = np.flatnonzero(~pieces.is_kept)
        return Counts(
            max_length=limit,
            long_examples=pieces.long_examples,
            rows=len(self.rows),
            counted=self.counted,
            tokens=self._projected(pieces.lengths.sum()),
            learned=self._projected(pieces.learned.sum()),
            pieces=self._projected(len(pieces)),
            rows_cut=self._projected(pieces.is_cut.sum()),
            tokens_cut=self._projected(pieces.lost.sum()),
            rows_split=self._projected(pieces.is_split.sum()),
            rows_dropped=self._projected(len(dropped)),
            rows_refused=self._projected(self.refused.rows),
            first_dropped=tuple(self._number(pieces.tokens, example) for example in dropped[:5]),
            longest=self.longest,
            p99=self.p99,
            median=self.median,
            exact=self.exact,
            is_text=bool(self.tokens.is_text.all()),
            is_joined=bool(pieces.tokens.is_joined.any()),
        )

    def _number(self, tokens: Tokens, example: int | np.integer) -> int:
        """Return the number in the file of the (first) row that an example was made of."""
        return self.rows[int(tokens.positions[tokens.row[example]])][0]

    def histogram(self, max_length: int) -> tuple[Bin, ...]:
        """Divide the examples of the counted rows (not projected to all rows) into at most MAX_BINS bins by their full
        length, each with the number above max_length in it. All bins are equally wide but the last, which also takes
        lengths far above most."""
        shortest, top = int(self._sorted_lengths[0]), min(self.longest, 2 * self.p99)
        # one bin less, because the first edge may lie below the shortest
        width = int(round_up(max(1.0, (top - shortest) / (MAX_BINS - 1))))
        first = shortest // width
        edges = [width * i for i in range(first, max(first + 1, math.ceil(top / width)) + 1)]
        edges[-1] = max(edges[-1], self.longest)
        rows, _ = np.histogram(self.lengths, edges)
        cut, _ = np.histogram(self.lengths[self.lengths > self.limit(max_length)], edges)
        values = zip(edges, edges[1:], rows, cut, strict=False)
        return tuple(Bin(start, end, int(count), int(above)) for start, end, count, above in values)

    def examples(self, max_length: int, long_examples: LongExamples, overlap: int = 0) -> int:
        """Return the number of examples that training makes of the rows."""
        return self.counts(max_length, long_examples, overlap).pieces

    def facts(self) -> DataFacts:
        """Return the numbers of the dataset that advice and estimates need, projected to all rows."""
        _, start, end = self.tokens.runs.T
        return DataFacts(
            rows=len(self.rows) - self._projected(self.refused.rows),
            tokens=self._projected(self.lengths.sum()),
            learned_tokens=self._projected((end - start).sum()),
            median_length=self.median,
            p99_length=self.p99,
            longest=self.longest,
            exact=self.exact and self.counted == len(self.rows),
            estimated=not self.exact,
            validation=None if self.validation is None else int(self.validation.sum()),
            is_joined=self.paragraphs is not None,
            answers=self.answers,
        )

    @cached_property
    def answers(self) -> int | None:
        """The number of different answers of the rows; None if there are more than MAX_ANSWERS rows."""
        if len(self.rows) > MAX_ANSWERS:
            return None
        return len({RowWords(number, example).answer for number, example in self.rows})

    @cached_property
    def repeats(self) -> Repeats | None:
        """The rows that repeat an earlier one; None if there are too many rows to compare."""
        examples, rows = (example for _, example in self.rows), len(self.rows)
        return Repeats.find(examples, near=rows <= MAX_COMPARED_NEARLY) if rows <= MAX_COMPARED else None

    @cached_property
    def validation(self) -> np.ndarray | None:
        """The rows that the dataset itself keeps for validation (core/data/validation_split), as flags; None if it
        keeps none."""
        return own_validation(self.rows)

    @cached_property
    def has_pairs(self) -> bool:
        """True if one of the first FIRST_ROWS rows has a worse answer beside the better one."""
        return any(self.rows[i][1].rejected for i in range(min(FIRST_ROWS, len(self.rows))))

    def problem(self, max_length: int, long_examples: LongExamples = "cut") -> Message | None:
        """Return the reason why training must not be started: nothing of the counted rows would be learned within
        max_length. Return None if something would, and always if lengths are only estimated."""
        limit = self.limit(max_length)
        if not self.exact or self.counts(max_length, long_examples).learned:
            return None
        if self.counted < len(self.rows):
            return msg("preview.nothing_in_sample", counted=self.counted, rows=len(self.rows), max_length=limit)
        return msg("run.nothing_to_learn", rows=len(self.rows), max_length=limit)

    def row(
        self,
        index: int,
        max_length: int,
        long_examples: LongExamples = "cut",
        overlap: int = 0,
        joined: bool = True,
    ) -> RowView | None:
        """Return any row (index from 0) with its tokens marked; None without the tokenizer. Raises DataError for no
        such row, TemplateError with its number. joined: show a paragraph with the others of its example."""
        if not 0 <= index < len(self.rows):
            raise DataError("preview.no_such_row", row=index + 1, rows=len(self.rows))
        if self.tokenizer is None:
            return None
        number, example = self.rows[index]
        place, special = (index, len(self.rows), number), self.tokenizer.template.all_special
        known = self.paragraphs if joined and example.text is not None else None
        if known is not None and known.around(index) != (False, None):
            full = self._passage(index, max_length, long_examples, overlap)
            return RowView.build([full], place, (self.limit(max_length), long_examples, 0), special)
        try:
            full_examples = self.tokenizer.encode_row(example, self.learning)
        except TemplateError as error:
            raise TemplateError("template.row_refused", row=number, why=error.message) from None
        long = "drop" if self.learning.pairs or self.learning.rated else long_examples
        return RowView.build(
            full_examples, place, (self.limit(max_length), long, overlap), special, self.learning.pairs
        )

    def _passage(self, index: int, max_length: int, long_examples: LongExamples, overlap: int) -> FullExample:
        """Return the tokens around the paragraph at position `index` as training has them: the piece of its joined text
        in which the paragraph begins. For a row that was not counted, return at most max_length tokens that begin with
        the paragraph."""
        assert self.tokenizer is not None and self.paragraphs is not None
        limit, first = self.limit(max_length), index
        start, end, again = 0, limit, 0
        # From the row to its place among the counted ones, the paragraph there, the joined example that has it, and the
        # piece of that example in which it begins; then back to the first paragraph of that piece, and its row.
        counted = int(np.searchsorted(self.tokens.positions, index))
        if counted < self.counted and self.tokens.positions[counted] == index:
            pieces = Pieces.from_tokens(self.tokens, limit, long_examples, overlap)
            member = int(np.searchsorted(self.tokens.row, counted))
            if isinstance(joined := pieces.tokens, JoinedTokens):
                example = int(np.searchsorted(joined.first, member, "right")) - 1
                of_text = np.flatnonzero(pieces.example == example)
                piece = of_text[np.searchsorted(pieces.start[of_text], joined.begin[member], "right") - 1 :][0]
                begin = int(joined.members(example, int(pieces.start[piece]), int(pieces.end[piece]))[0])
                first = int(self.tokens.positions[self.tokens.row[begin]])
                start = int(pieces.start[piece]) - int(joined.begin[begin])
                end = start + int(pieces.lengths[piece])
                again = pieces.repeated + 1 if pieces.start[piece] else 0
        members: list[FullExample] = []
        for position in range(first, len(self.rows)):
            if members and (not self.paragraphs.joint[position] or sum(len(one.input_ids) for one in members) >= end):
                break
            members.append(
                joined_text.encode_paragraph(
                    self.tokenizer, self.rows[position][1].text or "", *self.paragraphs.around(position)
                )
            )
        return joined_text.part(joined_text.joined(members), start, end, again)


class Previews:
    """The previews that were used last, for all threads of a process. A changed file or a new model counts anew."""

    def __init__(self, store: DatasetStore, models: Models):
        self._store, self._models = store, models
        self._kept: dict[tuple[object, ...], Future[Preview]] = {}  # least recently used first
        self._lock = threading.Lock()

    def get(
        self,
        dataset_id: str,
        model_id: str,
        learning: Learning = ANSWERS,
        format: Format | None = None,
        choices: Choices = NO_CHOICES,
    ) -> Preview:
        """Return a preview, built by the first caller; concurrent callers wait for it, and get its error, which is not
        kept. At most KEPT_PREVIEWS are. Raises DataError, ModelError or TemplateError."""
        path = self._store.path(dataset_id)
        if not (stamp := files.stamp(path)):
            raise DataError("data.missing_file", file=path.name)
        folder = self._models.local_folder(model_id)
        choices = self._store.choices(dataset_id, choices)
        version = self._store.version(dataset_id, format, choices)
        key = (folder, path, stamp, learning, format, choices.key, version, choices.join_paragraphs)
        with self._lock:
            # Put back last: the first is the least used.
            future = self._kept.pop(key, None)
            is_first = future is None
            self._kept[key] = future = future or Future()
            while len(self._kept) > KEPT_PREVIEWS:
                del self._kept[next(iter(self._kept))]
        # Outside of the lock, so that other datasets need not wait.
        if is_first:
            try:
                rows = self._store.rows(dataset_id, format, choices)
                future.set_result(Preview.measure(rows, self._tokenizer(folder), learning))
            except BaseException as error:  # noqa: BLE001 - raised below, in this and in all waiting threads
                with self._lock:
                    self._kept.pop(key, None)  # so that the next call tries again
                future.set_exception(error)
        return future.result()

    def _tokenizer(self, folder: Path | None) -> Tokenizer | None:
        """Return the tokenizer of a kept preview of the same model, or read it, which takes up to a second; None
        without a folder."""
        if folder is None:
            return None
        with self._lock:
            ready = [future.result() for key, future in self._kept.items() if key[0] == folder and future.done()]
        return ready[0].tokenizer if ready else Tokenizer(folder, IsolatedTemplate)


def _spread(rows: Rows, paragraphs: Paragraphs | None) -> np.ndarray:
    """Return positions of the rows to be counted: at most MAX_ROWS, evenly spread over all, and fewer if those had more
    than MAX_CHARACTERS together. If paragraphs are joined, they are the rows of at most MAX_STRETCHES stretches of
    neighbours, and the stretches are evenly spread."""

    def spread_positions(count: int) -> np.ndarray:
        """Return about `count` positions spread evenly over all rows; where paragraphs are joined, those of stretches
        of neighbouring rows, unless all rows are counted."""
        if paragraphs is not None and count < len(rows):
            # At least two: one paragraph has no neighbour to join.
            stretches = max(1, min(MAX_STRETCHES, count // 2))
            begins = np.arange(stretches) * len(rows) // stretches
            return (begins[:, None] + np.arange(count // stretches)).ravel()
        return np.arange(count) * len(rows) // count

    # A thousand books would take minutes to tokenize.
    counted = spread_positions(min(len(rows), MAX_ROWS))
    examples = (rows[int(i)][1] for i in counted)
    length = sum(len(row.text) if row.text is not None else sum(map(characters, conversation(row))) for row in examples)
    if length > MAX_CHARACTERS:
        counted = spread_positions(max(1, len(counted) * MAX_CHARACTERS // length))
    return counted
