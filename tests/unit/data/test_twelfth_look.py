"""Causes of wrong readings in a twelfth set of unseen files: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.read_examples import examples_of
from tests.unit.data.test_tenth_look import report_of


def test_numbers_are_no_questions_though_id_is_a_language_too(tmp_path: Path) -> None:
    rows = [f"71{i},145{i},{'Good' if i % 2 else 'Too short, more exercises please'}" for i in range(10, 20)]
    survey = report_of(tmp_path, "a.csv", "\n".join(["question_id,answer_id,comment", *rows]))
    assert not any("question_id" in roles or "answer_id" in roles for roles in survey.readings)
    assert report_of(tmp_path, "b.csv", "\n".join(["question,answer,comment", *rows])).undecided
    named = [f"Berapa harga {i}?,Harganya {i}." for i in range(10, 20)]
    asked = report_of(tmp_path, "c.csv", "\n".join(["question_id,answer_id", *named]))
    assert asked.roles == {"question_id": "question", "answer_id": "answer"} and not asked.undecided


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
