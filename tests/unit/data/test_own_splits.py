"""Files of test and validation rows in a folder or a zip are the set's own validation rows, never trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.data.reading.choices import Choices
from core.data.reading.split_names import is_for_validation, split_of
from core.data.repeats import Repeats
from core.data.selection import choose
from core.data.sets import gathered, working
from core.data.sets.info import DatasetInfo
from core.data.sets.inspection import inspect_file
from core.data.store import DatasetStore
from core.data.validation_split import own_validation, split_rows, validation_rows
from core.presets import PRESETS
from core.recipe import Recipe


def lines(*names: str) -> str:
    return "".join(
        json.dumps({"question": f"What is {name}?", "answer": f"It is the letter {name}."}) + "\n" for name in names
    )


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, "utf-8")
    return folder


def recipe(**data: object) -> Recipe:
    return Recipe.parse({"data": {"source": "x", **data}})


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("test.csv", []),
        ("data/validation-00000-of-00001.parquet", []),
        ("data/test-00000-of-00002-0123456789abcdef.parquet", []),
        ("quiz_dev.jsonl", []),
        ("corpus.eval.json", []),
        ("val/part-3.jsonl", []),
        ("sub/Test/a.txt", []),
        ("dev-v2.0.json", []),
        ("valid.json.gz", []),
        ("test-en.tsv", ["train-en.tsv"]),
        ("test_hard.jsonl", ["train.jsonl", "test.jsonl"]),
        ("testset1.csv", []),
        ("测试集.csv", []),
    ],
)
def test_a_name_of_test_or_validation_rows_counts(name: str, others: list[str]) -> None:
    assert is_for_validation(name, [name, *others])


@pytest.mark.parametrize(
    "name",
    ["train.csv", "contest.csv", "latest.jsonl", "Turing test.txt", "test questions for biology.csv", "devices.json"]
    + ["test-en.tsv", "evaluate.csv", "valley.txt", "developer/a.json", "tested/b.json", "a", ".json", "-.-"],
)
def test_a_word_inside_of_another_name_does_not(name: str) -> None:
    assert not is_for_validation(name, [name])


def test_they_become_validation_rows_and_a_note_counts_them(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "set",
        {"test.jsonl": lines("a", "b"), "train.jsonl": lines("c", "d", "e"), "val/x.jsonl": lines("f")},
    )
    report = inspect_file(folder)
    assert (report.good_rows, report.validation) == (6, 3)
    (note,) = [str(note) for note in report.notes if note.key == "data.note_validation"]
    assert "test.jsonl (2)" in note and "val/x.jsonl (1)" in note and note.startswith("3 rows")
    one = inspect_file(put(tmp_path / "one", {"test.jsonl": lines("a", "b"), "train.jsonl": lines("c", "d")}))
    assert any(str(note).startswith("2 rows of test.jsonl are") for note in one.notes)  # the number once

    store = DatasetStore(tmp_path / "ws", PRESETS)
    info = gathered.add(store, [folder])
    rows = store.rows(info.id)
    assert info.validation == 3
    assert [rows[int(i)][1].messages[0].content[8] for i in validation_rows(rows.examples, recipe())] == ["a", "b", "f"]
    training, measuring = split_rows(6, recipe(eval_fraction=0.5), None, own_validation(rows.examples))
    assert training.tolist() == [2, 3, 4] and measuring.tolist() == [0, 1, 5]


@pytest.mark.parametrize("name", ["test_public.json", "test_public_0.json"])
def test_a_file_for_testing_is_known_beside_a_numbered_one_for_training(name: str) -> None:
    """Seen: thousands of rows of test_public.json were trained beside train_0.json."""
    assert is_for_validation(name, [name, "train_0.json"])
    assert not is_for_validation(name, [name, "all_0.json"])


def test_lists_of_one_file_and_a_column_say_it_too(tmp_path: Path) -> None:
    pairs = [["Hello", "greeting"], ["Bye then", "parting"]]
    rows = [{"question": f"What is {at}?", "answer": "A letter.", "split": at} for at in ("train", "Test", "dev")]
    put(tmp_path, {
        "lists.json": json.dumps({"oos_val": pairs, "train": pairs * 2, "version": 2, "test": pairs}),
        "column.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "other.jsonl": "".join(json.dumps(row | {"split": "easy"}) + "\n" for row in rows),
        "only.jsonl": "".join(json.dumps(row) + "\n" for row in rows[1:]),
    })  # fmt: skip
    lists, column, other, only = (
        inspect_file(tmp_path / name) for name in ("lists.json", "column.jsonl", "other.jsonl", "only.jsonl")
    )
    assert [(each.good_rows, each.validation) for each in (lists, column, other, only)] == [
        (8, 4),
        (3, 2),
        (3, 0),
        (2, 0),
    ]
    assert any("2 rows of column.jsonl are the validation set, by the column “split”" in str(n) for n in column.notes)
    assert not column.left_out and [str(left.what) for left in other.left_out] == ["The column “split”"]
    assert any(note.key == "data.note_only_validation" for note in only.notes)
    chosen = inspect_file(
        tmp_path / "column.jsonl", choices=Choices(columns={"question": "question", "split": "answer"})
    )
    assert chosen.validation == 0


def test_words_that_only_begin_with_such_a_name_are_none() -> None:
    words = ("test_set", "oos_val", "held-out", "Train", "train_0", "test_cases", "training_notes", "test list", "", 7)
    assert [split_of(word) for word in words] == ["validation"] * 3 + ["train"] * 2 + [""] * 5


def test_a_version_keeps_them_by_their_rows(tmp_path: Path) -> None:
    store = DatasetStore(tmp_path / "ws", PRESETS)
    folder = put(tmp_path / "set", {"test.jsonl": lines("a", "b"), "train.jsonl": lines("c", "d")})
    id = gathered.add(store, [folder]).id
    from core.data.sets.edits import describe_change

    with store.editing(id) as (edits, base):
        edits.change(describe_change(removed=1, added=1), base, remove=[1], add=[base[3][1]])
    own = own_validation(store.rows(id))
    assert own is not None and own.tolist() == [True, False, False, False]


def test_only_test_files_are_trained_and_a_note_says_so(tmp_path: Path) -> None:
    for names in (["test.jsonl"], ["test.jsonl", "dev.jsonl"]):
        report = inspect_file(put(tmp_path / str(len(names)), {name: lines("a", "b") for name in names}))
        assert report.validation == 0
        assert [note.key for note in report.notes if "validation" in note.key] == ["data.note_only_validation"]
    store = DatasetStore(tmp_path / "ws", PRESETS)
    assert own_validation(store.rows(gathered.add(store, [tmp_path / "2"]).id)) is None


def test_a_single_file_and_a_chat_have_no_split(tmp_path: Path) -> None:
    put(tmp_path, {"test.jsonl": lines("a", "b")})
    assert not [note for note in inspect_file(tmp_path / "test.jsonl").notes if "validation" in note.key]
    messages = [
        {"type": "message", "user": "U1" if i % 2 else "U2", "text": f"word {i}", "ts": f"{1700000000 + i}.0"}
        for i in range(6)
    ]
    users = [{"id": "U1", "name": "ann"}, {"id": "U2", "name": "bob"}]
    slack = put(
        tmp_path / "slack",
        {f"{channel}/2024-01-01.json": json.dumps(messages) for channel in ("dev", "general")}
        | {"users.json": json.dumps(users)},
    )
    assert inspect_file(slack).validation == 0


def test_a_training_row_that_repeats_a_validation_row_is_the_one_that_goes() -> None:
    repeats = Repeats(np.array([0, 1, 0, 1, 4, 4]), np.ones(6, bool))  # rows 0 = 2, 1 = 3, 4 = 5
    own = np.array([False, False, True, False, False, False])
    chosen = choose(6, recipe(deduplicate=True), repeats, own)
    assert chosen.training.tolist() == [1, 4] and chosen.measuring.tolist() == [2] and chosen.repeated == 3
    assert choose(6, recipe(drop_leaked=True), repeats, own).training.tolist() == [1, 3, 4, 5]


def test_a_set_from_before_splits_as_it_did(tmp_path: Path) -> None:
    store = DatasetStore(tmp_path / "ws", PRESETS)
    folder = put(tmp_path / "set", {"test.jsonl": lines("a", "b"), "train.jsonl": lines("c", "d", "e")})
    older = gathered.add(store, [folder])
    file = tmp_path / "ws" / older.id / "dataset.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "validation"}))
    assert own_validation(store.rows(older.id)) is None and store.get(older.id).validation is None
    again: DatasetInfo = gathered.add(store, [folder])  # the same bytes, added again, are read anew
    assert again.id != older.id and own_validation(store.rows(again.id)) is not None
    store.choose(older.id, store.choices(older.id).model_copy(update={"rated": True}))
    assert own_validation(store.rows(older.id)) is None


def test_a_file_of_all_rows_beside_their_splits_is_not_read(tmp_path: Path) -> None:
    """Its rows were trained twice, and the validation rows with them."""
    files = {"train.jsonl": lines("a", "b"), "valid.jsonl": lines("c"), "all.jsonl": lines("c", "b", "a")}
    report = inspect_file(put(tmp_path / "set", files))
    assert (report.good_rows, report.validation) == (3, 1)
    assert [note.params["file"] for note in report.notes if note.key == "data.note_file_of_all"] == ["all.jsonl"]
    more = inspect_file(put(tmp_path / "more", files | {"all.jsonl": lines("a", "d")}))  # it has a row of its own
    assert (more.good_rows, more.validation) == (5, 1)
    alone = inspect_file(put(tmp_path / "alone", {"all.jsonl": lines("a"), "notes.jsonl": lines("b")}))
    assert alone.good_rows == 2


def test_a_list_of_categories_is_no_data(tmp_path: Path) -> None:
    rows = "text,category\n" + "".join(f"I have a question about number {i}.,{i % 2 * 'un'}happy\n" for i in range(8))
    put(tmp_path / "set", {"train.csv": rows, "test.csv": rows, "categories.json": '["happy", "unhappy"]'})
    report = inspect_file(tmp_path / "set")
    assert (report.rows, report.validation) == (16, 8)


def test_a_joined_set_and_the_parts_of_one_keep_the_validation_rows(tmp_path: Path) -> None:
    store = DatasetStore(tmp_path / "ws", PRESETS)
    ids = [
        gathered.add(store, [put(tmp_path / "one", {"dev.jsonl": lines("a"), "train.jsonl": lines("b", "c", "d")})]).id,
        store.import_file(put(tmp_path, {"two.jsonl": lines("e", "f")}) / "two.jsonl").id,
    ]
    both = working.join(store, ids, "both", tmp_path / "temporary")
    assert (both.good_rows, both.validation, [*(tmp_path / "temporary").iterdir()]) == (6, 1, [])
    rows = store.rows(both.id)
    assert [rows[int(i)][1].messages[0].content[8] for i in validation_rows(rows.examples, recipe())] == ["a"]
    parts = working.split(store, both.id, 3, 1, ("x", "y"), tmp_path / "temporary")
    assert sorted(part.validation or 0 for part in parts) == [0, 1] and [part.good_rows for part in parts] == [3, 3]


def test_adversarial_rows_beside_those_for_training_are_not_trained(tmp_path: Path) -> None:
    for name in ("train", "adversarial"):
        lines = [json.dumps({"question": f"What is {name} {i}?", "answer": f"It is {i}."}) for i in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "README_SPLITS.txt").write_text("All about the splits of these data.", "utf-8")
    report = inspect_file(tmp_path)
    assert (report.rows, report.validation) == (18, 9)
