"""Logs of IRC programs and of meetings are chats; texts that look a little like them are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.reading.choices import Choices
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of

TALK = [
    ("anna", "Who is in?"),
    ("bob|away", "I am"),
    ("bob|away", "later"),
    ("anna", "Fine: at six"),
    ("bob|away", "ok"),
]
TALKS = ["u Who is in? | a I am\nlater | u Fine: at six | a ok"]
STYLES = {
    "irssi": ("--- Log opened Wed Mar 12 21:00:00 2025\n21:00 -!- anna [~a@host] has joined #x\n",
        "21:0{i} <@{who}> {said}"),
    "irssi without signs": ("", "21:0{i} < {who}> {said}"),
    "ZNC": ("[21:00:00] *** Joins: anna (a@host)\n", "[21:0{i}:09] <{who}> {said}"),
    "no times": ("* anna has joined #x\n", "<{who}> {said}"),
    "arrows": ("", "{who}> {said}"),
    "WeeChat": ("2025-03-12 21:00:00\t-->\tanna (a@host) has joined #x\n",
        "2025-03-12 21:0{i}:09\t@{who}\t{said}"),
    "HexChat": ("**** BEGIN LOGGING AT Wed Mar 12 21:00:00 2025\n\n", "Mar 12 21:0{i}:09 <{who}>\t{said}"),
    "a messenger": ("", "[9:0{i} PM] {who}: {said}"),
    "a meeting": ("", "21:0{i}:09 From {who} to Everyone: {said}"),
    "German dates": ("", "[12.03.2025 21:0{i}] {who}: {said}"),
}  # fmt: skip


def log(style: str) -> str:
    head, line = STYLES[style]
    return head + "".join(line.format(i=i, who=who, said=said) + "\n" for i, (who, said) in enumerate(TALK))


def talks(file: Path, choices: Choices) -> list[str]:
    return [
        " | ".join(f"{message.role[0]} {message.content}" for message in example.messages)
        for _, example in examples_of(file, choices=choices)
    ]


@pytest.mark.parametrize("suffix", ["txt", "log"])
@pytest.mark.parametrize("style", STYLES)
def test_a_log_is_a_chat_whose_voice_is_chosen(style: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_text(log(style), "utf-8")
    assert talks(file, Choices(pseudonyms=False)) == TALKS
    chat = inspect_file(file).chat
    assert chat and (chat.voice, chat.guessed, chat.pseudonyms) == ("bob|away", True, True)
    head = STYLES[style][0]
    left = {one.what.key: one.count for one in inspect_file(file).left_out}
    assert left == ({"left_out.chat_app": len(head.split("\n")) - 1 - head.count("\n\n")} if head else {})


def test_a_night_in_a_log_ends_a_conversation(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    file.write_text(
        "[23:58] <li> up?\n[23:59] <mo> yes\n[00:01] <li> still?\n[00:02]  * mo nods\n"
        "[09:00] <li> and now?\n[09:01] <mo> no\n"
    )
    texts = talks(file, Choices(voice="mo", pseudonyms=False))
    assert texts == ["u up? | a yes | u still? | a * mo nods", "u and now? | a no"]


def test_an_assistant_in_a_log_is_the_voice(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("10:00 User: a?\n10:01 Bot: b\n10:02 User: c?\n10:03 User: d?\n10:04 Bot: e\n")
    assert talks(file, Choices(pseudonyms=False)) == ["u a? | a b | u c?\nd? | a e"]


@pytest.mark.parametrize(
    "text",
    [
        "<b> One. </b>\n<i> Two. </i>\n<b> Three. </b>\n<i> Four. </i>\n",
        "It was 12:30 and <he> said so.\n\nShe> said nothing.\n\nThen all was still.\n",
        "12:00 Lunch: soup\n13:00 Talk: cats\n14:00 Walk: dogs\n",
        "10:00:00 INFO: started\n10:00:01 ERROR: no\n10:00:02 INFO: still\n10:00:03 ERROR: no\n10:00:04 INFO: x\n",
        "<anna> alone\n<anna> still alone\n<anna> bye\n",
    ],
)
def test_a_text_that_is_no_log_of_people_stays_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    report = inspect_file(tmp_path / "a.txt")
    assert report.chat is None and report.format == "text"
    (tmp_path / "a.log").write_text(text)
    with pytest.raises(DataError, match="is a log, but no chat"):
        inspect_file(tmp_path / "a.log")
