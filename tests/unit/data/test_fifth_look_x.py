"""Causes of wrong readings in a fifth set of files that nobody had seen: chats, and texts that hold one."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.reading.choices import Choices
from core.data.sets.inspection import inspect_file, undecided_error
from core.errors import DataError
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


POSTS = (
    "# Thread 'Bees'\n\n[2024-12-10T20:21:50.145000+00:00] ann (id=1)\n    Do bees sleep?\n\n    * Not mine.\n\n"
    "[2024-12-10T20:22:50.145000+00:00] bob.2 (id=2)\n    They do.\n\n"
    "[2024-12-10T20:23:50.145000+00:00] ann (id=3)\n    When?\n\n"
    "[2024-12-10T20:24:50.145000+00:00] bob.2 (id=4)\n    At night.\n"
)


@pytest.mark.parametrize("text", [POSTS, POSTS.replace("+00:00] ", " ").replace(".145000", "").replace("\n[", "\n")])
def test_a_time_and_a_name_alone_stand_above_a_message(text: str, tmp_path: Path) -> None:
    """Seen: times and names were trained as prose."""
    file = written(tmp_path, "thread.txt", text)
    assert turns(file) == [["u Do bees sleep?\n\n* Not mine.", "a They do.", "u When?", "a At night."]]


def test_texts_of_a_set_that_are_read_in_two_ways_are_a_question_to_the_person(tmp_path: Path) -> None:
    written(tmp_path, "a.txt", POSTS)
    written(tmp_path, "b.txt", "[2024-12-11T20:21:50+00:00] cem (id=5)\n    Is this thing on?\n")
    report = inspect_file(tmp_path)
    assert report.undecided
    assert "in two ways: a.txt as a chat, b.txt as plain text" in str(undecided_error(report))
    assert not inspect_file(tmp_path, choices=Choices(columns={"text": "text"})).undecided
    named = tmp_path / "named"
    named.mkdir()
    for name in "ab":  # seen: "choose one of" without a name after it
        written(named, f"{name}.txt", "\n\n".join(f"Ann: {n}\n\nBob {n}\n\nNote: {n}" for n in range(9)))
    assert "no running text" in str(undecided_error(inspect_file(named)))


@pytest.mark.parametrize("asks", [True, False])
def test_a_line_without_a_name_goes_on_with_the_text_above(asks: bool, tmp_path: Path) -> None:
    """Seen: an interview with some long lines broken in two was trained as prose. Fields of records ask nothing."""
    mark = "?" if asks else "."
    lines = [f"Reporter: Did you win race {n}{mark}\nAlice: I did, and\nI was glad." for n in range(8)]
    report = inspect_file(file := written(tmp_path, "talk.txt", "\n".join(lines)))
    assert report.undecided is not asks
    assert not asks or turns(file)[0][:2] == ["u Did you win race 0?", "a I did, and\nI was glad."]


@pytest.mark.parametrize(
    "form",
    [
        "2013년 2월 2{n}일 오후 11:17, {name} : {text}",
        "2013. 2. 2{n}. 오전 11:17, {name} : {text}",
        "[{name}] [오후 11:1{n}] {text}",
        "2{n} Feb 2013 23:17 {name}: {text}",
    ],
)
def test_lines_of_a_chat_are_found_by_a_time_and_a_name_that_repeats(form: str, tmp_path: Path) -> None:
    """Seen: a chat whose first lines are a title was no chat."""
    names, texts = ("지우 Park", "Ann"), ("Where?", "Here.")
    lines = [form.format(n=n, name=names[n % 2], text=f"{texts[n % 2]} {n}") for n in range(6)]
    file = written(tmp_path, "talk.txt", "\n".join(["Chat with 지우", "Saved", "2013년 2월 28일 오후 11:17", *lines]))
    said = [text for row in turns(file, Choices(voice="Ann", pseudonyms=False, gap_hours=48)) for text in row]
    assert said == [f"{'ua'[n % 2]} {texts[n % 2]} {n}" for n in range(6)]
    if form.startswith("2013년"):
        chat = inspect_file(file, choices=Choices(gap_hours=48)).chat
        assert chat and dict(chat.ladder)[6] == 6, "with a time for each"


def test_lists_of_texts_with_odd_numbers_have_two_readings(tmp_path: Path) -> None:
    """Seen: a second answer to a question was trained as the next question, and a third was dropped."""
    lists = "conversations:\n- - Are you sad?\n  - No.\n  - Not now.\n- - Hi\n  - Hello\n  - How are you?\n  - Well.\n"
    file = written(tmp_path, "bot.yml", lists)
    report = inspect_file(file)
    assert report.undecided and "later text, even text" in str(undecided_error(report))
    several, in_turn = (Choices(columns=dict(roles)) for roles in report.readings)
    assert turns(file, several) == [
        ["u Are you sad?", "a No."],
        ["u Are you sad?", "a Not now."],
        *(["u Hi", f"a {text}"] for text in ("Hello", "How are you?", "Well.")),
    ]
    assert turns(file, in_turn) == [["u Are you sad?", "a No."], ["u Hi", "a Hello", "u How are you?", "a Well."]]
    assert left(inspect_file(file, choices=in_turn)) == {"unanswered": 1}
    pairs = written(tmp_path, "pairs.yml", "conversations:\n- - Hi\n  - Hello\n")
    assert turns(pairs, in_turn) == turns(pairs) == [["u Hi", "a Hello"]]


@pytest.mark.parametrize(
    ("text", "named"), [("[LINE] Chat with Ann\n", "a chat of LINE or aider"), ("From a 2024\nTo: b\n", "a mailbox")]
)
def test_a_refusal_names_the_one_program(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"is {named}, which is not read"):
        inspect_file(written(tmp_path, "a.txt", text))
