"""A chat becomes rows: WhatsApp's exports in every date style, whose voice, silences, turns before, stand-ins; what is
no message is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.chats.stand_ins import StandIns
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Row
from core.data.reading.reader import read_rows
from core.data.reading.sniff import probe
from core.data.sets.inspection import inspect_file
from core.data.store import DatasetStore
from core.errors import DataError
from tests.kit.read_examples import examples_of

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
    "Android, Chinese": "2025年{m}月{d}日 {h:02}:{n:02} - {said}",
    "Android, Chinese, 12 h clock": "2025/{m}/{d} {half_zh}{h12}:{n:02} - {said}",
    "iOS, Chinese": "[2025/{m}/{d} {half_zh}{h12}:{n:02}:10] {said}",
    "Android, Korean": "2025년 {m}월 {d}일 {half_ko} {h12}:{n:02}, {said_ko}",
    "iOS, Korean": "[2025. {m}. {d}. {half_ko} {h12}:{n:02}:10] {said}",
    "Android, Arabic marks": "\u200f{d}/{m}/2025, {h12}:{n:02} {half_ar} - {said}",
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
    for d, m, h, n, text in talk:
        pm, late = "P" if h >= 12 else "A", h >= 12
        halves = {"half_zh": ("上午", "下午")[late], "half_ko": ("오전", "오후")[late], "half_ar": "صم"[late]}
        said_ko = text.replace(": ", " : ", 1)
        lines.append(
            STYLES[style].format(
                d=d, m=m, h=h, n=n, h12=(h - 1) % 12 + 1, pm=pm, pm_es=pm.lower(), said=text, said_ko=said_ko, **halves
            )
        )
    return "\n".join(lines) + "\n"


def conversations(file: Any, **choices: Any) -> list[list[tuple[str, str]]]:
    return [
        [(m.role, m.content) for m in example.messages] for _, example in examples_of(file, choices=Choices(**choices))
    ]


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
    assert report.chat is not None and (report.chat.app, report.chat.voice, report.chat.guessed) == (
        "WhatsApp",
        "Jo",
        True,
    )
    assert [(one.name, one.messages) for one in report.chat.people] == [("Jo", 4), ("Maria", 3)]
    (note,) = report.notes
    assert "learns to answer as Jo; no person was chosen" in str(note) and "the model can repeat it" in str(note)


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
    assert conversations(file, pseudonyms=False) == [
        [("user", "محمد: مرحبا\nAnna: Hi"), ("assistant", "Hello both\n!")]
    ]
    assert conversations(file) == [[("user", "Alex: مرحبا\nRobin: Hi"), ("assistant", "Hello both\n!")]]


def test_a_long_conversation_is_rows_that_begin_with_a_question(tmp_path) -> None:
    talk = [(1, 3, 9, i // 2, f"{('Maria', 'Jo')[i % 2]}: " + f"word {i} " * 12) for i in range(60)] + [
        (1, 3, 9, 59, "Jo: end")
    ]
    file = tmp_path / "a.txt"
    file.write_text(exported("Android, day first", talk), "utf-8")
    conversations_read = [example.messages for _, example in examples_of(file)]
    assert len(conversations_read) > 4 and all(
        row[0].role == "user" and row[-1].role == "assistant" for row in conversations_read
    )
    learned = [
        message.content
        for row in conversations_read
        for message in row
        if message.role == "assistant" and message.weight
    ]
    # each once, whatever stands before it
    assert len(learned) == 30 == len(set(learned)) and learned[-1].endswith("end")
    for before, row in zip(conversations_read, conversations_read[1:], strict=False):
        context = [message.content for message in row if message.role == "assistant" and not message.weight]
        assert (
            context == [message.content for message in before if message.role == "assistant"][-len(context) :]
            and context
        )
    lines = exported("Android, day first", talk).split("\n")
    for item in read_rows(file):
        assert isinstance(item, Row) and item.line
        new = next(turn for turn in item.values["messages"] if turn["role"] == "assistant" and "weight" not in turn)
        at = item.values["messages"].index(new) - 1
        assert item.values["messages"][at]["content"][:6] in lines[item.line - 1]


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
    assert inspect_file(file).format == "text" and not probe(file).chat


def test_a_chat_in_which_nobody_asks_is_a_sentence(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(exported("iOS, German", [(1, 3, 9, 0, "Jo: a"), (1, 3, 9, 1, "Jo: b")]), "utf-8")
    with pytest.raises(DataError, match="only Jo writes"):
        inspect_file(file)


def test_an_impossible_date_and_an_export_that_breaks_off_lose_nothing(tmp_path) -> None:
    file = tmp_path / "a.txt"
    content = exported("Android, day first", TALK[:4]).replace("11/03/2025, 21:15", "31/02/1970, 21:15")
    file.write_text(content + "11/03/2025, 21:2", "utf-8")
    ((question, answered),) = conversations(file)
    assert question == EXPECTED[0][0] and answered[1] == "On my way\nSave me a seat\n11/03/2025, 21:2"


def test_names_from_right_to_left_and_the_first_second_of_1970_are_a_chat_like_any(tmp_path) -> None:
    file = tmp_path / "a.txt"
    talk = ("\u202bמרים\u202c: מה שלומך?", "يوسف \u200f: بخير", "\u202bמרים\u202c: יופי", "يوسف \u200f: مع السلامة")
    file.write_text("".join(f"\u200f1/1/1970, 0:0{minute} - {text}\n" for minute, text in enumerate(talk)), "utf-8")
    assert conversations(file, pseudonyms=False) == [
        [("user", "מה שלומך?"), ("assistant", "بخير"), ("user", "יופי"), ("assistant", "مع السلامة")]
    ]
    report = inspect_file(file, choices=Choices(voice="מרים"))
    assert report.chat and [person.name for person in report.chat.people] == ["מרים", "يوسف"]
    telegram = [{"id": i, "type": "message", "date_unixtime": str(i), "date": "1970-01-01T00:00:00", "from": who,
        "from_id": who, "text": "x"}
                for i, who in enumerate(("\u202eJo", "Eva"))]  # fmt: skip
    (export := tmp_path / "result.json").write_text(json.dumps({"messages": telegram}), "utf-8")
    assert inspect_file(export).good_rows == 1


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


# ---- what is chosen -------------------------------------------------------------------------------------------------


def chat_of(tmp_path: Any, talk: list[Any] = TALK) -> Any:
    file = tmp_path / "chat.txt"
    file.write_text(exported("Android, day first", talk), "utf-8")
    return file


def test_another_voice_is_another_reading_of_the_same_bytes_and_kept_with_the_set(tmp_path) -> None:
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    file = chat_of(tmp_path)
    jo, maria = store.import_file(file), store.import_file(file, choices=Choices(voice="Maria", gap_hours=24))
    assert jo.id != maria.id and jo.sha256 == maria.sha256
    store = DatasetStore(store.root, tmp_path)  # as after a restart
    assert store.report(maria.id).chat.voice == "Maria" and not store.report(maria.id).chat.guessed  # type: ignore[union-attr]
    ((question, answered),) = [example.messages for example in store.rows(maria.id).examples]
    assert (question.content, answered.content) == ("On my way\nSave me a seat", "Good night?")
    voices = [
        store.report(id, choices=Choices(voice=voice, gap_hours=24)).chat.voice
        for id, voice in ((maria.id, "Jo"), (jo.id, "maria"))
    ]  # type: ignore[union-attr]
    assert voices == ["Jo", "Maria"]  # what is said now goes before what is kept


def test_what_is_chosen_later_is_kept_and_what_cannot_be_read_so_changes_nothing(tmp_path) -> None:
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    info = store.import_file(chat_of(tmp_path))
    assert (info.rows, store.choose(info.id, Choices(gap_hours=2000)).rows) == (2, 1)
    kept = DatasetStore(store.root, tmp_path).get(info.id)
    assert kept.choices == Choices(gap_hours=2000) and kept.sha256 == info.sha256
    for wrong in (Choices(voice="Mario"), Choices(voice="Maria")):  # nobody; somebody who answers nothing
        with pytest.raises(DataError):
            store.choose(info.id, wrong)
    assert store.get(info.id) == kept
    assert store.choose(info.id, Choices()).rows == 2
    assert store.resolved_choices(info.id, Choices(gap_hours=2)) == Choices(voice="Jo", gap_hours=2, pseudonyms=True)


def test_a_voice_that_nobody_has_is_refused_with_the_nearest_names(tmp_path) -> None:
    with pytest.raises(DataError, match=r"Nobody in chat.txt is called Mara; there are 2 people, such as Maria:"):
        inspect_file(chat_of(tmp_path), choices=Choices(voice="Mara"))
    table = tmp_path / "a.csv"
    table.write_text("question,answer\na,b\n")
    with pytest.raises(DataError, match="a.csv is not a chat, so the voice Jo cannot be used"):
        inspect_file(table, choices=Choices(voice="Jo"))


@pytest.mark.parametrize("hours, count", [(0.25, 3), (6.0, 3), (12.0, 2), (800.0, 1)])
def test_a_silence_makes_as_many_conversations_as_is_said_beforehand(hours: float, count: int, tmp_path) -> None:
    """TALK has a silence of 11.7 hours and one of 31 days."""
    file = chat_of(tmp_path, [*TALK, (12, 4, 13, 1, "Maria: Hm?"), (12, 4, 13, 2, "Jo: !")])
    report = inspect_file(file, choices=Choices(gap_hours=hours))
    assert report.chat is not None and report.chat.conversations == count == report.rows
    assert dict(report.chat.ladder)[12.0] == 2 and dict(report.chat.ladder)[168.0] == 2


PRIVATE = [
    (1, 3, 9, 0, "Maria Lopez: call me at +49 170 1234567 or maria.lopez@mail.example, LOPEZ"),
    (1, 3, 9, 1, "Jo Will: Maria, will do! My own: https://jo.example/2025-01-01/12345678901"),
    (1, 3, 9, 2, "+44 7700 900123: see https://a.example/x and https://b.example on 12.03.2025, 1.234.567,89"),
    (1, 3, 9, 3, "王小明: 小明的电话13912345678"),
    (1, 3, 9, 4, "Jo Will: thx maria, 0170/1234567 again, see https://a.example/x"),
    (1, 3, 9, 5, "Maria Lopez: https://a.example/x and +491701234567, Maria Lopez"),
    (1, 3, 9, 6, "Jo Will: ok 小明"),
]


def test_stand_ins_are_the_same_for_the_same_and_the_voice_keeps_its_own(tmp_path) -> None:
    (row,) = conversations(chat_of(tmp_path, PRIVATE), voice="Jo Will")
    texts = [text for _, text in row]
    assert texts == [
        "Alex: call me at 000 000 01 or person1@example.com, Alex",
        "Alex, will do! My own: https://jo.example/2025-01-01/12345678901",
        "Robin: see https://example.com/1 and https://example.com/2 on 12.03.2025, 1.234.567,89\n"
        "小林: 小林的电话000 000 02",
        "thx Alex, 000 000 03 again, see https://a.example/x",
        "Alex: https://example.com/1 and 000 000 01, Alex",
        "ok 小林",
    ]
    unreplaced = str(conversations(chat_of(tmp_path, PRIVATE), voice="Jo Will", pseudonyms=False))
    assert "+49 170 1234567" in unreplaced and "Maria Lopez: call" in unreplaced


def test_a_chat_of_two_thousand_people_has_a_stand_in_for_each(tmp_path) -> None:
    talk = [(1 + i // 1440, 3, i // 60 % 24, i % 60, f"Person{i} Name{i}: I am Person{i}") for i in range(2000)]
    talk += [(2, 3, 9, 30 + i, "Jo: hi") for i in range(3)]
    report = inspect_file(file := chat_of(tmp_path, talk))
    assert report.chat is not None and (report.chat.count, len(report.chat.people), report.chat.voice) == (
        2001,
        2000,
        "Jo",
    )
    first = conversations(file)[0][0][1].split("\n")
    assert first[0] == "Alex: I am Alex" and len({line.split(":")[0] for line in first}) == len(first)


def test_a_word_without_an_end_takes_no_more_time_than_it_has_letters() -> None:
    """Seen: of 200 kB without a blank, as a pasted file is, each letter was tried as the first of an e-mail address; of
    2 MB that took hours."""
    stand_ins, text = StandIns(["Ann"], "Bo"), "x" * 2_000_000
    assert stand_ins.replaced(text, False) == text
    assert stand_ins.replaced("Ann, a.b+c@x.org!", False) == "Alex, person1@example.com!"


def test_a_word_of_a_name_that_the_chat_writes_in_small_letters_stays() -> None:
    words = {"all": 9, "All": 2, "Ann": 3, "ann": 1}
    stand_ins = StandIns(["All Cooks", "Ann", "All"], "Bo", words)
    assert stand_ins.replaced("All of us, not at all bad, ann and Ann", False) == (
        "All of us, not at all bad, Robin and Robin"
    )
    assert stand_ins.replaced("So said All Cooks", False) == "So said Alex"


def test_a_chat_in_small_letters_tells_nothing_of_names(tmp_path) -> None:
    talk = [(1, 3, 9, i, f"{who}: and you ann?") for i, who in enumerate(("Ann", "Bo", "Ann", "Bo", "Cy", "Bo"))]
    assert "ann" not in str(conversations(chat_of(tmp_path, talk), voice="Bo"))
