"""Columns with names of a person's own: names decide what each is, then contents, else the person; and it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from core.advice import plan
from core.data.conversation import ChatMessage
from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Row
from core.data.sets import working
from core.data.sets.inspection import inspect_file, undecided_error
from core.data.shapes.roles import parse, with_answer
from core.data.shapes.sides import beside_pair, decide
from core.data.store import DatasetStore
from core.errors import DataError, RecipeError
from core.recipe import Data, Recipe
from tests.kit.read_examples import examples_of

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
    question, answered = columns
    file = tmp_path / "a.csv"
    file.write_text(f'Date,{answered},{question}\n{MORE},"{A}","{Q}"\n', "utf-8")
    assert [example for _, example in examples_of(file)] == [PAIR]
    report = inspect_file(file)
    assert report.roles == {answered: "answer", question: "question"} and report.format == "question_answer"
    assert set(report.columns) == {"Date", *columns} and [str(one.what) for one in report.left_out] == [
        "The column “date”"
    ]
    (note,) = report.notes
    for language in ("en", "zh"):
        assert question in note.render(language) and answered in note.render(language)


@pytest.mark.parametrize(
    "values, evidence, readings",
    [
        ({"Kontext": "Food.", "Frage": Q, "Antwort": A}, "names", ["Frage>Antwort+Kontext"]),
        ({"persona": "Be brief.", "query": Q, "reply": A}, "names", ["query>reply+persona"]),
        ({"background": Q, "summary": A}, "names", ["background>summary"]),
        ({"story": "Once upon a time there was a fox.", "id": 3}, "names", ["story"]),
        ({"内容": "从前有一只狐狸。", "序号": 3}, "names", ["内容"]),
        ({"question": Q, "incorrect_answer": A, "correct_answer": A}, "names", ["question>correct_answer"]),
        ({"incorrect": f"{A} So be it.", "correct": A}, "names", ["incorrect>correct"]),
        ({"body": "one two three four", "title": "one two three", "foot": "one two three"}, "none",
            ["body", "title>body", "foot>body"]),
        ({"prompt": "Why?", "wrong_answer": f"{A} No.", "right": A}, "content", ["prompt>right"]),
        ({"question": Q, "query": "SELECT a FROM b", "db_id": "x"}, "names", ["question>query"]),
        ({"questionTitle": "A child", "questionText": Q, "answerText": A, "text": Q}, "names",
            ["questionText>answerText+questionTitle"]),
        ({"foo": Q, "bar": A}, "content", ["foo>bar", "bar>foo"]),
        ({"eins": "Write a loop, please.", "zwei": "def f():\n  pass"}, "content", ["eins>zwei", "zwei>eins"]),
        ({"premise": "A man rides.", "hypothesis": "He is out.", "label": "no"}, "names", ["hypothesis>label+premise"]),
        ({"premise": "A man rides.", "hypothesis": "He is out.", "label": 1}, "content", ["hypothesis>label+premise"]),
        ({"query_category": "join", "query": "SELECT a", "question": Q}, "content",
            ["question>query", "question>query_category"]),
        ({"label": "joy", "response": "That is wonderful!"}, "none", ["response>label", "label>response"]),
        ({"notes": "It was a long day.", "answer": 3, "b": "It was a much longer night."}, "none",
            ["notes>answer", "b>answer"]),
        ({"problem": "Find x in x + 1 = 2.", "solution": "So x is 1.", "answer": "1"}, "none",
            ["problem>solution", "problem>answer"]),
        ({"prompt": Q, "response_a": A, "response_b": f"{A} It is.", "rating": 1}, "none",
            ["prompt>response_a", "prompt>response_b"]),
        ({"de": "Der Hund ist alt.", "en": "The dog is much older than that."}, "none", ["de>en", "en>de"]),
        ({"text": A, "code": "def f(): pass"}, "none", ["text>code", "text"]),
        ({"x": "one two three", "y": "one two three four", "z": "one two three four five"}, "none",
            ["x>y", "x>z", "y>z", "y>z+x"]),
        ({"name": "Eva", "city": "Rome", "age": 3, "zip": 7}, None, []),
        ({"foo": 1, "bar": 2}, None, []),
        ({"text": Q, "schema": "A table of cakes.", "output": A}, "names", ["text>output+schema"]),
        ({"name": "Eva", "city": "Rome"}, "none", ["name>city", "city>name"]),
        ({"question": Q, "schema": "A table of cakes.", "cypher": "MATCH (c:Cake)"}, "names",
            ["question>cypher+schema"]),
        ({"Context": Q, "Utterance": A, "Label": 1}, "none", ["Utterance>Label+Context", "Context>Utterance"]),
        ({"sentence1": Q, "sentence2": A, "sentence1_parse": "(S (NP (DT a) (NN b)))", "gold_label": "yes"}, "none",
            ["sentence2>gold_label+sentence1", "sentence1>sentence2", "sentence2>sentence1"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [20, 300])
def test_names_decide_then_contents_and_never_lengths(
    values: dict[str, Any], evidence: str | None, readings: list[str], rows: int
) -> None:
    decision = decide([Row(number + 1, values) for number in range(rows)])
    assert (decision and decision.evidence) == evidence
    assert [as_arrow(roles) for roles in (decision.readings if decision else ())] == readings


def as_arrow(roles: dict[str, str]) -> str:
    """question>answer+context"""
    by_role = {role: name for name, role in roles.items()}
    pair = by_role.get("text") or f"{by_role['question']}>{by_role['answer']}"
    return pair + "".join(f"+{by_role[role]}" for role in ("context", "system") if role in by_role)


@pytest.mark.parametrize(
    ("columns", "readings"),
    [
        (lambda i: {"Kundenmail": f"Wo ist Paket {i} denn nun?", "Kategorie": ("Versand", "Geld")[i % 2]},
            ["Kundenmail>Kategorie", "Kundenmail"]),
        (lambda i: {"satz": f"Das ist der Satz {i} hier.", "x": i % 3}, ["satz>x", "satz"]),
        (lambda i: {"column 1": i % 4, "column 2": f"The title of {i}", "column 3": f"A much longer story of {i}."},
            ["column 3>column 1+column 2", "column 2>column 3", "column 3>column 2"]),
        (lambda i: {"id": i, "satz": f"Das ist der Satz {i} hier."}, ["satz"]),
        (lambda i: {"all_labels": ["a"], "eins": f"Der Satz {i} hier.", "zwei": f"Der Satz {i} dort.", "label": "a"},
            ["zwei>label+eins", "zwei>all_labels+eins", "eins>zwei", "zwei>eins"]),
        (lambda i: {"chat_id": f"c{i} x", "satz": f"Das ist der Satz {i} hier."}, ["satz"]),
    ],
)  # fmt: skip
def test_labels_beside_texts_are_offered_as_answers(columns: Any, readings: list[str]) -> None:
    decision = decide([Row(number + 1, columns(number)) for number in range(60)])
    assert decision and [as_arrow(roles) for roles in decision.readings] == readings


def test_two_alike_sentences_beside_a_label_are_a_question_in_capitals_too() -> None:
    """Seen: of Sentence and Sentence2 only the first was read."""
    decision = beside_pair([Row(n, {"Sentence": Q, "Sentence2": A, "label": "yes"}) for n in range(20)], "text_label")
    assert decision and as_arrow(decision.readings[0]) == "Sentence2>label+Sentence"


@pytest.mark.parametrize(("wordings", "evidence"), [(8, "names"), (30, "none")])
def test_questions_about_one_fact_in_other_words_are_not_doubted(wordings: int, evidence: str) -> None:
    """Seen: a sheet of 8 wordings of each fact, as the guide advises, was asked which column is the answer."""
    rows = [{"Frage": f"Wer baute es, zum {i}. Mal?", "Antwort": f"Bau {i // wordings}: {A}"} for i in range(120)]
    decision = decide([Row(number + 1, values) for number, values in enumerate(rows)])
    assert decision and decision.evidence == evidence and as_arrow(decision.readings[0]) == "Frage>Antwort"


def test_the_text_beside_a_label_is_trained_only_if_the_person_says_so(tmp_path) -> None:
    """Seen: of `text` and a category the text alone was trained, without a word."""
    file = tmp_path / "a.jsonl"
    rows = [{"text": f"A letter number {i}.", "category": ("bill", "thanks")[i % 2]} for i in range(20)]
    file.write_text("\n".join(map(json.dumps, rows)))
    report = inspect_file(file)
    assert report.undecided and [as_arrow(roles) for roles in report.readings] == ["text>category", "text"]
    assert (
        "Choose one of category: " in str(undecided_error(report)) and not report.notes
    )  # said once; --answer takes it
    chosen = inspect_file(file, choices=Choices(columns=dict(with_answer(report.possible, "Category"))))
    assert not chosen.undecided and not chosen.readings and chosen.format == "question_answer"
    with pytest.raises(DataError, match="Choose one of category"):
        with_answer(report.possible, "kind")
    metadata = tmp_path / "b.jsonl"
    metadata.write_text("\n".join(json.dumps({"text": row["text"], "source": "x", "id": 3}) for row in rows))
    assert inspect_file(metadata).format == "text" and not inspect_file(metadata).undecided


@pytest.mark.parametrize(
    "beside, is_asked",
    [
        ({"cats": {"joy": 1.0, "anger": 0.0}}, True),
        ({"Gefühle": {"Freude": True, "Wut": False}}, True),
        ({"meta": {"source": "web", "words": 4}}, False),
        ({"quality": {"perplexity": 91.5, "words": 4}}, False),
        ({"authors": ["Jo", "Zoe"], "links": [{"url": "https://a.example"}]}, False),
        ({"scores": {}, "entities": []}, False),
    ],
)
def test_annotations_beside_a_text_are_a_question(beside: dict[str, Any], is_asked: bool, tmp_path) -> None:
    """Seen: the text alone was trained, and the annotations were left out without a question."""
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"Anna wrote letter {i}."} | beside) for i in range(20)))
    report = inspect_file(file)
    assert report.undecided == is_asked
    if is_asked:
        assert [as_arrow(roles) for roles in report.readings] == [f"text>{next(iter(beside))}", "text"]
        assert report.good_rows == 20
    alone = inspect_file(file, choices=Choices(columns={"text": "text"}))
    assert not alone.undecided and alone.format == "text" and alone.good_rows == 20


@pytest.mark.parametrize("marks", [[[0, 4, "PERSON"]], [{"start": 0, "end": 4, "type": "PERSON"}]])
def test_marks_beside_a_text_are_no_reading(marks: list[Any], tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"Anna wrote letter {i}.", "marks": marks}) for i in range(20)))
    with pytest.raises(DataError, match="“marks” marks places"):
        inspect_file(file)
    alone = inspect_file(file, choices=Choices(columns={"text": "text"}))
    assert not alone.undecided and alone.format == "text" and alone.good_rows == 20


def test_names_do_not_decide_against_the_contents(tmp_path) -> None:
    """Seen: the name of the data set was the question, its checksum the answer; one summary answered all texts."""
    file = tmp_path / "a.jsonl"
    rows = [
        {
            "source": ("web", "book")[i % 2],
            "note": f"What is {i} and {i}?",
            "answer_md5": f"{i:032x}",
            "label": f"it is {2 * i}",
        }
        for i in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    report = inspect_file(file)
    assert {"source", "answer_md5"}.isdisjoint(name for roles in report.possible for name in roles)
    rows = [
        {"content": f"Report {i} on the weather of the day.", "summary": "UPDATE of the reports of the week"}
        for i in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert inspect_file(file).undecided


def test_flags_and_tags_are_no_side(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("input,notes\n" + "".join(f"{i % 2 == 0},The reply number {i} is too long\n" for i in range(30)))
    assert all("input" not in roles for roles in inspect_file(file).possible)
    file.write_text("words,tags\n" + "".join(f"Anna sails to Rome {i},PER-B O O LOC-B O\n" for i in range(30)))
    with pytest.raises(DataError, match="a tag for each of them"):
        inspect_file(file)


def test_spans_that_a_person_takes_as_the_answer_are_refused_by_name(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "Anna wrote.", "entities": [[0, 4, "PERSON"]]}))
    report = inspect_file(file, choices=Choices(columns={"text": "question", "entities": "answer"}))
    assert [problem.text.key for problem in report.problems] == ["data.only_spans"]


def test_a_set_whose_answer_nothing_shows_is_not_trained(tmp_path) -> None:
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    file = tmp_path / "a.csv"
    file.write_text("de,en\n" + "Der Hund ist alt.,The dog is old.\n" * 20, "utf-8")
    info = store.import_file(file)
    with pytest.raises(DataError, match="Choose one of en, de"):
        plan.require_decided(store, Data(source=info.id))
    for copy in (lambda: working.join(store, [info.id], "b", tmp_path),
                 lambda: working.split(store, info.id, 3, 0, ("b", "c"), tmp_path)):  # fmt: skip
        with pytest.raises(DataError, match="Choose one of en, de"):
            copy()  # of which the answer would be settled
    plan.require_decided(store, Data(source=info.id, columns={"de": "question", "en": "answer"}))
    file.write_text("eins,zwei\n" + f'"{Q}","{A}"\n' * 20, "utf-8")
    guessed = store.import_file(file)
    plan.require_decided(store, Data(source=guessed.id))
    with pytest.raises(DataError, match="--accept-guess"):
        plan.require_decided(store, Data(source=guessed.id), accept_guess=False)


def test_a_column_that_goes_by_the_name_of_another_role_is_left_out_by_name(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"Frage": Q, "Antwort": A, "question": 7}))
    assert [example for _, example in examples_of(file)] == [PAIR]
    assert [str(one.what) for one in inspect_file(file).left_out] == ["The column “question (2)”"]


def test_where_nothing_points_at_an_answer_the_columns_are_refused_as_before(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("name,city,age,zip\nEva,Rome,3,7\n")
    with pytest.raises(DataError, match="The columns name, city, age, zip do not match any known format"):
        inspect_file(file)


def test_a_format_that_fits_is_never_overruled_by_a_guess(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text,label,frage,antwort\nspam?,yes,"What is it?","It is spam."\n')
    report = inspect_file(file)
    assert report.format == "text_label" and not report.roles and not report.notes


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
    assert (report.roles, report.guessed) == (SAID, False)
    assert [str(note) for note in report.notes] == [
        "The columns are used as chosen: “b” is the question, “a” is the answer."
    ]
    assert [str(one.what) for one in report.left_out] == ["The column “c”"]


def test_it_overrules_the_names_and_a_format(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"answer": Q, "question": A}))
    swapped = {"answer": "question", "question": "answer"}
    assert [example for _, example in examples_of(file, "messages", Choices(columns=swapped))] == [PAIR]


@pytest.mark.parametrize(
    "written, sentence",
    [
        ("question", "“question” does not describe a column"),
        ("person=b", "Expected role=column with one of the roles"),
        ("question=b,answer=z", "There is no column z; the file has a, b, note, c"),
        ("question=b", "The columns b: question cannot be used"),
        ("question=b,answer=a,text=c", "cannot be used"),
        ("question=b,answer=a,answer=c", "cannot be used"),
    ],
)
def test_what_cannot_be_meant_of_columns_is_a_sentence(written: str, sentence: str, tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(LINES, "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(file, choices=Choices(columns=parse(written)))
    assert sentence in str(caught.value)


def test_a_set_keeps_what_was_said_of_its_columns_for_its_report_and_for_training(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('a,b,c\n"one two three four","one two three","x y z"\n', "utf-8")
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    assert store.report(store.import_file(file).id).undecided
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


def readings_of(tmp_path, rows: list[dict[str, Any]]) -> list[str]:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return [as_arrow(roles) for roles in inspect_file(file).readings]


def test_all_plausible_pairs_are_offered_and_no_names_of_topics(tmp_path) -> None:
    words = [
        {
            "scene": f"At the market of the old town on the day number {i // 9}",
            "home": f"Where is the {i}?",
            "there": f"wo {i}",
            "script": f"Ω {i}",
        }
        for i in range(36)
    ]
    readings = readings_of(tmp_path, words)
    assert {"home>there", "home>script"} <= {*readings} and not any("scene" in reading for reading in readings)


def test_columns_of_two_languages_are_not_crossed(tmp_path) -> None:
    rows = [
        {f"{part}_{code}": f"It is a {part} {i} in {code}." for part in ("plant", "note") for code in ("en", "fr")}
        for i in range(9)
    ]
    assert readings_of(tmp_path, rows) == [
        "plant_en>plant_fr",
        "plant_en>note_en",
        "plant_fr>note_fr",
        "note_en>note_fr",
    ]
    rows = [
        {"q_en": f"Who is {i}?", "q_fr": f"Qui est {i}?", "a_en": f"It is {i}.", "a_fr": f"C'est {i}."}
        for i in range(9)
    ]
    assert readings_of(tmp_path, rows) == ["q_en>a_en", "q_fr>a_fr"]


def test_a_generation_answers_the_text_and_not_its_marked_prompt(tmp_path) -> None:
    rows = [
        {
            "text": f"Name the {i}.",
            "prompt": f"Be kind. ### Human: Name the {i}. ### Assistant:",
            "generation": f"It is {i}.",
            "category": "ab"[i % 2],
        }
        for i in range(30)
    ]
    readings = readings_of(tmp_path, rows)
    assert readings[0] == "text>generation" and "prompt>generation" not in readings


def test_a_line_of_credits_is_no_side(tmp_path) -> None:
    rows = [
        {"one": f"Go {i}.", "two": f"Va {i} !", "three": f"CC-BY 2.0 Attribution: someone #{i} of the site"}
        for i in range(9)
    ]
    assert readings_of(tmp_path, rows) == ["one>two", "two>one"]


def test_questions_without_answers_are_told(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt\n" + "".join(f"Name the river number {i} of the land\n" for i in range(20)))
    assert "data.note_no_answers" in {note.key for note in inspect_file(file).notes}


def test_a_text_whose_template_repeats_is_not_trained_alone(tmp_path) -> None:
    rows = [
        {"no": f"{i}", "content": f"The gate {i} of the port is open.", "pattern": "The gate * of the port is open."}
        for i in range(40)
    ]
    assert "content>pattern" in readings_of(tmp_path, rows)
