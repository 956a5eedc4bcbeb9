"""A .txt that is no prose is read as what its lines are, or refused by what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.sets.inspection import DataReport, inspect_file, undecided_error
from core.errors import DataError
from tests.kit.read_examples import examples_of


def read(tmp_path: Path, text: str, name: str = "file.txt") -> tuple[DataReport, list[Example]]:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    report = inspect_file(file)
    return report, [example for _, example in examples_of(file)]


def sides(examples: list[Example]) -> list[tuple[str, str]]:
    return [(one.messages[-2].content, one.messages[-1].content) for one in examples]


def keys(report: DataReport) -> list[str]:
    return [note.key for note in report.notes]


@pytest.mark.parametrize(
    "line",
    ["__label__pos __label__film I liked it, number {n}.", "I liked it, number {n}. __label__pos __label__film"],
)
def test_labels_of_fasttext_are_the_answer(line: str, tmp_path: Path) -> None:
    report, examples = read(tmp_path, "".join(line.format(n=n) + "\n" for n in range(20)) + "no label\n", "train.txt")
    assert sides(examples)[3] == ("I liked it, number 3.", "pos, film")
    assert (report.good_rows, report.error_count, report.format) == (20, 1, "text_label")
    assert "data.note_fasttext" in keys(report) and report.problems[0].text.key == "data.line_without_label"


def test_lines_with_tabs_are_a_table_and_its_first_row_may_be_a_row(tmp_path: Path) -> None:
    rows = [f"Wie heißt die Stadt Nummer {n}?\tSie heißt Neustadt an der Linde, Teil {n}." for n in range(12)]
    report, examples = read(tmp_path, "\n".join(rows))
    assert report.kind == "csv" and report.good_rows == 12
    assert sides(examples)[0] == ("Wie heißt die Stadt Nummer 0?", "Sie heißt Neustadt an der Linde, Teil 0.")


def test_names_in_the_first_row_of_a_spreadsheet_saved_as_text_are_names(tmp_path: Path) -> None:
    rows = ["question\tanswer", *(f"What is {n}?\tIt is the number {n}." for n in range(12))]
    report, examples = read(tmp_path, "\n".join(rows))
    assert report.columns == ("question", "answer") and sides(examples)[0] == ("What is 0?", "It is the number 0.")


def test_a_quotation_mark_in_a_table_by_tabs_is_a_character(tmp_path: Path) -> None:
    """As csv reads it, the first mark opens a cell that swallows all lines up to the next one."""
    rows = ["question\tanswer", *(f'"Hello {n}," he said\t"Good day {n}" is the answer' for n in range(12))]
    report, examples = read(tmp_path, "\n".join(rows))
    assert not report.error_count and sides(examples)[5] == ('"Hello 5," he said', '"Good day 5" is the answer')
    quoted = ["question\tanswer", *(f'"What is {n}?\nSay it."\t"It is {n}."' for n in range(12))]
    assert sides(read(tmp_path, "\n".join(quoted))[1])[5] == ("What is 5?\nSay it.", "It is 5.")


@pytest.mark.parametrize("separator", [" - ", " :: ", "::", " — ", " – ", " = "])
def test_flash_cards_are_pairs(separator: str, tmp_path: Path) -> None:
    terms = ["der Hund", "die Katze", "das Pferd", "Osmose", "le chat noir"]
    cards = "\n".join(f"{term}{separator}what it means, {n} - or so" for n, term in enumerate(terms))
    report, examples = read(tmp_path, cards + "\n\n")
    assert sides(examples)[3] == ("Osmose", "what it means, 3 - or so") and "data.note_cards" in keys(report)
    assert report.good_rows == 5


@pytest.mark.parametrize(
    "text",
    [
        "She came home late - as always.\n\nHe looked up.\n\nThe rain went on.\n\nNobody spoke - not one.",
        "- milk\n- bread\n- butter\n- eggs\n",
        "    an indented\n\tline\n\tand one more\n\tand the last\n",
        "One sentence.\n",
        "A line with a\ttab in it\nand prose\nand prose\nand prose\n",
    ],
)
def test_prose_stays_prose(text: str, tmp_path: Path) -> None:
    report, examples = read(tmp_path, text)
    assert report.format == "text" and "\n\n".join(one.text or "" for one in examples) == text.strip("\n")


def test_cards_half_of_which_are_none_stay_prose(tmp_path: Path) -> None:
    text = "".join(f"term {n} - its meaning\nand a line of prose {n}\n" for n in range(20))
    assert read(tmp_path, text)[0].format == "text"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("ner.txt", ["EU NNP B-NP B-ORG", "rejects VBZ B-VP O", "German JJ B-NP B-MISC", "", "Peter NNP B-NP B-PER"]),
        ("a.conll", ["@paulwalk\tO", "It\tO", "Empire\tB-location", "State\tI-location", "", "Oslo\tB-location"]),
        (
            "de.conllu",
            [
                "# sent_id = 1",
                *(f"{n}\tWort\tWort\tNOUN\tNN\t_\t0\troot\t_\t_" for n in range(1, 5)),
                "",
                "1\tUnd\tund\tCCONJ\tKON\t_\t0\troot\t_\t_",
            ],
        ),
    ],
)
def test_words_with_tags_are_refused_by_their_name(name: str, lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read(tmp_path, "\n".join(lines * 5) + "\n", name)
    assert refused.value.message.key == "data.is_conll" and "CoNLL" in str(refused.value)


def test_highlights_of_a_kindle_are_read_without_their_places(tmp_path: Path) -> None:
    def clipping(n: int) -> str:
        where = f"- Ihre Markierung bei Position {n}-{n + 3} | Hinzugefügt am Montag, 3. März 2025"
        return f"Ein Buch (Autorin, Erste)\n{where}\n\nDer Satz Nummer {n} ist wichtig.\n==========\n"

    empty = "Ein Buch (Autorin, Erste)\n- Ihr Lesezeichen bei Position 9 | Hinzugefügt am Montag\n\n\n==========\n"
    report, examples = read(tmp_path, clipping(1) + empty + clipping(2), "My Clippings.txt")
    assert [one.text for one in examples] == ["Der Satz Nummer 1 ist wichtig.", "Der Satz Nummer 2 ist wichtig."]
    assert [left.what.key for left in report.left_out] == ["left_out.place"]


def test_a_line_of_many_megabytes_is_a_problem_of_its_row(tmp_path: Path) -> None:
    lines = [f"__label__a one {n}" for n in range(20)]
    text = "\n".join([*lines, "__label__b " + "x" * (5 << 20), "__label__a two"])
    report, _ = read(tmp_path, text)
    assert (report.good_rows, report.error_count) == (21, 1) and report.problems[0].text.key == "data.row_too_large"


def test_the_fields_of_a_note_of_anki_are_no_sides_but_a_question(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    note = "{0}\t{0}\tthe word {0}\tnoun\n"
    file.write_text("#separator:tab\n#html:false\n" + "".join(map(note.format, ("chat", "chien", "lune"))), "utf-8")
    report = inspect_file(file)
    assert report.undecided and "Front" not in report.columns


def test_times_above_spoken_lines_are_left_out(tmp_path) -> None:
    lines = [f"00:{at:02}\nI SAY LINE {at} NOW." for at in range(6)]
    (tmp_path / "a.srt").write_text("\n".join(lines), "utf-8")
    (text,) = (example.as_json() for _, example in examples_of(tmp_path / "a.srt"))
    assert "LINE 5 NOW" in text and "00:" not in text


RUNNING = [
    f"{word} ship sailed at dawn, and nobody on the quay waved to it in all that year."
    for word in (
        "The",
        "A",
        "Her",
        "His",
        "One",
        "Our",
        "My",
        "No",
        "That",
        "This",
        "Some",
        "Many a",
        "Their",
        "What",
        "Every",
    )
]
NOT_RUNNING = [
    (["L{n} +++ u1 +++ We sail at {n}."], "data.lines_divided"),  # fields between signs
    (["joy", "anger", "fear", "love"], "data.lines_of_words"),  # labels, a vocabulary
    (["3", "0", "1", "2"], "data.lines_of_numbers"),
    (["E", "M Wo warst du denn, mein Freund, am Tag {n}.", "M Am See, mit allen Freunden."], "data.lines_begin"),
    (['"{n}" "LUKE" "Hurry up, it is day {n} now!"'], "data.lines_begin"),  # as R writes a table
    (["DAN: You are a fool, {n} times.", "GPT: I know it, and I am glad of it."], "data.lines_begin"),
    (["PM (Sarah):", "Thank you all for joining today.", "LD (John):", "We need {n} servers."], "data.lines_begin"),
    (["###{n} How much is the software for one of us.", "###{n} I want to buy it."], "data.lines_begin"),
    (["how are you {n} \\ I am well, thank you"], "data.lines_divided"),
    (["what do you do # I look for {n} teachers of mathematics"], "data.lines_divided"),
    (["Can I borrow a power bank for {n} days?", "You can, if you have an account here."], "data.lines_ask"),
    (["hello there, this is a question of number {n}", "0", "---"], "data.lines_of_numbers"),
]


@pytest.mark.parametrize(("lines", "why"), NOT_RUNNING)
def test_lines_that_are_no_running_text_are_a_question_to_the_person(
    lines: list[str], why: str, tmp_path: Path
) -> None:
    """Seen: scripts, logs of bots, entries with marks and lists, of which each was trained as prose without a word."""
    text = "\n".join(line.replace("{n}", str(n)) for n in range(9) for line in lines)
    report, _ = read(tmp_path, text)
    assert report.undecided and report.readings == ({"text": "text"},) and f"'{why}'" in repr(report.notes)
    assert undecided_error(report).message.key == "data.which_text"
    report = inspect_file(tmp_path / "file.txt", choices=Choices(columns={"text": "text"}))
    assert report.good_rows and not report.undecided and not report.guessed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "\n".join(RUNNING)),
        ("a.txt", "\n\n".join(["Chapter 2", *RUNNING, "“Are you there?” he asked.", "“Yes.”", "Where was it?"])),
        (
            "a.md",
            "# Title\n\n| a | b |\n|---|---|\n"
            + "| 1 | 2 |\n" * 9
            + "\n- one\n- two\n\n```\nx = 1\n```\n"
            + "\n".join(RUNNING),
        ),
    ],
)
def test_running_text_is_no_question(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    report = inspect_file(tmp_path / name)
    assert report.format == "text" and not report.undecided and not report.guessed


def test_one_file_of_a_folder_that_is_no_running_text_is_named_and_not_asked(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{line} {name}" for line in RUNNING), "utf-8")
    (tmp_path / "d.txt").write_text("\n".join(f"ants {n} \\ bees" for n in range(9)), "utf-8")
    report = inspect_file(tmp_path)
    assert not report.undecided and "'data.lines_of_words'" in repr(report.notes)


def test_texts_and_labels_side_by_side_are_named(tmp_path) -> None:
    (tmp_path / "texts.txt").write_text("We sail at noon today.\n" * 30, "utf-8")
    (tmp_path / "labels.txt").write_text("joy\nanger\n" * 15, "utf-8")
    with pytest.raises(DataError, match=r"labels\.txt.*texts\.txt"):
        inspect_file(tmp_path)


def test_a_script_is_a_chat_and_fields_are_none(tmp_path) -> None:
    speakers = ("Mara", "Old Tom", "Mara", "Ines", "Old Tom", "Mara", "Old Tom", "Ines", "Mara", "Old Tom") * 2
    (tmp_path / "a.txt").write_text("\n".join(f"{who}: I say so, {at}." for at, who in enumerate(speakers)), "utf-8")
    chat = inspect_file(tmp_path / "a.txt").chat
    assert chat is not None and chat.voice in ("Mara", "Old Tom")
    fields = "\n".join(f"{name}: it is {at}." for at in range(9) for name in ("Plot", "Place", "Ending"))
    (tmp_path / "b.txt").write_text(fields, "utf-8")
    assert inspect_file(tmp_path / "b.txt").chat is None


def test_texts_of_a_fortune_file_are_apart_and_their_mark_is_no_text(tmp_path: Path) -> None:
    """Seen: hundreds of quotes and the % between them as one paragraph."""
    quotes = [f"Quote {n} is short.\n\t\t-- Somebody" for n in range(4)]
    _, examples = read(tmp_path, "\n%\n".join(quotes) + "\n%\n", "humorists.txt")
    assert [one.text for one in examples] == quotes


def test_a_question_of_a_fortune_file_has_no_answer_from_the_next_text(tmp_path: Path) -> None:
    """Seen: of jokes that begin with the answer, each question had the answer of the next one."""
    right = "".join(f"Q:\tWhy is {n} odd?\nA:\tIt is number {n}.\n%\n" for n in range(12))
    report, examples = read(tmp_path, f"{right}A:\tSeven.\nQ:\tWhat comes after six?\n%\nA:\tEight.\n%\n{right}{right}")
    assert set(sides(examples)) == {(f"Why is {n} odd?", f"It is number {n}.") for n in range(12)}
    assert report.error_count == 3


def test_a_log_of_processes_is_no_chat(tmp_path: Path) -> None:
    """Seen: a syslog was read as a chat of 705 people."""
    lines = "".join(
        f"Mar 27 13:08:{n:02d} ip-10-77 sshd[{n // 9}]: Server listening on port {n}.\n"
        f"Mar 27 13:08:{n:02d} ip-10-77 systemd-logind[7]: New session {n} of user ubuntu.\n"
        for n in range(60)
    )
    with pytest.raises(DataError, match=r"auth\.log is a log, but no chat"):
        read(tmp_path, lines, "auth.log")
    lines = "".join(f"[2016-12-20 00:04:03,231] DEBUG [Controller {n % 2}]: checking {n}.\n" for n in range(60))
    with pytest.raises(DataError, match=r"a\.log is a log, but no chat"):
        read(tmp_path, lines, "a.log")


@pytest.mark.parametrize("names", [("pos.txt", "neg.txt"), ("train/spam/1.txt", "train/ham/1.txt")])
def test_texts_in_files_that_are_named_as_classes_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    """Seen: reviews were trained as prose, and which of them are good and which bad was lost."""
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(f"This film, number {n}, was as I expected.\n" for n in range(30)))
    with pytest.raises(DataError, match="seem to be the names of classes"):
        inspect_file(tmp_path)


def test_instruct_and_output_mark_the_sides_of_a_conversation(tmp_path: Path) -> None:
    talk = "System: You write posts.\n\nInstruct: Write one about tea, {n}.\n\nOutput: Tea is warm, {n}.\n"
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": talk.format(n=n)}) + "\n" for n in range(6)), "utf-8")
    assert sides([one for _, one in examples_of(file)])[2] == ("Write one about tea, 2.", "Tea is warm, 2.")
