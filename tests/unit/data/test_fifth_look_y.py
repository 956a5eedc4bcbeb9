"""Causes of wrong readings in a fifth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.reading.file_rows import Problem, Row
from core.data.reading.reader import read_rows
from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError


def read(folder: Path, name: str, content: Any) -> DataReport:
    """Write a file, an object as JSON, and inspect it."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return inspect_file(folder / name)


def offered(report: DataReport) -> list[dict[str, str]]:
    return [dict(roles) for roles in report.possible]


def refused(folder: Path, name: str, content: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(folder, name, content)
    return caught.value


def test_lists_of_one_length_are_columns(tmp_path: Path) -> None:
    """Seen: answers trained without their prompts, and a list that "appears once and does not belong to any row"."""
    asked = [[{"role": "user", "content": f"What is {n} plus {n}, please?"}] for n in range(6)]
    replies = [{"content": f"It is {n + n}.", "model": "m"} for n in range(6)]
    report = read(tmp_path, "run.json", {"prompts": asked, "replies": replies, "judged": [{"ok": True}] * 6, "seed": 1})
    assert report.format == "messages"
    assert report.good_rows == 6
    report = read(
        tmp_path, "other.json", {"tags": ["a", "b"], "items": [{"text": f"A text of item {n}."} for n in "ab"]}
    )
    assert "stands beside the rows" in str(report.left_out[0].why)


def test_the_list_with_texts_is_looked_at_before_there_is_none(tmp_path: Path) -> None:
    events = [
        {"id": n, "pages": [{"list": [{"code": 401, "parameters": ["Good day to you, sir."]}]}]} for n in range(3)
    ]
    value = {"fights": [{"regions": [], "troop": 5}], "data": [1, 2, 3], "events": [None, *events]}
    error = refused(tmp_path, "map.json", value)
    assert error.message.key == "data.nested"
    assert error.message.params["texts"] == ["pages[].list[].parameters[]"]


def test_code_beside_data_is_a_question(tmp_path: Path) -> None:
    """Seen: of a chatbot, its Python alone was trained, and its dialogues "not read"."""
    for name in ("actions.py", "run.py", "bot.py"):
        (tmp_path / name).write_text("def run():\n    return 1\n", "utf-8")
    (tmp_path / "mkdocs.yml").write_text("nav:\n- Home: index.md\n- Plans of ours: plans.md\n", "utf-8")
    assert not inspect_file(tmp_path).undecided
    said = "".join(f"- intent: i{n}\n  examples: |\n    - I want to fly to {n}\n" for n in range(4))
    (tmp_path / "nlu.yml").write_text(f"nlu:\n{said}", "utf-8")
    report = inspect_file(tmp_path)
    assert report.undecided
    assert [note.params["files"] for note in report.notes if note.key == "data.note_code_beside_data"] == [["nlu.yml"]]


FAQ = {
    "blocks": '<a id="q{n}"></a>\n??? question "Q{n} — How do I open door {n}?"\n    Turn it.\n\n    Then push.\n',
    "details": "<details>\n<summary><b>How do I open door {n}?</b></summary>\n\nTurn it.\n\nThen push.\n</details>\n",
    "bold": "**How do I open door {n}?**\n\nTurn it.\n\nThen push.\n",
}


@pytest.mark.parametrize("kind", FAQ)
def test_blocks_whose_titles_ask_are_questions(kind: str, tmp_path: Path) -> None:
    page = "# Doors\n\nRead this.\n\n" + "\n".join(FAQ[kind].replace("{n}", str(n)) for n in range(4)) + "\n## End\n"
    (tmp_path / "faq.md").write_text(page, "utf-8")
    rows = [(row["question"], row["answer"]) for row in map(_values, read_rows(tmp_path / "faq.md"))]
    assert rows == [(f"How do I open door {n}?", "Turn it.\n\nThen push.") for n in range(4)]


def test_text_after_a_block_is_no_part_of_its_answer(tmp_path: Path) -> None:
    blocks = "\n".join(f'??? faq "Why {n}?"\n    So.\n\nOther words.\n' for n in range(4))
    (tmp_path / "faq.md").write_text(blocks, "utf-8")
    assert [_values(row)["answer"] for row in read_rows(tmp_path / "faq.md")] == ["So."] * 4


def test_toml_is_read_and_no_section_is_json(tmp_path: Path) -> None:
    """Seen: valid TOML "is broken at row 1: expected a value", as it begins with [."""
    report = read(tmp_path, "faq.toml", '[[faq]]\n"question" = "Where is it?"\n"answer" = "Here."\n' * 3)
    assert (report.format, report.kind, report.good_rows) == ("question_answer", "toml", 3)
    assert refused(tmp_path, "bad.toml", "[[faq]]\nquestion = Where\n").message.key == "data.broken_toml"
    assert refused(tmp_path, "a.ini", "[section]\nkey = 1\n").message.key == "data.unknown_kind"
    assert refused(tmp_path, "b.dat", "[[{]]\n").message.key == "data.broken_json_file"


def test_columns_of_languages_go_both_ways(tmp_path: Path) -> None:
    """Seen: no proposal for a dictionary with the columns ru, sr_lat, pos, gender, aspect, notes."""
    lines = "\n".join(f"слово{n}\treč{n}\tadj\t-\tnote {n}" for n in range(9))
    report = read(tmp_path, "a.tsv", f"ru\tsr_lat\tpos\tgender\tnotes\n{lines}\n")
    assert offered(report) == [{"ru": "question", "sr_lat": "answer"}, {"sr_lat": "question", "ru": "answer"}]
    assert report.undecided


def test_a_stray_quote_swallows_no_rows(tmp_path: Path) -> None:
    """Seen: 1,933 of 4,799 rows in one cell, as the quote stood after the lines that were looked at."""
    rows = [f"Question {n}?\tAnswer {n}." for n in range(400)]
    rows[350] = '"Question?\tAn answer.'
    assert read(tmp_path, "a.tsv", "\n".join(["question\tanswer", *rows])).good_rows == 400
    quoted = "\n".join(["question\tanswer", *(f'Question {n}?\t"Two\nlines {n}."' for n in range(9))])
    assert read(tmp_path, "b.tsv", quoted).good_rows == 9


def test_empty_lists_of_spans_are_no_empty_answers(tmp_path: Path) -> None:
    rows = [{"text": f"Ann came in year {n}.", "label": [] if n else [[0, 3, "PER"]]} for n in range(9)]
    assert "“label” marks places" in str(refused(tmp_path, "a.json", rows))


def test_relations_between_spans_are_named(tmp_path: Path) -> None:
    spans = [{"value": {"start": 0, "end": 3, "text": "Ann", "labels": ["PER"]}, "id": "a", "type": "labels"}]
    related = [*spans, {"from_id": "a", "to_id": "a", "type": "relation", "labels": ["is"]}]
    task = {"id": 1, "data": {"text": "Ann came."}, "annotations": [{"id": 1, "result": related}]}
    assert "relations between them" in str(refused(tmp_path, "a.json", [task] * 3))


def test_two_sides_of_a_translation_are_no_prose(tmp_path: Path) -> None:
    """Seen: train.src beside train.trg "contains no supported file"; as .txt both were trained as prose."""
    for name in ("train.en.txt", "train.de.txt"):
        (tmp_path / name).write_text("".join(f"This is sentence {n} of a text.\n" for n in range(30)), "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(tmp_path)
    assert caught.value.message.key == "data.line_pairs"
    (tmp_path / "train.de.txt").rename(tmp_path / "other.txt")
    assert inspect_file(tmp_path).format == "text"


SCRIPTS = {
    "Ren'Py": 'translate spanish part_{n}:\n\n    # "Good day."\n    "Buenos días, {n}."\n\n',
    "Twine": ":: Door {n}\n\nYou open it, and see two ways.\n\n[[Go left|Door 1]]\n[[Go right|Door 2]]\n\n",
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_lines_of_code_are_no_prose(kind: str, tmp_path: Path) -> None:
    """Seen: the advice to name it .txt, and then its commands trained as prose."""
    script = "".join(SCRIPTS[kind].replace("{n}", str(n)) for n in range(9))
    assert "give it the ending .txt" not in str(refused(tmp_path, "script.abc", script))
    assert read(tmp_path, "script.txt", script).undecided
    story = "He came, and she went away.\nIn the night it rained.\nNobody was there, so they slept.\nAll was well.\n"
    advice = str(refused(tmp_path, "story.abc", f"{story}Then day broke.\nThe birds sang again.\nWhat a day!\n"))
    assert "give it the ending .txt" in advice


def test_comments_above_a_table_are_no_header(tmp_path: Path) -> None:
    rows = "".join(f"What is {n}?,It is {n}.\n" for n in range(9))
    report = read(tmp_path, "a.csv", f"# Source: a book, of 1900\n#Text=None\nquestion,answer\n{rows}")
    assert (report.format, report.good_rows) == ("question_answer", 9)
    tagged = "".join(f"1-{n}\t{n}-{n + 1}\tword\t_\t\n" for n in range(9))
    assert refused(tmp_path, "b.tsv", f"#FORMAT=WebAnno TSV 3.2\n\n#Text=word\n{tagged}").message.key == "data.is_conll"
    named = "".join(f"What is {n}?,It is {n}.\n" for n in range(9))
    assert read(tmp_path, "c.csv", f"# question,answer\n{named}").good_rows == 9


def _values(row: Row | Problem) -> dict[str, Any]:
    assert isinstance(row, Row)
    return row.values
