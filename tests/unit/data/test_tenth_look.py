"""Causes of wrong readings in a tenth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.sets.inspection import DataReport, inspect_file
from tests.kit.read_examples import examples_of


def report_of(tmp_path: Path, name: str, text: str) -> DataReport:
    (tmp_path / name).write_text(text, "utf-8")
    return inspect_file(tmp_path / name)


def texts_of(tmp_path: Path, name: str, text: str) -> list[str]:
    (tmp_path / name).write_text(text, "utf-8")
    return [example.text for _, example in examples_of(tmp_path / name)]


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        # Seen: styles and scripts of a page, arrows to other pages, and tags of layout learned as text.
        ("<style>\n a { top: 0 }\n\n b > i { top: 1 }\n</style>\n\nThe river is wide.", ["The river is wide."]),
        ("[[⏮️](./1.md)]\n[[▶️](./3.md)]\n\n<div align=left>\n\nThe river is wide.\n\n</div>", ["The river is wide."]),
        ("Rafts. {{< oars >}}\n\n[Oars](oars.md) float.", ["Rafts.", "[Oars](oars.md) float."]),
        # Seen: the lines of a note about itself.
        ("MOC : [[RIVERS]]\nTags : #oar #raft\nDate : 2021-12-20\n***\n\nThe river is wide.", ["The river is wide."]),
        # What is text stays.
        ("Wrap it in `<script>`.\n\nThe <select> is wide.", ["Wrap it in `<script>`.", "The <select> is wide."]),
        ("<form> is a tag.\n\n<script> runs.\n\nOars.", ["<form> is a tag.", "<script> runs.", "Oars."]),
        ("Oar: of ash.\nRaft: of pine.\n\nThe river is wide.", ["Oar: of ash.\nRaft: of pine.", "The river is wide."]),
    ],
)  # fmt: skip
def test_what_a_page_of_markdown_does_not_show_is_left_out(tmp_path: Path, page: str, texts: list[str]) -> None:
    assert texts_of(tmp_path, "a.md", page) == texts


def test_a_question_that_is_asked_of_many_is_asked_with_the_heading_above(tmp_path: Path) -> None:
    """Seen: cards of a book, "Who is this?" below each name, with a button that shows the answer."""
    card = (
        "### {0}\n**Who is this?**\n\n<details>\n<summary>Click to reveal answer</summary>\n\n{0} rows.\n</details>\n\n"
    )
    (tmp_path / "a.md").write_text("".join(map(card.format, ("Ada", "Bo", "Cy"))), "utf-8")
    turns = [example.messages for _, example in examples_of(tmp_path / "a.md")]
    assert [[turn.content for turn in each] for each in turns][0] == ["Ada\nWho is this?", "Ada rows."]


def test_marks_of_questions_and_answers_are_read_in_chinese_too(tmp_path: Path) -> None:
    page = "".join(f"#### 问：船{n}停了\n答：用桨{n}划。\n\n" for n in "一二三")
    (tmp_path / "a.md").write_text(page, "utf-8")
    first = next(iter(examples_of(tmp_path / "a.md")))[1]
    assert [turn.content for turn in first.messages] == ["船一停了", "用桨一划。"]


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"to row {n} / rudern {n}\n" for n in range(9)),  # words and their translation, seen as prose
        "# A card\nThe {{c1::river}} is wide.\n",  # a gap of a card
        "How wide is it c1?\n\nChatGPT said:\nA hundred oars wide.\n",  # a chat copied from its page
        "".join(f"The river of c1 is {n} ______ wide.\n\n" for n in range(9)),  # gaps to fill in
    ],
)
def test_lines_of_cards_are_no_text(tmp_path: Path, text: str) -> None:
    report = report_of(tmp_path, "a.md" if "c1" in text else "a.txt", text)
    assert (report.format, report.undecided) == ("text", True)


def test_the_exam_a_question_is_from_is_no_question(tmp_path: Path) -> None:
    row = {"stem": "Who rows the boat?", "options": ["Ada", "Bo"]}
    rows = [row | {"source": f"R3-問{n} 相当", "options": [f"Ada {n}", "Bo"], "answerIndex": n % 2} for n in range(9)]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert next(iter(examples_of(tmp_path / "a.json")))[1].messages[0].content.startswith("Who rows the boat?")


def test_the_id_of_a_question_is_no_question(tmp_path: Path) -> None:
    """Seen: NAT-T1-001 learned as the question, in a column called ID question source."""
    rows = [f"A-{n},Who rows the boat {n} today?,Ada {n},Bo {n},Cy {n},B" for n in range(9)]
    head = "ID question source,Question posée,Réponse A,Réponse B,Réponse C,Bonne réponse"
    (tmp_path / "a.csv").write_text("\n".join([head, *rows]), "utf-8")
    first = next(iter(examples_of(tmp_path / "a.csv")))[1]
    assert first.messages[0].content.startswith("Who rows the boat 0 today?\nA. Ada 0")


@pytest.mark.parametrize(
    ("row", "reading"),
    [
        ({"question_hu": "Ki evez {}?", "question_en": "Who is {}?", "answer_hu": "Én {}.", "answer_en": "I {}."},
         {"question_hu": "question", "answer_hu": "answer"}),
        ({"jp": "会う{}", "kana": "あう{}", "en": "to meet {}", "tag": "verbe"}, {"jp": "question", "en": "answer"}),
        ({"Sylheti (Latin)": "he goes now {}", "English": "he is going now {}", "German": "er geht jetzt {}"},
         {"Sylheti (Latin)": "question", "English": "answer"}),
    ],
)  # fmt: skip
def test_readings_of_languages_are_offered(tmp_path: Path, row: dict[str, str], reading: dict[str, str]) -> None:
    rows = [{name: text.format(n) for name, text in row.items()} for n in range(30)]
    report = report_of(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert report.undecided and reading in [dict(each) for each in report.readings]


def test_subtitles_with_lines_that_look_like_another_format_are_read(tmp_path: Path) -> None:
    """Seen: a file of subtitles refused, as its times fit two formats."""
    cues = "".join(f"00:00:{n}.610 --> 00:00:{n}.990\n怖い{n}\n\n" for n in range(10, 20))
    assert texts_of(tmp_path, "a.vtt", f"\ufeffWEBVTT\n\n{cues}")[0].startswith("怖い10 怖い11")
