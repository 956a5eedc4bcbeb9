"""What is no file, may not be read, is damaged, or changes meanwhile: each is said truly, and good rows are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from core.commands.__main__ import main
from core.data.findings.markers import Markers
from core.data.findings.row_words import RowWords
from core.data.formats import Example
from core.data.reading import folders
from core.data.reading.choices import NO_CHOICES
from core.data.reading.faq import with_questions
from core.data.reading.file_rows import DEFAULT_LIMITS, Limits, RawRow
from core.data.reading.line_rows import shape_of
from core.data.reading.sniff import probe
from core.data.sets.inspection import DataReport, inspect_file
from core.data.shapes.header import holds_names
from core.data.shapes.options import parsed_cell
from core.data.shapes.turn_markers import turns_in
from core.errors import DataError, RecipeError
from core.files import ON_WINDOWS
from core.recipe import read_yaml
from core.runs.cards.licence import header_of

LINE = json.dumps({"question": "Why is it so?", "answer": "Because it is."})
QA = [{"question": f"Why {word}?", "answer": f"Because {word}."} for word in ("one", "two", "three")]


def refusal(path: Any, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(DataError) as error:
        inspect_file(path, limits=limits)
    return error.value.message.key


def warnings(report: DataReport) -> list[str]:
    return [problem.text.key for problem in report.problems]


@pytest.mark.parametrize("name", ["", "  "])
def test_no_name_is_not_the_current_folder(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """`inspect ""` read every file of the folder that the terminal was in."""
    (tmp_path / "a.jsonl").write_text(LINE, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", name, "--workspace", str(tmp_path / "ws")]) == 2
    assert "No file is named" in capsys.readouterr().err
    assert refusal(name) == "data.no_name"


@pytest.mark.skipif(ON_WINDOWS, reason="no such files there")
def test_a_pipe_and_a_device_are_called_so(tmp_path: Path, capsys) -> None:
    """They were "no dataset"."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (str(tmp_path / "pipe.jsonl"), "/dev/zero"):
        assert main(["inspect", path, "--workspace", str(tmp_path / "ws")]) == 2
        assert f"{path} is a pipe or a device" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_not_called_empty(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "set").mkdir()

    def refused(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders.os, "scandir", refused)
    assert refusal(tmp_path / "set") == "data.no_permission"


@pytest.mark.skipif(ON_WINDOWS or os.geteuid() == 0, reason="root may read everything")
def test_a_file_and_a_folder_without_permission(tmp_path: Path, capsys) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text(LINE, "utf-8")
    os.chmod(tmp_path / "set", 0)
    try:
        for path in (tmp_path / "set", tmp_path / "set" / "a.jsonl"):
            assert main(["inspect", str(path), "--workspace", str(tmp_path / "ws")]) == 2
            assert "no permission" in capsys.readouterr().err
    finally:
        os.chmod(tmp_path / "set", 0o700)


@pytest.mark.parametrize("padding", [9, 4096, 70_000])
@pytest.mark.parametrize("ending", ["", "\n", LINE + "\n"])
def test_nuls_after_good_rows_cost_none_of_them(tmp_path: Path, padding: int, ending: str) -> None:
    """All rows of a log were lost whose last block a power failure had left empty."""
    rows = [json.dumps(row) for row in QA]
    (tmp_path / "log.jsonl").write_text("\n".join([*rows, "\0" * padding + ending]), "utf-8")
    report = inspect_file(tmp_path / "log.jsonl")
    good = 3 + bool(ending.strip())
    assert (report.rows, report.good_rows, report.error_count) == (good, good, 0)
    assert warnings(report).count("data.nul_padding") == 1 and "line 4" in str(report.problems[0].sentence)


