"""Names of classes in place of their numbers, from descriptions of the data; lists of one; acceptable answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core.data.sets import gathered
from core.data.sets.inspection import inspect_file
from core.data.store import DatasetStore
from core.errors import DataError
from core.messages import Message
from tests.kit.office import zipped
from tests.kit.read_examples import examples_of

TOPICS = ["World", "Sports", "Sci/Tech"]
CLASS = {"names": TOPICS, "_type": "ClassLabel"}
TEXTS = ["The cup is won.", "A chip is sold.", "Peace is near."]


def pairs(file: Path) -> list[tuple[str, str]]:
    return [(example.messages[0].content, example.messages[-1].content) for _, example in examples_of(file)]


def answers(file: Path) -> list[str]:
    return [answer for _, answer in pairs(file)]


def notes(file: Path) -> str:
    return " ".join(Message.model_validate(note).render("en") for note in inspect_file(file).notes)


def lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def parquet(file: Path, rows: list[dict[str, Any]], features: Any) -> Path:
    table = pyarrow.Table.from_pylist(rows)
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), file)
    return file


@pytest.mark.parametrize(
    ("value", "feature"),
    [
        (2, CLASS),
        ([2], {"feature": CLASS, "_type": "Sequence"}),
        ([2], {"feature": CLASS, "_type": "List"}),
        ([2], [CLASS]),
    ],
)
@pytest.mark.parametrize("column", ["label", "labels", "topic"])
def test_parquet_says_what_its_numbers_mean(column: str, value: Any, feature: Any, tmp_path: Path) -> None:
    """ "2" was learned."""
    file = parquet(tmp_path / "a.parquet", [{"text": TEXTS[1], column: value}], {column: feature, "text": {}})
    assert pairs(file) == [(TEXTS[1], "Sci/Tech")]
    assert "2: Sci/Tech" in notes(file) and "own description" in notes(file)


@pytest.mark.parametrize("metadata", [b"", b"{", b"[]", b'{"info": {"features": []}}', b'{"info": {"features": 5}}'])
def test_a_broken_description_is_none(metadata: bytes, tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([{"text": "It is so.", "label": 1}])
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": metadata}), file)
    assert answers(file) == ["1"]
    assert "numbers without names" in notes(file)


def test_a_question_that_is_answered_keeps_its_answer_beside_a_class(tmp_path: Path) -> None:
    rows = [{"question": "Why is it so?", "answer": "Because.", "label": 1}]
    assert answers(parquet(tmp_path / "a.parquet", rows, {"label": CLASS})) == ["Because."]


def test_labels_of_words_are_not_the_answer_of_a_text(tmp_path: Path) -> None:
    rows = [{"text": "It is so.", "tokens": ["It", "is"], "tags": [0, 1]}]
    file = parquet(tmp_path / "a.parquet", rows, {"tags": {"feature": CLASS, "_type": "Sequence"}})
    assert "World" not in notes(file)


BESIDE: dict[str, tuple[str, str]] = {
    "dataset_info.json": ("dataset_info.json", json.dumps({"features": {"label": CLASS}})),
    "dataset_infos.json": ("dataset_infos.json", json.dumps({"default": {"features": {"label": CLASS}}})),
    "the front matter": ("README.md", "---\nlicense: mit\ndataset_info:\n- config_name: a\n  features:\n"
        "  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': World\n"
        "          '1': Sports\n          '2': Sci/Tech\n"
        "---\n# About\n"),
    "a list": ("classes.txt", "World\nSports\nSci/Tech\n"),
    "a list with numbers": ("labels.txt", "0\tWorld\n1\tSports\n2\tSci/Tech\n"),
    "names by numbers": ("label_map.json", json.dumps({str(n): name for n, name in enumerate(TOPICS)})),
    "numbers by names": ("label2id.json", json.dumps({name: n for n, name in enumerate(TOPICS)})),
    "id2label": ("labels.json", json.dumps({"id2label": dict(enumerate(TOPICS))})),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_a_description_beside_the_file_says_what_its_numbers_mean(name: str, tmp_path: Path) -> None:
    beside, content = BESIDE[name]
    (tmp_path / beside).write_text(content, "utf-8")
    file = lines(tmp_path / "a.jsonl", [{"text": text, "label": n} for n, text in enumerate(TEXTS)])
    assert answers(file) == TOPICS
    assert beside in notes(file)
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({f"set/{beside}": content, "set/data/a.jsonl": file.read_text("utf-8")}))
    assert answers(archive) == TOPICS


def test_a_list_counts_from_the_number_that_all_rows_tell(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(TOPICS), "utf-8")
    file = tmp_path / "train.csv"
    rows = [f'{1 + n % 3},"Title {n} of it","{TEXTS[n % 3]}"' for n in range(300)]
    file.write_text("\n".join(rows), "utf-8")
    assert pairs(file)[:3] == [(f"Title {n} of it\n\n{TEXTS[n]}", TOPICS[n]) for n in range(3)]
    file = lines(tmp_path / "a.jsonl", [{"text": TEXTS[0], "label": n} for n in (1, 2, 1)])
    assert answers(file) == ["1", "2", "1"], "from 0 or from 1"
    assert "numbers without names" in notes(file)
    file = lines(tmp_path / "a.jsonl", [{"text": TEXTS[0], "label": n} for n in (0, 1, 9)])
    assert answers(file) == ["0", "1", "9"], "another list"


def test_a_list_of_another_thing_renames_nothing(tmp_path: Path) -> None:
    for content in ("", "World", "\n" * 50, "x" * 300 + "\ny", '{"a": {"b": 1}, "c": []}', "[[1], [2]]"):
        (tmp_path / "labels.json").write_text(content, "utf-8")
        (tmp_path / "classes.txt").write_text(content, "utf-8")
        assert answers(lines(tmp_path / "a.jsonl", [{"text": TEXTS[0], "label": 0}])) == ["0"]


def test_names_stay_with_a_set_that_is_added(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "classes.txt").write_text("\n".join(TOPICS), "utf-8")
    file = lines(source / "a.jsonl", [{"text": text, "label": n} for n, text in enumerate(TEXTS)])
    store = DatasetStore(tmp_path / "datasets", tmp_path / "presets")
    info = store.import_file(file)
    assert answers(store.path(info.id)) == TOPICS
    folder = gathered.add(store, [source])
    assert answers(store.path(folder.id)) == TOPICS


def test_a_list_of_one_is_that_one_and_the_first_of_several_acceptable_answers_is_learned(tmp_path: Path) -> None:
    """Each was an error: "label" is a list, expected text."""
    file = tmp_path / "a.jsonl"
    assert answers(lines(file, [{"text": "It is so.", "label": ["yes"]}, {"text": "It is so.", "label": [3]}])) == [
        "yes", "3"
    ]  # fmt: skip
    assert answers(lines(file, [{"text": "It is so.", "labels": ["glad", "calm"]}])) == ["glad, calm"]
    assert "all of them" in notes(file)
    several = [{"question": "Who?", "answer": ["Jo Smith", "J. Smith"]}, {"question": "Who?", "answer": ["Zoe"]}]
    assert answers(lines(file, several)) == ["Jo Smith", "Zoe"]
    assert [(each.count, Message.model_validate(each.what).render("en")) for each in inspect_file(file).left_out] == [
        (1, "“answer” in answers")
    ]
    alias = {"value": "Jo", "aliases": ["J."], "type": "x"}
    assert answers(lines(file, [{"question": "Who?", "answer": alias}])) == ["Jo"]
    assert answers(lines(file, [{"question": "Who?", "answer": [{"text": "Jo", "answer_start": [3]}]}])) == ["Jo"]
    context = {"context": ["It rains.", "It snows."], "question": "What?", "answer": "Rain."}
    assert pairs(lines(file, [context])) == [("It rains.\n\nIt snows.\n\nWhat?", "Rain.")]
    scores = {"question": "Who?", "answer": "Jo", "scores": [0.5, 0.2], "rating": 4.5}
    assert answers(lines(file, [scores])) == ["Jo"]


def test_a_list_that_is_no_label_is_still_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    for label in ([[0, 5, "PER"]], [0.5, 0.2], [None], {"a": 1}):
        with pytest.raises(DataError, match="label"):
            pairs(lines(file, [{"text": "It is so.", "label": label}]))
    with pytest.raises(DataError, match="the answer is empty"):
        pairs(lines(file, [{"text": "It is so.", "label": []}]))
