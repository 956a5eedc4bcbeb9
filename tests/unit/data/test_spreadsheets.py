"""Sheets of .xlsx, .ods, .xls and .xlsb: the rows that a person sees, and a sentence where there are none."""

from __future__ import annotations

import io
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest

from core.data.reading import spreadsheets, workbook
from core.data.reading.choices import Choices
from core.data.reading.file_rows import DEFAULT_LIMITS, Limits, Problem, Row
from core.data.reading.reader import read_rows
from core.data.reading.sniff import probe
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.office import ods, xlsx, zipped

FAQ = [
    ["Frage", "Antwort", "Datum"],
    ["Was kostet es?", "Zwölf Euro.", 45728.5],
    ["Wann ist offen?", "Täglich ab 8:30.", 45729],
]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What the process would say, without one; it has tests of its own in tests/process/test_workbook.py."""
    monkeypatch.setattr(
        spreadsheets,
        "listen",
        lambda path, sheet, most: workbook.read_workbook(
            str(getattr(path, "archive", path)), path.name if hasattr(path, "archive") else "", sheet, most
        ),
    )


def read(path: Path, limits: Limits = DEFAULT_LIMITS, **choices: str) -> tuple[list[Row], list[Problem]]:
    items = list(read_rows(probe(path, limits, Choices(**choices)), limits))
    return [item for item in items if isinstance(item, Row)], [item for item in items if isinstance(item, Problem)]


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("name, make", [("a.xlsx", xlsx), ("a.ods", ods)])
def test_a_sheet_is_rows_of_text_and_is_read_as_questions_and_answers(tmp_path: Path, name: str, make) -> None:
    path = written(tmp_path, name, make({"Fragen": FAQ}))
    rows, problems = read(path)
    assert not problems and [(row.number, row.line) for row in rows] == [(1, 2), (2, 3)]
    assert rows[0].values["Frage"] == "Was kostet es?" and rows[1].values["Antwort"] == "Täglich ab 8:30."
    report = inspect_file(path)
    assert (report.kind, report.good_rows, report.roles) == (name[2:], 2, {"Frage": "question", "Antwort": "answer"})
    assert [(str(left.what), left.count) for left in report.left_out] == [("The column “datum”", 2)]


@pytest.mark.parametrize(
    "cell, seen",
    [
        (3.0, "3"),
        (0.1 + 0.2, "0.3"),
        (1e20, "1e+20"),
        (-7, "-7"),
        (True, "TRUE"),
        ("=1+1", "=1+1"),
        (date(2025, 3, 12), "2025-03-12"),
        (datetime(2025, 3, 12), "2025-03-12"),
        (datetime(2025, 3, 12, 21, 14), "2025-03-12 21:14"),
        (datetime(2025, 3, 12, 21, 14, 10), "2025-03-12 21:14:10"),
        (time(8, 30), "08:30"),
        (timedelta(hours=30, minutes=5), "30:05"),
    ],
)
def test_a_cell_is_the_text_that_a_person_sees(cell: object, seen: str) -> None:
    assert workbook.as_text(cell) == seen


def test_the_first_sheet_with_rows_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    sheets = {"Empty": [], "Secret": FAQ, "Shop": FAQ, "Old": [["Q", "A"], FAQ[1][:2]]}
    path = written(tmp_path, "a.xlsx", xlsx(sheets, hidden=("Secret",)))
    source = probe(path)
    assert source.sheet == "Shop"
    assert [str(note).split(" To use")[0] for note in source.notes] == [
        "The sheet “Shop” is read; not read: Empty, Old.",
        "Hidden sheets are not read: Secret.",
    ]
    assert len(read(path)[0]) == 2 and len(read(path, sheet="Old")[0]) == 1
    titled = written(tmp_path, "b.xlsx", xlsx({"Cover": [["Our shop, 2026"]], "Shop": FAQ}))
    assert probe(titled).sheet == "Shop", "a sheet of one line is a title page"
    hidden = probe(path, choices=Choices(sheet="Secret"))
    assert "“Secret”, which is read, is hidden" in " ".join(map(str, hidden.notes))
    with pytest.raises(DataError, match="no sheet “shop”; it has Empty, Secret, Shop, Old. The nearest name is “Shop”"):
        probe(path, choices=Choices(sheet="shop"))


CITIES = [["Stadt", "Beschreibung"], ["Ulm", "Eine Stadt an der Donau."], ["Bonn", "Eine Stadt am Rhein."]]


@pytest.mark.parametrize("make", [xlsx, ods])
def test_sheets_with_the_same_columns_are_read_together(tmp_path: Path, make) -> None:
    sheets = {
        "Read me": [["All questions"], ["One sheet a topic."]],
        "Prices": FAQ,
        "Cities": CITIES,
        "Opening": [["Our hours"], [], *FAQ],
    }
    path = written(tmp_path, "a.xlsx", make(sheets))
    source = probe(path)
    assert (source.sheet, source.sheets) == ("Prices / Opening", ("Prices / Opening", *sheets))
    assert [note.key for note in source.notes if "sheet" in note.key] == [
        "data.note_sheets_together",
        "data.note_other_sheets",
    ]
    rows, problems = read(path)
    assert not problems and [row.number for row in rows] == [1, 2, 3, 4]
    assert [row.values["Antwort"] for row in rows] == 2 * ["Zwölf Euro.", "Täglich ab 8:30."]
    for sheet, count in (("Prices", 2), ("Prices / Opening", 4), ("Read me", 1), ("Opening / Prices", 4)):
        assert len(read(path, sheet=sheet)[0]) == count
        assert probe(path, choices=Choices(sheet=sheet)).sheets == source.sheets
    for sheet in ("Prices / Gone", " / "):
        with pytest.raises(DataError, match="no sheet"):
            probe(path, choices=Choices(sheet=sheet))


def test_a_sheet_of_test_rows_beside_one_of_training_rows_is_for_validation(tmp_path: Path) -> None:
    sheets = {"train": FAQ, "test": [FAQ[0], ["Wer kommt?", "Alle kommen.", 45730]]}
    report = inspect_file(written(tmp_path, "a.xlsx", xlsx(sheets)))
    assert (report.good_rows, report.validation) == (3, 1)
    topics = {"Prices": FAQ, "Tests": sheets["test"]}
    assert inspect_file(written(tmp_path, "b.xlsx", xlsx(topics))).validation == 0


def test_hidden_sheets_and_sheets_of_another_table_are_not_joined(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xlsx", xlsx({"A": FAQ, "B": FAQ, "C": CITIES, "D": [[1, 2], [3, 4]]}, hidden=("B",)))
    assert probe(path).sheet == "A" and len(read(path)[0]) == 2


def test_a_row_that_repeats_the_column_names_is_left_out_and_counted(tmp_path: Path) -> None:
    sheet = written(tmp_path, "a.xlsx", xlsx({"S": [*FAQ, FAQ[0], *FAQ[1:], FAQ[0]]}))
    lines = [f"{row[0]};{row[1]}" for row in [*FAQ, FAQ[0], *FAQ[1:]]]
    table = written(tmp_path, "a.csv", "\n".join(lines).encode())
    for path, count in ((sheet, 2), (table, 1)):
        report = inspect_file(path)
        assert (report.rows, report.good_rows, report.error_count) == (4, 4, 0)
        assert {str(left.what): left.count for left in report.left_out}["Rows that repeat the column names"] == count
    unnamed = written(tmp_path, "b.csv", b"Why?,So.\nHow?,Thus.\nWhy?,So.\n")
    assert inspect_file(unnamed, choices=Choices(header=False)).good_rows == 3


@pytest.mark.parametrize("stamp", ["Timestamp", "Zeitstempel", "Horodateur", "时间戳记"])
def test_a_forms_timestamp_is_left_out_by_its_name(tmp_path: Path, stamp: str) -> None:
    form = [
        [stamp, "Frage", "Antwort"],
        *([45728.5 + i, f"Was kostet {i} davon?", f"Es kostet {i}."] for i in range(5)),
    ]
    report = inspect_file(written(tmp_path, "a.xlsx", xlsx({"Form Responses 1": form})))
    assert report.good_rows == 5 and f"The column “{stamp.lower()}”" in [str(left.what) for left in report.left_out]


def test_a_title_above_the_names_of_the_columns_is_left_out_and_said(tmp_path: Path) -> None:
    sheet = [
        ["Kundendienst 2025"],
        [],
        ["Stand", 45728],
        ["Frage", "Antwort", "Von"],
        ["Was kostet es?", "Zwölf.", "Eva"],
        ["Und?", "Nichts.", ""],
    ]
    path = written(tmp_path, "a.xlsx", xlsx({"S": sheet}))
    rows, _ = read(path)
    assert [row.values for row in rows] == [
        {"Frage": "Was kostet es?", "Antwort": "Zwölf.", "Von": "Eva"},
        {"Frage": "Und?", "Antwort": "Nichts.", "Von": ""},
    ]
    counts = {str(left.what): left.count for left in inspect_file(path).left_out}
    assert counts["Lines above the column names"] == 2


def test_columns_without_names_keep_what_stands_in_them(tmp_path: Path) -> None:
    sheet = [["", "question", "answer", ""], ["1", "Why?", "So.", ""], ["2", "How?", "Thus.", "later"]]
    rows, _ = read(written(tmp_path, "a.xlsx", xlsx({"S": sheet})))
    assert rows[0].values == {"column 1": "1", "question": "Why?", "answer": "So."}
    assert rows[1].values["column 4"] == "later"


def test_merged_cells_say_the_same_in_each_row_and_nothing_in_other_columns(tmp_path: Path) -> None:
    sheet = [
        ["topic", "question", "answer"],
        ["Prices", "How much?", "Ten."],
        ["", "For two?", "Twenty."],
        ["Section", "", ""],
        ["", "When?", "At 8."],
    ]
    rows, _ = read(written(tmp_path, "a.xlsx", xlsx({"S": sheet}, merged=("A2:A3", "A4:C4"))))
    assert [row.values["topic"] for row in rows] == ["Prices", "Prices", "Section", ""]
    assert rows[2].values["answer"] == ""


def test_a_formula_gives_its_stored_value_and_one_without_is_said(tmp_path: Path) -> None:
    cells = (
        '<c r="A2" t="str"><f>HYPERLINK("http://x","y")</f><v>seen</v></c><c r="B2"><f>[1]S!A1</f><v>4</v></c><c '
        'r="C2"><f>1+1</f></c>'
    )
    sheet = xlsx({"S": [["question", "answer", "sum"]]}, raw_rows=f'<row r="2">{cells}</row>')
    path = written(tmp_path, "a.xlsx", sheet)
    assert read(path)[0][0].values == {"question": "seen", "answer": "4", "sum": ""}
    assert "Formulas without a saved result: 1." in str(probe(path).notes[0])


def test_macros_links_to_other_files_and_entities_of_a_workbook_are_inert(tmp_path: Path) -> None:
    secret = written(tmp_path, "secret.txt", b"what nobody gave").as_uri()
    linked = '<row r="2"><c r="A2"><f>[1]S!A1</f><v>4</v></c><c r="B2" t="str"><f>[1]S!B1</f><v>kept</v></c></row>'
    with zipfile.ZipFile(io.BytesIO(xlsx({"S": [["question", "answer"]]}, raw_rows=linked))) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    parts |= {
        "xl/vbaProject.bin": b"\xd0\xcf\x11\xe0 Auto_Open",
        "xl/externalLinks/externalLink1.xml": f'<x r="{secret}"/>',
    }
    assert read(written(tmp_path, "a.xlsm", zipped(parts)))[0][0].values == {"question": "4", "answer": "kept"}
    laughs = f'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "{"&a;" * 9}"><!ENTITY s SYSTEM "{secret}">]>'
    for entity in ("&b;", "&s;"):
        sheet = bytes(parts["xl/worksheets/sheet1.xml"]).replace(b">kept<", f">{entity}<".encode())
        with pytest.raises(DataError, match="unrecognized entity"):
            read(written(tmp_path, "b.xlsx", zipped(parts | {"xl/worksheets/sheet1.xml": laughs.encode() + sheet})))


def test_a_cell_larger_than_a_row_is_a_problem_and_reading_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xlsx", xlsx({"S": [["question", "answer"], ["a?", "x" * 3000], ["b?", "y"]]}))
    rows, problems = read(path, Limits(row_bytes=2000))
    assert [row.number for row in rows] == [2] and (problems[0].row, problems[0].line) == (1, 2)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (xlsx({"S": [[f"c{i}" for i in range(70)], ["a"] * 70]}), "has 70 columns; the limit is 50"),
        (xlsx({"S": [["text"], *[["a"]] * 30]}), "more than 20 rows"),
        (xlsx({"S": []}), "no rows of data|has no rows|no row"),
        (xlsx({"S": FAQ})[:400], "damaged or was not fully downloaded"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "not a readable spreadsheet"),
    ],
    ids=["columns", "rows", "empty", "cut", "ole"],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    name = "a.xls" if content.startswith(b"\xd0\xcf") else "a.xlsx"
    with pytest.raises(DataError, match=sentence):
        read(written(tmp_path, name, content), Limits(columns=50, rows=20))


def test_a_directory_that_claims_more_than_is_read_is_refused_before_anything_is(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xlsx", xlsx({"S": FAQ}))
    with pytest.raises(DataError, match="the limit is 0 MiB"):
        probe(path, Limits(bytes=path.stat().st_size))


def test_a_web_page_or_a_table_of_text_called_xls_is_what_it_is(tmp_path: Path) -> None:
    """Exports of web shops are often called .xls."""
    path = written(tmp_path, "a.xls", b"question\tanswer\nWhy?\tSo.\n")
    assert read(path)[0][0].values == {"question": "Why?", "answer": "So."}
    assert "named .xls, but contains CSV" in " ".join(map(str, probe(path).notes))
