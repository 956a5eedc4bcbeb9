"""Readings that a sensible person may not want are asked or refused; each was trained silently before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.sets.inspection import inspect_file
from core.errors import DataError

TEXT = "The {} river carries an old lamp home."
WORDS = [f"{a}{b}" for a in ("bra", "klo", "mun", "ser", "tav") for b in ("dik", "fen", "gol", "hup", "jat", "lim")]
DOUBTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "customer and agent are people": ({"customer": "Ann {}", "agent": "Bo {}", "description": TEXT},
        ["description>customer", "customer>description", "description", "customer>agent"]),
    "answers marked right or wrong": ({"question": "Why {}?", "answer": TEXT, "is_correct": "BOOL"},
        ["question>answer", "answer>is_correct+question"]),
    "an answer and its correction": ({"prompt": "Why {}?", "response": TEXT, "edited_response": f"So: {TEXT}"},
        ["prompt>response", "prompt>edited_response"]),
    "a title above a text": ({"title": "{}", "content": TEXT}, ["content", "title>content"]),
    "a name and its description": ({"name": "{}", "description": TEXT, "price": "3"},
        ["description", "name>description"]),
    "two questions with an answer each": ({"user_1": "Why is {} so?", "assistant_1": TEXT, "user_2": "And what of {}?",
        "assistant_2": TEXT}, ["user_1>assistant_1", "user_1>assistant_2"]),
    "labels 1 and 2 of two texts": ({"title": "{}", "text_1": TEXT, "text_2": f"So: {TEXT}", "label": "12"},
        ["text_2>label+text_1", "text_1>text_2", "text_2>text_1"]),
}  # fmt: skip


def filled(columns: dict[str, str], at: int) -> dict[str, Any]:
    marks = {"BOOL": at % 3 > 0, "12": at % 2 + 1}
    return {name: marks.get(text, text.format(WORDS[at])) for name, text in columns.items()}


def arrow(roles: dict[str, Any]) -> str:
    of = {role: name for name, role in roles.items()}
    return of.get("text") or f"{of['question']}>{of['answer']}" + (f"+{of['context']}" if "context" in of else "")


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


@pytest.mark.parametrize("name", DOUBTS)
def test_what_names_leave_open_is_asked(name: str, tmp_path: Path) -> None:
    columns, readings = DOUBTS[name]
    lines = [json.dumps(filled(columns, at)) for at in range(len(WORDS))]
    report = inspect_file(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert report.undecided and [arrow(roles) for roles in report.readings] == readings


@pytest.mark.parametrize("row", [["red", "blue"], {"contents": ["It was late.", "He slept."]}])
def test_lists_of_texts_in_turn_are_a_guess_until_a_person_names_the_format(row: Any, tmp_path: Path) -> None:
    """Synonyms, or the paragraphs of a story, were a conversation."""
    file = written(tmp_path, "a.json", json.dumps([row] * 4))
    assert inspect_file(file).guessed and not inspect_file(file, "messages").guessed


def test_lines_divided_by_a_sign_are_no_cards_until_a_person_says_so(tmp_path: Path) -> None:
    """Settings (speed = 30) were questions and answers."""
    cards = written(tmp_path, "a.txt", "".join(f"{word} = {at}\n" for at, word in enumerate(WORDS)))
    assert inspect_file(cards).guessed
    terms = written(tmp_path, "b.txt", "".join(f"{word}: {TEXT.format(word)}\n" for word in WORDS))
    assert inspect_file(terms).undecided


def test_intents_are_asked_and_names_of_stories_are_no_text(tmp_path: Path) -> None:
    """The name of an intent was learned as the answer, though its answers stand in another file."""
    nlu = "nlu:\n- intent: greet\n  examples: |\n    - hey you there\n    - good morning to you\n"
    assert inspect_file(written(tmp_path, "nlu.yml", nlu)).undecided
    story = json.dumps({"story": "one", "steps": [{"intent": "x"}, {"action": "y"}]})
    with pytest.raises(DataError):
        inspect_file(written(tmp_path, "a.jsonl", f"{story}\n" * 5))


QUIZ = {"title": "Which town is on the Seine?", "analysis": "Paris lies on the river Seine."}


def test_keys_of_options_in_any_notation_are_read_or_refused(tmp_path: Path) -> None:
    options = json.dumps([{"code": "A", "content": "Rome"}, {"code": "B", "content": "Paris"}])
    rows = [QUIZ | {"options": options, "right_answer": key} for key in ("A", "B", "AB")]
    kept: list[str] = []
    inspect_file(written(tmp_path, "a.json", json.dumps(rows)), keep=lambda row: kept.append(row.example or ""))
    assert json.loads(kept[2])["messages"][1]["content"] == "A. Rome\nB. Paris"
    for shown, key in ((["Rome", "Paris", "Bern"], [1]), ({"A": "Rome", "B": "Paris"}, "B")):
        rows = [{"klausimas": QUIZ["title"], "atsakymai": shown, "teisingas": key}] * 4
        with pytest.raises(DataError, match="“teisingas” holds letters or numbers that stand for texts in “atsakymai”"):
            inspect_file(written(tmp_path, "b.json", json.dumps(rows)))


def lines(row: str, count: int = 12) -> str:
    return "".join(row.replace("{}", str(at)) + "\n" for at in range(count))


UNREAD = {
    "evals.jsonl": lines('{"input": [{"role": "user", "content": "{} + 1?"}], "ideal": "{}"}'),
    "preference_strength.jsonl": lines('{"prompt": "Why {}?", "response_1": "So {}.", "response_2": "No {}.", '
        '"preference_strength": -2}'),
    "google.json": '{"messages": [' + ", ".join(['{"creator": {"name": "Ann"}, "created_date": "x", "text": "Hi"}'] * 9)
        + "]}",
    "signal_cli.jsonl": lines('{"envelope": {"timestamp": {}, "dataMessage": {"message": "Hello {} to you"}}}'),
    "persona.txt": lines("1 your persona: i like {} cats.\n2 hello there you\thi, how are you {}?\n3 fine\tgood {}"),
    "history.md": "# aider chat started at 2024-08-20 14:08:19\n\n#### Make a test\n\nI do.\n",
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_what_no_reader_knows_is_asked_or_refused(name: str, tmp_path: Path) -> None:
    try:
        report = inspect_file(written(tmp_path, name, UNREAD[name]))
    except DataError:
        return
    assert report.undecided or report.guessed or not report.good_rows
