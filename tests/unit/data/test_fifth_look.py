"""Causes of wrong readings in a fifth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.unit.data.test_fourth_look import offered


def test_in_a_table_without_names_a_level_before_the_question_is_no_question(tmp_path: Path) -> None:
    """Seen: the level was the question, the question an option, and each answer the option before the right one."""
    rows = [f"{n % 9};Which is town {n}?;Ayl{n};Bonn{n};Cork{n};Dover{n};{'ABCD'[n % 4]}" for n in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n", "utf-8")
    [question, answer] = next(examples_of(tmp_path / "a.csv"))[1].messages
    assert (
        question.content == "Which is town 0?\nA. Ayl0\nB. Bonn0\nC. Cork0\nD. Dover0" and answer.content == "A. Ayl0"
    )


def test_lettered_columns_are_options_in_a_language_that_nobody_listed(tmp_path: Path) -> None:
    """Seen: one of "odpa", "odpb" and "odpc" was to be chosen as the answer to every question."""
    lines = [f"Który z nich to numer {n}?,pierwszy {n},drugi {n},trzeci {n}" for n in range(9)]
    (tmp_path / "a.csv").write_text("\n".join(["pytanie,odpa,odpb,odpc", *lines]), "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(tmp_path / "a.csv")
    assert caught.value.message.key == "data.options_without_key"


def test_scores_of_several_people_are_no_options(tmp_path: Path) -> None:
    rows = [{"phrase": f"Hey you, do number {n}", "annotator a": n % 3, "annotator b": n % 4, "annotator c": 1}
            for n in range(9)]  # fmt: skip
    assert offered(tmp_path, rows)


def test_the_option_that_is_marked_is_the_right_one_whatever_the_words(tmp_path: Path) -> None:
    rows = [
        {
            "tinhHuong": f"Bệnh nhân số {n} bị đau đầu.",
            "cauHoi": f"Nguyên nhân thứ {n} là gì?",
            "dapAn": [{"luaChon": "ABC"[at], "noiDung": f"Do chất {at}", "dung": at == n % 3} for at in range(3)],
        }
        for n in range(9)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    [question, answer] = next(examples_of(tmp_path / "a.json"))[1].messages
    assert question.content.startswith("Bệnh nhân số 0 bị đau đầu.\n\nNguyên nhân thứ 0 là gì?\nA. Do chất 0")
    assert answer.content == "A. Do chất 0"


def test_a_date_is_no_question(tmp_path: Path) -> None:
    """Seen: "2025-12-03T10:18" was the question that a summary answers."""
    rows = [{"created": f"2025-12-0{n}T10:18:29.6", "summary": f"On day {n} the council met again."} for n in (1, 2, 3)]
    assert offered(tmp_path, rows) == ["guess", "summary~"]


def test_a_list_in_a_column_of_summaries_is_its_lines(tmp_path: Path) -> None:
    """Seen: all but the first line was left out, as if they were other right answers."""
    rows = [{"article": f"Long text {n} of a paper.", "summary": [f"First point {n}.", "Second point."]} for n in "abc"]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert next(examples_of(tmp_path / "a.json"))[1].messages[-1].content == "First point a.\nSecond point."


def test_lists_of_sentences_are_texts_where_nothing_else_can_be_read(tmp_path: Path) -> None:
    rows = [{"n": f"Dish {n}", "s": [f"Chop the onion {n} times.", "Let it fry in a pan."]} for n in range(9)]
    assert "n? s=" in offered(tmp_path, rows)


def test_a_term_goes_with_its_explanation(tmp_path: Path) -> None:
    rows = [
        {"name": f"add{n}", "cat": f"Kind {n % 2}", "desc": f"Adds the number {n} to each item."} for n in range(20)
    ]
    assert "name? desc=" in offered(tmp_path, rows)


def test_answers_of_a_form_are_no_chat(tmp_path: Path) -> None:
    """Seen: a person of that chat was called "Sometimes"."""
    words = ("Never", "Rarely", "Often", "Sometimes")
    rows = [
        {
            "Timestamp": f"6/{n}/2021 17:35:10",
            "By whom are they caused?": words[n % 4],
            "Any comment?": f"We saw {n} so",
        }
        for n in range(1, 25)
    ]
    assert not any("role" in reading for reading in offered(tmp_path, rows))
    (tmp_path / "b.json").write_text(json.dumps(rows), "utf-8")
    assert inspect_file(tmp_path / "b.json").format != "messages"


def test_the_only_other_column_is_a_kind_and_asks_nothing_by_itself(tmp_path: Path) -> None:
    rows = [{"survey_kind": ("NPS", "note")[n % 2], "answer": f"It was course {n}, and good."} for n in range(24)]
    assert offered(tmp_path, rows) == ["answer? survey_kind=", "survey_kind? answer=", "answer~"]


def test_a_line_across_the_page_is_no_part_of_an_answer(tmp_path: Path) -> None:
    """Seen in a sixth set: nine answers of a page of questions ended with "---"."""
    parts = [f"## What is part {n}?\n\nIt is the part number {n}.\n\n---\n" for n in range(9)]
    (tmp_path / "faq.md").write_text("\n".join(parts), "utf-8")
    answers = [example.messages[-1].content for _, example in examples_of(tmp_path / "faq.md")]
    assert answers == [f"It is the part number {n}." for n in range(9)]


def test_ids_ask_nothing_and_xml_answers_nothing_by_itself(tmp_path: Path) -> None:
    """Seen in a sixth set: "NEJMoa1404037" was asked, and the XML of a form was the answer."""
    rows = [{"Question": f"NEJMoa140403{n}", "Answer": f'<?xml version="1.0"?><a>It helps {n}</a>'} for n in range(9)]
    assert offered(tmp_path, rows) == ["Question? Answer=", "Answer~"]


def test_a_question_that_repeats_with_one_option_in_each_row_is_refused(tmp_path: Path) -> None:
    """Seen in a sixth set: each wrong option was trained as an answer."""
    rows = [{"Întrebare": f"Care este {n}?", "Variante de răspuns": f"{letter}) este {letter}{n}"}
            for n in range(5) for letter in "abc"]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(tmp_path / "a.json")
    assert caught.value.message.key == "data.options_without_key"


def test_a_short_text_beside_a_list_is_not_trained_alone(tmp_path: Path) -> None:
    """Seen in a sixth set: the names of dishes were the text, and their parts were left out."""
    rows = [{"tarif": f"Domates çorbası {n} tane", "malzemeler": [f"{n} domates", "bir soğan"]} for n in range(9)]
    assert "tarif? malzemeler=" in offered(tmp_path, rows)
