"""Causes of wrong readings in an eleventh set of unseen files: each rule, with a file of the same shape."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from core.data.findings.repairs import repaired
from core.data.formats import Example
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.unit.data.test_findings import findings_of
from tests.unit.data.test_tenth_look import report_of, texts_of


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # Seen: tags of templates, links of wikis and empty check boxes learned as prose.
        ("{% load i18n %}The river {# a note #}is wide.", "The river is wide."),
        ("Rafts: [[Rafts of ash|ash]], [[Oars]].![[raft.png]]", "Rafts: ash, Oars."),
        ("- [ ] Mend the raft\n- [x] Buy oars", "- Mend the raft\n- [x] Buy oars"),
        ("{{cite web|url=a}}Oars float.<!-- draft -->", "Oars float."),
        ("The oar is [[1, 2], [3, 4]], or {{a}{b}}.", None),
        ("Lists such as a[[x, y]] and [ ] stay.", None),
    ],
)
def test_rests_of_templates_and_notes_are_found_and_taken_out(text: str, clean: str | None) -> None:
    finding = findings_of(Example(text=text)).get("markup")
    assert (finding and repaired(Example(text=text), finding.repairs[0])) == (clean and Example(text=clean))


def test_tags_of_a_template_and_footers_of_a_page_are_no_text(tmp_path: Path) -> None:
    page = (
        '{% extends "a.html" %}{% comment %}<p>Translators</p>{% endcomment %}'
        '<h1>{% trans "Oars" %}</h1><p>The river is wide.</p>'
    )
    assert texts_of(tmp_path, "a.html", page) == ["# Oars\nThe river is wide."]
    about = "<h1>Jinja</h1><pre>{% block a %}</pre><p>It ends a block.</p>"
    assert texts_of(tmp_path, "b.html", about) == ["# Jinja\n{% block a %}", "It ends a block."]
    with pytest.raises(DataError, match="besides its navigation and footer"):
        report_of(tmp_path, "c.html", "<section></section><footer><h4>Oars Ltd</h4><p>Newport</p></footer>")


@pytest.mark.parametrize(
    "text",
    [
        "OAR: a pole with a blade\nThe OAR fell into the river, which\nwas wide at that place.\nRAFT: logs in a row\n"
        "The RAFT broke below the bridge\nas the water rose.\nQUAY: a landing\nThe QUAY was of stone.",
        "Oar: a pole with a blade\nRaft: logs in a row\nQuay: a landing",
        "TERMS\n\nOar - A pole.\nRaft - Logs in a row.\nQuay - A place to land.\nFord - A place to cross.\n"
        "Weir - A low dam.",
    ],
)
def test_a_list_of_terms_with_their_meanings_is_no_prose(tmp_path: Path, text: str) -> None:
    assert report_of(tmp_path, "a.txt", text).undecided


def test_comments_beside_and_within_fences_of_markdown_are_left_out(tmp_path: Path) -> None:
    page = "```html\n<!--\nsource: scan\n-->\n\n# Oars\n\nOars float.\n\n<!-- tags -->\n```\n<!-- in code -->\n```"
    assert texts_of(tmp_path, "a.md", page) == ["# Oars", "Oars float.", "```\n<!-- in code -->\n```"]


def test_front_matter_and_headings_before_a_conversation_are_no_system_text(tmp_path: Path) -> None:
    talk = "## User\n\nIs it wide?\n\n## Assistant\n\nIt is.\n\n"
    (tmp_path / "a.md").write_text(f"---\nname: River\nmodel: x\n---\n\n# A talk\n\n{talk * 2}", "utf-8")
    example = next(iter(examples_of(tmp_path / "a.md")))[1]
    assert [turn.content for turn in example.messages][:2] == ["Is it wide?", "It is."]


@pytest.mark.parametrize("entry", ['{ value: "us", label: "United States" }', '{ q: "Is it wide?", a: "It is." }'])
def test_a_list_of_objects_in_code_is_asked(tmp_path: Path, entry: str) -> None:
    entries = f"  {entry},\n" * 3
    assert report_of(tmp_path, "a.js", f"export const OPTIONS = [\n{entries}];\n").undecided


def test_the_number_of_a_row_is_no_answer_and_a_template_no_question(tmp_path: Path) -> None:
    rows = "".join(f"{n},Is the {n}th river wide?\n" for n in range(1, 30))
    assert report_of(tmp_path, "a.csv", f"id_expected,question_test\n{rows}").undecided
    line = json.dumps(
        {"prompt_template": "Judge {answer_a}: {question}", "output_format": "[[A]] or [[B]], as letters"}
    )
    report = report_of(tmp_path, "a.jsonl", f"{line}\n" * 5)
    assert report.undecided and "placeholders" in {finding.id for finding in report.findings}


def test_a_kind_beside_short_texts_may_be_their_answer(tmp_path: Path) -> None:
    # Seen: tickets with their priority and area, of which the text alone was trained.
    rows = "".join(f"The {n}th raft is late today,{('Low', 'High')[n % 2]},Ropes\n" for n in range(30))
    assert {"text": "question", "priority": "answer"} in report_of(
        tmp_path, "a.csv", f"text,priority,b\n{rows}"
    ).readings


def test_turns_with_a_picture_or_in_another_language_are_turns(tmp_path: Path) -> None:
    talk = "## 🧑 Kullanıcı\n\nNehir geniş mi?\n\n---\n\n## 🤖 Asistan\n\nEvet.\n\n---\n\n"
    (tmp_path / "a.md").write_text(f"# A log\n\nSession: 7\n\n---\n\n{talk * 2}", "utf-8")
    example = next(iter(examples_of(tmp_path / "a.md")))[1]
    assert [turn.content for turn in example.messages][:2] == ["Nehir geniş mi?", "Evet."]


def test_terms_that_are_the_keys_of_one_object_are_rows(tmp_path: Path) -> None:
    terms = {f"term {n}": f"It is the {n}th." for n in range(400)} | {"article": None, "class": "A group of plants."}
    assert report_of(tmp_path, "a.json", json.dumps(terms)).rows == 401
    with pytest.raises(DataError, match="fields: name, greeting"):
        report_of(tmp_path, "b.yaml", "name: River\ngreeting: Hello there\n")


def test_the_name_of_a_prompt_is_not_taken_for_its_answer(tmp_path: Path) -> None:
    rows = "".join(f"Role {n},Act as the {n}th ferryman on a river\n" for n in range(30))
    report = report_of(tmp_path, "a.csv", f"act,prompt\n{rows}")
    assert report.undecided and {"prompt": "text"} in report.readings


@pytest.mark.parametrize(
    "line", ["<p>[5:1{n}] &lt;Ann&gt; Is line {n} of the river open?</p>", "<p>Ann</p><p>20:1{n}</p><p>It is {n}.</p>"]
)
def test_a_page_with_the_times_of_a_chat_is_asked_about(line: str, tmp_path: Path) -> None:
    page = "".join(line.replace("{n}", str(n)) for n in range(10))
    assert report_of(tmp_path, "a.html", f"<html><body>{page}</body></html>").undecided
    verses = "".join(f"1:{n} The water rose over the land on the day {n}.\n\n" for n in range(10, 40))
    assert not report_of(tmp_path, "a.md", f"# The flood\n\n{verses}").undecided


def test_a_file_of_base64_is_asked_about(tmp_path: Path) -> None:
    encoded = base64.b64encode("".join(f"Where is the river {n}? " for n in range(200)).encode()).decode()
    assert report_of(tmp_path, "a.txt", encoded).undecided


def test_only_short_titles_of_folds_are_left_out(tmp_path: Path) -> None:
    fold = "<details>\n<summary>{}</summary>\n\nFrom the hill.\n</details>\n\n"
    text = fold.format("Write a poem that shall show how wide the river is") + fold.format("Show the answer")
    texts = texts_of(tmp_path, "a.md", f"# Rivers\n\n{text}")
    assert any("how wide the river" in one for one in texts) and "Show the" not in str(texts)
    assert "markup" in {finding.id for finding in report_of(tmp_path, "a.md", f"# Rivers\n\n{text}").findings}


def test_turns_by_users_are_refused_by_their_fields(tmp_path: Path) -> None:
    turn = {"type": "message", "user": "U1", "text": "When does the ferry leave?"}
    report = report_of(tmp_path, "a.json", json.dumps({"channels": [{"id": "C1", "messages": [turn] * 3}]}))
    assert "type, user, text" in str(report.problems[0].text)
