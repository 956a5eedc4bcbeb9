"""Causes of readings that were wrong or missing in unseen files: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit import office
from tests.kit.read_examples import examples_of
from tests.unit.data.test_tenth_look import report_of

CONTENTS = ["Contents", "1 Pumps ........ 3", "1.1 Seals . . . . . 4", "2 Motors…………… 12", "3 Care ____________ 15"]
PROSE = "The pump moves water from the well to the house. It stands in a dry room and is oiled once a year."


def test_a_table_of_contents_is_left_out_and_prices_are_not(tmp_path: Path) -> None:
    (tmp_path / "manual.txt").write_text("\n".join([*CONTENTS, "", PROSE, "", PROSE + " Twice."]), "utf-8")
    (tmp_path / "manual.pdf").write_bytes(office.pdf([CONTENTS, [PROSE]]))
    for name in ("manual.txt", "manual.pdf"):
        texts = [str(example.text) for _, example in examples_of(tmp_path / name)]
        assert texts[0] == PROSE and not any("Seals" in text for text in texts)
    report = report_of(tmp_path, "a.txt", "\n".join([*CONTENTS, "", PROSE]))
    assert {left.what.key: left.count for left in report.left_out} == {"left_out.around_contents": 1}
    prices = "We had soup ...... 5\nand bread ...... 2\nand a plum ...... 9\nin the inn at the river that evening.\n"
    assert report_of(tmp_path, "b.txt", f"{prices}\n{PROSE}").left_out == ()


def test_questions_with_lists_of_answers_are_pairs_and_columns_stay_columns(tmp_path: Path) -> None:
    questions = {f"Where is house {i}?": [f"In street {i}.", "Behind the church."][: 1 + i % 2] for i in range(8)}
    (tmp_path / "a.json").write_text(json.dumps(questions), "utf-8")
    _, first = next(examples_of(tmp_path / "a.json"))
    assert [turn.content for turn in first.messages] == ["Where is house 0?", "In street 0."]
    columns = {"The question": ["Who is it?", "Where is it?"], "The answer": ["A friend.", "At the door."]}
    assert report_of(tmp_path, "b.json", json.dumps(columns)).good_rows == 2


def test_lines_with_bars_are_a_table_and_a_subject_is_no_question(tmp_path: Path) -> None:
    asked = [f"{'history' if i % 3 else 'art'}|Who made work {i}?|Ida {i}|Bo {i}|Eva {i}|Bo {i}" for i in range(12)]
    (tmp_path / "a.txt").write_text("\n".join(asked), "utf-8")
    _, first = next(examples_of(tmp_path / "a.txt"))
    question, answer = (turn.content for turn in first.messages)
    assert question == "Who made work 0?\nA. Ida 0\nB. Bo 0\nC. Eva 0" and answer == "B. Bo 0"
    framed = [f"| Work {i} | made by Ida | in 19{i:02} |" for i in range(12)]
    assert report_of(tmp_path, "b.txt", "\n".join(framed)).undecided
