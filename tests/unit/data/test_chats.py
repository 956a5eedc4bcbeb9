"""Chats that people own: WhatsApp's exports of both systems, the archives of ChatGPT and Claude. Known by content; what is no message is counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from core.data.conversation import ChatMessage
from core.data.formats import examples_of, inspect_file
from core.data.reading.reader import read_rows
from core.data.reading.sniff import probe
from core.data.store import DatasetStore
from core.errors import DataError

# Each: how a date of a day, month, hour, minute is written.
ANDROID = "{d:02}/{m:02}/2025, {h:02}:{n:02} - {said}"
IOS = "[{d:02}.{m:02}.25, {h:02}:{n:02}:10] {said}"
STYLES = {
    "Android, day first": ANDROID,
    "Android, 12 h clock, month first": "{m}/{d}/25, {h12}:{n:02}\u202f{pm}M - {said}",
    "Android, German": "{d:02}.{m:02}.25, {h:02}:{n:02} - {said}",
    "Android, year first": "2025-{m:02}-{d:02}, {h:02}:{n:02} - {said}",
    "Android, Spanish": "{d}/{m}/2025 {h12}:{n:02} {pm_es}. m. - {said}",
    "iOS, German": IOS,
    "iOS, 12 h clock": "\u200e[{m}/{d}/25, {h12}:{n:02}:10\u202f{pm}M] {said}",
}
TALK = [  # day, month, hour, minute, what is said
    (11, 3, 21, 14, "Maria: Are you coming?"),
    (11, 3, 21, 15, "Maria: We start\nat eight: sharp"),
    (11, 3, 21, 20, "Jo: On my way"),
    (11, 3, 21, 21, "Jo: Save me a seat"),
    (12, 3, 9, 5, "Maria: Good night?"),
    (12, 3, 9, 6, "Jo: Very"),
    (12, 4, 13, 0, "Jo: Hello?"),
]


def exported(style: str, talk: list[Any]) -> str:
    lines = []
    for d, m, h, n, said in talk:
        pm = "P" if h >= 12 else "A"
        lines.append(STYLES[style].format(d=d, m=m, h=h, n=n, h12=(h - 1) % 12 + 1, pm=pm, pm_es=pm.lower(), said=said))
    return "\n".join(lines) + "\n"


def conversations(file: Any) -> list[list[tuple[str, str]]]:
    return [[(m.role, m.content) for m in example.messages] for _, example in examples_of(file)]


EXPECTED = [
    [("user", "Are you coming?\nWe start\nat eight: sharp"), ("assistant", "On my way\nSave me a seat")],
    [("user", "Good night?"), ("assistant", "Very")],
]


@pytest.mark.parametrize("style", STYLES)
def test_a_chat_of_either_system_in_every_date_style_is_the_same_conversations(style: str, tmp_path) -> None:
    """Seen: one row of raw log lines."""
    file = tmp_path / "export.txt"
    file.write_text(exported(style, TALK), "utf-8")
    report = inspect_file(file)
    assert conversations(file) == EXPECTED and (report.format, report.rows, report.problem_count) == ("messages", 2, 0)
    assert [(one.what.key, one.count) for one in report.left_out] == [("left_out.chat_unasked", 1)]
    (note,) = report.notes
    assert note.params["people"] == ["Jo (4)", "Maria (3)"] and note.params["voice"] == "Jo" and "Another voice" in str(note)


def test_what_is_no_message_is_counted_by_its_kind(tmp_path) -> None:
    talk = [
        (1, 3, 9, 0, "Messages and calls are end-to-end encrypted."),
        (1, 3, 9, 1, "Maria: Look"),
        (1, 3, 9, 1, "Maria: <Media omitted>"),
        (1, 3, 9, 1, "Maria: IMG-20250301-WA0001.jpg (file attached)"),
        (1, 3, 9, 1, "Maria: https://example.org/a"),
        (1, 3, 9, 2, "Jo: This message was deleted"),
        (1, 3, 9, 2, "Jo: Nice! \u200e<This message was edited>"),
        (1, 3, 9, 2, "Jo: \u200eimage omitted"),
        (1, 3, 9, 2, "Jo: Where?"),
        (1, 3, 9, 3, "Maria: Thanks"),
    ]
    file = tmp_path / "a.txt"
    file.write_text(exported("iOS, German", talk), "utf-8")
    assert conversations(file) == [[("user", "Look"), ("assistant", "Nice!\nWhere?")]]
    left = {one.what.key.removeprefix("left_out.chat_"): one.count for one in inspect_file(file).left_out}
    assert left == {"app": 1, "media": 3, "link": 1, "deleted": 1, "unanswered": 1}


def test_of_several_people_each_is_named_but_the_voice(tmp_path) -> None:
    talk = [
        (1, 3, 9, 0, "محمد: مرحبا"),
        (1, 3, 9, 1, "\u202aAnna\u202c: Hi"),
        (1, 3, 9, 2, "Jo: Hello both"),
        (1, 3, 9, 3, "Jo: !"),
    ]
    file = tmp_path / "a.txt"
    file.write_text(exported("Android, day first", talk), "utf-8")
    assert conversations(file) == [[("user", "محمد: مرحبا\nAnna: Hi"), ("assistant", "Hello both\n!")]]


def test_a_long_conversation_is_rows_that_begin_with_a_question(tmp_path) -> None:
    talk = [(1, 3, 9, i // 2, f"{('Maria', 'Jo')[i % 2]}: " + f"word {i} " * 20) for i in range(60)] + [(1, 3, 9, 59, "Jo: end")]
    file = tmp_path / "a.txt"
    file.write_text(exported("Android, day first", talk), "utf-8")
    found = conversations(file)
    assert len(found) > 4 and all(row[0][0] == "user" and row[-1][0] == "assistant" for row in found)
    assert sum(len(row) for row in found) == 60 and found[-1][-1][1].endswith("end")
    rows = [row for row in read_rows(file)]
    assert all(exported("Android, day first", talk).split("\n")[row.line - 1].find(row.values["messages"][0]["content"][:6]) > 0 for row in rows)  # type: ignore[union-attr, operator]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "12/03/2025, 21:14 - once upon a time\nthere was a diary\nand it went on\nand on\nand on\n",
        "A story.\n12/03/2025, 21:14 - Maria: Hi\n12/03/2025, 21:15 - Jo: Hi\n",
        "[12] Note: one\n[13] Note: two\n",
        "2025-01-01: rain\n2025-01-02: sun\n",
    ],
)
def test_a_text_that_only_looks_a_little_like_a_chat_stays_a_text(text: str, tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(text, "utf-8")
    assert inspect_file(file).format == "text" and not probe(file).voice


def test_a_chat_in_which_nobody_asks_is_a_sentence(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(exported("iOS, German", [(1, 3, 9, 0, "Jo: a"), (1, 3, 9, 1, "Jo: b")]), "utf-8")
    with pytest.raises(DataError, match="nobody writes anything that Jo answers"):
        inspect_file(file)


def test_an_impossible_date_and_an_export_that_breaks_off_lose_nothing(tmp_path) -> None:
    file = tmp_path / "a.txt"
    whole = exported("Android, day first", TALK[:4]).replace("11/03/2025, 21:15", "31/02/1970, 21:15")
    file.write_text(whole + "11/03/2025, 21:2", "utf-8")
    ((asked, answered),) = conversations(file)
    assert asked == EXPECTED[0][0] and answered[1] == "On my way\nSave me a seat\n11/03/2025, 21:2"


def test_a_day_above_twelve_tells_which_number_is_the_month(tmp_path) -> None:
    file = tmp_path / "a.txt"
    days = "".join(f"3/{day}/25, 9:00 - Maria: Hi\n3/{day}/25, 9:10 - Jo: Hello\n" for day in (14, 16))
    file.write_text(days, "utf-8")
    assert conversations(file) == [[("user", "Hi"), ("assistant", "Hello")]] * 2


def test_a_stored_chat_is_known_again(tmp_path) -> None:
    file = tmp_path / "chat.txt"
    file.write_text(exported("iOS, German", TALK), "utf-8")
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    info = store.import_file(file)
    assert info.format == "messages" and conversations(store.path(info.id)) == EXPECTED


# ---- archives -------------------------------------------------------------------------------------------------------


def node(id: str, parent: str | None, role: str | None, parts: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    content = {"content_type": more.pop("kind", "text"), "parts": parts or [""]}
    message = {"id": id, "author": {"role": role}, "content": content, "create_time": float(len(id)), "weight": 1.0, **more}
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
    node("a", "q", "assistant", ["A worse answer."]),
    node("a2", "q", "assistant", kind="code"),
    node("t2", "a2", "tool", ["42"]),
    node("b22", "t2", "assistant", ["A thin pancake."]),
    node(
        "p333", "b22", "user", [{"content_type": "image_asset_pointer", "asset_pointer": "x"}, "And this?"], kind="multimodal_text"
    ),
    node("c4444", "p333", "assistant", ["A thick one."]),
)
TOLD = (
    ChatMessage("user", "What is a crêpe?"), ChatMessage("assistant", "A thin pancake."), ChatMessage("user", "And this?"),
    ChatMessage("assistant", "A thick one."),
)  # fmt: skip


@pytest.mark.parametrize("more", [{"current_node": "c4444"}, {}])
def test_of_chatgpts_tree_the_newest_branch_is_learned_and_the_rest_is_named(more: dict[str, str], tmp_path) -> None:
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([CHATGPT | more, CHATGPT | more | {"title": "Again"}]))
    assert [example.messages for _, example in examples_of(file)] == [TOLD, TOLD]
    left = Counter({(one.what.key, one.what.params["name"]): one.count for one in inspect_file(file).left_out})
    assert left.keys() >= {("left_out.branch", ""), ("left_out.message", "tool"), ("left_out.message", "image_asset_pointer"), ("left_out.message", "system"), ("left_out.column", "title")}  # fmt: skip


def test_claudes_archive_is_conversations(tmp_path) -> None:
    said = [
        {"uuid": "1", "sender": "human", "text": "What is a crêpe?", "content": [{"type": "text", "text": "What is a crêpe?"}], "attachments": []},
        {"uuid": "2", "sender": "assistant", "text": "", "content": [{"type": "tool_use", "name": "x"}, {"type": "text", "text": "A thin pancake."}]},
        {"uuid": "3", "sender": "human", "text": "And this?", "files": [{"file_name": "a.png"}]},
        {"uuid": "4", "sender": "assistant", "text": "A thick one."},
    ]  # fmt: skip
    for content in (
        [{"uuid": "c", "name": "Crêpes", "chat_messages": said}],
        {"uuid": "c", "name": "Crêpes", "chat_messages": said},
    ):
        file = tmp_path / "conversations.json"
        file.write_text(json.dumps(content))
        assert [example.messages for _, example in examples_of(file)] == [TOLD]
        named = {one.what.params["name"] for one in inspect_file(file).left_out}
        assert named == {"uuid", "name", "tool_use", "files"}
