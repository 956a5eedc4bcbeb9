"""Pairs of answers: read from a file, as tokens, within a length; what is no pair is named and left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.data.conversation import ChatMessage
from core.data.formats import Example, read_example
from core.data.labels import ANSWERS, Encoded, Learning
from core.data.preview import Preview
from core.data.reading.file_rows import Row
from core.data.sets import estimate
from core.data.tokenizer import Tokenizer
from core.errors import RecipeError, TemplateError
from core.recipe import Recipe
from core.training.tokenizing import tokenize
from tests.kit.read_examples import examples_of
from tests.unit.data.test_training_rows import Listener

RECIPE = Recipe.parse({"data": {"source": "x", "eval_fraction": 0, "max_length": 64}, "train": {"objective": "dpo"}})
PAIRS = Learning.from_recipe(RECIPE)


def conversation(*said: str) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(("user", "assistant")[i % 2], text) for i, text in enumerate(said))


def pair(better: tuple[str, ...], worse: tuple[str, ...]) -> Example:
    return Example(messages=conversation(*better), rejected=conversation(*worse))


def learned(row: Encoded, tokenizer: Tokenizer) -> list[str]:
    return [
        tokenizer.decode([i for i, is_learned in zip(one.input_ids, one.learned, strict=True) if is_learned])
        for one in row.examples
    ]


@pytest.fixture(scope="module")
def tokenizer(starter_folder: Path) -> Tokenizer:
    return Tokenizer(starter_folder)


def test_of_a_pair_the_answers_are_learned_and_not_the_turns_that_they_share(tokenizer: Tokenizer) -> None:
    rows = [
        pair(("Hi", "Hello.", "Why?", "Because."), ("Hi", "Hello.", "Why?", "No idea at all.")),
        pair(("Sun?", "Yes."), ("Sun?", "No.")),
    ]
    train, _ = tokenize(rows, RECIPE, tokenizer, Listener())
    assert [learned(row, tokenizer) for row in train] == [["Because.", "No idea at all."], ["Yes.", "No."]]
    for row in train:
        better, worse = row.examples
        assert better.learned_count + worse.learned_count == row.learned_count and row.second == len(better.input_ids)
        assert tokenizer.decode(worse.input_ids[:1]) == tokenizer.decode(better.input_ids[:1]), (
            "each begins as a conversation does"
        )


def test_what_is_no_pair_and_what_is_too_long_is_left_out_and_said(tokenizer: Tokenizer) -> None:
    """The page says the same beforehand as the run does."""
    long = pair(("Why?", "Because."), ("Why?", "word " * 100))
    rows = [
        pair(("a", "b"), ("a", "c")),
        Example(messages=conversation("a", "b")),
        pair(("a", "b"), ("a", "b")),
        long,
        pair(("d", "e"), ("d", "f")),
    ]
    listener = Listener()
    train, _ = tokenize(rows, RECIPE, tokenizer, listener)
    assert [learned(row, tokenizer) for row in train] == [["b", "c"], ["e", "f"]]
    messages = " ".join(map(str, listener.said))
    assert (
        "no rejected answer" in messages
        and "are the same" in messages
        and "1 row is longer than 64 tokens and was skipped" in messages
    )
    preview = Preview.measure(list(enumerate(rows, 1)), tokenizer, PAIRS)
    counts = preview.counts(64)
    assert (counts.pieces, counts.rows_dropped, counts.rows_refused, counts.first_dropped) == (2, 1, 2, (4,))
    assert counts.tokens == sum(len(row.input_ids) for row in train) and counts.learned == sum(
        row.learned_count for row in train
    )
    assert preview.facts().rows == 3 and preview.row(3, 64).dropped
    view = preview.row(0, 64)
    assert (
        view.is_pair
        and view.examples == 2
        and [piece.text for piece in view.pieces if piece.kind == "example"] == ["1", "2"]
    )
    assert preview.examples(64, "cut") == len(train)


def test_without_a_tokenizer_both_answers_are_estimated() -> None:
    preview = Preview.measure([(1, pair(("a", "b"), ("a", "word " * 400)))], None, PAIRS)
    assert len(preview.lengths) == 2 and preview.counts(2048).pieces == 1 and preview.counts(128).rows_dropped == 1


@pytest.mark.parametrize(("learning", "answers"), [(ANSWERS, 2), (Learning(rated=True), 1)])
def test_without_a_tokenizer_only_learned_answers_are_estimated_as_learned(learning: Learning, answers: int) -> None:
    first, *rest = conversation("a", "b", "c", "d", "e", "f")
    unweighted = [replace(message, weight=0) if message.content == "b" else message for message in rest]
    [counted] = estimate.counted(Example(messages=(first, *unweighted)), learning)
    assert len(counted.runs) == answers


def test_a_set_without_pairs_is_refused_for_it(tokenizer: Tokenizer) -> None:
    with pytest.raises(TemplateError) as refused:
        tokenize([Example(messages=conversation("a", "b"))], RECIPE, tokenizer, Listener())
    assert "Choose SFT as the training objective" in str(refused.value.message)


def test_a_pair_survives_the_file_that_this_app_writes(tmp_path: Path) -> None:
    given = {
        "prompt": "Why?",
        "chosen": "Because.",
        "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
    }
    example, _ = read_example(Row(1, given), "messages")
    assert example and example.rejected == conversation("Why?", "No.")
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(example.as_dict()), "utf-8")
    assert list(examples_of(file)) == [(1, example)] and Example.from_dict(example.as_dict()) == example


@pytest.mark.parametrize("speaker", [{"role": "assistant"}, {"role": "ai"}, {"from": "Claude"}])
def test_a_worse_answer_alone_follows_the_question_by_any_name_of_its_speaker(speaker: dict[str, str]) -> None:
    row = {"prompt": "Why?", "chosen": "Because.", "rejected": [{**speaker, "content": "No."}]}
    example, _ = read_example(Row(1, row), "messages")
    assert example and example.rejected == conversation("Why?", "No.")


def test_a_worse_answer_that_cannot_be_read_is_said_and_the_better_one_stays() -> None:
    example, (problem,) = read_example(
        Row(1, {"prompt": "Why?", "chosen": "Because.", "rejected": [{"role": "owl", "content": "x"}]}), "messages"
    )
    assert example == Example(messages=conversation("Why?", "Because.")) and problem.text.key == "data.worse_unreadable"


@pytest.mark.parametrize(
    ("data", "train", "named"),
    [
        ({"train_on": "everything"}, {"objective": "dpo"}, "train_on everything"),
        ({}, {"objective": "simpo", "loss_type": "robust"}, "loss_type robust"),
        ({}, {"objective": "dpo", "label_smoothing": 0.1}, "label_smoothing 0.1"),
        ({}, {"label_smoothing": 0.1}, "label_smoothing 0.1"),
    ],
)
def test_settings_that_would_not_count_are_refused(data: dict, train: dict, named: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe.parse({"data": {"source": "x"} | data, "train": train})
    assert named in str(refused.value.message)
