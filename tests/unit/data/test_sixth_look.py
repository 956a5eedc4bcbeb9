"""Causes of wrong readings in a sixth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.data.reading.choices import Choices
from core.data.sets.inspection import inspect_file
from core.data.shapes.roles import with_answer
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.unit.data.test_fourth_look import offered


def rows_by(row: Callable[[int], dict[str, Any]], count: int = 24) -> list[dict[str, Any]]:
    return [row(n) for n in range(count)]


def keys(path: Path, choices: Choices | None = None) -> list[str]:
    return [note.key for note in inspect_file(path, choices=choices or Choices()).notes]


# ---- answers that are offered, and answers that are chosen ---------------------------------------


def test_every_reading_that_is_offered_gives_the_rows_that_were_shown(tmp_path: Path) -> None:
    """Seen: a list was offered as the question, and then no row could be read, for the question was a list."""
    rows = rows_by(lambda n: {"dish": f"Stew {n}", "needs": [f"{n} onions", "some salt"], "no": n})
    assert offered(tmp_path, rows) == ["needs? dish=", "dish? needs=", "needs~"]
    for roles in inspect_file(tmp_path / "a.json").readings:
        example = next(examples_of(tmp_path / "a.json", choices=Choices(columns=roles)))[1]
        texts = {example.text} if example.text else {message.content for message in example.messages}
        assert texts <= {"Stew 0", "0 onions\nsome salt"}
    # Under that name they are several right answers, as before.
    rows = rows_by(lambda n: {"frage": f"Wie heißt Ort {n}?", "answers": [f"Ort {n}", f"Dorf {n}"]})
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    chosen = Choices(columns={"frage": "question", "answers": "answer"})
    assert next(examples_of(tmp_path / "a.json", choices=chosen))[1].messages[-1].content == "Ort 0"


def test_options_and_a_number_are_multiple_choice_by_their_short_names_too(tmp_path: Path) -> None:
    """Seen: the number was the answer, and the options stood in the question without letters."""
    rows = rows_by(lambda n: {"q": f"Which is town {n}?", "opts": [f"Ayl{n}", f"Bonn{n}", f"Cork{n}"], "ans": n % 3})
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert [*examples_of(tmp_path / "a.json")][1][1].messages[-1].content == "B. Bonn1"


def test_texts_some_of_which_are_lists_are_an_answer(tmp_path: Path) -> None:
    """Seen: the right answers, lists where there are several, were no answer, and the explanation was the question."""
    right = "the cooler of it"
    rows = rows_by(
        lambda n: {
            "tekst": f"The first step for part {n} is:",
            "odg": [right, f"part {n} itself"] if n % 4 == 1 else f"{right} {n}",
            "why": f"Only then can part {n} be taken out of it.",
            "kind": ("hard", "soft")[n % 2],
        }
    )
    assert offered(tmp_path, rows)[0] == "tekst? odg="
    chosen = Choices(columns={"tekst": "question", "odg": "answer"})
    assert [*examples_of(tmp_path / "a.json", choices=chosen)][1][1].messages[-1].content == f"{right}\npart 1 itself"


def test_what_a_human_wrote_beside_a_prompt_is_an_answer_like_those_of_models(tmp_path: Path) -> None:
    """Seen: the person's summary stood in the question of each row, and could not be chosen."""
    rows = rows_by(
        lambda n: {
            "Prompt": f"Sum up the post number {n}, please.",
            "Base": f"It is about the {n} dogs.",
            "Human": f"{n} dogs of mine are sad.",
        }
    )
    assert offered(tmp_path, rows) == ["Prompt? Base=", "Prompt? Human="]
    asked = [
        {"instruction": f"Be brief in {n}.", "human": f"Who are the {n}?", "gpt": f"We are {n}."} for n in range(9)
    ]
    assert not any("human=" in reading for reading in offered(tmp_path, asked))


def test_two_texts_are_one_question_only_where_names_or_class_numbers_say_so(tmp_path: Path) -> None:
    """Seen: of a proverb and its explanation, the place that it is from was to be told."""
    towns = ("Aden", "Taiz", "none")
    rows = rows_by(
        lambda n: {"saying": f"A goat, even if {n} fly.", "sense": f"Said of {n} who insist.", "of": towns[n % 3]}
    )
    assert offered(tmp_path, rows) == ["saying? sense=", "sense? saying=", "saying+ sense? of="]
    rows = rows_by(
        lambda n: {"sent1": f"A goat, even if {n} fly.", "sent2": f"Said of {n} who insist.", "of": towns[n % 3]}
    )
    assert offered(tmp_path, rows)[0] == "sent1+ sent2? of="


def test_any_column_may_be_chosen_as_the_answer_and_is_no_part_of_the_question_then(tmp_path: Path) -> None:
    readings = ({"a": "context", "b": "question", "c": "answer"}, {"b": "question", "c": "answer"}, {"a": "text"})
    assert with_answer(readings, "D", ["a", "b", "c", "d"]) == {"a": "context", "b": "question", "d": "answer"}
    assert with_answer(({"b": "question", "c": "answer"},), "c", ["b", "c"]) == {"b": "question", "c": "answer"}
    with pytest.raises(DataError):
        with_answer(({"b": "question", "c": "answer"},), "b", ["b", "c"])
    rows = rows_by(lambda n: {"a": f"This is text {n}.", "b": f"That is text {n}."})
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    report = inspect_file(tmp_path / "a.json", choices=Choices(columns={"a": "question", "b": "answer"}))
    assert "“a” is the question, “b” is the answer" in str(report.notes[0])


