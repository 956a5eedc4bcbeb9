"""Rows for training: long ones cut, split or left out; no more encoded than the steps need; left when asked to stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.formats import Example
from core.data.labels import Encoded, FullExample, Learning, fit
from core.data.preview import Preview
from core.data.repeats import Repeats
from core.data.selection import choose
from core.data.sets import gathered
from core.data.sets.tokens import REPORT_EVERY
from core.data.store import DatasetStore
from core.data.template import Rendered
from core.data.tokenizer import Tokenizer
from core.data.validation_split import validation_rows
from core.errors import StopRequested
from core.messages import Message
from core.presets import PRESETS
from core.recipe import Recipe
from core.runs.run_json import RunFacts
from core.training.tokenizing import tokenize


@pytest.fixture(scope="module")
def tokenizer(starter_folder: Path) -> Tokenizer:
    return Tokenizer(starter_folder)


class Listener:
    """Stands where the worker's reporter stands."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.said: list[Message] = []
        self.facts = RunFacts()
        self.progress: list[tuple[int, int]] = []
        self.checks, self.stop_after = 0, stop_after
        self.run = self

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.stop_after:
            raise StopRequested

    def set_stage(self, stage: str, progress: Any) -> None:
        self.progress.append((progress.done, progress.total))

    def warn(self, message: Message) -> None:
        self.said.append(message)

    def log_event(self, kind: str, message: Message) -> None:
        self.said.append(message)

    def add_facts(self, facts: RunFacts) -> None:
        self.facts = facts


