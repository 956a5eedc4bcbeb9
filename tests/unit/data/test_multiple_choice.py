"""Multiple choice questions in the notations of different files: what is asked, and what is learned as the answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError
from core.messages import Message
from tests.kit.read_examples import examples_of

ASKED = "Which city is on the Seine?\nA. Rome\nB. Paris\nC. Bern"
Q, TOWNS = "Which city is on the Seine?", ["Rome", "Paris", "Bern"]


def read(folder: Path, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [(example.messages[0].content, example.messages[-1].content) for _, example in examples_of(file)]


def report(folder: Path) -> DataReport:
    return inspect_file(folder / "set.jsonl")


def sentences(messages: Any) -> str:
    return " ".join(Message.model_validate(each).render("en") for each in messages)


# The same question, three times, so that numbers are seen from the first option to the last.
NOTATIONS: dict[str, Any] = {
    "a list and letters": ({"question": Q, "options": TOWNS}, "answer", "ABC"),
    "a list and numbers from 0": ({"question": Q, "choices": TOWNS, "subject": "towns"}, "answer", [0, 1, 2]),
    "a list and numbers from 1": ({"query": Q, "candidates": TOWNS}, "correct_option", ["1", "2", "3"]),
    "a list and texts": ({"question": Q, "choices": TOWNS}, "answer", TOWNS),
    "a list with its own letters": ({"question": Q, "options": ["A)Rome", "B)Paris", "C)Bern"]}, "correct", "ABC"),
    "texts and labels": ({"question": Q, "choices": {"text": TOWNS, "label": ["1", "2", "3"]}}, "answerKey", "123"),
    "objects": ({"question": Q, "choices": [{"label": k, "text": t} for k, t in zip("ABC", TOWNS, strict=True)]},
        "answerKey", "ABC"),
    "letters and options": ({"question": Q, "options": dict(zip("ABC", TOWNS, strict=True))}, "answer_idx", "ABC"),
    "columns by letters": ({"Question": Q, "A": "Rome", "B": "Paris", "C": "Bern"}, "Answer", "ABC"),
    "columns of a quiz sheet": ({"Frage": Q, "Antwort A": "Rome", "Antwort B": "Paris", "Antwort C": "Bern",
        "Antwort D": ""}, "Richtige Antwort", "ABC"),
    "opa, opb": ({"question": Q, "opa": "Rome", "opb": "Paris", "opc": "Bern"}, "cop", [0, 1, 2]),
    "optionA": ({"question": Q, "optionA": "Rome", "optionB": "Paris", "optionC": "Bern"}, "correctAnswer",
        ["optionA", "optionB", "Option C"]),
    "endings": ({"ctx": Q, "ending0": "Rome", "ending1": "Paris", "ending2": "Bern"}, "label", ["0", "1", "2"]),
    "numbers that count from 0 over columns that count from 1": ({"goal": Q, "sol1": "Rome", "sol2": "Paris",
        "sol3": "Bern"}, "label", [0, 1, 2]),
    "one text": ({"Problem": Q, "options": "a ) Rome , b ) Paris , c ) Bern"}, "correct", "abc"),
    "a list as text": ({"question": Q, "choices": "['Rome' 'Paris'\n 'Bern']"}, "answer", [0, 1, 2]),
    "an array of pandas": ({"question": Q, "choices": "{'text': array(['Rome', 'Paris', 'Bern'], dtype=object), "
        "'label': array(['A', 'B', 'C'], dtype=object)}"}, "answerKey", "ABC"),
    "Russian columns": ({"вопрос": Q, "вариант 1": "Rome", "вариант 2": "Paris", "вариант 3": "Bern"},
        "правильный ответ", [1, 2, 3]),
    "Chinese columns": ({"问题": Q, "选项A": "Rome", "选项B": "Paris", "选项C": "Bern"}, "答案", "ABC"),
    "an answer in a list": ({"question": Q, "choice": TOWNS}, "answer", [[town] for town in TOWNS]),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTATIONS)
def test_a_question_is_asked_with_its_options_and_answered_by_letter_and_text(name: str, tmp_path: Path) -> None:
    """Before, "B" alone was learned, without the options, or the file was refused."""
    shared, key, answers = NOTATIONS[name]
    rows = [shared | {key: answer} for answer in answers]
    expected = [(ASKED, answer) for answer in ("A. Rome", "B. Paris", "C. Bern")]
    assert read(tmp_path, rows) == expected
    assert "multiple choice" in sentences(report(tmp_path).notes)


def test_what_is_asked_about_stays_before_the_question(tmp_path: Path) -> None:
    rows = [
        {"premise": "It rained.", "question": "effect", "choice1": "We got wet.", "choice2": "We slept.", "label": at}
        for at in (0, 1)
    ]
    question = "It rained.\n\neffect\nA. We got wet.\nB. We slept."
    assert read(tmp_path, rows) == [(question, "A. We got wet."), (question, "B. We slept.")]
    rows = [{"article": "We met.", "question": "Who?", "options": ["He", "We"], "answer": "B", "id": "1"}]
    assert read(tmp_path, rows) == [("We met.\n\nWho?\nA. He\nB. We", "B. We")]
    rows = [{"dialogue": ["W: Hello.", "M: Hi."], "question": "Who?", "choice": ["He", "We"], "answer": "We"}]
    assert read(tmp_path, rows) == [("W: Hello.\nM: Hi.\n\nWho?\nA. He\nB. We", "B. We")]


def test_options_without_an_order_are_sorted_so_that_the_right_one_is_not_always_the_first(tmp_path: Path) -> None:
    spread = {f"distractor{n}": town for n, town in enumerate(("Rome", "Bern", "Kyiv"), 1)}
    pairs = [("Where?\nA. Bern\nB. Kyiv\nC. Paris\nD. Rome", "C. Paris")]
    assert read(tmp_path, [{"question": "Where?", "correct_answer": "Paris", **spread}]) == pairs
    assert "sorted" in sentences(report(tmp_path).notes)
    listed = {"question": "Where?", "correct_answer": "Paris", "incorrect_answers": ["Rome", "Bern", "Kyiv"]}
    assert read(tmp_path, [listed | {"type": "multiple"}]) == pairs
    marked = [{"text": "Rome", "isCorrect": False}, {"text": "Paris", "isCorrect": True}]
    assert read(tmp_path, [{"question": "Where?", "answers": marked}]) == [("Where?\nA. Rome\nB. Paris", "B. Paris")]


def test_options_inside_the_question_stay_there_and_the_letter_gets_its_text(tmp_path: Path) -> None:
    text = "Where is it?\nA. Rome\nB. Paris\nC. Bern"
    assert read(tmp_path, [{"question": text, "answer": "C"}]) == [(text, "C. Bern")]
    prose = "See A. Smith and B. Jones, who met. Where was it?"
    assert read(tmp_path, [{"question": prose, "answer": "B"}]) == [(prose, "B")]


def test_several_right_options_are_all_written(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "options": TOWNS, "answer": answer} for answer in ("A, C", ["B", "C"])]
    assert [answer for _, answer in read(tmp_path, rows)] == ["A. Rome\nC. Bern", "B. Paris\nC. Bern"]


def test_numbers_are_counted_alike_in_all_rows_and_a_file_where_both_ways_are_possible_is_refused(
    tmp_path: Path,
) -> None:
    rows = [{"question": Q, "choices": TOWNS, "answer": number} for number in (1, 2, 1)]
    with pytest.raises(DataError, match="numbers from 1 to 2 for up to 3 options: they can count from 0 and|from 1"):
        read(tmp_path, rows)
    late = rows * 100 + [rows[0] | {"answer": 3}]  # far behind the rows that are looked at first
    assert {answer for _, answer in read(tmp_path, late)} == {"A. Rome", "B. Paris", "C. Bern"}
    with pytest.raises(DataError, match="fit neither"):
        read(tmp_path, [*late, rows[0] | {"answer": 0}])
    beside = [row | {"answer_text": TOWNS[row["answer"]]} for row in rows]
    assert [answer for _, answer in read(tmp_path, beside)] == ["B. Paris", "C. Bern", "B. Paris"], "its text decides"


def test_a_row_whose_answer_is_hidden_is_an_error_with_that_reason(tmp_path: Path) -> None:
    rows = [{"question": Q, "choices": TOWNS, "answer": number} for number in (0, -1, 2, None, 7)]
    assert [answer for _, answer in read(tmp_path, [*rows * 4, *rows[:1] * 40])].count("A. Rome") == 44
    problems = [each.text.render("en") for each in report(tmp_path).problems]
    assert sum("the right option is hidden (“answer” is “-1”)" in each for each in problems) == 4
    assert sum("“7” in “answer” means none of the 3 options" in each for each in problems) == 4
    for hidden in (-1, "", None):
        with pytest.raises(DataError, match="the right option is hidden"):
            read(tmp_path, [{"question": Q, "choices": TOWNS, "label": hidden}] * 3)


def test_a_table_without_names_is_read_by_its_letters(tmp_path: Path) -> None:
    file = tmp_path / "abstract_algebra_test.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([f"{Q} ({n})", "Rome", "Paris", "Bern", "Kyiv", "BD"[n % 2]] for n in range(9))
    examples = [example for _, example in examples_of(file)]
    assert examples[0].messages[0].content == f"{Q} (0)\nA. Rome\nB. Paris\nC. Bern\nD. Kyiv"
    assert examples[1].messages[1].content == "D. Kyiv"


def test_parquet_lists_are_options(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = [{"question": Q, "choices": {"text": TOWNS, "label": ["A", "B", "C"]}, "answerKey": "C"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    assert [example.messages[1].content for _, example in examples_of(file)] == ["C. Bern"]


NO_CHOICE: dict[str, dict[str, Any]] = {
    "acceptable answers": {"question": "Who is it?", "answers": ["Jo Smith", "J. Smith"], "label": "easy"},
    "two answers and which is better": {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "choices": ["a", "b"]},
    "options that nothing points at": {"question": "Why?", "answer": "So it is.", "options": ["x", "y"]},
    "a conversation": {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "B"}],
        "choices": ["A", "B"], "answer": "B"},
    "a broken list": {"question": "Why?", "answer": "B", "options": "['x', 'y'"},
}  # fmt: skip


@pytest.mark.parametrize("name", NO_CHOICE)
def test_other_rows_are_read_as_before(name: str, tmp_path: Path) -> None:
    read(tmp_path, [NO_CHOICE[name]] * 2)
    assert "multiple choice" not in sentences(report(tmp_path).notes)


QUIZZES = {
    "GIFT": "// about\n::Q1:: Where?{=Paris ~Rome ~Bern}\n\n::Q2:: Who?{\n~Jo\n=Zoe\n}\n",
    "Aiken": "Where?\nA. Rome\nB. Paris\nANSWER: B\n\nWho?\nA) Jo\nB) Zoe\nANSWER: A\n",
    "OpenTriviaQA": "#Q Where?\n^ Paris\nA Rome\nB Paris\n\n#Q Who?\n^ Zoe\nA Jo\nB Zoe caf\u00e9\n",
}


@pytest.mark.parametrize(
    ("name", "ending"),
    [(name, ending) for name in QUIZZES for ending in (".txt", ".gift", "") if (name, ending) != ("Aiken", ".txt")],
)
def test_a_quiz_in_the_marks_of_a_program_is_no_prose(name: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"quiz{ending}"
    file.write_bytes(QUIZZES[name].encode("latin-1"))
    with pytest.raises(DataError, match="quiz questions"):
        inspect_file(file)


def test_prose_with_such_marks_is_prose(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("A set {x = 1} and ~ 3.\n\nA. Smith came.\n\n#Q is a tag. ^ is a hat.\n", "utf-8")
    assert len([*examples_of(file)]) == 3


def test_blocks_of_a_question_its_options_and_a_letter_are_read(tmp_path: Path) -> None:
    file = tmp_path / "quiz.txt"
    before = "\nb\nA river runs there.\nWhere?\nA.Rome\nB.Paris\n\na\nThey sing.\nWho?\nA.Jo\nB.Zoe\n"
    for text in (before, QUIZZES["Aiken"]):
        file.write_text(text, "utf-8")
        answers = [example.messages[-1].content for _, example in examples_of(file)]
        assert answers == ["B. Paris", "A. Jo"]
        assert "a block of lines" in sentences(inspect_file(file).notes)
    file.write_text(before * 10 + "\nWhere is\nthe rest?\n", "utf-8")
    assert (inspect_file(file).good_rows, inspect_file(file).error_count) == (20, 1)


def test_a_question_with_its_options_in_one_object_is_read(tmp_path: Path) -> None:
    """CommonsenseQA and OpenBookQA write it so."""
    choices = [{"label": letter, "text": town} for letter, town in zip("ABC", TOWNS, strict=True)]
    nested = {"question": {"stem": Q, "choices": choices, "question_concept": "town"}, "answerKey": "B"}
    assert read(tmp_path, [nested] * 2) == [(ASKED, "B. Paris")] * 2
    assert "question_concept" in sentences(left.what for left in report(tmp_path).left_out)


def test_the_index_that_pandas_writes_is_no_question(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    rows = [[at, "gold", "He sits down. He", "sleeps.", "flies.", "melts.", at] for at in range(3)]
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["", "gold-source", "startphrase", "ending0", "ending1", "ending2", "label"], *rows])
    questions = [example.messages[0].content for _, example in examples_of(file)]
    assert questions == ["He sits down. He\nA. sleeps.\nB. flies.\nC. melts."] * 3


def test_options_as_lines_of_a_cell_with_a_question_that_no_name_tells(tmp_path: Path) -> None:
    cell = '"a. Rome\nb. Paris\nc. Oslo"'
    (tmp_path / "a.csv").write_text(
        f"Item,Choices,Correct\nWhich is in Norway?,{cell},c\nWhich is in Italy now?,{cell},a\n"
    )
    (_, first), _ = examples_of(tmp_path / "a.csv")
    assert first.messages[-1].content == "C. Oslo" and first.messages[0].content.startswith("Which is in Norway?")
