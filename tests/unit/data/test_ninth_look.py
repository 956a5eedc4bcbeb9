"""Causes of wrong readings in a ninth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of


def report_of(tmp_path: Path, name: str, text: str) -> DataReport:
    (tmp_path / name).write_text(text, "utf-8")
    return inspect_file(tmp_path / name)


# ---- Markdown ------------------------------------------------------------------------------------


def test_what_a_page_of_markdown_does_not_show_is_left_out(tmp_path: Path) -> None:
    """Seen: marks of scanned pages and a list of the page's own headings, learned as verse."""
    code = "```html\n<!-- a note -->\n\n<!-- another -->\n```"
    page = (
        "# The ferry <!-- no number -->\n\n<!-- page 3 -->\n\n{% include top.md %}\n\n<!-- toc -->\n- [Oars](#oars)\n"
        + (f"  1. [Ropes](#ropes-(old))\n\nThe river is wide.\n\n- [Map](map.md)\n\n{code}\n")
    )
    report = report_of(tmp_path, "a.md", page)
    texts = [example.text for _, example in examples_of(tmp_path / "a.md")]
    assert texts == ["# The ferry", "The river is wide.", "- [Map](map.md)", *code.split("\n\n")]
    assert {left.what.key: left.count for left in report.left_out}["left_out.around_unseen"] == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # Seen: the marks of a card's two sides learned as text.
        ("a.md", "How wide is the river?\n?\nA hundred oars wide, and more in spring.\n"),
        # Seen: phrases of a language, each above its translation, learned as prose.
        ("a.txt", "\n".join(f"ʔəs łik̓ {'xw' * n}\t\nmy boat and {n} oars are here\n" for n in range(9))),
        # Seen: all lines of a character learned as a handful of long answers to the few who spoke beside him.
        ("a.txt", "".join(f"{'Ada' if n % 15 == 9 else 'Mill'}: The wheel turned {n} times.\n" for n in range(150))),
    ],
)  # fmt: skip
def test_what_is_no_text_and_no_conversation_is_asked(tmp_path: Path, name: str, text: str) -> None:
    report = report_of(tmp_path, name, text)
    assert (report.format, report.undecided) == ("text", True)


# ---- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["input_col,output_col,set", "source,output,set"])
def test_names_of_columns_and_sizes_are_no_questions(tmp_path: Path, header: str) -> None:
    """Seen: of a list of other tables, which column holds what was learned as a question and its answer."""
    rows = "".join(f"{17 * n + 4},{'target' if n % 2 else 'summary'},part {n}\n" for n in range(30))
    report = report_of(tmp_path, "a.csv", f"{header}\n{rows}")
    assert report.undecided or report.guessed


_HEADS = ["oar", "rope", "tar", "sail", "lamp", "keel", "mast", "hull", "net", "bell"]


def test_a_comma_before_a_blank_belongs_to_the_text_where_quotes_are_missing(tmp_path: Path) -> None:
    """Seen: 284 of 395 riddles with a comma in them were left out."""
    rows = "".join(f"I am long, I am thin, and I am number {n}.,{head}\n" for n, head in enumerate(_HEADS))
    report = report_of(tmp_path, "a.csv", f"riddles,answers\nWhat goes up?,smoke\n{rows}One, two,three,four\n")
    assert (report.rows, report.good_rows) == (12, 11)
    assert [each.text.key for each in report.problems] == ["data.csv_joined", "data.csv_ragged"]
    turns = [[turn.content for turn in example.messages] for _, example in examples_of(tmp_path / "a.csv")]
    assert turns[1] == ["I am long, I am thin, and I am number 0.", "oar"]


@pytest.mark.parametrize(
    ("columns", "row", "wanted"),
    [
        # Seen: the translations were not offered, as another column has the same name.
        ("Spanish,Reading,English,Sentence,English", "{0} a,{0} b,the {0},{0} c d,a {0} here", ("Spanish", "English")),
        # Seen: of four wordings each was offered as the answer to another, and the query was not.
        ("german,light,mixed,sql", "Zeig mir {0} {1},show mir {0} {1},show me {0} {1},SELECT {0} FROM t",
            ("german", "sql")),
    ],
)  # fmt: skip
def test_the_answer_that_a_person_wants_is_offered(
    tmp_path: Path, columns: str, row: str, wanted: tuple[str, str]
) -> None:
    rows = [row.format(head, n) for n, head in enumerate(_HEADS * 2)]
    report = report_of(tmp_path, "a.csv", "\n".join([columns, *rows, ""]))
    assert report.undecided
    assert {wanted[0]: "question", wanted[1]: "answer"} in report.possible


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        # Seen: “many are divided by =”, of a translation memory.
        ("a.tmx", '<?xml version="1.0"?>\n<tmx><body><tu><tuv xml:lang="fi"><seg>airo</seg></tuv></tu></body></tmx>',
            "elements are tmx, body, tu, tuv, seg"),
        # Seen: “the answer is empty” of answers that are numbers of lines.
        ("a.json", json.dumps([{"question": f"Where is {head}?", "context": "In the boat.", "answers": [n, n + 1]}
            for n, head in enumerate(_HEADS)]), "holds numbers such as 0"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_found(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        report_of(tmp_path, name, text)


def test_a_deck_of_anki_says_how_to_export_its_cards(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.apkg", "w") as deck:
        deck.writestr("collection.anki21", b"SQLite format 3\0")
    with pytest.raises(DataError, match="Notes in Plain Text"):
        inspect_file(tmp_path / "a.apkg")
