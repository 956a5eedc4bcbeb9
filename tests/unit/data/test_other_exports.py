"""Exports of Character.AI, KoboldAI, mbox and YAML sets, each in its real shape: known by content, nothing wrong in
silence."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from core.data.reading.choices import Choices
from core.data.reading.yaml_rows import MAX_BYTES
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.unit.data.test_chat_formats import left, telegram, turns, with_each_value_odd, written


def turn(who: str, human: bool, minute: int, *answers: str, chosen: int = 0) -> dict[str, Any]:
    candidates = [
        {"candidate_id": f"c{i}", "raw_content": text, "is_final": True, "create_time": "x"}
        for i, text in enumerate(answers)
    ]
    author = {"author_id": "1", "name": who} | ({"is_human": True} if human else {})
    when = f"2024-03-01T10:{minute:02}:00.123456Z"
    return {"turn_key": {"chat_id": "a", "turn_id": str(minute)}, "create_time": when, "state": "STATE_OK",
        "author": author,
            "candidates": candidates, "primary_candidate_id": f"c{chosen}"}  # fmt: skip


def test_character_ai_gives_the_characters_chosen_answers_in_the_order_of_time(tmp_path: Path) -> None:
    newest_first = [turn("Mia", True, 3, "Bye"), turn("Holmes", False, 2, "No.", "Elementary.", chosen=1),
                    turn("Mia", True, 1, "Who did it?"), turn("Holmes", False, 0, "Good evening.")]  # fmt: skip
    for content in ({"turns": newest_first, "meta": {"next_token": ""}}, newest_first):
        file = written(tmp_path, "chat.json", content)
        assert turns(file) == [["u Who did it?", "a Elementary."]]
        report = inspect_file(file)
        assert report.chat and (report.chat.app, report.chat.voice) == ("Character.AI", "Holmes")
        assert left(report) == {"unasked": 1, "unanswered": 1, "left_out.branch": 1}


@pytest.mark.parametrize("content", [{"turns": [turn("H", False, 1, "a", "b"), turn("M", True, 0, "c")]}])
def test_whatever_stands_in_such_a_file_is_rows_or_a_sentence(content: Any, tmp_path: Path) -> None:
    for odd in with_each_value_odd(content):
        with contextlib.suppress(DataError):
            inspect_file(written(tmp_path, "a.json", odd))


def test_a_message_of_telegram_that_nobody_wrote_by_hand_is_left_out(tmp_path: Path) -> None:
    messages = [
        telegram("Maria", "Hello?", 1),
        telegram("Jo", "Yes.", 2),
        telegram("Maria", "word " * 220_000, 3),
        telegram("Jo", "Hm.", 4),
    ]
    file = written(tmp_path, "result.json", {"name": "Maria", "type": "personal_chat", "id": 1, "messages": messages})
    report = inspect_file(file, choices=Choices(voice="Jo"))
    assert left(report)["long"] == 1 and report.good_rows >= 1
    assert max(len(text) for turn in turns(file, Choices(voice="Jo")) for text in turn) < 100


def test_a_talk_with_an_assistant_may_be_larger_than_a_row(tmp_path: Path) -> None:
    """Seen: the whole archive was refused for one talk of more than 4 MiB, which long ones have with what their tools
    answered."""

    def node(id: int, role: str, text: str) -> dict[str, Any]:
        message = {
            "id": str(id),
            "author": {"role": role},
            "create_time": 1.7e9 + id,
            "content": {"content_type": "text", "parts": [text]},
        }
        return {"id": str(id), "parent": str(id - 1) if id else None, "children": [str(id + 1)], "message": message}

    nodes = {str(i): node(i, ("user", "assistant")[i % 2], "Why so? " * 16_000) for i in range(40)}
    talks = [
        {"title": "long", "mapping": nodes, "current_node": "39"},
        {
            "title": "short",
            "mapping": {"0": node(0, "user", "Hi"), "1": node(1, "assistant", "Hello")},
            "current_node": "1",
        },
    ]
    file = written(tmp_path, "conversations.json", talks)
    assert file.stat().st_size > 4 << 20
    assert sum(map(len, turns(file))) == 42 and inspect_file(file).error_count == 0


CHATTERBOT = (
    "categories:\n- jokes\nconversations:\n- - Tell me a joke\n  - Why did it cross the road?\n- - Hi\n  - "
    "Hello\n  - Bye\n  - See you\n"
)
RASA = (
    'version: "3.1"\nnlu:\n- intent: greet\n  examples: |\n    - hey\n    - good morning\n- intent: bye\n  '
    "examples: |\n    - see you\n"
)


def test_yaml_of_bots_is_conversations_and_intents(tmp_path: Path) -> None:
    """Seen: refused, with the endings that are read."""
    file = written(tmp_path, "conversations.yml", CHATTERBOT)
    assert turns(file) == [
        ["u Tell me a joke", "a Why did it cross the road?"],
        ["u Hi", "a Hello", "u Bye", "a See you"],
    ]
    rasa = written(tmp_path, "nlu.yml", RASA)
    assert turns(rasa) == [["u hey", "a greet"], ["u good morning", "a greet"], ["u see you", "a bye"]]
    rows = written(tmp_path, "rows.yaml", "- question: When?\n  answer: 2024-01-02\n- question: Who?\n  answer: Me\n")
    assert turns(rows) == [["u When?", "a 2024-01-02"], ["u Who?", "a Me"]]


@pytest.mark.parametrize(
    "word", ["yes", "no", "Off", "18:30", "010", "1_000", "1.10", "0x1F", ".inf", "~5", "=", "TRUE", "7"]
)
def test_words_of_yaml_are_trained_as_they_are_written(tmp_path: Path, word: str) -> None:
    """YAML 1.1 made True of yes, 1110 of 18:30 and 8 of 010."""
    assert turns(written(tmp_path, "a.yaml", f"- question: Now?\n  answer: {word}\n")) == [["u Now?", f"a {word}"]]
    if word != "7":  # a plain number is one there
        assert turns(written(tmp_path, "b.yaml", f"- - Now?\n  - {word}\n")) == [["u Now?", f"a {word}"]]


def test_marks_beside_an_answer_in_yaml_are_no_words(tmp_path: Path) -> None:
    content = "- messages:\n  - {role: user, content: no}\n  - {role: assistant, content: Yes, train: MARK}\n"
    for mark, weight in (("no", 0), ("False", 0), ("off", 0), ("yes", 1), ("TRUE", 1)):
        rows = (
            content.replace("MARK", mark)
            + "  - {role: user, content: And?}\n  - {role: assistant, content: Good., weight: 1.0}\n"
        )
        [(_, example)] = examples_of(written(tmp_path, "a.yaml", rows))
        assert [(m.content, m.weight) for m in example.messages][1::2] == [("Yes", weight), ("Good.", 1)], mark
    [(_, around)] = examples_of(written(tmp_path, "around.yaml", "train:\n" + rows))
    assert around == example
    for columns in (
        "prompt: Who?, completion: Me., label",
        "question: Who?, answer: Me., label",
        "question: Who?, answer: Me., kto_tag",
        "prompt: Who?, completion: Me., text: x, label",
    ):
        rated = written(tmp_path, "b.yaml", f"- {{{columns}: no}}\n- {{{columns}: TRUE}}\n".replace("Who?", "Why?", 1))
        assert [example.is_bad for _, example in examples_of(rated, choices=Choices(rated=True))] == [True, False]
    for name in ("text", "Text"):  # there it is a class
        assert turns(written(tmp_path, "c.yaml", f"- {{{name}: Buy now!, label: no}}\n")) == [["u Buy now!", "a no"]]
    said_so = Choices(columns={"review": "question", "label": "answer"})
    [(_, named)] = examples_of(written(tmp_path, "d.yaml", "- {review: It was dull, label: no}\n"), choices=said_so)
    assert named.messages[-1].content == "no"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "YAML alias"),
        ("[" * 100 + "]" * 100, "more than 64"),
        ("a: {b: c}\n", "no list of rows"),
        ("- a: [\n", "not valid YAML"),
        ("- !!python/object/apply:os.system [echo]\n", "not valid YAML"),
        ("- " + "a" * MAX_BYTES, "larger than 8 MiB"),
    ],
)
def test_yaml_that_cannot_be_is_one_sentence(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        inspect_file(written(tmp_path, "x.yaml", content))


def test_rows_in_yaml_are_no_recipe(tmp_path: Path) -> None:
    from webui.form.data import is_recipe

    assert not is_recipe(str(written(tmp_path, "a.yml", CHATTERBOT))) and not is_recipe(
        str(written(tmp_path, "b.yml", RASA))
    )
    recipe = json.dumps({"data": {"source": "x"}, "train": {"sample_prompts": ["Hi"]}})
    assert is_recipe(str(written(tmp_path, "c.yaml", recipe))) and is_recipe(str(written(tmp_path, "d.yaml", "{{{")))


def deepseek_message(kind: str, text: str, when: str, model: str = "deepseek-chat") -> dict[str, Any]:
    thought = [{"type": "THINK", "content": "Hm."}] if kind == "RESPONSE" else []
    return {"model": model, "inserted_at": when, "fragments": [*thought, {"type": kind, "content": text}]}


def test_deepseeks_export_is_its_own_and_the_newest_branch_is_read(tmp_path: Path) -> None:
    """Seen: it was said to be ChatGPT's or Claude's, without any usable message."""
    times = [f"2025-02-01T09:0{minute}:00+08:00" for minute in range(4)]
    texts = [("REQUEST", "Why?"), ("RESPONSE", "No."), ("RESPONSE", "So.")]
    messages = [deepseek_message(kind, text, when) for (kind, text), when in zip(texts, times, strict=False)]
    nodes = {"root": {"id": "root", "parent": None, "message": None, "children": ["1"]}}
    nodes["1"] = {"id": "1", "parent": "root", "message": messages[0], "children": ["2", "3"]}
    nodes |= {str(id): {"id": str(id), "parent": "1", "message": messages[id - 1], "children": []} for id in (2, 3)}
    content = [{"id": "c", "title": "t", "inserted_at": times[0], "mapping": nodes}]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content), "utf-8")
    [(_, example)] = list(examples_of(file))
    assert [(turn.role, turn.content) for turn in example.messages] == [("user", "Why?"), ("assistant", "So.")]
    report = inspect_file(file)
    assert report.chat is not None and report.chat.app == "DeepSeek"
    assert {str(left.what.params.get("name")) for left in report.left_out} >= {"THINK"}
    # Seen: one answer that was asked for again was left out without a word, as the root, which is empty, was counted.
    assert any("branch" in left.what.key for left in report.left_out)


def graph(person: str, minute: int, html: str, **more: Any) -> dict[str, Any]:
    return {"id": str(minute), "messageType": "message", "createdDateTime": f"2026-01-01T10:{minute:02}:00.000Z",
        "from": {"user": {"displayName": person}}, "body": {"contentType": "html", "content": html},
        "attachments": []} | more  # fmt: skip


def account(person: str | None, minute: int, html: str, kind: str = "RichText/Html") -> dict[str, Any]:
    return {"originalarrivaltime": f"2026-01-01T10:{minute:02}:00Z", "messagetype": kind, "content": html,
        "imdisplayname": person, "from": "https://x/contacts/8:zoe"}  # fmt: skip


ASKED, TOLD = (
    "<p>Is the <b>key</b>&nbsp;there?</p>",
    '<blockquote>Is the key</blockquote><p>Yes <emoji alt="🙂"></emoji></p>',
)
TEAMS = {
    "Graph": [
        graph("Zoe", 3, TOLD), graph("Ann", 2, ASKED), graph("Ann", 1, "", messageType="systemEventMessage"),
    ],
    "account": {"conversations": [{"id": "19:x", "displayName": "Keys", "MessageList": [
        account(None, 3, TOLD, "Text"), account("Ann", 2, ASKED), account("Ann", 1, "<a/>", "ThreadActivity/AddMember"),
    ]}]},
}  # fmt: skip


@pytest.mark.parametrize("name", TEAMS)
def test_chats_of_teams_and_skype_are_read_in_order_without_their_html(name: str, tmp_path: Path) -> None:
    voice = {"Graph": "Zoe", "account": "8:zoe"}[name]
    choices = Choices(voice=voice, pseudonyms=False)
    file = written(tmp_path, "chat.json", TEAMS[name])
    assert turns(file, choices) == [["u Is the key there?", "a Yes 🙂"]]
    report = inspect_file(file, choices=choices)
    assert report.chat and report.chat.app == "Microsoft Teams, Skype" and left(report) == {"app": 1}


GROK = {
    "conversations": [
        {
            "conversation": {"id": "1", "title": "Tea"},
            "responses": [
                {"response": {"sender": "human", "message": "Is tea hot?", "create_time": {"$date": {}}}},
                {"response": {"sender": "ASSISTANT", "message": 'Yes.<grok:render card_id="1"><a>1</a></grok:render>'}},
            ],
        }
    ],
    "media_generations": [{"media_type": "image", "original_prompt": "a cup of tea"}],
}
GEMINI = [
    {"header": "Gemini Apps", "title": "Prompted Is tea hot?", "time": "2026-01-01T10:00:00Z", "products": ["x"],
        "safeHtmlItem": [{"html": "<p>Yes.</p>"}]},
    {"header": "Gemini Apps", "title": "Used a feature", "time": "2026-01-01T09:00:00Z", "products": ["x"]},
]  # fmt: skip


@pytest.mark.parametrize(("app", "content", "loss"), [("Grok", GROK, "media"), ("Gemini", GEMINI, "app")])
def test_exports_of_grok_and_gemini_are_conversations(app: str, content: Any, loss: str, tmp_path: Path) -> None:
    file = written(tmp_path, "chat.json", content)
    assert turns(file) == [["u Is tea hot?", "a Yes."]]
    report = inspect_file(file)
    assert report.chat and report.chat.app == app and left(report) == {loss: 1}


def test_activities_without_answers_are_refused_as_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="My Activity of Takeout"):
        inspect_file(written(tmp_path, "a.json", [GEMINI[1], GEMINI[1] | {"title": "Searched for tea and milk"}]))


@pytest.mark.parametrize("content", [*TEAMS.values(), GROK, GEMINI])
def test_odd_values_in_these_exports_are_rows_or_a_sentence(content: Any, tmp_path: Path) -> None:
    for odd in with_each_value_odd(content):
        with contextlib.suppress(DataError):
            inspect_file(written(tmp_path, "a.json", odd))


def test_sessions_of_claude_code_are_conversations_without_their_tools(tmp_path: Path) -> None:
    def entry(role: str, content: Any, at: int, **more: Any) -> str:
        about = {"type": role, "uuid": str(at), "parentUuid": None, "sessionId": "s", "isSidechain": False}
        when = f"2026-01-01T10:{at:02}:00Z"
        return json.dumps(about | {"timestamp": when, "message": {"role": role, "content": content}} | more) + "\n"

    lines = [
        json.dumps({"type": "summary", "summary": "Tests", "leafUuid": "3"}) + "\n",
        entry("user", "Why does it fail?", 1),
        entry("assistant", [{"type": "text", "text": "I look."}, {"type": "tool_use", "name": "Read", "input": {}}], 2),
        entry("user", [{"type": "tool_result", "content": "1"}], 3),
        entry("assistant", [{"type": "text", "text": "It lacks a key."}], 4),
        entry("user", "an aside", 5, isSidechain=True),
    ]
    file = written(tmp_path, "session.jsonl", "".join(lines))
    assert turns(file) == [["u Why does it fail?", "a I look.\nIt lacks a key."]]
    report = inspect_file(file)
    assert report.chat and report.chat.app == "Claude Code"
    assert left(report)["app"] == 1
    names = {str(one.what.params["name"]) for one in report.left_out if one.what.key == "left_out.message"}
    assert names == {"summary", "tool_use", "tool_result"}
