"""Causes of readings that were wrong in unseen files: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.kit.read_examples import examples_of
from tests.unit.data.test_tenth_look import report_of


def lines(rows: Sequence[dict[str, object]]) -> str:
    return "\n".join(map(json.dumps, rows))


def test_lists_of_one_length_with_a_number_as_answer_are_options_by_any_name(tmp_path: Path) -> None:
    rows = [{"q": f"Who is {i}?", "o": [f"1. Ida {i}", f"2. Bo {i}", f"3. Eva {i}"], "a": i % 3 + 1} for i in range(9)]
    (tmp_path / "a.jsonl").write_text(lines(rows), "utf-8")
    _, first = next(examples_of(tmp_path / "a.jsonl"))
    assert [turn.content for turn in first.messages] == ["Who is 0?\nA. Ida 0\nB. Bo 0\nC. Eva 0", "A. Ida 0"]


def test_tags_beside_a_label_and_other_wordings_of_an_answer_are_no_options(tmp_path: Path) -> None:
    tagged = [{"text": f"It rains in town {i}.", "tags": ["rain", f"town {i}"], "label": i % 2} for i in range(9)]
    report = report_of(tmp_path, "a.jsonl", lines(tagged))
    assert report.format != "question_answer"
    names = [{"question": f"Who is {i}?", "names": [f"Ida {i}", f"Miss {i}"], "answer": f"Ida {i}"} for i in range(9)]
    (tmp_path / "b.jsonl").write_text(lines(names), "utf-8")
    _, first = next(examples_of(tmp_path / "b.jsonl"))
    assert [turn.content for turn in first.messages] == ["Who is 0?", "Ida 0"]


def test_ids_that_count_nothing_order_no_messages(tmp_path: Path) -> None:
    rows = [
        {
            "message_id": f"<{(7919 * i) % 1000:x}z{i}@mail.example>", "thread_id": f"t{i // 4}",
            "sender": ("Ida", "Bo")[i % 2], "date": f"2024-05-{i + 1:02} 10:00", "body": f"This is mail {i} of us.",
        }
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text(lines(rows[::-1]), "utf-8")
    for _, example in examples_of(tmp_path / "a.jsonl"):
        numbers = [int(word) for turn in example.messages for word in turn.content.split() if word.isdigit()]
        assert numbers == sorted(numbers) and len(numbers) > 1


def test_the_text_of_a_message_stands_in_the_column_that_no_row_lacks(tmp_path: Path) -> None:
    rows = [
        {"role": ("user", "assistant")[i % 2], "input": f"We speak of house {i}.", "turn": i}
        | ({"original_utterance": f"Say house {i}."} if i % 3 else {})
        for i in range(12)
    ]
    (tmp_path / "a.jsonl").write_text(lines(rows), "utf-8")
    _, first = next(examples_of(tmp_path / "a.jsonl"))
    assert [turn.content for turn in first.messages][:2] == ["We speak of house 0.", "We speak of house 1."]


def test_lines_with_a_date_and_a_time_above_each_message_are_asked_about(tmp_path: Path) -> None:
    said = "".join(f"Ida Hale (Mar {i + 1} 2021 at 19:1{i}):\n\nThe server of house {i} rests.\n\n" for i in range(9))
    assert report_of(tmp_path, "a.txt", said).undecided
    story = "".join(f"{head}ora left late that day, and we waited long in the rain.\n\n" for head in "ABCDEFGHKLMN")
    assert not report_of(tmp_path, "b.txt", f"{story}On 4 May 2021 at 10:15 it came.\n").undecided
