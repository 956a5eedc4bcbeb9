"""Causes of wrong readings in a seventh set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.reading.choices import Choices
from core.data.sets.inspection import DataReport, examples_of, inspect_file

Pair = tuple[str, str]


def report_of(tmp_path: Path, rows: list[dict[str, object]], choices: Choices | None = None) -> DataReport:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return inspect_file(tmp_path / "a.jsonl", choices=choices or Choices())


# ---- marks of another template -------------------------------------------------------------------


def completions(separator: str, stop: str, count: int = 12) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"prompt": f"for i in range({n}):{separator}", "completion": f"     print(i)\n     n -= {n}{stop}"}
        for n in range(count)
    ]
    return [*rows, {"prompt": separator, "completion": f" WEEKEND{stop}"}, {"prompt": "#", "completion": " WEEKEND"}]


@pytest.mark.parametrize(
    "marks", [("\n\n###\n\n", " END"), (" ->", "###"), ("\n\nAnswer:", " <END>"), ("\n\n===>\n\n", "\n\nEND")]
)
def test_marks_that_end_all_prompts_and_completions_are_left_out(tmp_path: Path, marks: Pair) -> None:
    """Seen: "###" in each question, " END" learned in each answer, and a prompt of nothing but its mark trained."""
    report = report_of(tmp_path, completions(*marks))
    assert [note.key for note in report.notes] == ["data.note_marked_pairs"]
    assert [(problem.row, problem.text.key) for problem in report.problems] == [(13, "data.empty_question")]
    texts = [[turn.content for turn in example.messages] for _, example in examples_of(tmp_path / "a.jsonl")]
    assert texts[2] == ["for i in range(2):", "    print(i)\n     n -= 2"]
    assert texts[-1] == ["#", "WEEKEND"]


@pytest.mark.parametrize(
    "marks", [("\n\n###\n\n", ""), ("", " END"), (" ?", " END"), ("\n\n###\n\n", "\nEND"), (")", ")")]
)
def test_texts_that_end_otherwise_stay_as_they_are(tmp_path: Path, marks: Pair) -> None:
    rows = completions(*marks)[:12]
    assert report_of(tmp_path, rows).format == "prompt_completion"
    assert [(e.prompt, e.completion) for _, e in examples_of(tmp_path / "a.jsonl")][0] == (*rows[0].values(),)