def test_what_is_the_same_in_nearly_all_rows_and_ids_and_dates_are_no_answers(tmp_path: Path) -> None:
    """Seen: the kind of all rows, their ids and the times of their making were offered as answers."""
    rows = rows_by(
        lambda n: {
            "prompt": f"Write the function number {n}.",
            "kind": "code" if n else "text",
            "tests": f"assert that it is {n} here",
            "key": f"task-v1_dev_{n:05}",
            "made": f"2026-06-{n + 1:02}T08:30:00Z",
        }
    )
    assert offered(tmp_path, rows) == ["prompt? tests="]
    rows = rows_by(lambda n: {"text": f"Write the function number {n}.", "label": "code"})
    assert keys(tmp_path / "a.json") or offered(tmp_path, rows) == []
    assert inspect_file(tmp_path / "a.json").format == "text_label"  # a label by its name may begin with one class


def test_a_column_without_a_word_asks_nothing(tmp_path: Path) -> None:
    lines = [f"{n};Pay for the {n} goods in advance:;Cash {n};Due {n}" for n in range(1, 30)]
    (tmp_path / "a.csv").write_text("\n".join(lines), "utf-8")
    assert not any(roles.get("column 1") for roles in inspect_file(tmp_path / "a.csv").readings)


def test_bare_class_numbers_are_said_whatever_the_column_is_called(tmp_path: Path) -> None:
    """Seen: "1.0" was learned without a word that it has no name."""
    rows = rows_by(lambda n: {"puan": f"{n % 2}.0", "yorum": f"It came on day {n} and works."})
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert "data.note_label_numbers" in keys(tmp_path / "a.json")
    assert "data.note_label_numbers" in keys(
        tmp_path / "a.json", Choices(columns={"yorum": "question", "puan": "answer"})
    )
    rows = rows_by(lambda n: {"task": f"What is {n} and {n} together?", "sum": f"{2 * n}"})
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    assert "data.note_label_numbers" not in keys(tmp_path / "a.json")


def test_what_python_wrote_as_bytes_is_read_as_the_text_inside(tmp_path: Path) -> None:
    """Seen: b'...' stood around parts of a log, and \\' and \\xe2\\x80\\x99 were learned."""
    blocks = [[f"12:{n:02}:{at:02} <{nick}> It's the “part” {n}.{at}, {nick} said “ok" + '"' for at, nick in
               enumerate(("ann", "ben") * 4)] for n in range(4)]  # fmt: skip
    written = (str("\n".join(block).encode()).replace("\\n", "\n") + "\n" for block in blocks)
    (tmp_path / "a.log").write_text("\n".join(written), "utf-8")
    texts = [message.content for _, example in examples_of(tmp_path / "a.log") for message in example.messages]
    said = {line for text in texts for line in text.split("\n")}
    assert len(said) == 32 and all(line.endswith(' said “ok"') for line in said)
    assert not any("\\" in line or "b'" in line for line in said)
    (tmp_path / "b.log").write_text("\n".join(f"12:00 <{nick}> a\\nb" for nick in ("ann", "ben") * 9), "utf-8")
    assert "a\\nb" in next(examples_of(tmp_path / "b.log"))[1].messages[0].content


def in_folder(folder: Path, **files: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows), "utf-8")
    return folder


def test_files_that_belong_together_by_ids_are_said_to(tmp_path: Path) -> None:
    """Seen: the questions of a set stood in one file, their answers in another, and a shared id was seen by nobody."""
    asked = rows_by(lambda n: {"id": n, "question": f"How many prophets are there in part {n}?"})
    given = rows_by(lambda n: {"id": n % 9, "reponse": f"There are {n} of them, I think.", "score": n % 3})
    folder = in_folder(tmp_path / "set", asked=asked, given=given)
    [note] = [str(note) for note in inspect_file(folder).notes if note.key == "data.note_shared_ids"]
    assert note.startswith("“id” in given.json holds ids of rows of asked.json (“id”)")
    cited = rows_by(lambda n: {"query": f"What does part {n} say, in a word?", "found": [[f"0a3f-{n:05}"]], "n": n})
    texts = rows_by(
        lambda n: {"doc": f"0a3f-{n:05}", "contents": f"title: The part {n}\nbody: It is said in part {n}."}
    )
    assert "data.note_shared_ids" in keys(in_folder(tmp_path / "other", cited=cited, texts=texts))
    # Numbers of their own, which both files count, say nothing.
    one = rows_by(lambda n: {"id": n, "left": f"This is text {n} of it.", "right": f"That is text {n} of it."})
    other = rows_by(lambda n: {"id": n + 5, "name": f"Lamp {n}", "says": f"A lamp of {n} watts.", "count": n % 4})
    assert "data.note_shared_ids" not in keys(in_folder(tmp_path / "apart", one=one, other=other))


def test_a_first_row_in_doubt_is_said_of_a_folder_too(tmp_path: Path) -> None:
    """Seen: of three files, the first row of each was taken for the names of columns without a word."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.tsv").write_text(
            "".join(f"3D_{w}\t3d {w.lower()} {name}\n" for w in ("Art", "Car", "Fan"))
        )
    assert "data.note_header_unsaid" in keys(tmp_path / "one.tsv")
    assert "data.note_header_unsaid" in keys(tmp_path)
