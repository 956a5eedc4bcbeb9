"""Columns with names of a person's own: what each is for is guessed from names and contents, and said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.conversation import ChatMessage
from core.data.formats import Example, examples_of, inspect_file
from core.data.reading.rows import Row
from core.data.shapes.roles import guess
from core.errors import DataError

Q, A = "What is a crêpe?", "It is a thin pancake from Brittany."
PAIR = Example(messages=(ChatMessage("user", Q), ChatMessage("assistant", A)))
MORE = "2025-03-12"


@pytest.mark.parametrize(
    "columns",
    [
        ("input", "output"), ("query", "response"), ("Frage", "Antwort"), ("Customer Message", "Agent Reply"), ("src", "tgt"), ("user", "bot"),
        ("problem", "solution"), ("pregunta", "respuesta"), ("вопрос", "ответ"), ("质问", "解答"), ("질문", "답변"), ("customerQuestion", "customerAnswer"),
        ("Frage des Kunden", "Antwort"), ("Agent question", "Customer answer"), ("article", "highlights"), ("foo", "bar"),
    ],
)  # fmt: skip
def test_columns_by_other_names_are_question_and_answer_and_that_is_said(columns: tuple[str, str], tmp_path) -> None:
    """Seen: each of these was refused."""
    asked, answered = columns
    file = tmp_path / "a.csv"
    file.write_text(f'Date,{answered},{asked}\n{MORE},"{A}","{Q}"\n', "utf-8")
    assert [example for _, example in examples_of(file)] == [PAIR]
    report = inspect_file(file)
    assert report.roles == {answered: "answer", asked: "question"} and report.format == "question_answer"
    assert set(report.columns) == {"Date", *columns} and [str(one.what) for one in report.left_out] == ["The column “date”"]
    (note,) = report.notes
    for language in ("en", "zh"):
        assert asked in note.render(language) and answered in note.render(language)


@pytest.mark.parametrize(
    "values, roles",
    [
        ({"Kontext": "Food.", "Frage": Q, "Antwort": A}, {"Antwort": "answer", "Frage": "question", "Kontext": "context"}),
        ({"persona": "Be brief.", "query": Q, "reply": A}, {"reply": "answer", "query": "question", "persona": "system"}),
        ({"background": Q, "summary": A}, {"summary": "answer", "background": "question"}),
        ({"story": "Once upon a time there was a fox.", "id": 3}, {"story": "text"}),
        ({"内容": "从前有一只狐狸。", "序号": 3}, {"内容": "text"}),
        ({"notes": "It was a long day.", "answer": 3, "b": "It was a much longer night."}, {"notes": "question", "b": "answer"}),
        ({"name": "Eva", "city": "Rome"}, None),
        ({"a": "one two three", "b": "one two three four", "c": "one two three four five"}, None),
        ({"foo": 1, "bar": 2}, None),
        ({"body": "one two three four", "title": "one two three", "foot": "one two three"}, None),
    ],
)
def test_what_is_guessed_and_what_is_not(values: dict[str, Any], roles: dict[str, str] | None) -> None:
    assert guess([Row(1, values)]) == roles


def test_a_column_that_goes_by_the_name_of_another_role_is_left_out_by_name(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"Frage": Q, "Antwort": A, "question": 7}))
    assert [example for _, example in examples_of(file)] == [PAIR]
    assert [str(one.what) for one in inspect_file(file).left_out] == ["The column “question (2)”"]


def test_where_nothing_points_at_an_answer_the_columns_are_refused_as_before(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("name,city\nEva,Rome\n")
    with pytest.raises(DataError, match="The columns name, city fit no format"):
        inspect_file(file)


def test_a_format_that_fits_is_never_overruled_by_a_guess(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text,label,frage,antwort\nspam?,yes,"What is it?","It is spam."\n')
    report = inspect_file(file)
    assert report.format == "text_label" and not report.roles and not report.notes
