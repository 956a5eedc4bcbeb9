"""The rows that a run learned, or would learn: for examples in a prompt, and to find questions that are no test."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from core.chat.prompts import Prompt, prompt_from_row
from core.data.conversation import Turn
from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.repeats import normalized
from core.data.row_order import shuffle
from core.data.store import DatasetStore
from core.data.tokenizer import conversation
from core.data.validation_split import training_and_validation
from core.errors import RunError
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder

MAX_PAIRS = 50_000  # rows that can become examples: more take seconds to search


@dataclass(frozen=True)
class LearnedRows:
    """Training rows. pairs: (question, answer) of each row with both. keys: hashes of every question in them. held_out:
    rows that were kept for validation, as prompts in random order, without those that repeat a training row.
    """

    pairs: tuple[tuple[str, str], ...]
    keys: frozenset[int]
    held_out: tuple[Prompt, ...]

    @classmethod
    def of_recipe(cls, recipe: Recipe, store: DatasetStore, holds_out: bool = True) -> LearnedRows:
        """Return the training rows of a recipe: up to MAX_PAIRS pairs, keys of all questions, and its validation rows
        that are not among them, in a fixed random order. holds_out: whether it validates. Raises DataError if the
        dataset is gone."""
        rows = store.rows(recipe.data.source, recipe.data.format, Choices.from_data(recipe.data)).examples
        training, measuring = training_and_validation(rows, recipe) if holds_out else (range(len(rows)), ())
        keys, pairs = set[int](), dict[tuple[str, str], None]()
        for number in training:
            keys.update(_keys_of_row(rows[int(number)]))
            prompt = prompt_from_row(rows[int(number)], "trained") if len(pairs) < MAX_PAIRS else None
            if prompt and prompt.expected:
                pairs[prompt.question, prompt.expected] = None
        # Shuffled, for whoever takes the first ones of a file that is sorted by its answers.
        order = shuffle(map(int, measuring), random.Random(f"{recipe.train.seed}/evaluation"))
        held_out = (prompt_from_row(rows[number], "kept_apart") for number in order)
        known = frozenset(keys)
        return cls(tuple(pairs), known, tuple(_new(held_out, known)))

    @classmethod
    def of_run(cls, run: RunFolder, store: DatasetStore, runs: Runs) -> LearnedRows:
        """Return the rows that a run was trained on, and for one that was combined of others the rows of those instead;
        the keys also contain the questions of the runs that it continues. Raises DataError if a dataset is gone, or one
        of the runs that it was combined of, since its rows are unknown."""
        combined = run.facts().combined
        parents = [parent for parent, _ in runs.combined_in(run)]
        if combined and len(parents) == len(combined.adapters):
            return cls.joined([cls.of_run(parent, store, runs) for parent in parents])
        rows = cls.of_recipe(run.recipe(), store, bool(run.facts().rows_measured))
        keys, parent = rows.keys, run.facts().parent
        while parent is not None:
            try:
                ancestor = runs.get(parent.run)
            except RunError:
                break
            keys |= cls.of_recipe(ancestor.recipe(), store, bool(ancestor.facts().rows_measured)).keys
            parent = ancestor.facts().parent
        return cls(rows.pairs, keys, tuple(_new(rows.held_out, keys)))

    @classmethod
    def joined(cls, parts: Sequence[LearnedRows]) -> LearnedRows:
        """Return the rows of several runs as one: held out is what none of them was trained on."""
        keys = frozenset[int]().union(*(one.keys for one in parts))
        held_out = [prompt for one in parts for prompt in one.held_out]
        return cls(tuple(pair for one in parts for pair in one.pairs), keys, tuple(_new(held_out, keys)))

    def has(self, prompt: Prompt) -> bool:
        """Return whether a training row has the prompt's question. A prompt without a system prompt matches a row with
        any; one with a system prompt only a row with the same."""
        return key_of(prompt.turns) in self.keys

    def marked(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Return the prompts; those that were trained on have the source "trained"."""
        return [one.model_copy(update={"source": "trained"}) if self.has(one) else one for one in prompts]


def key_of(turns: Sequence[Turn]) -> int:
    """Return a hash of all turns of a conversation up to its question; case, width, spaces and marks at the end of
    words make no difference."""
    return hash(tuple((turn["role"], normalized(str(turn["content"]))) for turn in turns))


def _keys_of_row(example: Example) -> Iterator[int]:
    """Yield the keys of a row's questions (each assistant turn's), with its system prompt and without; none for plain
    text."""
    if example.text is None:
        turns = conversation(example)
        for place, turn in enumerate(turns):
            if turn["role"] == "assistant":
                yield key_of(turns[:place])
                yield key_of([before for before in turns[:place] if before["role"] != "system"])


def _new(prompts: Iterable[Prompt | None], keys: frozenset[int]) -> Iterator[Prompt]:
    """Yield the prompts that have an expected answer and whose key is not among keys, each question once."""
    known_keys = set(keys)
    for prompt in prompts:
        if prompt and prompt.expected and (key := key_of(prompt.turns)) not in known_keys:
            known_keys.add(key)
            yield prompt
