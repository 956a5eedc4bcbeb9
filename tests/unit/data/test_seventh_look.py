"""Causes of wrong readings in a seventh set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.reading.choices import Choices
from core.data.sets.inspection import DataReport, inspect_file
from tests.kit.read_examples import examples_of

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


# ---- labels of the sides -------------------------------------------------------------------------


def said(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_labels_of_the_sides_are_said_and_nothing_but_labels_is_an_empty_question(tmp_path: Path) -> None:
    """Seen: a third of the questions was labels alone, all trained, and no word on the labels in the others."""
    labelled = [
        said(f"User: **User Question:** Why {n}?\nMonk:", f"**Abbot {n}'s Answer:** So {n}.") for n in range(12)
    ]
    empty = [said("User: **User Question:** \nMonk:", "So."), said("Question:", "So."), said("用户：", "So.")]
    report = report_of(tmp_path, [*labelled, *empty])
    assert [(p.row, p.text.key) for p in report.problems] == [(n, "data.empty_question") for n in (13, 14, 15)]
    found = {finding.id: finding for finding in report.findings}
    assert found["labels"].message.params["alike"] == ["Answer", "Monk", "Question", "User"]


def test_labels_that_are_asked_for_or_stand_in_few_rows_are_none(tmp_path: Path) -> None:
    few = [said("User:", "Benutzer:"), said("Translate: blue.", "Azul."), said("User: why?", "Answer: so.")]
    inside = [said(f"Add {n}.\n\nExample:\nInput: {n}\nOutput: {n + 1}", f"B: {n}.") for n in range(12)]
    report = report_of(tmp_path, [*few, *inside])
    assert report.good_rows == 15 and "labels" not in {finding.id for finding in report.findings}


# ---- errors of programs --------------------------------------------------------------------------

ERRORS = (
    "❌ Oops: Error code: 404 - {'type': 'error', 'error': {'message': 'no model'}}",
    'Traceback (most recent call last):\n  File "a.py", line 1',
    "openai.error.RateLimitError: Rate limit reached",
    "Rate limit exceeded.",
    "<html>\n<head><title>502 Bad Gateway</title></head></html>",
)


def test_an_answer_that_is_an_error_of_a_program_is_found(tmp_path: Path) -> None:
    """Seen: the error of the service that was asked stood as the first answer of a talk."""
    answered = said("Who goes there?", "A knight of the realm.")["messages"]
    assert isinstance(answered, list)
    talks = [[*said(f"Tell me {n}?", error)["messages"], *answered] for n, error in enumerate(ERRORS)]  # type: ignore[misc]
    asked = [said(f"What is the output of {n}, or the error?", error) for n, error in enumerate(ERRORS[1:])]
    about = [said("What did it say?", "It said: rate limit exceeded. Wait a minute, then try once more.")]
    report = report_of(tmp_path, [*({"messages": talk} for talk in talks), *asked, *about])
    found = {finding.id: finding for finding in report.findings}
    assert found["program_errors"].rows == {1, 2, 3, 4, 5}
