"""`inspect FILE --json`: each key that programs read, and exit 2 with one sentence where nothing can be learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.commands.__main__ import main

SAID = {"question": "Why is it so?", "answer": "Because it rains so much here."}


@pytest.fixture
def inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(name: str, content: str, *more: str) -> tuple[int, dict[str, Any], str]:
        (tmp_path / name).write_text(content, "utf-8")
        code = main(["inspect", str(tmp_path / name), "--json", "--workspace", str(tmp_path / "ws"), *more])
        output = capsys.readouterr()
        return code, json.loads(output.out) if output.out else {}, output.err

    return ask


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
CHAT = "\n".join(
    f"12/03/2025, {hour}:00 - {who}: {hour}" for hour, who in ((10, "Maria"), (11, "Jo"), (18, "Maria"), (19, "Jo"))
)


@pytest.mark.parametrize(
    ("name", "content", "kind", "columns"),
    [
        ("a.jsonl", json.dumps(SAID), "instruction", {"question": ("question", False), "answer": ("answer", False)}),
        ("a.csv", "Frage;Antwort\nWas ist denn Regen?;Wasser vom Himmel da oben.\n", "instruction",
            {"Frage": ("question", False), "Antwort": ("answer", False)}),
        ("a.jsonl", json.dumps({"messages": MESSAGES, "source": "web"}), "chat", {"messages": ("messages", False),
            "source": (None, False)}),
        ("a.txt", CHAT, "chat", {"messages": ("messages", False)}),
        ("a.txt", "One day it rained.\n\nThen it did not.", "text", {"text": ("text", False)}),
        ("a.jsonl", json.dumps({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}), "preference", None),
    ],
)  # fmt: skip
def test_a_file_says_its_kind_its_columns_and_its_first_rows(
    inspected, name: str, content: str, kind: str, columns: Any
) -> None:
    code, report, _ = inspected(name, content)
    assert (code, report["kind"], report["questions"]) == (0, kind, []) and 1 <= len(report["examples"]) <= 3
    if columns:
        assert {name: (each["role"], each["guessed"]) for name, each in report["columns"].items()} == columns


def test_columns_of_the_names_that_a_kept_sentence_has_are_columns(inspected) -> None:
    row = {"key": SAID["question"], "params": SAID["answer"]}
    code, report, _ = inspected("a.jsonl", json.dumps(row), "--columns", "question=key,answer=params")
    assert code == 0 and {name: each["role"] for name, each in report["columns"].items()} == {
        "key": "question",
        "params": "answer",
    }


def test_what_is_left_out_and_what_is_found_is_counted_with_its_reason(inspected) -> None:
    rows = [SAID | {"page": 3}, SAID | {"question": "Who are {{name}} and why?"}]
    _, report, _ = inspected("a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [
        (each["count"], "page" in each["what"]["sentence"], bool(each["why"]["sentence"]))
        for each in report["left_out"]
    ] == [(1, True, True)]
    (finding,) = report["findings"]
    assert (finding["id"], finding["count"], finding["of"], finding["examples"][0]["row"]) == ("placeholders", 1, 2, 2)
    assert finding["repairs"][0]["argument"] == "{{name}}"


def test_a_chat_names_its_people_and_is_read_in_another_voice_and_by_another_silence(inspected) -> None:
    _, report, _ = inspected("a.txt", CHAT)
    assert (
        report["people"] == [{"name": "Maria", "messages": 2}, {"name": "Jo", "messages": 2}]
        and report["conversations"] == 2
    )
    _, report, _ = inspected("a.txt", CHAT, "--voice", "Jo", "--gap-hours", "12")
    assert (report["chat"]["voice"], report["chat"]["gap_hours"], report["conversations"]) == ("Jo", 12, 1)
    assert inspected("a.txt", CHAT, "--voice", "Nobody")[0] == 2


def test_what_must_still_be_said_is_a_question_and_exit_2(inspected) -> None:
    table = "a,b,c\none two three,four five six,seven eight nine\n"
    code, report, _ = inspected("a.csv", table)
    [question] = report["questions"]
    assert (code, question["id"], len(question["readings"])) == (2, "answer", 4)
    code, report, _ = inspected("a.csv", table, "--answer", "b")
    assert (code, report["questions"], report["columns"]["b"]["role"]) == (0, [], "answer")
    assert inspected("a.csv", table, "--answer", "d")[0] == 2
    assert inspected("a.csv", "a,b,c,d\n1,2,3,4\n")[0] == 2  # nothing in it is text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        json.dumps(SAID | {"answer": ""}),
        json.dumps({"id": 3}),
        ",".join(f"c{i}" for i in range(10_001)) + "\n1",
    ],
)
def test_where_nothing_can_be_learned_it_is_exit_2_and_one_sentence(inspected, content: str) -> None:
    code, _, err = inspected("a.csv" if content.startswith("c0") else "a.jsonl", content)
    assert code == 2 and len(err.strip().splitlines()) == 1 and len(err) < 1500, err[:300]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_table_of_ten_thousand_columns_is_read_by_those_that_say_something(inspected, name: str) -> None:
    wide = SAID | {f"c{i}": i for i in range(9_998)}
    table = ",".join(wide) + "\n" + ",".join(map(str, wide.values()))
    code, report, err = inspected(name, table if name == "a.csv" else json.dumps(wide))
    assert (code, report["good_rows"], report["examples"][0]["messages"][1]["content"]) == (0, 1, SAID["answer"]), err[
        :300
    ]
    assert sum(each["count"] for each in report["left_out"]) >= 1


# --- the text that is trained ----------------------------------------------------------------------------------------
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "No.", "weight": 0},
    {"role": "user", "content": "Please"},
    {"role": "assistant", "content": "Hello.", "thinking": "They insist."},
]


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (SAID, [("user", SAID["question"], False), ("assistant", SAID["answer"], True)]),
        ({"text": "Once upon a time."}, [(None, "Once upon a time.", True)]),
        ({"prompt": "1 + 1 =", "completion": " 2"}, [(None, "1 + 1 =", False), (None, " 2", True)]),
        (
            {"messages": TURNS},
            [(each["role"], each["content"], each["content"] == "Hello.") for each in TURNS],
        ),
        (
            {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
            [("user", "Why?", False), ("assistant", "Because.", True)],
        ),
    ],
)
def test_rows_shows_what_of_each_is_trained(inspected, row: dict[str, Any], parts: list[Any]) -> None:
    _, report, _ = inspected("a.jsonl", "\n".join(json.dumps(row | {"id": i}) for i in range(5)), "--rows", "4")
    assert [each["row"] for each in report["trained_text"]] == [1, 2, 3, 4]
    first = report["trained_text"][0]
    assert [(part["role"], part["text"], part["trained"]) for part in first["parts"]] == parts
    assert not first["validation"]
    if "rejected" in row:
        assert [part["text"] for part in first["rejected"]] == ["Why?", "No."]
        assert not any(part["trained"] for part in first["rejected"])
    if "messages" in row:
        assert first["parts"][-1]["thinking"] == "They insist."


def test_rows_are_not_in_the_answer_unless_asked_for(inspected, tmp_path: Path, capsys) -> None:
    assert "trained_text" not in inspected("a.jsonl", json.dumps(SAID))[1]
    assert inspected("a.jsonl", json.dumps(SAID), "--rows", "-1")[0] == 2
    assert main(["inspect", str(tmp_path / "a.jsonl"), "--rows", "9", "--workspace", str(tmp_path / "ws")]) == 0
    shown = capsys.readouterr().out
    assert f"[context] user: {SAID['question']}" in shown and f"[trained] assistant: {SAID['answer']}" in shown


def test_validation_rows_are_marked(tmp_path: Path, capsys) -> None:
    for name in ("train", "dev"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{name}.jsonl").write_text(json.dumps(SAID | {"question": f"Why {name}?"}), "utf-8")
    assert main(["inspect", str(tmp_path / "set"), "--rows", "9", "--json", "--workspace", str(tmp_path / "ws")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(each["row"], each["validation"]) for each in report["trained_text"]] == [(1, True), (2, False)]
    assert main(["inspect", str(tmp_path / "set"), "--rows", "9", "--workspace", str(tmp_path / "ws")]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"[validation] assistant: {SAID['answer']}" in shown and f"[trained] assistant: {SAID['answer']}" in shown


def test_a_row_that_repeats_another_is_named_once(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [SAID, SAID, SAID | {"answer": ""}])), "utf-8")
    assert main(["inspect", str(tmp_path / "a.jsonl"), "--workspace", str(tmp_path / "ws")]) == 0
    shown = capsys.readouterr().out
    assert "1 duplicate, 1 problem." in shown and shown.count("ow 2") == 1 and "Row 3: the answer is empty" in shown
