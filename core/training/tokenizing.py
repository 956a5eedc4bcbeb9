"""Reads the training examples as token ids, no more than the planned steps need. No torch.

One row at a time, so that it can be interrupted and shows progress. Rows that the page or an earlier run has tokenized
are reused (core/data/sets/tokens).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from core.data.formats import Example
from core.data.framing import Framing
from core.data.labels import Encoded, Learning
from core.data.repeats import Repeats, needs_repeats
from core.data.selection import RowSelection, choose
from core.data.sets.joined import JoinedTokens
from core.data.sets.pairs import Pairs, Rated
from core.data.sets.pieces import Pieces
from core.data.sets.stored_rows import Examples
from core.data.sets.tokens import Tokenized, Tokens
from core.data.shapes.refused import RefusedRows
from core.data.tokenizer import Tokenizer
from core.data.validation_split import SMALLEST_SPLIT, own_validation, paragraphs_of
from core.errors import DataError
from core.messages import msg
from core.progress import Progress
from core.recipe import Data, Recipe
from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts
from core.runs.scenes import probe_row

PROBE_ROWS = 8


@dataclass
class _Reading:
    """Tokenizes rows and counts how each was treated."""

    tokenized: Tokenized
    data: Data
    reporter: Reporter
    limit: int
    framing: Framing
    expected: int  # estimated number of rows to read
    read: int = 0
    long: Counter[str] = field(default_factory=Counter)  # examples longer than limit, by their treatment
    pieces: Counter[str] = field(default_factory=Counter)  # of those that were split: of plain text, and of others
    joined: int = 0  # paragraphs that are parts of longer texts
    empty: int = 0  # examples whose remainder has no trained token
    refused: RefusedRows = field(default_factory=RefusedRows)  # by the template, although the format accepts them

    def rows(self, positions: np.ndarray, enough: int | None = None) -> tuple[Pieces, list[int]]:
        """Return the trained pieces of these rows, in order, at most `enough` (None: all), reading no more rows than
        needed; and positions of the first PROBE_ROWS rows that gave one. Counts how rows were treated."""
        read = len(positions) if enough is None else enough
        tokens, pieces = self._pieces(positions[:read])
        while enough is not None and len(pieces) < enough and read < len(positions):
            read += max(enough - len(pieces), read // 8)
            tokens, pieces = self._pieces(positions[:read])
        if enough and len(pieces) > enough:  # rows after the last of them are not read
            tokens, pieces = self._pieces(positions[: pieces.row_after(enough - 1)])
        self._count(tokens, pieces)
        pieces = pieces.first(enough)
        of_row = pieces.tokens.row[pieces.example]
        return pieces, positions[of_row[np.flatnonzero(np.diff(of_row, prepend=-1))[:PROBE_ROWS]]].tolist()

    def _pieces(self, positions: np.ndarray) -> tuple[Tokens, Pieces]:
        """Tokenize these rows; return the tokens and their trained pieces: pairs, rated rows, or pieces of at most the
        limit."""
        tokens = self.tokenized.tokens(positions, self._show_progress, trains=True)
        if self.framing.learning.pairs:
            return tokens, Pairs.within(tokens, self.limit)
        if self.framing.learning.rated:
            return tokens, Rated.within(tokens, self.limit)
        return tokens, Pieces.from_tokens(tokens, self.limit, self.data.long_examples, self.data.overlap)

    def _show_progress(self, ready: int) -> None:
        """Show `ready` more rows as progress. Raises if Stop or Pause is requested."""
        self.reporter.check()
        done = self.read + ready
        self.reporter.set_stage("tokenizing", Progress(done=done, total=max(self.expected, done), unit="rows"))

    def _count(self, tokens: Tokens, pieces: Pieces) -> None:
        """Add up how many rows were read, refused, truncated, split, joined, dropped or without a trained token."""
        self.read += len(tokens.positions)
        self.framing.add(tokens)
        for place, why in tokens.refused:
            self.refused.add(int(tokens.positions[place]) + 1, why)
        dropped = pieces.is_long & ~pieces.is_kept & (pieces.long_examples == "drop")
        is_text, is_joined = pieces.tokens.is_text, pieces.tokens.is_joined
        done = {
            "cut": pieces.is_cut,
            "split": pieces.is_split & ~is_text,
            "text": pieces.is_split & is_text & ~is_joined,
            "joined": is_joined,
            "drop": dropped,
        }
        self.long.update({name: int(which.sum()) for name, which in done.items()})
        self.pieces.update({name: int(pieces.per_example[done[name]].sum()) for name in ("text", "split", "joined")})
        self.joined += (
            int(np.diff(pieces.tokens.first)[is_joined].sum()) if isinstance(pieces.tokens, JoinedTokens) else 0
        )
        self.empty += int((~pieces.is_kept & ~dropped).sum())


def tokenize(
    examples: Sequence[Example], recipe: Recipe, tokenizer: Tokenizer, reporter: Reporter
) -> tuple[Pieces, Sequence[Encoded]]:
    """Return the rows of training and validation as token ids.

    Repeats, leaks, truncated, split and dropped rows are reported; probe rows and thinking are written to run.json. If
    no training row is usable, those of validation are trained. Raises DataError if no row at all is usable, or the
    template's error if it refused them all.
    """
    data = recipe.data
    limit = tokenizer.limit(data.max_length)
    if limit < data.max_length:
        reporter.warn(msg("run.length_limited", wanted=data.max_length, limit=limit))
    repeats = Repeats.find(examples, reporter.check, data.drop_near_leaked) if needs_repeats(data) else None
    own, learning = own_validation(examples), Learning.from_recipe(recipe)
    paragraphs = None if learning.pairs or learning.rated else paragraphs_of(examples)
    chosen = choose(len(examples), recipe, repeats, own, paragraphs)
    training, measuring, enough = chosen.training, chosen.measuring, chosen.enough
    expected = (len(training) if enough is None else enough) + len(measuring)
    rows = examples.rows if isinstance(examples, Examples) else list(enumerate(examples, 1))
    framing = Framing(tokenizer.template.dialect, learning)
    tokenized = Tokenized(rows, tokenizer, learning, paragraphs)
    reading = _Reading(tokenized, data, reporter, limit, framing, expected)
    train, trained = reading.rows(training, enough)
    evaluation, measured = reading.rows(measuring)
    if not train:
        train, evaluation = evaluation, evaluation.first(0)
    if not train:
        if error := reading.refused.if_all(reading.read):
            raise error
        _report_refused(reading)
        raise DataError("run.nothing_to_learn", rows=reading.read, max_length=limit)
    if own is not None:
        reporter.run.log_event(
            "decision", message=msg("run.own_validation", rows=len(measuring), trained=len(training))
        )
    _report(reading, chosen, recipe, len(examples))
    probes = [probe_row(examples[position]) for position in (measured + trained)[:PROBE_ROWS]]
    reporter.run.add_facts(
        RunFacts(probe_rows=[probe for probe in probes if probe], enable_thinking=reading.framing.thinks)
    )
    return train, evaluation


def _report(reading: _Reading, chosen: RowSelection, recipe: Recipe, given: int) -> None:
    """Report how rows were selected and treated: as warnings what is lost, as decisions in the log what is not. given:
    the number of all rows of the dataset."""
    warn, limit = reading.reporter.warn, reading.limit
    for note in reading.framing.notes():
        reading.reporter.run.log_event("decision", message=note)
    rows = given - chosen.repeated - chosen.leaked
    if recipe.data.deduplicate:
        reading.reporter.run.log_event("decision", message=msg("run.rows_repeated", rows=chosen.repeated, all=given))
    if recipe.data.drop_leaked or recipe.data.drop_near_leaked:
        reading.reporter.run.log_event(
            "decision", message=msg("run.rows_leaked", rows=chosen.leaked, measured=len(chosen.measuring))
        )
    if reading.long["cut"]:
        warn(msg("run.rows_cut", rows=reading.long["cut"], max_length=limit))
    if reading.long["split"]:
        warn(msg("run.rows_split", rows=reading.long["split"], max_length=limit, pieces=reading.pieces["split"]))
    if reading.long["text"]:
        texts = msg("run.texts_split", rows=reading.long["text"], max_length=limit, pieces=reading.pieces["text"])
        reading.reporter.run.log_event("decision", message=texts)
    if reading.joined:
        joined = msg("run.paragraphs_joined", rows=reading.joined, max_length=limit, pieces=reading.pieces["joined"])
        reading.reporter.run.log_event("decision", message=joined)
    if reading.long["drop"]:
        warn(msg("run.rows_too_long", rows=reading.long["drop"], max_length=limit))
    _report_refused(reading)
    if reading.empty:
        warn(msg("run.rows_dropped", rows=reading.empty, max_length=limit))
    if recipe.data.eval_fraction and rows + chosen.leaked < SMALLEST_SPLIT and not len(chosen.measuring):
        warn(msg("run.eval_split_skipped", rows=rows, least=SMALLEST_SPLIT))
    if reading.read < rows:
        enough = msg("run.rows_enough", steps=recipe.train.max_steps, read=reading.read, rows=rows)
        reading.reporter.run.log_event("decision", message=enough)


def _report_refused(reading: _Reading) -> None:
    """Warn about rows that the template refused, if any."""
    for sentence in reading.refused.messages(reading.read, "template.examples_refused"):
        reading.reporter.warn(sentence)