def test_nuls_elsewhere_are_still_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINE + "\n" + LINE.replace("so", "s\0o") + "\n", "utf-8")
    assert warnings(inspect_file(tmp_path / "a.jsonl")) == ["data.nul"]
    (tmp_path / "b.json").write_text(json.dumps(QA) + "\0" * 100, "utf-8")
    report = inspect_file(tmp_path / "b.json")
    assert report.good_rows == 3 and warnings(report) == ["data.nul_padding"]
    (tmp_path / "c.jsonl").write_bytes(b"\0" * 5000)
    assert refusal(tmp_path / "c.jsonl") == "data.is_binary"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, kind: str) -> None:
    """Old and new rows were mixed, and nothing said so."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in QA), "utf-8")

    def change(row: Any) -> None:
        if row.number == 2:
            path.write_text(LINE + "\n", "utf-8")

    for keep in (lambda row: None, change):
        source = probe(str(path if kind == "file" else tmp_path))
        if keep is not change:
            assert inspect_file(source, keep=keep).good_rows == 3
            continue
        with pytest.raises(DataError, match="changed while it was being read"):
            inspect_file(source, keep=keep, choices=NO_CHOICES)


@pytest.mark.parametrize("rows", [5, 400])
def test_a_quote_that_never_closes_is_named_with_its_line(tmp_path: Path, rows: int) -> None:
    """In a large file 6,400 rows vanished as one row that was too large."""
    lines = ["question,answer", *(f"Why is {i}?,Because of {i}." for i in range(2 * rows))]
    lines[rows] = '"Two\nlines ""so"" far","It opened here'  # the quote opens in the second line of the record
    (tmp_path / "a.csv").write_text("\n".join(lines), "utf-8")
    report = inspect_file(tmp_path / "a.csv", limits=Limits(row_bytes=2000))
    (problem, *more) = report.problems
    assert (problem.line, problem.severity, more) == (rows + 2, "error", [])
    assert problem.text.key == ("data.csv_unclosed_quote" if rows == 5 else "data.csv_open_quote")
    if rows == 400:
        assert problem.text.params["line"] == rows + 2 and report.good_rows > 700


def test_one_long_line_of_a_table_is_no_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"question,answer\nWhy?,{'so ' * 900}\nHow?,Thus.\n", "utf-8")
    assert warnings(inspect_file(tmp_path / "a.csv", limits=Limits(row_bytes=2000))) == ["data.row_too_large"]


_BLANKS = " " * 100_000
_IM = "<|im_start|>user\nHi{}you<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>"


@pytest.mark.parametrize(
    "read, text",
    [
        (turns_in, f"Hello{_BLANKS}you"),
        (turns_in, f"User{_BLANKS}Hello"),
        (turns_in, f"**User{_BLANKS}Hello"),
        (turns_in, f"User: Hi{_BLANKS}you\nAssistant: Yo"),
        (turns_in, _IM.format("\n" * 100_000)),
        (turns_in, f"<<SYS>>Be kind.<</SYS>>[INST] Hi{_BLANKS}you [/INST] Yo"),
        (parsed_cell, "[" + "array([" * 14_000),
        (lambda text: holds_names([text, "b"], [["1", "2"]]), "70 80 " * 20_000 + "?x"),
        (lambda text: Markers(5).add(RowWords(1, Example(text=text))), "User: Hi\n" * 50_000),
    ],
    ids=["text", "name", "bold name", "turn", "template", "system", "cell", "header", "finding"],
)
def test_a_long_run_of_one_thing_takes_no_quadratic_time(read: Callable[[str], object], text: str) -> None:
    """Seen: 20,000 blanks in a row took 2 to 8 s, and 200,000 took minutes."""
    started = process_time()
    read(text)
    assert process_time() - started < 2


@pytest.mark.parametrize(
    "line, long",
    [
        ("1/2/25, 10:00 - {}: Hello", f"1/2/25, 10:01 - Ann: Hello{_BLANKS}you"),
        ("1/2/25, 10:00 - {}: Hello", "1/2/25, 10:01 - Ann: <" + "edited " * 15_000),
        ("12:00 <{}> Hello", "--- Day changed " + "Jan 12 " * 15_000),
    ],
    ids=["blanks", "edited", "day"],
)
def test_a_long_line_of_a_chat_takes_no_quadratic_time(line: str, long: str, tmp_path: Path) -> None:
    lines = [line.format(("Ann", "Bob")[number % 2]) for number in range(200)]
    (tmp_path / "a.txt").write_text("\n".join([*lines, long]), "utf-8")
    started = process_time()
    report = inspect_file(tmp_path / "a.txt")
    assert report.chat and report.good_rows
    assert process_time() - started < 4


SPACES = " " * 15_000


@pytest.mark.parametrize("text", [f"# Why{SPACES}so? #", f"# {'?' * 15_000}so", f"# Q{SPACES}so"])
def test_no_heading_takes_for_ever(text: str) -> None:
    """A pattern tried a run of equal characters from each of its places: one heading took hours."""
    rows = [RawRow(number, {"text": text}) for number in range(1, 100)]
    assert [*with_questions(iter(rows))] == rows


@pytest.mark.parametrize("line", [f"Why{SPACES * 4}so?", f"__label__a{SPACES * 4}", "Why __label__a " * 9_000 + "so?"])
def test_no_line_takes_for_ever(line: str) -> None:
    assert shape_of([line] * 100) != "cards"


def test_a_word_as_long_as_a_file_is_no_mailbox(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("From " + "a" * 200_000, "utf-8")
    assert inspect_file(tmp_path / "a.txt").good_rows


def test_a_description_that_never_ends_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\n" + "\n" * 500_000, "utf-8")
    (tmp_path / "a.jsonl").write_text(LINE, "utf-8")
    assert inspect_file(tmp_path / "a.jsonl").good_rows == 1


@pytest.mark.parametrize("bad", ["!!bool x", "!!int ''", "!!timestamp x"])
def test_a_value_that_is_not_of_its_tag_is_no_yaml(tmp_path: Path, bad: str) -> None:
    """PyYAML's KeyError, IndexError and AttributeError for these ended the app's request."""
    (tmp_path / "README.md").write_text(f"---\na: {bad}\n---\n", "utf-8")
    (tmp_path / "a.jsonl").write_text(LINE, "utf-8")
    assert inspect_file(tmp_path / "a.jsonl").good_rows == 1
    (tmp_path / "a.yaml").write_text(f"- question: Why?\n  answer: {bad}\n", "utf-8")
    assert refusal(tmp_path / "a.yaml") == "data.broken_yaml"
    assert header_of(tmp_path / "README.md") == {}
    with pytest.raises(RecipeError):
        read_yaml(tmp_path / "a.yaml")


def test_the_name_of_a_column_is_never_a_list_of_lists(tmp_path: Path) -> None:
    """Twenty-five lists, each of ten times the one before, were written out as the name of one column."""
    lists = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10) if n else ''}]\n" for n in range(25))
    features = "dataset_info:\n  features:\n  - name: *l24\n    dtype: {class_label: {names: [no, yes]}}\n"
    (tmp_path / "README.md").write_text(f"---\n{lists}{features}---\n", "utf-8")
    (tmp_path / "a.jsonl").write_text(LINE, "utf-8")
    assert inspect_file(tmp_path / "a.jsonl").good_rows == 1
