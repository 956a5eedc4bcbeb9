"""Causes of wrong readings in a fifth set of files that nobody had seen: chats, and texts that hold one."""

from __future__ import annotations

from pathlib import Path

from core.data.reading.choices import Choices
from core.data.sets.inspection import inspect_file
from tests.unit.data.test_chat_formats import AS_IT_IS, left, turns, written


def test_each_file_of_slack_that_is_no_day_is_a_channel_with_the_names_of_an_object_of_people(tmp_path: Path) -> None:
    """Seen: a line of one channel was trained as the answer to another's, and people were ids."""
    for number, channel in enumerate(("general", "alerts")):
        said = [("U1", f"Is {channel} up?"), ("U2", f"{channel} is."), ("U1", f"Thanks from {channel}.")]
        at = 1735689600 + number * 60
        rows = [{"type": "message", "user": who, "text": text, "ts": f"{at + i}.01"} for i, (who, text) in
                enumerate(said)]  # fmt: skip
        written(tmp_path, f"{channel}.json", rows)
    written(tmp_path, "users.json", {"U1": {"real_name": "Ann Vance"}, "U2": {"real_name": "Joe Doe"}})
    assert turns(tmp_path, Choices(voice="Joe Doe", pseudonyms=False)) == [
        ["u Is alerts up?", "a alerts is."],
        ["u Is general up?", "a general is."],
    ]


def test_what_the_app_writes_under_several_names_is_no_message(tmp_path: Path) -> None:
    """Seen: a notice of a deleted message was trained, in a language without a list of such notices."""
    lines: list[str] = []
    for number in range(6):
        name = ("Ann", "Bob", "Cem")[number % 3]
        lines += [f"12.03.25, 10:{number}0 - {name}: Bericht is gewist {'!' * (number == 9)}".rstrip()]
        lines += [f"12.03.25, 10:{number}1 - {name}: {'Happy New Year' + '!' * number}"]
    lines += ["12.03.25, 11:00 - Ann: Esta mensagem foi apagada"]
    file = written(tmp_path, "chat.txt", "\n".join(lines))
    report = inspect_file(file, choices=AS_IT_IS)
    assert left(report)["app"] == 6 and left(report)["deleted"] == 1
    assert "gewist" not in str(turns(file)) and "New Year!!!" in str(turns(file))
