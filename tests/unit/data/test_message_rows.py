"""Tables with one message in each row become conversations: grouped, in order, and never by accident."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core.data.reading.choices import Choices
from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of

Rows = list[dict[str, Any]]


def written(folder: Path, rows: Rows, kind: str = "jsonl") -> Path:
    file = folder / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif kind == "csv":
        text = io.StringIO()
        table = csv.DictWriter(text, [*rows[0]])
        table.writeheader()
        table.writerows(rows)
        file.write_text(text.getvalue(), "utf-8")
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]", "utf-8")
    return file


def talks(file: Path, choices: Choices = Choices()) -> list[str]:  # noqa: B008
    return [
        " | ".join(f"{message.role[0]} {message.content}" for message in example.messages)
        for _, example in examples_of(file, choices=choices)
    ]


def notes(report: DataReport) -> set[str]:
    return {note.key for note in report.notes}


def rows_of(names: tuple[str, ...], *cells: tuple[Any, ...]) -> Rows:
    return [dict(zip(names, row, strict=True)) for row in cells]


SUPPORT = rows_of(
    ("Ticket-Nr", "Zeitpunkt", "Absender", "Nachricht"),
    ("T-7", "31.01.2025 10:05", "Kunde", "Wo ist mein Paket?"),
    ("T-9", "31.01.2025 10:06", "Kundin", "Wie kündige ich?"),
    ("T-7", "01.02.2025 08:00", "Mitarbeiter", "Es ist unterwegs."),
    ("T-9", "31.01.2025 10:09", "Mitarbeiter", "Per Brief."),
    ("T-7", "31.01.2025 10:07", "Kunde", "Hallo?"),
)
SUPPORT_TALKS = ["u Wo ist mein Paket?\nHallo? | a Es ist unterwegs.", "u Wie kündige ich? | a Per Brief."]
SHAPES: dict[str, tuple[Rows, list[str]]] = {
    "by ticket and German dates": (SUPPORT, SUPPORT_TALKS),
    "a task's dialogues, whose system answers": (
        rows_of(
            ("dialogue_id", "turn_idx", "speaker", "utterance", "slots"),
            ("b", 0, "USER", "A table for two?", ["people"]),
            ("a", 10, "USER", "Bye", []),
            ("a", 2, "USER", "Thanks", []),
            ("b", 1, "SYSTEM", "At what time?", []),
            ("a", 1, "SYSTEM", "It leaves at nine.", []),
            ("a", 0, "USER", "When does it leave?", ["time"]),
            ("a", 3, "SYSTEM", "You are welcome.", []),
        ),
        [
            "u A table for two? | a At what time?",
            "u When does it leave? | a It leaves at nine. | u Thanks | a You are welcome.",
        ],
    ),
    "numbered agents, a greeting first, a system text": (
        rows_of(
            ("chatId", "participant", "body"),
            (1, "system", "Be kind."), (1, "Agent #4", "Hello!"), (1, "Visitor", "Hi, is it open?"),
            (1, "Agent #4", "Yes."), (2, "Visitor", "Anybody?"),
        ),
        ["s Be kind. | u Hi, is it open? | a Yes."],
    ),
    "Chinese names": (
        rows_of(("会话编号", "角色", "内容"), ("一", "用户", "你好"), ("一", "客服", "您好"),
                ("二", "顾客", "几点开门"), ("二", "客服", "九点")),
        ["u 你好 | a 您好", "u 几点开门 | a 九点"],
    ),
    "a repeated id": (
        rows_of(("id", "role", "text"), (4, "user", "a?"), (4, "assistant", "b"), (5, "user", "c?"),
                (5, "assistant", "d")),
        ["u a? | a b", "u c? | a d"],
    ),
    "turns that count from the beginning again": (
        rows_of(("turn", "role", "content"), (1, "user", "a?"), (2, "assistant", "b"), (1, "user", "c?"),
                (2, "assistant", "d")),
        ["u a? | a b", "u c? | a d"],
    ),
    "a system text before each": (
        rows_of(("role", "content"), ("system", "S"), ("user", "a?"), ("assistant", "b"), ("system", "T"),
                ("user", "c?"), ("assistant", "d")),
        ["s S | u a? | a b", "s T | u c? | a d"],
    ),
    "nothing says where one ends": (
        rows_of(("role", "content"), ("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d")),
        ["u a? | a b | u c? | a d"],
    ),
    "directions of messages, the newest first": (
        rows_of(("Direction", "Sent at", "Message"), ("outgoing", "2024-03-02T10:00:05", "d"),
                ("incoming", "2024-03-02T10:00:00", "c?"), ("outgoing", "2024-03-01T10:00:05", "b"),
                ("incoming", "2024-03-01T10:00:00", "a?")),
        ["u a? | a b", "u c? | a d"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", SHAPES)
def test_messages_in_rows_are_conversations_in_their_order(name: str, kind: str, tmp_path: Path) -> None:
    rows, expected = SHAPES[name]
    file = written(tmp_path, rows, kind)
    assert talks(file) == expected
    report = inspect_file(file)
    assert "data.note_messages" in notes(report) and not report.guessed


def test_thousands_of_mixed_conversations_come_out_one_by_one(tmp_path: Path) -> None:
    cells = [
        (f"c{conversation}", turn, ("human", "bot")[turn % 2], f"{conversation} {turn}")
        for conversation in range(800)
        for turn in range(6)
    ]
    random.Random(7).shuffle(cells)
    file = written(tmp_path, rows_of(("conversation", "turn", "from", "value"), *cells), "csv")
    assert sorted(talks(file)) == sorted(
        " | ".join(f"{'ua'[turn % 2]} {conversation} {turn}" for turn in range(6)) for conversation in range(800)
    )


PLAY = rows_of(
    ("act", "scene", "character", "line"),
    (1, 1, "Rosa", "Who is there?"), (1, 1, "Emil", "It is only me."), (1, 1, "Emil", "Emil."), (1, 2, "Ada", "Tea?"),
    (1, 2, "Emil", "Please."), (1, 2, "Ada", "With milk?"),
)  # fmt: skip


def test_people_are_a_chat_whose_voice_is_chosen(tmp_path: Path) -> None:
    file = written(tmp_path, PLAY, "csv")
    chat = inspect_file(file).chat
    assert chat and (chat.voice, chat.guessed, chat.conversations, chat.pseudonyms) == ("Emil", True, 2, True)
    as_it_is = Choices(pseudonyms=False)
    assert talks(file, as_it_is) == ["u Who is there? | a It is only me.\nEmil.", "u Tea? | a Please."]
    assert talks(file, Choices(voice="ada")) == ["u Please. | a With milk?"]
    with pytest.raises(DataError, match="Bert"):
        inspect_file(file, choices=Choices(voice="Bert"))


def test_a_silence_ends_a_conversation_of_people_where_no_column_does(tmp_path: Path) -> None:
    rows = rows_of(("date", "time", "nick", "msg"), ("03/13/2024", "9:00 am", "lu", "up?"), ("03/13/2024", "9:01 am",
        "kai", "no"), ("03/14/2024", "8:00 pm", "lu", "and now?"), ("03/14/2024", "8:02 pm", "kai", "yes"))  # fmt: skip
    file = written(tmp_path, rows)
    assert talks(file, Choices(voice="kai")) == ["u up? | a no", "u and now? | a yes"]
    assert talks(file, Choices(voice="kai", gap_hours=72)) == ["u up? | a no | u and now? | a yes"]


def test_calls_of_tools_stay_and_other_columns_are_named(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    rows: Rows = [
        {"session_id": "s", "role": "user", "content": "What time is it?", "model": "m"},
        {"session_id": "s", "role": "assistant", "content": None, "tool_calls": [call], "model": "m"},
        {"session_id": "s", "role": "tool", "content": "9:00", "tool_call_id": "c1"},
        {"session_id": "s", "role": "assistant", "content": "It is nine."},
    ]
    file = written(tmp_path, rows)
    messages = next(examples_of(file))[1].messages
    assert [(message.role, len(message.tool_calls)) for message in messages] == [
        ("user", 0), ("assistant", 1), ("tool", 0), ("assistant", 0),
    ]  # fmt: skip
    assert [(one.what.params["name"], one.count) for one in inspect_file(file).left_out] == [("model", 1)]


TREE = rows_of(
    ("message_id", "parent_id", "role", "text", "rank"),
    ("c", "b", "prompter", "And?", None), ("a", None, "prompter", "Why?", None), ("d", "a", "assistant", "No.", 1),
    ("b", "a", "assistant", "So.", 0), ("x", "", "prompter", "Who?", None), ("y", "x", "assistant", "Me.", None),
    ("z", "x", "assistant", "You.", None), ("e", "c", "assistant", "Thus.", None),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_messages_that_name_the_one_they_answer_are_the_conversations_of_the_best_answers(
    kind: str, tmp_path: Path
) -> None:
    file = written(tmp_path, TREE, kind)
    assert talks(file) == ["u Why? | a So. | u And? | a Thus.", "u Who? | a Me."]
    assert {one.what.key: one.count for one in inspect_file(file).left_out} == {"left_out.branch": 2}


def test_messages_that_answer_each_other_in_a_circle_end(tmp_path: Path) -> None:
    circle = rows_of(tuple(TREE[0]), ("p", "q", "prompter", "Round?", None), ("q", "p", "assistant", "Round.", None))
    assert len(talks(written(tmp_path, [*TREE, *circle]))) == 2


def test_a_message_that_stands_twice_in_a_file_is_one(tmp_path: Path) -> None:
    pairs = [
        cells
        for i in range(60)
        for cells in ((f"q{i}", "", "prompter", f"{i}?", None), (f"r{i}", f"q{i}", "assistant", f"{i}.", 0))
    ]
    expected = [f"u {i}? | a {i}." for i in range(60)]
    rows = [*rows_of(tuple(TREE[0]), *pairs), *TREE, *TREE]
    assert talks(written(tmp_path, rows)) == [*expected, "u Why? | a So. | u And? | a Thus.", "u Who? | a Me."]


def test_ids_that_begin_again_in_each_folder_are_different_conversations(tmp_path: Path) -> None:
    names = ("folder", "dialogueID", "from", "text")
    cells = [(folder, "1.tsv", who, f"{who} {folder} {i}") for folder in (3, 4) for i in (0, 1) for who in ("lu", "mo")]
    chat = inspect_file(written(tmp_path, rows_of(names, *cells))).chat
    assert chat and chat.conversations == 2


def test_content_with_its_text_in_a_value_is_read(tmp_path: Path) -> None:
    def part(text: str) -> Any:
        return [{"type": "text", "text": {"value": text, "annotations": []}}]

    rows = rows_of(("thread_id", "role", "content"), ("t", "user", part("Why?")), ("t", "assistant", part("So.")))
    assert talks(written(tmp_path, rows)) == ["u Why? | a So."]


NO_TALK: dict[str, Rows] = {
    "articles with authors": rows_of(
        ("author", "title", "text", "date"), *((f"a{i % 3}", "t", f"A text of some words {i}", f"2024-01-0{i + 1}")
        for i in range(8))
    ),
    "quotes": rows_of(
        ("author", "text"), *(("Ada Ion", f"All is number {i}.") for i in range(6)), ("Bo", "No, it is not.")
    ),
    "texts by people and machines": rows_of(
        ("text", "author"), *((f"Some words of text {i}.", "human" if i in (0, 1, 4, 5, 6) else "ai") for i in range(9))
    ),
    "a persona beside each answer": rows_of(
        ("role", "question", "answer"), ("doctor", "Why?", "So."), ("teacher", "How?", "Thus."), ("user", "If?", "Yes.")
    ),
    "classes of texts": rows_of(("text", "label"), ("One two three.", "user"), ("Four five six.", "bot")) * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", NO_TALK)
def test_a_table_with_names_of_people_or_roles_is_no_conversation_by_that_alone(name: str, tmp_path: Path) -> None:
    report = inspect_file(written(tmp_path, NO_TALK[name], "csv"))
    assert "data.note_messages" not in notes(report) and report.rows == len(NO_TALK[name])


def test_chosen_columns_win_over_conversations(tmp_path: Path) -> None:
    file = written(tmp_path, SUPPORT, "csv")
    report = inspect_file(file, choices=Choices(columns={"Nachricht": "text"}))
    assert (report.format, report.rows) == ("text", len(SUPPORT))


def test_messages_that_nobody_can_learn_from_are_counted_or_refused(tmp_path: Path) -> None:
    names = ("conversation_id", "role", "content")
    odd = rows_of(names, ("1", "user", "a?"), ("1", "assistant", "b"), ("1", "user", ""), ("", "user", "lost"),
                  ("1", "supervisor", "note"), ("2", "user", "c?"), ("", "", "x"))  # fmt: skip
    rows = odd + rows_of(names, *(("3", ("user", "assistant")[i % 2], f"{i}") for i in range(8)))
    file = written(tmp_path, rows)
    assert len(talks(file)) == 2
    counts = {one.what.key.removeprefix("left_out."): one.count for one in inspect_file(file).left_out}
    assert counts == {"chat_deleted": 1, "chat_nowhere": 2, "chat_unanswered": 1, "message": 1}
    silent = written(tmp_path, rows_of(names, *((str(i), ("user", "assistant")[i % 2], "words") for i in range(8))))
    with pytest.raises(DataError, match="no message is answered"):
        inspect_file(silent)


def test_tables_of_messages_in_a_folder_are_each_read_as_such(tmp_path: Path) -> None:
    written(tmp_path, SUPPORT, "csv")
    written(tmp_path, SHAPES["a repeated id"][0], "jsonl")
    assert talks(tmp_path) == [*SUPPORT_TALKS, *SHAPES["a repeated id"][1]]
    assert sum(note.key == "data.note_in_file" for note in inspect_file(tmp_path).notes) == 2


def test_a_message_with_a_row_for_each_reaction_is_one_message(tmp_path) -> None:
    names = ("Sender", "Content", "Timestamp", "Reaction")
    rows = [
        ("Ann", "Who brings the cake today?", "2025-03-09 10:00:00", ""),
        ("Bo", "I do, it is in the oven.", "2025-03-09 10:01:00", "heart"),
        ("Bo", "I do, it is in the oven.", "2025-03-09 10:01:00", "thumb"),
        ("Ann", "Then I bring the plates.", "2025-03-09 10:02:00", ""),
        ("Bo", "Good, see you there.", "2025-03-09 10:03:00", "heart"),
    ]
    file = written(tmp_path, rows_of(names, *rows), "csv")
    report = inspect_file(file, choices=Choices(voice="Bo", pseudonyms=False))
    assert talks(file, Choices(voice="Bo", pseudonyms=False))[0].count("oven") == 1
    assert report.chat is not None and report.chat.people[0].messages == 2
    assert "left_out.chat_again" in {each.what.key for each in report.left_out}


def test_a_column_of_few_kinds_is_not_what_was_said(tmp_path) -> None:
    kinds = ("statement", "question", "greeting")
    rows = [{"session": i // 20, "sender": "ab"[i % 2], "dialog": kinds[i % 3]} for i in range(60)]
    assert "data.note_messages" not in notes(inspect_file(written(tmp_path, rows, "csv")))
