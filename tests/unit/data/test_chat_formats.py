"""Exports of every app that is known, each in its real shape with its oddities: known by content, read as the same few
messages."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data.chats.json_stream import DEEPEST, OPENING, keys_in
from core.data.chats.kinds import KINDS
from core.data.conversation import ChatMessage
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Limits
from core.data.reading.sniff import probe
from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of

AS_IT_IS = Choices(pseudonyms=False)


def written(tmp_path: Path, name: str, content: Any) -> Path:
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    return file


def turns(file: Path, choices: Choices = AS_IT_IS) -> list[list[str]]:
    return [[f"{m.role[0]} {m.content}" for m in example.messages] for _, example in examples_of(file, choices=choices)]


def left(report: DataReport) -> dict[str, int]:
    return {one.what.key.removeprefix("left_out.chat_"): one.count for one in report.left_out}


# ---- Telegram -------------------------------------------------------------------------------------------------------


def telegram(person: str | None, text: Any, minute: int, **more: Any) -> dict[str, Any]:
    who = {} if "type" in more else {"type": "message", "from": person, "from_id": f"user{person}"}
    when = {"date": f"2025-03-12T21:{minute:02}:00", "date_unixtime": str(1741813200 + 60 * minute)}
    return {"id": minute, **who, **when, "text": text, "text_entities": [{"type": "plain", "text": "x"}], **more}


TELEGRAM = [
    telegram(None, "", 0, type="service", actor="Maria", actor_id="user1", action="phone_call"),
    telegram(
        "Maria",
        ["Look at ", {"type": "link", "text": "https://a.example"}, " and ", {"type": "bold", "text": "this"}],
        1,
    ),
    telegram("Jo", "", 2, photo="photos/photo_1.jpg", width=1, height=1),
    telegram("Jo", "Nice", 3, photo="photos/photo_2.jpg"),
    telegram("Jo", "News of others", 4, forwarded_from="Some channel"),
    telegram("Jo", "Really", 5, edited="2025-03-12T21:06:00", reply_to_message_id=1),
    telegram("Maria", "", 6, media_type="sticker", sticker_emoji="👍", file="(File not included)"),
    telegram("Maria", [{"type": "link", "text": "https://b.example"}], 7),
]
TELEGRAM_SAID = [["u Look at https://a.example and this", "a Nice\nReally"]]


def test_telegrams_runs_of_text_are_one_text_and_what_is_no_message_is_counted(tmp_path) -> None:
    file = written(tmp_path, "result.json", {"name": "Maria", "type": "personal_chat", "id": 1, "messages": TELEGRAM})
    report = inspect_file(file)
    assert report.chat is not None and (report.chat.app, report.chat.voice) == ("Telegram", "Jo")
    assert turns(file) == TELEGRAM_SAID
    assert left(report) == {"app": 1, "media": 3, "forwarded": 1, "link": 1}


def test_of_an_export_of_all_chats_none_runs_into_the_next(tmp_path) -> None:
    """A deleted account has no name; its id is it."""
    other = [
        telegram("Anna", "Hello?", 8),
        telegram("Jo", "Yes?", 9),
        telegram("Anna", "Hm", 10),
        telegram(None, "Me too", 11),
    ]
    chats = {
        "about": "Here is",
        "list": [{"name": "Maria", "id": 1, "messages": TELEGRAM}, {"name": None, "id": 2, "messages": other}],
    }
    file = written(tmp_path, "result.json", {"about": "x", "personal_information": {"user_id": 1}, "chats": chats})
    assert turns(file) == [*TELEGRAM_SAID, ["u Anna: Hello?", "a Yes?"]]
    report = inspect_file(file)
    assert (
        report.chat is not None
        and report.chat.conversations == 2
        and "userNone" in {p.name for p in report.chat.people}
    )


# ---- Discord --------------------------------------------------------------------------------------------------------


def discord(person: str, content: str, minute: int, **more: Any) -> dict[str, Any]:
    author = {
        "id": person,
        "name": person.lower(),
        "discriminator": "0",
        "nickname": person,
        "isBot": more.pop("bot", False),
    }
    at = f"2025-03-12T21:{minute:02}:10.123+00:00"
    return {"id": str(minute), "type": "Default", "timestamp": at, "timestampEdited": None, "isPinned": False,
            "content": content, "author": author, "attachments": [], "embeds": [], "stickers": [], "reactions": [],
            **more}  # fmt: skip


DISCORD = [
    discord("Maria", "Joined the server.", 0, type="GuildMemberJoin"),
    discord("Maria", "Who is in?", 1),
    discord("Bot", "!play", 2, bot=True),
    discord("Jo", "Me :fire:", 3, type="Reply"),
    discord("Jo", "", 4, attachments=[{"id": "1", "url": "https://cdn.example/a.png", "fileName": "a.png"}]),
]


def test_discords_json_is_read_without_bots_and_lines_of_the_server(tmp_path) -> None:
    channel = {
        "guild": {"id": "1", "name": "G"},
        "channel": {"id": "2", "type": "GuildTextChat", "name": "general", "topic": None},
    }
    file = written(tmp_path, "general.json", {**channel, "dateRange": {}, "messages": DISCORD, "messageCount": 5})
    assert turns(file) == [["u Who is in?", "a Me :fire:"]]
    assert left(inspect_file(file)) == {"app": 2, "media": 1}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "date", ["2025-03-12T21:{:02}:00.0000000+00:00", "3/14/2025 9:{:02} PM", "14.03.2025 21:{:02}"]
)
def test_discords_csv_of_every_version_is_the_same_chat(date: str, end: bytes, tmp_path) -> None:
    lines = ["AuthorID,Author,Date,Content,Attachments,Reactions"]
    messages = [
        ("maria#1234", '"Who is in?\nAnybody?"', ""),
        ("jo", "Me", ""),
        ("jo", "", "https://cdn.example/a.png"),
        ("maria#1234", "ok", ""),
    ]
    lines += [f'1,{who},{date.format(i)},{text},"{media}",' for i, (who, text, media) in enumerate(messages)]
    file = tmp_path / "general.csv"
    file.write_bytes(("\ufeff" + "\n".join(lines) + "\n").encode().replace(b"\n", end))
    report = inspect_file(file, choices=Choices(voice="jo"))
    assert turns(file, Choices(voice="jo", pseudonyms=False)) == [["u Who is in?\nAnybody?", "a Me"]]
    assert (
        left(report) == {"media": 1, "unanswered": 1}
        and report.chat is not None
        and report.chat.people[0].name == "maria"
    )
    of_messages = [message.line for message in KINDS["discord_csv"].messages(probe(file), Limits())]
    assert of_messages == [2, 4, 5, 6], "the first message has two lines"


# ---- Slack ----------------------------------------------------------------------------------------------------------


def test_a_slack_channel_names_people_and_unfolds_its_marks(tmp_path) -> None:
    maria = {"real_name": "Maria Lopez", "display_name": "maria", "name": "ml"}
    messages = [
        {"type": "message", "subtype": "channel_join", "user": "U1", "text": "<@U1> has joined",
            "ts": "1741813200.000100"},
        {"type": "message", "user": "U1", "user_profile": maria, "text": ("<@U2> see <https://a.example|this> &amp; "
                                                                          "<#C1|general>"), "ts": "1741813260.000200",
                                                                          "blocks": []},
        {"type": "message", "user": "U2", "text": "ok <@U1> <!here>", "ts": "1741813320.000300",
            "thread_ts": "1741813260.000200"},
        {"type": "message", "subtype": "bot_message", "bot_id": "B1", "text": "deployed", "ts": "1741813380.000400"},
        {"type": "message", "user": "U2", "text": "", "files": [{"id": "F1"}], "ts": "1741813440.000500"},
    ]  # fmt: skip
    file = written(tmp_path, "2025-03-12.json", messages)
    assert turns(file) == [["u @U2 see this & #general", "a ok @maria @here"]]
    report = inspect_file(file)
    assert left(report) == {"app": 2, "media": 1} and report.chat is not None and report.chat.app == "Slack"


# ---- SillyTavern ----------------------------------------------------------------------------------------------------


def test_a_characters_chat_is_learned_as_the_character_though_the_person_wrote_last(tmp_path) -> None:
    lines: list[dict[str, Any]] = [
        {"user_name": "Anna", "character_name": "Seraphina", "create_date": "2024-3-12 @21h 14m 10s 5ms",
            "chat_metadata": {}},
        {"name": "Seraphina", "is_user": False, "is_system": False, "send_date": "March 12, 2024 9:14pm",
            "mes": "*smiles* Welcome."},
        {"name": "Anna", "is_user": True, "send_date": "2024-3-12 @21h 15m 10s 5ms", "mes": "Where am I?"},
        {"name": "Seraphina", "is_user": False, "send_date": 1710278110000, "mes": "In the glade.",
            "swipes": ["In a wood.", "In the glade."], "swipe_id": 1},
        {"name": "Anna", "is_user": True, "mes": "Thanks", "send_date": 10**310},
        {"name": "System", "is_system": True, "is_user": False, "mes": "Chat hidden"},
    ]  # fmt: skip
    file = written(tmp_path, "Seraphina.jsonl", "\n".join(map(json.dumps, lines)))
    assert turns(file, Choices()) == [["u Where am I?", "a In the glade."]]
    assert left(inspect_file(file)) == {"app": 1, "unasked": 1, "unanswered": 1, "left_out.branch": 1}


# ---- what is broken, and what is none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut",
    [
        lambda text: text[: text.index("News")],
        lambda text: text[:-1],
        lambda text: text.replace("Nice", "x" * OPENING).replace('"id": 5', '"id": ' + "9" * 5000),
    ],
)
def test_an_export_in_the_middle_of_being_written_is_a_sentence(cut: Callable[[str], str], tmp_path) -> None:
    """The long number ended the whole process, in the C library that read it."""
    file = written(tmp_path, "result.json", cut(json.dumps({"messages": TELEGRAM})))
    with pytest.raises(DataError, match=r"result.json ends after \d messages, in the middle of the JSON"):
        inspect_file(file)


def test_an_export_with_nothing_that_anybody_said_is_a_sentence(tmp_path) -> None:
    file = written(tmp_path, "result.json", {"messages": TELEGRAM[:1]})
    with pytest.raises(DataError, match="built like an export of Telegram, but none of its messages"):
        inspect_file(file)


@pytest.mark.parametrize(
    "content",
    [
        [{"messages": [{"role": "user", "content": "a", "date": "x"}, {"role": "assistant", "content": "b"}]}],
        {"messages": [{"role": "user", "content": "a", "timestamp": "x"}, {"role": "assistant", "content": "b"}]},
        [{"type": "message", "text": "a"}, {"type": "message", "text": "b"}],
    ],
)
def test_what_only_has_a_word_of_a_chat_is_none(content: Any, tmp_path) -> None:
    assert probe(written(tmp_path, "a.json", content)).chat == ""


ODD: tuple[Any, ...] = (None, 7, [], {"x": 1}, [[1]], "\u202e", -1e300)
FUZZED = {
    "telegram": {"messages": TELEGRAM[:3]},
    "telegram, all": {"chats": {"list": [{"id": 1, "messages": TELEGRAM[1:4]}]}},
    "discord": {"messages": DISCORD[1:4]},
    "slack": [{"type": "message", "user": "U1", "user_profile": {"name": "a"}, "text": "<@U2>", "ts": "1.5",
        "files": []}] * 2,
    "chatgpt": [{"mapping": {"a": {"id": "a", "parent": None, "children": [], "message": {"author": {"role": "user"},
        "content": {"content_type": "text", "parts": ["x"]}, "create_time": 1}}}}],
    "claude": [{"chat_messages": [{"sender": "human", "text": "a", "content": [{"type": "text", "text": "a"}]}]}],
    "Instagram, Facebook": {"messages": [{"sender_name": "A", "timestamp_ms": 1, "content": "\u00c3\u00bc",
        "photos": []}]},
    "OpenAI messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "tavern": {"name": "A", "is_user": False, "mes": "x", "send_date": "2024-3-12", "swipes": ["a", "b"]},
}  # fmt: skip


def with_each_value_odd(value: Any) -> Iterator[Any]:
    """The same with one value in it another, for every value and every other."""
    yield from ODD
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        for odd in with_each_value_odd(part):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = odd
            yield copy


@pytest.mark.parametrize("app", FUZZED)
def test_whatever_stands_where_a_text_or_a_date_is_expected_is_rows_or_a_sentence(app: str, tmp_path) -> None:
    file = tmp_path / "a.json"
    for content in with_each_value_odd(FUZZED[app]):
        file.write_text(json.dumps(content) + ("\n" + json.dumps(content) if app == "tavern" else ""), "utf-8")
        with contextlib.suppress(DataError):
            inspect_file(file)


def test_every_app_is_shown_here() -> None:
    files = ("test_chat_formats.py", "test_chats.py", "test_other_exports.py", "test_chat_logs.py")
    files = (*files, "test_fifth_look_x.py", "../../kit/wild.py")
    shown = "".join((Path(__file__).parent / name).read_text("utf-8") for name in files)
    assert all(kind.name in shown for kind in KINDS.values())


# ---- ChatGPT and Claude --------------------------------------------------------------------------------------------


def node(id: str, parent: str | None, role: str | None, parts: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    content = {"content_type": more.pop("kind", "text"), "parts": parts or [""]}
    message = {
        "id": id,
        "author": {"role": role},
        "content": content,
        "create_time": float(len(id)),
        "weight": 1.0,
        **more,
    }
    return {"id": id, "parent": parent, "children": [], "message": message if role else None}


def tree(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    mapping = {one["id"]: one for one in nodes}
    for one in nodes:
        if one["parent"]:
            mapping[one["parent"]]["children"].append(one["id"])
    return {"title": "Crêpes", "mapping": mapping, **more}


CHATGPT = tree(
    node("root", None, None),
    node("s", "root", "system", ["Hidden."], metadata={"is_visually_hidden_from_conversation": True}),
    node("q", "s", "user", ["What is a crêpe?"]),
    node("a", "q", "assistant", ["A worse answer."], create_time=10**310),
    node("a2", "q", "assistant", kind="code"),
    node("t2", "a2", "tool", ["42"]),
    node("b22", "t2", "assistant", ["A thin pancake."]),
    node(
        "p333",
        "b22",
        "user",
        [{"content_type": "image_asset_pointer", "asset_pointer": "x"}, "And this?"],
        kind="multimodal_text",
    ),
    node("c4444", "p333", "assistant", ["A thick one."]),
)
TOLD = (
    ChatMessage("user", "What is a crêpe?"), ChatMessage("assistant", "A thin pancake."), ChatMessage("user",
        "And this?"),
    ChatMessage("assistant", "A thick one."),
)  # fmt: skip


@pytest.mark.parametrize("more", [{"current_node": "c4444"}, {}, {"current_node": ["c4444"]}])
def test_of_chatgpts_tree_the_newest_branch_is_learned_and_the_rest_is_named(more: dict[str, Any], tmp_path) -> None:
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([CHATGPT | more, CHATGPT | more | {"title": "Again"}]))
    assert [example.messages for _, example in examples_of(file)] == [TOLD, TOLD]
    left = Counter({(one.what.key, one.what.params["name"]): one.count for one in inspect_file(file).left_out})
    assert left.keys() >= {("left_out.branch", ""), ("left_out.message", "tool"), ("left_out.message",
        "image_asset_pointer"), ("left_out.message", "system"), ("left_out.column", "title")}  # fmt: skip


def test_claudes_archive_is_conversations(tmp_path) -> None:
    messages = [
        {"uuid": "1", "sender": "human", "text": "What is a crêpe?", "content": [{"type": "text",
            "text": "What is a crêpe?"}], "attachments": []},
        {"uuid": "2", "sender": "assistant", "text": "", "content": [{"type": "tool_use", "name": "x"}, {"type": "text",
            "text": "A thin pancake."}]},
        {"uuid": "3", "sender": "human", "text": "And this?", "files": [{"file_name": "a.png"}]},
        {"uuid": "4", "sender": "assistant", "text": "A thick one."},
    ]  # fmt: skip
    for content in (
        [{"uuid": "c", "name": "Crêpes", "chat_messages": messages}],
        {"uuid": "c", "name": "Crêpes", "chat_messages": messages},
    ):
        file = tmp_path / "conversations.json"
        file.write_text(json.dumps(content))
        assert [example.messages for _, example in examples_of(file)] == [TOLD]
        named = {one.what.params["name"] for one in inspect_file(file).left_out}
        assert named == {"uuid", "name", "tool_use", "files"}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("opens", ["[", '{"a":'])
def test_nothing_but_brackets_takes_no_memory_for_each_level(tmp_path: Path, name: str, opens: str) -> None:
    """The whole path of each level was kept: of a file of 60 KB gigabytes."""
    text = opens * (OPENING // len(opens))
    tracemalloc.start()
    try:
        assert len(keys_in(text, name.endswith("l"))) <= 1 + DEEPEST
        with pytest.raises(DataError):
            inspect_file(written(tmp_path, name, text))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_the_paths_of_a_json_text_say_where_its_values_stand() -> None:
    """As ijson.parse named them (3.6)."""
    value = {"a": {"b": [1, {"c": [], "": {}}], "d": "x"}, "": [[1], {"e.f": None}]}
    of_value = {"", "a", "a.b", "a.b.item", "a.b.item.", "a.b.item.c", "a.d", "item", "item.e.f", "item.item"}
    for text, several, paths in (
        (json.dumps(value), False, of_value),
        (json.dumps(value) * 2 + '{"g": 1', True, of_value | {"g"}),
        (json.dumps([value, 3])[:20], False, {"", "item", "item.a", "item.a.b", "item.a.b.item"}),
        ("7", False, {""}),
    ):
        assert keys_in(text, several) == paths


def test_blanks_behind_a_date_and_addresses_one_after_the_other_are_looked_at_once(tmp_path: Path) -> None:
    """Expressions that tried each way to share them among three stood still for minutes."""
    blanks = "1.1.24" + " " * 4000
    assert inspect_file(written(tmp_path, "a.txt", f"{blanks}\n{blanks}x\n1.1.24 10:00{blanks}\n")).chat is None
