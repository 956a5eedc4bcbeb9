"""Rows with one answer each that is marked good or bad: left out of sft, both kinds read for kto, each with another
row's answer beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.formats import Example
from core.data.labels import Learning
from core.data.preview import Preview
from core.data.reading.choices import Choices
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.errors import RecipeError, TemplateError
from core.presets import PRESETS
from core.recipe import Recipe
from core.training.tokenizing import tokenize
from tests.unit.data.test_training_rows import Listener

ROWS = [
    {
        "prompt": f"What is {i}?",
        "completion": f"It is {i}, no more." if i % 2 else f"Who cares about {i}?",
        "label": bool(i % 2),
    }
    for i in range(30)
]


def kto(**more: object) -> Recipe:
    return Recipe.parse(
        {"data": {"source": "x", "eval_fraction": 0, "max_length": 64, **more}, "train": {"objective": "kto"}}
    )


@pytest.fixture
def store(tmp_path: Path) -> tuple[DatasetStore, str]:
    (tmp_path / "rated.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    store = DatasetStore(tmp_path / "sets", PRESETS)
    return store, store.import_file(tmp_path / "rated.jsonl", "rated").id


def test_bad_answers_are_left_out_and_said_but_for_kto_which_has_them_marked(store: tuple[DatasetStore, str]) -> None:
    sets, source = store
    assert [example.is_bad for _, example in sets.rows(source)] == [False] * 15
    assert any(left.why.key == "left_out.why_row" and left.count == 15 for left in sets.report(source).left_out)
    rated = sets.rows(source, None, Choices.from_data(kto().data))
    assert [example.is_bad for _, example in rated] == [not row["label"] for row in ROWS]
    assert sets.rows(source) != rated and len(sets.rows(source)) == 15, "the other reading is still there"


def test_the_rated_answer_is_the_last_that_is_to_be_learned(tmp_path: Path, starter_folder: Path) -> None:
    """One row whose last answer had weight 0 ended preview, plan and run of the whole set in an IndexError."""
    turns = [
        ("user", "Who?", 1),
        ("assistant", "Me, said early.", 1),
        ("user", "Sure?", 1),
        ("assistant", "Not to be learned.", 0),
    ]
    row = {
        "messages": [{"role": role, "content": text, "weight": weight} for role, text, weight in turns],
        "label": True,
    }
    (tmp_path / "rated.jsonl").write_text(
        "\n".join(map(json.dumps, [row, *({"messages": row["messages"][:2], "label": False},) * 3])), "utf-8"
    )
    store, tokenizer = DatasetStore(tmp_path / "sets", PRESETS), Tokenizer(starter_folder)
    rows = store.rows(store.import_file(tmp_path / "rated.jsonl").id, None, Choices(rated=True))
    train, _ = tokenize([example for _, example in rows], kto(), tokenizer, Listener())
    first = train[0].examples[0]
    assert "said early" in tokenizer.decode([t for t, yes in zip(first.input_ids, first.learned, strict=True) if yes])
    assert "Not to be learned" not in tokenizer.decode(first.input_ids)


def test_each_row_has_the_answer_of_the_one_before_beside_it(
    store: tuple[DatasetStore, str], starter_folder: Path
) -> None:
    sets, source = store
    tokenizer, rows = (
        Tokenizer(starter_folder),
        [example for _, example in sets.rows(source, None, Choices(rated=True))],
    )
    train, _ = tokenize(rows, kto(), tokenizer, Listener())
    assert [row.is_bad for row in train] == [not row["label"] for row in ROWS]
    for i, row in enumerate(train):
        own, other = [
            "".join(tokenizer.decode([t for t, yes in zip(one.input_ids, one.learned, strict=True) if yes]))
            for one in row.examples
        ]
        assert (own, other) == (ROWS[i]["completion"], ROWS[i - 1]["completion"]), i
        assert all(f"What is {i}?" in tokenizer.decode(one.input_ids) for one in row.examples)
        assert train.lengths[i] == len(row.input_ids)
    preview = Preview.measure(sets.rows(source, None, Choices(rated=True)), tokenizer, Learning.from_recipe(kto()))
    assert preview.counts(64).tokens == int(train.lengths.sum())


def test_what_is_too_long_is_left_out_whole_and_another_rows_answer_is_cut(starter_folder: Path) -> None:
    tokenizer = Tokenizer(starter_folder)
    rows = [
        Example(prompt="word " * 40 + "?", completion="Yes."),
        Example(prompt="Why?", completion="a long answer " * 8, is_bad=True),
        Example(prompt="What?", completion="x " * 100),
    ]
    train, _ = tokenize(rows, kto(max_length=90), tokenizer, Listener())
    assert len(train) == 2 and all(len(one.input_ids) <= 90 for row in train for one in row.examples)
    assert len(train[0].examples[1].input_ids) == 90 and train.lengths.tolist() == [len(row.input_ids) for row in train]


def test_rated_rows_and_another_objective_and_plain_text_are_refused(starter_folder: Path) -> None:
    for train, rated in (({"objective": "sft"}, True), ({"objective": "kto"}, False), ({"objective": "dpo"}, True)):
        with pytest.raises(RecipeError, match="kto"):
            Recipe.parse({"data": {"source": "x", "rated": rated}, "train": train})
    with pytest.raises(TemplateError) as refused:
        tokenize([Example(text="A story.")], kto(), Tokenizer(starter_folder), Listener())
    assert "label" in str(refused.value)
