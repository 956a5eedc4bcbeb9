"""Causes of wrong readings in a seventh set of files that nobody had seen, of chats: each rule, with a made file."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of

BELOW = [f"1. Gravel - {n}" for n in range(6)]


def written(tmp_path: Path, name: str, lines: list[str]) -> Path:
    (tmp_path / name).write_text("\n".join([*lines, ""]), "utf-8")
    return tmp_path / name


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        inspect_file(path)
    return caught.value.message.key


def messages(path: Path) -> list[str]:
    return [message.content for _, example in examples_of(path) for message in example.messages]


def whatsapp(names: list[str]) -> list[str]:
    head = ["NOTE:", "This is a sample of a chat.", ""]
    return head + [line for n, name in enumerate(names) for line in (f"12/1/25, 9:{n + 10} AM - {name}: T{n}", *BELOW)]


def test_an_export_with_a_text_above_and_long_messages_is_a_chat_and_one_person_none(tmp_path: Path) -> None:
    """Seen: a group's export was prose to be learned, with its dates, its only sender and the note above it."""
    path = written(tmp_path, "a.txt", whatsapp(["Ana", "Ben"] * 4))
    assert inspect_file(path).chat and not any("NOTE" in text or "9:1" in text for text in messages(path))
    assert refused(written(tmp_path, "b.txt", whatsapp(["Site"] * 8))) == "data.chat_of_one"
    # A log of a program, another app's chat, and a text with a message or two in it, are none.
    other = [line.replace(" - ", ", ") for line in whatsapp(["Ana", "Ben"] * 4)]
    for lines in (whatsapp(["ERROR"] * 8), other, ["It began so.", *BELOW * 5, *whatsapp(["Ana"] * 4)]):
        report = inspect_file(written(tmp_path, "c.txt", lines))
        assert report.chat is None


def test_a_copy_of_a_database_is_no_source_code_and_sql_that_a_person_wrote_is(tmp_path: Path) -> None:
    """Seen: the dump of a forum was trained as source code, its commands and its settings too."""
    make, fill = "CREATE TABLE `posts` (\n  `id` int,\n  `text` text\n);", "INSERT INTO `posts` VALUES\n(1, 'Hello');"
    dumps = [
        ["-- phpMyAdmin SQL Dump", make],
        ["-- PostgreSQL database dump", "", "COPY posts FROM stdin;"],
        [make, fill],
    ]
    for number, lines in enumerate(dumps):
        path = written(tmp_path, f"{number}.sql", lines)
        assert refused(path) == "data.is_sql_dump"
    # Among code it is left out, and said.
    for name in ("a.py", "b.py"):
        written(tmp_path, name, ["print('Hello')"] * 5)
    assert "data.note_refused_file" in [note.key for note in inspect_file(tmp_path).notes]
    query = ["-- Posts of a day; the dump is older.", "SELECT text FROM posts", "WHERE id > 1;"]
    for lines in (query, [make, fill, *query], [make, "CREATE INDEX places ON posts (id);"]):
        path = written(tmp_path, "q.sql", lines)
        assert [note.key for note in inspect_file(path).notes][0] == "data.note_code"


def test_names_that_fill_a_line_are_the_sides_of_a_talk_in_markdown(tmp_path: Path) -> None:
    """Seen: a talk with a program was prose to be learned, the person's part and the names too."""
    said = ["Use this prompt:\n\nUser: Hello\nAssistant: Hi", "**Strengths:**\n\nNone.\n\n**AI**\n\n---\n\nIt is new."]
    talk = [("User", "How do I ask?"), ("Cursor", said[0]), ("User", "Is it good?"), ("Cursor", said[1])]
    for mark in ("---\n\n**{}**\n", "## {}\n", "_**{} (today)**_\n", "##### **{}:**\n"):
        lines = ["# A talk\n", *(f"{mark.format(name)}\n{text}\n" for name, text in talk)]
        path = written(tmp_path, "a.md", lines)
        assert [*filter(lambda text: text != "# A talk", messages(path))] == [text for _, text in talk]
    # Two such lines, and headings of other words, are a text.
    for lines in (
        ["**User**\n", "Reads.\n", "**AI**\n", "Writes.\n"],
        ["**Pros**\n", "Fast.\n", "**Cons**\n", "New.\n"] * 4,
    ):
        assert next(examples_of(written(tmp_path, "b.md", lines)))[1].text


def test_a_text_and_code_of_the_same_name_and_length_belong_together_line_by_line(tmp_path: Path) -> None:
    """Seen: of questions and their queries in two files, the queries were trained as source code."""
    written(tmp_path, "dev.nl", [f"which flights leave on day {n}" for n in range(24)])
    written(tmp_path, "dev.sql", [f"SELECT id FROM flight WHERE day = {n}" for n in range(24)])
    assert refused(tmp_path) == "data.line_pairs"
    # Other code makes it a folder of sources.
    written(tmp_path, "run.sql", ["SELECT id FROM flight WHERE day = 1"])
    assert [note.key for note in inspect_file(tmp_path).notes][0] == "data.note_code"


def test_tags_before_names_are_no_part_of_them_and_a_line_with_a_time_continues_nothing(tmp_path: Path) -> None:
    """Seen: one person was two, and who had come and gone stood in what others had written."""
    said = ["[G] Ana: Where are you?", "[G] [S] Ben: Here", "[S] Ana has joined the channel.", "[S] Ben: Hi"]
    said = [*said, "[G] Ana: And the", "Ben -> Ana: Look left"] * 4
    path = written(tmp_path, "chat.log", [f"2025.02.14 17:{n + 10}:19 {text}" for n, text in enumerate(said)])
    with path.open("a") as file:
        file.write("at 17:40 or so\n17:50 at the latest\n")
    chat = inspect_file(path).chat
    assert chat and {person.name for person in chat.people} == {"Ana", "Ben"}
    texts = messages(path)
    assert not any("joined" in text or "2025" in text for text in texts) and any("17:50 at" in text for text in texts)