class Counting:
    """A tokenizer that counts what it is asked to encode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.encoded = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_row(self, *args: Any) -> list[FullExample]:
        self.encoded += 1
        return self._tokenizer.encode_row(*args)


def recipe(data: dict | None = None, **train: Any) -> Recipe:
    return Recipe.parse({"data": {"source": "x", "eval_fraction": 0.1} | (data or {}), "train": train})


def questions(count: int) -> list[Example]:
    return [Example(prompt=f"What is {i}?", completion=f"It is number {i}.") for i in range(count)]


def learned_tokens(rows: list[Encoded]) -> list[int]:
    return [
        token for row in rows for token, learned in list(zip(row.input_ids, row.learned, strict=True))[1:] if learned
    ]


@pytest.mark.parametrize("length", [2, 15, 16, 17, 31, 32, 100])
def test_split_learns_every_token_once_and_cut_and_drop_say_what_they_do(length: int) -> None:
    full = FullExample(list(range(length)), [t % 3 > 0 for t in range(length)], "", [], Rendered("", ()))
    pieces = fit(full, 16, "split")
    assert learned_tokens(pieces) == [t for t in range(1, length) if t % 3]
    assert all(1 < len(piece.input_ids) <= 16 for piece in pieces)
    assert all(a.input_ids[-1] == b.input_ids[0] for a, b in zip(pieces, pieces[1:], strict=False))
    [cut] = fit(full, 16, "cut")
    assert (cut.input_ids, cut.cut) == (list(range(min(length, 16))), max(0, length - 16))
    assert fit(full, 16, "drop") == ([] if length > 16 else [Encoded(full.input_ids, full.learned)])


@pytest.mark.parametrize("choice", ["cut", "split"])
@pytest.mark.parametrize("limit", [2, 8, 40])
def test_a_book_is_split_at_its_sentences_and_none_of_it_is_lost(choice: str, limit: int, tokenizer: Tokenizer) -> None:
    """Seen: a book as one row taught its first 512 tokens, the other 229,729 were cut."""
    book = "\n\n".join(f"Chapter {n}. " + f"It rained on day {n}. The cat slept. " * 4 for n in range(9))
    (full,) = tokenizer.encode_row(Example(text=book), Learning())
    pieces = fit(full, limit, choice)
    assert learned_tokens(pieces) == full.input_ids[1:]
    assert all(1 < len(piece.input_ids) <= limit and not piece.cut for piece in pieces)
    texts = [tokenizer.decode(piece.input_ids[1:]) for piece in pieces]
    if limit == 40:
        assert all(text.rstrip().endswith(".") for text in texts[:-1])
    listener = Listener()
    tokenize(
        [Example(text=book)],
        recipe({"max_length": max(8, limit), "long_examples": choice, "eval_fraction": 0.0}),
        tokenizer,
        listener,
    )
    assert [(m.key, m.params["rows"]) for m in listener.said] == [("run.texts_split", 1)]


@pytest.mark.parametrize(("limit", "overlap"), [(8, 2), (8, 100), (40, 1), (40, 10), (40, 19)])
def test_pieces_that_overlap_read_some_tokens_again_and_learn_each_once(
    limit: int, overlap: int, tokenizer: Tokenizer
) -> None:
    book = "\n\n".join(f"Chapter {n}. " + f"It rained on day {n}. The cat slept. " * 4 for n in range(9))
    (full,) = tokenizer.encode_row(Example(text=book), Learning())
    pieces = fit(full, limit, "cut", overlap)
    again = min(overlap, limit // 2 - 1)
    assert learned_tokens(pieces) == full.input_ids[1:] and all(len(piece.input_ids) <= limit for piece in pieces)
    for before, piece in zip(pieces, pieces[1:], strict=False):
        assert piece.input_ids[: again + 1] == before.input_ids[-again - 1 :] and not any(piece.learned[: again + 1])
    assert len(pieces) <= 3 * len(fit(full, limit, "cut")), "each goes on by half of what is left of it"
    limited = recipe({"max_length": limit, "overlap": overlap, "eval_fraction": 0})
    train, _ = tokenize([Example(text=book)], limited, tokenizer, Listener())
    assert [(row.input_ids, row.learned[1:]) for row in train] == [(row.input_ids, row.learned[1:]) for row in pieces]
    counts = Preview.measure([(1, Example(text=book))], tokenizer).counts(limit, "cut", overlap)
    assert (counts.pieces, counts.learned) == (len(pieces), len(full.input_ids) - 1)


def test_a_book_that_is_to_be_left_out_for_its_length_is(tokenizer: Tokenizer) -> None:
    (full,) = tokenizer.encode_row(Example(text="word " * 100), Learning())
    assert fit(full, 16, "drop") == []


def test_a_short_run_encodes_only_the_rows_that_its_steps_read(tokenizer: Tokenizer) -> None:
    """It looked like this elsewhere: 52,000 rows tokenised for 30 steps (unsloth #8890)."""
    counting, listener = Counting(tokenizer), Listener()
    short = recipe(max_steps=5, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    train, evaluation = tokenize(questions(2000), short, counting, listener)
    assert (len(train), len(evaluation)) == (40, 40) and counting.encoded == 80
    assert listener.said[-1].key == "run.rows_enough" and listener.said[-1].params["read"] == 80
    assert listener.progress[-1][1] == 80
    again, _ = tokenize(questions(2000), short, tokenizer, Listener())
    assert again == train, "the seed decides which"
    other, _ = tokenize(
        questions(2000), recipe(max_steps=5, per_device_train_batch_size=8, seed=1), tokenizer, Listener()
    )
    assert other != train
    everything, _ = tokenize(questions(100), recipe(max_steps=500), tokenizer, Listener())
    assert len(everything) == 90


def test_tokenising_shows_progress_and_stops_when_asked(tokenizer: Tokenizer) -> None:
    counting, listener = Counting(tokenizer), Listener(stop_after=3)
    with pytest.raises(StopRequested):
        tokenize(questions(500), recipe(), counting, listener)
    assert counting.encoded == 2 * REPORT_EVERY
    assert listener.progress == [(0, 500), (REPORT_EVERY, 500)]


def test_each_choice_is_counted_and_said(tokenizer: Tokenizer) -> None:
    examples = questions(30) + [Example(prompt="Tell me.", completion="word " * 200)] * 2

    def said(choice: str) -> dict[str, Any]:
        listener = Listener()
        tokenize(
            examples, recipe({"max_length": 64, "long_examples": choice, "eval_fraction": 0.0}), tokenizer, listener
        )
        [message] = listener.said
        return {"key": message.key} | message.params

    assert said("cut") == {"key": "run.rows_cut", "rows": 2, "max_length": 64}
    assert said("drop") == {"key": "run.rows_too_long", "rows": 2, "max_length": 64}
    split = said("split")
    assert (split["key"], split["rows"]) == ("run.rows_split", 2) and split["pieces"] >= 2 * 3


def test_rows_kept_apart_are_trained_where_nothing_else_can_be(tokenizer: Tokenizer) -> None:
    """All that can be learned lay among the rows kept apart, and the run failed with "nothing to learn"."""
    examples = [Example(prompt="a", completion="b " * 3)] * 20
    halved = recipe({"eval_fraction": 0.1})
    from core.data.validation_split import split

    _, apart = split(20, 0.1, halved.train.seed)
    long = Example(prompt="word " * 600, completion="b")
    mixed = [example if i in apart else long for i, example in enumerate(examples)]
    train, evaluation = tokenize(mixed, halved, tokenizer, Listener())
    assert len(train) == len(apart) and evaluation == []


def test_the_rows_an_export_is_asked_about_are_those_kept_apart_first(tokenizer: Tokenizer) -> None:
    listener = Listener()
    tokenize(questions(40), recipe(), tokenizer, listener)
    probes = [probe["messages"][0]["content"] for probe in listener.facts.probe_rows]
    assert len(probes) == len(set(probes)) == 8


def test_repeated_rows_are_left_out_and_counted(tokenizer: Tokenizer) -> None:
    examples = [*questions(60), *questions(30), Example(prompt=" what IS 1", completion="It is number 1")]
    listener = Listener()
    train, evaluation = tokenize(examples, recipe({"deduplicate": True}), tokenizer, listener)
    assert (len(train), len(evaluation)) == (54, 6)
    assert [(m.key, m.params) for m in listener.said] == [("run.rows_repeated", {"rows": 31, "all": 91})]
    alone, measured = tokenize(questions(60), recipe(), tokenizer, Listener())
    assert (train, evaluation) == (alone, measured), "as if they had not been in the file"
    chosen = choose(len(examples), recipe({"deduplicate": True}), Repeats.find(examples))
    assert validation_rows(examples, recipe({"deduplicate": True})).tolist() == chosen.measuring.tolist()
    assert validation_rows(examples, recipe()).tolist() == choose(len(examples), recipe()).measuring.tolist()
    both, _ = tokenize(examples, recipe(), tokenizer, Listener())
    assert len(both) == 82, "only where it was asked for"


def test_near_copies_of_measured_rows_are_left_out_of_training_only_where_it_was_asked_for(
    tokenizer: Tokenizer,
) -> None:
    letters = ["".join(chr(97 + (i * step) % 26) for step in range(1, 60)) for i in range(1, 61)]
    examples = [
        Example(prompt=f"{word} is what {i}", completion=f"it is {word} of {i}") for i, word in enumerate(letters)
    ]
    examples += [Example(prompt=e.prompt, completion=f"{e.completion} now") for e in examples]
    listener = Listener()
    train, evaluation = tokenize(examples, recipe({"drop_near_leaked": True}), tokenizer, listener)
    [message] = listener.said
    trained, measured = tokenize(examples, recipe(), tokenizer, Listener())
    assert measured == evaluation and message.params["rows"] == len(trained) - len(train) >= 8
    assert len(tokenize(examples, recipe({"drop_leaked": True}), tokenizer, Listener())[0]) == len(trained), (
        "none says quite the same"
    )


def test_rows_that_are_measured_are_left_out_of_training_and_counted(tokenizer: Tokenizer) -> None:
    examples = [*questions(60), *questions(60)]
    listener = Listener()
    train, evaluation = tokenize(examples, recipe({"drop_leaked": True}), tokenizer, listener)
    assert not {tuple(row.input_ids) for row in train} & {tuple(row.input_ids) for row in evaluation}
    [message] = listener.said
    assert (message.key, message.params["measured"]) == ("run.rows_leaked", 12) and message.params[
        "rows"
    ] == 120 - 12 - len(train) > 5
    trained, measured = tokenize(examples, recipe(), tokenizer, Listener())
    assert measured == evaluation, "what is measured stays"
    assert {tuple(row.input_ids) for row in trained} & {tuple(row.input_ids) for row in measured}


def test_a_set_with_validation_rows_of_its_own_trains_all_others(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name, numbers in (("dev", range(5)), ("train", range(5, 12))):
        rows = [{"question": f"What is {i}?", "answer": f"It is {i} and no more."} for i in numbers]
        (tmp_path / "set" / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    store = DatasetStore(tmp_path / "datasets", PRESETS)
    examples = store.rows(gathered.add(store, [tmp_path / "set"]).id).examples
    for fraction in (0, 0.5):
        listener = Listener()
        train, evaluation = tokenize(examples, recipe({"eval_fraction": fraction}), tokenizer, listener)
        assert (len(train), len(evaluation)) == (7, 5)
        assert [message.key for message in listener.said] == ["run.own_validation"]
    facts = Preview.measure(examples.rows, tokenizer).facts()
    assert (facts.rows, facts.validation) == (12, 5)


def test_each_piece_knows_its_row_where_others_are_left_out(tokenizer: Tokenizer) -> None:
    """The pairs of a training by rewards are kept with the messages of the row."""
    rows = [Example(prompt=f"What is {i}?", completion="Long. " * 400 if i % 3 else f"It is {i}.") for i in range(40)]
    train, _ = tokenize(rows, recipe({"long_examples": "drop", "max_length": 128}), tokenizer, Listener())  # type: ignore[arg-type]
    assert 5 < len(train) < 14
    for place in range(len(train)):
        asked = rows[train.position(place)].prompt or "-"
        assert asked in tokenizer.decode(train[place].input_ids)
