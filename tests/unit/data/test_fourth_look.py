"""Causes of wrong readings in a fourth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of

LONG = "You keep the rights in what you write here, and you give us a licence to host it. " * 5


def offered(tmp_path: Path, rows: Any) -> list[str]:
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    report = inspect_file(tmp_path / "a.json")
    kinds = {"context": "+", "question": "?", "answer": "=", "text": "~"}
    return ["guess"] * report.guessed + [
        " ".join(f"{name}{kinds[role]}" for name, role in roles.items()) for roles in report.possible
    ]


SAID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "where a row is from is no question": (
        {"question": "How high is peak {n}?", "truth": "It is {n} metres high.", "source": "manual{n}.pdf"},
        ["guess", "question? truth="],
    ),
    "and alone decides nothing": (
        {"source": "Book {n}.1", "old": "In the {n}th year he went.", "new": "He left in year {n}."},
        ["old? new=", "new? old="],
    ),
    "a description of code may be the answer": (
        {"code": "def f{n}(): return {n}", "des": "Returns the number {n}, always."},
        ["des? code=", "code? des=", "des~"],
    ),
    "a long text before the question may be its context": (
        {"index": "{n}", "contract": LONG + "{n}", "question": "May they host part {n}?", "answer": "Yes"},
        ["contract+ question? answer=", "question? answer="],
    ),
    "a second text of the same name goes with the label": (
        {"text": "The method of claim {n} sends a token.", "text_b": "A card of kind {n} keeps it.", "label": "1"},
        ["text+ text_b? label=", "text? label=", "text? text_b="],
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_the_columns_may_be_is_offered(name: str, tmp_path: Path) -> None:
    row, readings = SAID[name]
    rows = [{key: str(value).replace("{n}", str(n)) for key, value in row.items()} for n in range(9)]
    assert offered(tmp_path, rows) == readings


def test_a_text_among_others_beside_its_topic_is_a_question(tmp_path: Path) -> None:
    """Seen: the texts were trained alone, and their topics left out."""
    rows = [
        {
            "Document": f"So glad it is day {n} now.",
            "Topic": n % 3,
            "Best": f"It was day {n} again.",
            "Rest": f"A b {n} c.",
        }
        for n in range(20)
    ]
    assert offered(tmp_path, rows) == ["Document? Topic=", "Document~"]


def test_the_first_two_columns_are_offered_as_a_pair_however_short(tmp_path: Path) -> None:
    rows = [
        {"word": f"w{n}", "meaning": f"m {n}"} | {f"ex{i}": f"This is example {i} of {n}." for i in "123"}
        for n in range(9)
    ]
    assert "word? meaning=" in offered(tmp_path, rows)


def test_lists_alike_under_several_names_are_all_read(tmp_path: Path) -> None:
    """Seen: of five lists of questions, one for each subject, the first was read."""
    each = {
        name: [{"id": n, "question": f"What is {name} {n}?", "answer": f"{n}!"} for n in range(4)] for name in "abc"
    }
    each["c"][0] |= {"hint": "three"}
    assert offered(tmp_path, each) == [] and inspect_file(tmp_path / "a.json").good_rows == 12


def test_texts_by_their_names_are_rows_of_which_a_person_decides(tmp_path: Path) -> None:
    texts = {
        name: f"{name.title()} techniques are many: " + "stop and look and think again. " * 5
        for name in ("calm", "slow", "long")
    }
    assert offered(tmp_path, texts) == ["value? key=", "key? value=", "value~"]


def test_options_of_one_key_each_and_a_key_with_its_text_are_read(tmp_path: Path) -> None:
    towns = ["Rome", "Paris", "Bern"]
    rows = [{"question": "Where?", "options": [{"ABC"[i]: town} for i, town in enumerate(towns)], "answer": "B"}] * 3
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert [one.messages[-1].content for _, one in examples_of(tmp_path / "a.json")] == ["B. Paris"] * 3
    rows = [
        {"question": "Where?", "answer": f"{'ABC'[i]}: {towns[i]}", "a": "Rome", "b": "Paris", "c": "Bern"}
        for i in range(3)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert [one.messages[-1].content for _, one in examples_of(tmp_path / "a.json")] == [
        "A. Rome",
        "B. Paris",
        "C. Bern",
    ]


def test_numbers_alone_name_options_beside_a_key(tmp_path: Path) -> None:
    rows = [{"Question": "Where?", "1": "Rome", "2": "Paris", "3": "Bern", "Correct": key} for key in (1, 2, 3)]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert [one.messages[-1].content for _, one in examples_of(tmp_path / "a.json")] == [
        "A. Rome",
        "B. Paris",
        "C. Bern",
    ]


def test_a_conversation_that_is_one_text_is_asked_about(tmp_path: Path) -> None:
    """Seen: every row was refused because a list was expected."""
    rows = [{"conversation": f"[shu] Hello, are you number {n}.\n[Prayer] Hi there, I am {n}."} for n in range(9)]
    assert offered(tmp_path, rows) == ["conversation~"]


def test_a_number_that_stands_for_something_in_an_unread_list_is_no_answer(tmp_path: Path) -> None:
    """Seen: "0" was trained as the answer to every question."""
    for answer, name, unread in [
        (0, "answers", ["It is so"]),
        ("A", "options", {"verbose": "yes", "level": "3"}),
        ("B", "options", [["x"], ["y"]]),
        ("B", "choices", [str(n) for n in range(30)]),
    ]:
        rows = [{"question": f"What is {n}?", "answer": answer, name: unread} for n in range(9)]
        with pytest.raises(DataError, match=f"letters or numbers that stand for texts in “{name}”"):
            offered(tmp_path, rows)


def test_an_empty_last_column_of_a_table_without_names_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"word {n}\t\tmeans {n} things\t\t\tTrue\t\n" for n in range(9)), "utf-8")
    assert {"column 1": "question", "column 3": "answer"} in inspect_file(tmp_path / "a.txt").readings


@pytest.mark.parametrize(
    "text",
    [
        "What is the best way to be?\n---\nHave I time to watch the sun?\n---\nHUMAN: hello\nBOT: What is it?\n---\n",
        "A mark is generic if it is the common name. " * 8
        + "\n\n"
        + "<example>\nQ: The mark {n}?\nA: generic\n</example>\n" * 3,
    ],
)
def test_a_text_of_which_a_part_names_sides_is_no_conversation(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text, "utf-8")
    assert inspect_file(tmp_path / "a.txt").undecided
