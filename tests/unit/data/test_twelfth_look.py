"""Causes of wrong readings in a twelfth set of unseen files: each rule, with a file of the same shape."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from core.data.sets.inspection import inspect_file
from core.data.shapes.roles import words_of
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.unit.data.test_tenth_look import report_of


def test_numbers_are_no_questions_though_id_is_a_language_too(tmp_path: Path) -> None:
    rows = [f"71{i},145{i},{'Good' if i % 2 else 'Too short, more exercises please'}" for i in range(10, 20)]
    survey = report_of(tmp_path, "a.csv", "\n".join(["question_id,answer_id,comment", *rows]))
    assert not any("question_id" in roles or "answer_id" in roles for roles in survey.readings)
    assert report_of(tmp_path, "b.csv", "\n".join(["question,answer,comment", *rows])).undecided
    named = [f"Berapa harga {i}?,Harganya {i}." for i in range(10, 20)]
    indonesian = report_of(tmp_path, "c.csv", "\n".join(["question_id,answer_id", *named]))
    assert indonesian.roles == {"question_id": "question", "answer_id": "answer"} and not indonesian.undecided


def test_a_word_and_its_translation_are_offered_beside_a_category(tmp_path: Path) -> None:
    words = [f"Open {i},Bue {i},{'verb' if i % 2 else 'action'},To open the door number {i}" for i in range(20)]
    report = report_of(tmp_path, "a.csv", "\n".join(["english,standard,category,notes", *words]))
    assert report.undecided and {"english": "question", "standard": "answer"} in report.readings


def test_objects_inside_of_one_another_are_no_prose(tmp_path: Path) -> None:
    scripts = ",".join(f"{{script:Well, the raft {i} floats.,for:all}}" for i in range(9))
    assert report_of(tmp_path, "a.txt", f"name:Ida,desc:A rower,personality:{{scripts:[{scripts}]}}").undecided
    prose = "The set {1, 2}, {3} and [4] are shown (see [5], [6]). " * 5
    assert not report_of(
        tmp_path, "b.txt", prose + "The river was wide and slow that day, and nobody rowed. " * 40
    ).undecided


def test_reactions_and_notices_of_messenger_are_no_messages(tmp_path: Path) -> None:
    texts = [
        ("Ida", "Who rows?"),
        ("Bo", "Bo ha reagito con ❤ al tuo messaggio"),
        ("Bo", "I row."),
        ("Ida", "Well done"),
    ]
    texts += [
        ("Ida", "Ida ha reagito con 😆 al tuo messaggio"),
        ("Bo", "Bo rows best, says Bo"),
        ("Ida", "Liked a message"),
    ]
    messages = [{"sender_name": who, "timestamp_ms": i, "content": text} for i, (who, text) in enumerate(texts)]
    messages.append({"sender_name": "Bo", "timestamp_ms": 99, "content": "Bo added Al.", "users": [{"name": "Al"}]})
    (tmp_path / "a.json").write_text(json.dumps({"participants": [], "messages": messages, "title": "x"}), "utf-8")
    learned = str([*examples_of(tmp_path / "a.json")])
    assert "Bo rows best" in learned and "Well done" in learned
    assert not any(notice in learned for notice in ("reagito", "Liked", "added"))


def test_a_page_and_a_chat_copied_from_one_lose_their_buttons_or_are_asked_about(tmp_path: Path) -> None:
    faq = "".join(f"<h4>Who rows raft {i}?</h4><div>+</div><p>Ida rows raft {i} alone.</p>" for i in range(4))
    (tmp_path / "a.html").write_text(f"<main>{faq}</main>", "utf-8")
    assert "+" not in str([*examples_of(tmp_path / "a.html")])
    chat = (
        "Ida Berg\r\nwrite a script\r\nSure, this rows the raft across:\r\n\r\nbash\r\nCopy code\r\nrow --now\r\n\r\n"
    )
    assert report_of(tmp_path, "b.txt", "The raft floats on the wide river.\n" * 9 + chat * 3).undecided


def test_the_title_of_many_rows_is_no_text_in_scripts_with_signs_for_vowels(tmp_path: Path) -> None:
    rows = [
        {"number": i, "chapter": f"கடவுள் {'அஆஇ'[i // 10]}", "meaning": {"en": f"The letter A begins, says verse {i}."}}
        for i in range(30)
    ]
    assert words_of("கடவுள் வாழ்த்து") == ["கடவுள்", "வாழ்த்து"] and words_of("१२ घर") == ["घर"]
    with pytest.raises(DataError):
        report_of(tmp_path, "a.json", json.dumps(rows))


def test_marks_between_speeches_are_left_out(tmp_path: Path) -> None:
    speeches = [f"E: Were you born here, or in {i}? \nL: Near the river [E: Ah.] number {i}. \n" for i in range(54)]
    talk = (
        "".join(f"<TXT=talk{i}>\n" * (i % 6 == 0) + speech for i, speech in enumerate(speeches))
        + "E:And now?\nL: Now.\n"
    )
    (tmp_path / "a.txt").write_text(talk, "utf-8")
    learned = [example.messages[-2:] for _, example in examples_of(tmp_path / "a.txt")]
    assert "TXT" not in str(learned) and [message.content for message in learned[-1]] == ["And now?", "Now."]
    tagged = talk.replace("<TXT=", "<div class=")  # such as a page that people talk about
    (tmp_path / "c.txt").write_text(tagged, "utf-8")
    assert "<div" in str([example.messages for _, example in examples_of(tmp_path / "c.txt")])
    left = [each.count for each in report_of(tmp_path, "b.txt", talk).left_out]
    assert 9 in left


def test_poems_with_as_many_lines_are_no_list_of_labels(tmp_path: Path) -> None:
    poems = {
        f"{name}.txt": "".join(f"{name} {i}\n" * (len(name) > 3) or "oars\n" for i in range(24))
        for name in ("oars", "raft", "sea", "fog", "quay")
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in poems.items():
            archive.writestr(name, text)
    assert inspect_file(tmp_path / "a.zip").rows == 5


def test_an_opendocument_text_is_read_with_its_headings(tmp_path: Path) -> None:
    urn = "urn:oasis:names:tc:opendocument:xmlns"
    names = f'xmlns:o="{urn}:office:1.0" xmlns:t="{urn}:text:1.0"'
    body = (
        '<t:h t:outline-level="2">The raft</t:h><t:p>It floats<t:s/>well.<t:note><t:p>A note.</t:p></t:note>'
        "<t:box><t:p> A box.</t:p></t:box></t:p>"
        "<t:list><t:list-item><t:p>An oar</t:p></t:list-item></t:list>"
    )
    with zipfile.ZipFile(tmp_path / "a.odt", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr("content.xml", f"<o:document {names}><o:body><o:text>{body}</o:text></o:body></o:document>")
    assert [example.text for _, example in examples_of(tmp_path / "a.odt")] == [
        "## The raft\nIt floats well. A box.",
        "An oar",
    ]
