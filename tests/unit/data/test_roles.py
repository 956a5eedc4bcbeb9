"""Columns with names of a person's own: what each is for is guessed from names and contents, and said."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from core.data.conversation import ChatMessage
from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Row
from core.data.sets.inspection import examples_of, inspect_file
from core.data.shapes.roles import guess, longest_columns, parse
from core.data.store import DatasetStore
from core.errors import DataError, RecipeError
from core.recipe import Recipe

Q, A = "What is a crêpe?", "It is a thin pancake from Brittany."
PAIR = Example(messages=(ChatMessage("user", Q), ChatMessage("assistant", A)))
MORE = "2025-03-12"


@pytest.mark.parametrize(
    "columns",
    [
        ("input", "output"), ("query", "response"), ("Frage", "Antwort"), ("Customer Message", "Agent Reply"), ("src",
            "tgt"), ("user", "bot"),
        ("problem", "solution"), ("pregunta", "respuesta"), ("вопрос", "ответ"), ("质问", "解答"), ("질문", "답변"),
        ("customerQuestion", "customerAnswer"),
        ("Frage des Kunden", "Antwort"), ("Agent question", "Customer answer"), ("article", "highlights"), ("foo",
            "bar"),
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
    assert set(report.columns) == {"Date", *columns} and [str(one.what) for one in report.left_out] == [
        "The column “date”"
    ]
    (note,) = report.notes
    for language in ("en", "zh"):
        assert asked in note.render(language) and answered in note.render(language)


@pytest.mark.parametrize(
    "values, roles",
    [
        (
            {"Kontext": "Food.", "Frage": Q, "Antwort": A},
            {"Antwort": "answer", "Frage": "question", "Kontext": "context"},
        ),
        (
            {"persona": "Be brief.", "query": Q, "reply": A},
            {"reply": "answer", "query": "question", "persona": "system"},
        ),
        ({"background": Q, "summary": A}, {"summary": "answer", "background": "question"}),
        ({"story": "Once upon a time there was a fox.", "id": 3}, {"story": "text"}),
        ({"内容": "从前有一只狐狸。", "序号": 3}, {"内容": "text"}),
        (
            {"notes": "It was a long day.", "answer": 3, "b": "It was a much longer night."},
            {"notes": "question", "b": "answer"},
        ),
        ({"name": "Eva", "city": "Rome"}, None),
        ({"a": "one two three", "b": "one two three four", "c": "one two three four five"}, None),
        ({"foo": 1, "bar": 2}, None),
        ({"prompt": "Why?", "wrong_answer": f"{A} No.", "right": A}, {"prompt": "question", "right": "answer"}),
        (
            {"question": Q, "incorrect_answer": A, "correct_answer": A},
            {"question": "question", "correct_answer": "answer"},
        ),
        ({"incorrect": f"{A} So be it.", "correct": A}, {"incorrect": "question", "correct": "answer"}),
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
    with pytest.raises(DataError, match="The columns name, city do not match any known format"):
        inspect_file(file)


def test_a_format_that_fits_is_never_overruled_by_a_guess(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text,label,frage,antwort\nspam?,yes,"What is it?","It is spam."\n')
    report = inspect_file(file)
    assert report.format == "text_label" and not report.roles and not report.notes


def test_where_nothing_points_at_a_role_the_columns_that_say_most_can_be_offered() -> None:
    rows = [Row(1, {"id": "7", "a": "one two", "b": "one two three", "c": "one"})]
    assert guess(rows) is None and longest_columns(rows) == {"a": "question", "b": "answer"}
    assert (
        longest_columns([Row(1, {"id": 7, "a": "one"})]) == {"a": "text"}
        and longest_columns([Row(1, {"id": 7})]) is None
    )


# ---- said by a person ------------------------------------------------------------------------------------------------

SAID = {"b": "question", "a": "answer", "note": "ignore"}
LINES = f'a,b,note,c\n"{A}","{Q}",x,y\n'


def test_what_a_person_says_of_columns_decides_and_what_is_to_be_ignored_is_no_loss(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(LINES, "utf-8")
    assert [
        example for _, example in examples_of(file, choices=Choices(columns=parse("question=b, answer=a,ignore=note")))
    ] == [PAIR]
    report = inspect_file(file, choices=Choices(columns=SAID))
    assert (report.roles, report.guessed, report.notes) == (SAID, False, ())
    assert [str(one.what) for one in report.left_out] == ["The column “c”"]


def test_it_overrules_the_names_and_a_format(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"answer": Q, "question": A}))
    swapped = {"answer": "question", "question": "answer"}
    assert [example for _, example in examples_of(file, "messages", Choices(columns=swapped))] == [PAIR]


@pytest.mark.parametrize(
    "written, said",
    [
        ("question", "“question” does not describe a column"),
        ("person=b", "Expected role=column with one of the roles"),
        ("question=b,answer=z", "There is no column z; the file has a, b, note, c"),
        ("question=b", "The columns b: question cannot be used"),
        ("question=b,answer=a,text=c", "cannot be used"),
        ("question=b,answer=a,answer=c", "cannot be used"),
    ],
)
def test_what_cannot_be_meant_of_columns_is_a_sentence(written: str, said: str, tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(LINES, "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(file, choices=Choices(columns=parse(written)))
    assert said in str(caught.value)


def test_a_set_keeps_what_was_said_of_its_columns_for_its_report_and_for_training(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('a,b,c\n"one two three four","one two three","x y z"\n', "utf-8")
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    with pytest.raises(DataError, match="do not match any known format"):
        store.import_file(file)
    info = store.import_file(file, choices=Choices(columns={"b": "question", "a": "answer"}))
    other = store.import_file(file, choices=Choices(columns={"a": "question", "b": "answer"}))
    assert (
        info.id != other.id
        and store.import_file(file, choices=Choices(columns={"b": "question", "a": "answer"})) == info
    )
    store = DatasetStore(store.root, tmp_path)
    for id, answer in ((info.id, "one two three four"), (other.id, "one two three")):
        assert store.report(id).good_rows == 1 and store.report(id).roles == store.get(id).choices.columns
        (example,) = store.rows(id).examples
        assert example.messages[-1].content == answer
    (example,) = store.rows(info.id, choices=Choices(columns={"c": "text"})).examples
    assert example.text == "x y z"


def test_what_was_guessed_is_settled_for_a_run_that_is_repeated(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("Frage;Antwort\na;b\n", "utf-8")
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    info = store.import_file(file)
    assert info.choices == Choices() and store.resolved_choices(info.id).columns == {
        "Frage": "question",
        "Antwort": "answer",
    }
    (kept,) = store.rows(info.id, choices=store.resolved_choices(info.id)).examples
    store.choose(info.id, Choices(columns={"Frage": "answer", "Antwort": "question"}))
    assert store.rows(info.id).examples[0] != kept and store.resolved_choices(info.id).columns == {
        "Frage": "answer",
        "Antwort": "question",
    }


def test_a_recipe_says_it_too() -> None:
    recipe = Recipe.parse({"data": {"source": "a", "columns": {"Frage": "question", "Antwort": "answer"}}})
    assert Recipe.parse(yaml.safe_load(recipe.dump())) == recipe and recipe.data.columns == {
        "Frage": "question",
        "Antwort": "answer",
    }
    with pytest.raises(RecipeError, match="columns"):
        Recipe.parse({"data": {"source": "a", "columns": {"Frage": "person"}}})
