"""Examples as rows of token ids, ready to train: no more of them than the planned steps need. No torch.

One process, one row after the other, so that it can be left at any time, shows where it is, and works the same on Windows
(a `datasets.map` with several processes needs none of that here: 1,000 short rows take 0.2 s).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.data.formats import Example
from core.data.framing import Framing
from core.data.labels import Encoded, Learning, fit
from core.data.repeats import Repeats
from core.data.row_order import SMALLEST_SPLIT
from core.data.selection import Chosen, choose
from core.data.shapes.refused import Refused
from core.data.tokenizer import Tokenizer, conversation
from core.errors import DataError, TemplateError
from core.messages import msg
from core.progress import Progress
from core.recipe import Data, Recipe
from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts

PROBE_ROWS = 8
CHECK_EVERY = 20  # rows


@dataclass
class _Reading:
    """Encodes examples one by one, and counts what became of them."""

    examples: Sequence[Example]
    data: Data
    tokenizer: Tokenizer
    reporter: Reporter
    limit: int
    expected: int  # rows that will be read, as far as is known
    read: int = 0
    long: Counter[str] = field(default_factory=Counter)  # rows longer than limit, by what was done to them
    pieces: Counter[bool] = field(default_factory=Counter)  # of those that were split: of plain text, and of others
    empty: int = 0  # rows with nothing to learn in what is left of them
    refused: Refused = field(default_factory=Refused)  # by the template, named among the rows that can be learned from
    used: list[int] = field(default_factory=list)  # numbers of the examples that rows were made of

    def __post_init__(self) -> None:
        self.framing = Framing(self.tokenizer.template.dialect, Learning.of(self.data))

    def rows(self, numbers: Iterable[int], enough: int | None = None) -> list[Encoded]:
        """Of the examples of these numbers, one after the other, until there are enough rows."""
        found: list[Encoded] = []
        for number in numbers:
            if enough is not None and len(found) >= enough:
                break
            if self.read % CHECK_EVERY == 0:
                self.reporter.check()
                self.reporter.stage("tokenizing", Progress(done=self.read, total=max(self.expected, self.read), unit="rows"))
            self.read += 1
            found += self._row(number)
        return found if enough is None else found[:enough]

    def _row(self, number: int) -> list[Encoded]:
        try:
            wholes = self.tokenizer.encode_row(self.examples[number], self.framing.learning)
        except TemplateError as error:
            self.refused.add(number + 1, error.message)
            return []
        self.framing.add(self.examples[number], wholes)
        found: list[Encoded] = []
        for whole in wholes:
            pieces = [row for row in fit(whole, self.limit, self.data.long_examples) if row.learned_count]
            is_long = len(whole.input_ids) > self.limit
            if is_long and (pieces or self.data.long_examples == "drop"):
                self.long["text" if whole.is_text and pieces else self.data.long_examples] += 1
                self.pieces[whole.is_text] += len(pieces)
            elif not pieces:
                self.empty += 1
            found += pieces
        if found:
            self.used.append(number)
        return found


def tokenize(
    examples: Sequence[Example], recipe: Recipe, tokenizer: Tokenizer, reporter: Reporter
) -> tuple[list[Encoded], list[Encoded]]:
    """Rows to train and rows to measure. What is cut, split or left out is counted and said; nothing left is an error."""
    data = recipe.data
    limit = tokenizer.limit(data.max_length)
    if limit < data.max_length:
        reporter.warn(msg("run.length_limited", wanted=data.max_length, limit=limit))
    wants_repeats = data.deduplicate or data.drop_leaked
    chosen = choose(len(examples), recipe, Repeats.of(examples, reporter.check) if wants_repeats else None)
    training, measuring, enough = chosen.training, chosen.measuring, chosen.enough
    expected = (len(training) if enough is None else enough) + len(measuring)
    reading = _Reading(examples, data, tokenizer, reporter, limit, expected)
    train = reading.rows(training, enough)
    trained = len(reading.used)
    evaluation = reading.rows(measuring)
    if not train:
        train, evaluation = evaluation, []
    if not train:
        if error := reading.refused.if_all(reading.read):
            raise error
        _say_refused(reading)
        raise DataError("run.nothing_to_learn", rows=reading.read, max_length=limit)
    _say(reading, chosen, recipe)
    probes = [probe_row(examples[number]) for number in (reading.used[trained:] + reading.used[:trained])[:PROBE_ROWS]]
    reporter.run.add_facts(RunFacts(probe_rows=[probe for probe in probes if probe], enable_thinking=reading.framing.thinks))
    return train, evaluation


def _say(reading: _Reading, chosen: Chosen, recipe: Recipe) -> None:
    warn, limit = reading.reporter.warn, reading.limit
    for note in reading.framing.notes():
        reading.reporter.run.log_event("decision", message=note)
    rows = len(reading.examples) - chosen.repeated - chosen.leaked
    if recipe.data.deduplicate:
        reading.reporter.run.log_event(
            "decision", message=msg("run.rows_repeated", rows=chosen.repeated, all=len(reading.examples))
        )
    if recipe.data.drop_leaked:
        reading.reporter.run.log_event(
            "decision", message=msg("run.rows_leaked", rows=chosen.leaked, measured=len(chosen.measuring))
        )
    if reading.long["cut"]:
        warn(msg("run.rows_cut", rows=reading.long["cut"], max_length=limit))
    if reading.long["split"]:
        warn(msg("run.rows_split", rows=reading.long["split"], max_length=limit, pieces=reading.pieces[False]))
    if reading.long["text"]:
        texts = msg("run.texts_split", rows=reading.long["text"], max_length=limit, pieces=reading.pieces[True])
        reading.reporter.run.log_event("decision", message=texts)
    if reading.long["drop"]:
        warn(msg("run.rows_too_long", rows=reading.long["drop"], max_length=limit))
    _say_refused(reading)
    if reading.empty:
        warn(msg("run.rows_dropped", rows=reading.empty, max_length=limit))
    if recipe.data.eval_fraction and rows + chosen.leaked < SMALLEST_SPLIT:
        warn(msg("run.eval_split_skipped", rows=rows, least=SMALLEST_SPLIT))
    if reading.read < rows:
        enough = msg("run.rows_enough", steps=recipe.train.max_steps, read=reading.read, rows=rows)
        reading.reporter.run.log_event("decision", message=enough)


def _say_refused(reading: _Reading) -> None:
    for sentence in reading.refused.said(reading.read, "template.examples_refused"):
        reading.reporter.warn(sentence)


def probe_row(example: Example) -> dict[str, Any] | None:
    """A row as the conversation an export is later asked about; plain text has none."""
    if example.text is not None:
        return None
    return {"messages": [dict(turn) for turn in conversation(example)]} | (
        {"tools": json.loads(example.tools)} if example.tools else {}
    )
