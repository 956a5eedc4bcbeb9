"""Whether a table's first row holds names: told by what is in it, said wherever it is in doubt, and otherwise where
somebody says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.reading.choices import NO_CHOICES, Choices
from core.data.sets.inspection import DataReport, inspect_file
from core.data.shapes.header import holds_names
from core.errors import DataError
from tests.kit.office import xlsx
from tests.kit.read_examples import examples_of

ROWS = [
    ["What is rain?", "Water that falls from the clouds."],
    ["What is snow?", "Frozen water that falls slowly."],
    ["Who are you?", "I am a small model of yours."],
]


def table(rows: list[list[str]]) -> str:
    return "".join(";".join(row) + "\n" for row in rows)


def read(file: Path, choices: Choices = NO_CHOICES) -> tuple[DataReport, list[str]]:
    report = inspect_file(file, choices=choices)
    return report, [example.messages[0].content for _, example in examples_of(file, choices=choices)]


def keys(report: DataReport) -> set[str]:
    return {note.key for note in report.notes}


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_a_table_without_names_loses_no_row_and_says_so(tmp_path: Path, name: str) -> None:
    """Its first row was taken for the names of columns, and a question with its answer was gone."""
    file = tmp_path / name
    file.write_bytes(xlsx({"Sheet": ROWS}) if name == "a.xlsx" else table(ROWS).encode())
    report, asked = read(file)
    assert (report.header, asked) == (False, [row[0] for row in ROWS]) and "data.note_no_header" in keys(report)
    assert dict(report.roles) == {"column 1": "question", "column 2": "answer"}
    report_with_names, asked = read(file, Choices(header=True))
    assert (report_with_names.header, asked) == (True, [row[0] for row in ROWS[1:]]) and not keys(report_with_names) & {
        "data.note_no_header",
        "data.note_header_unsaid",
    }


@pytest.mark.parametrize(
    ("first", "rows"),
    [
        ("question;answer", ["Why?;So.", "How?;No."]),
        ("q;a", ["Why?;So.", "How?;No."]),
        ("datum;kundin;wir", ["2025-03-01;Wo ist mein Paket?;Es kommt.", "2025-03-02;Wo ist das Paket?;Es kommt."]),
        ("pytanie;odpowiedź", ["Why did nobody come to us?;Because it rained the whole day."] * 2),
        ("Customer Message;Agent Reply", ["Why?;So.", "How?;No."]),
        ("src_text;tgt_text", ["Why?;So.", "How?;No."]),
        ("Timestamp;What is rain?", ["2025-01-02 10:00;Water that falls.", "2025-01-02 10:01;Something wet."]),
        (";text", ["0;Be the change that you wish.", "1;To be or not to be."]),
    ],
)
def test_names_are_known_by_what_they_are_and_by_what_stands_below_them(
    tmp_path: Path, first: str, rows: list[str]
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("\n".join([first, *rows]), "utf-8")
    try:
        assert inspect_file(file).header is None
    except DataError as error:  # whose columns nobody can guess
        assert first.split(";") == error.message.params["columns"]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (["hello;hallo", "house;Haus", "tree;Baum"], ["hello", "hallo"]),
        (["I love this film.;positive", "I hate it.;negative", "A good day out.;positive"], ["column 1", "column 2"]),
        (["1;Rain;Regen", "2;Snow;Schnee"], ["column 1", "column 2", "column 3"]),
    ],
)
def test_where_nothing_decides_the_readings_have_what_was_taken_for_names(
    tmp_path: Path, rows: list[str], columns: list[str]
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("\n".join(rows), "utf-8")
    report = inspect_file(file)
    assert report.undecided and {name for roles in report.readings for name in roles} <= {*columns}
    roles = {"columns": {"column 1": "question", "column 2": "answer"}}
    assert inspect_file(file, choices=Choices(header=False, **roles)).rows == len(rows)


def test_names_that_nothing_tells_are_taken_for_names_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "hello there you;hallo du da\nwhat is it now;was ist es jetzt denn\ngood day to you;guten Tag auch\n", "utf-8"
    )
    report = inspect_file(file)
    assert report.header is True and report.rows == 2 and "data.note_header_unsaid" in keys(report)
    assert inspect_file(file, choices=Choices(header=False)).rows == 3


def test_a_row_that_ends_with_empty_cells_is_as_wide_as_the_others(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("What is rain?;Water that falls.;\nWhat is snow?;Frozen water.;a note of mine\n", "utf-8")
    report = inspect_file(file, choices=Choices(header=False, columns={"column 1": "question", "column 2": "answer"}))
    assert (report.rows, report.good_rows) == (2, 2)


def test_a_first_row_whose_words_stand_below_is_a_row() -> None:
    texts = ["Are you well today?", "I am, and how are you?", "Fine, and what is new?", "Not much is new."]
    assert holds_names(texts[:2], [texts[1:3], texts[2:4]]) is False
    topic = ["Studies", "When does the course of law begin?", "", "It begins in spring, in the old hall."]
    assert holds_names(topic, [["Studies", "Where is it?", "", "Here."], ["Studies", "", "Who?", "We."]]) is False


def test_a_column_named_twice_matters_only_to_a_reading_that_needs_it(tmp_path: Path) -> None:
    lines = "".join(f"What is {i}?,It is {i}.,good,bad\n" for i in range(9))
    (tmp_path / "a.csv").write_text(f"question,answer,remark,Remark\n{lines}", "utf-8")
    report = inspect_file(tmp_path / "a.csv")
    assert (report.format, report.good_rows) == ("question_answer", 9)
    assert {each.what.params["name"] for each in report.left_out} == {"remark", "remark (4)"}
    (tmp_path / "a.csv").write_text(f"question,answer,Answer,remark\n{lines}", "utf-8")
    with pytest.raises(DataError, match=r"column “Answer” twice \(number 2 and 3\)"):
        inspect_file(tmp_path / "a.csv")


def test_a_text_named_twice_is_refused_in_every_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,Text\na,b\n")
    (tmp_path / "a.xlsx").write_bytes(xlsx({"S": [["text", "Text"], ["a", "b"]]}))
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match=r"column “Text” twice \(number 1 and 2\)"):
            inspect_file(path)
