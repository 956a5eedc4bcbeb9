"""A .txt that is no prose is read as what its lines are, or refused by what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.formats import Example
from core.data.sets.inspection import DataReport, examples_of, inspect_file
from core.errors import DataError


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


def test_lines_that_count_from_one_again_are_dialogues(tmp_path) -> None:
    lines = ["1 your persona: i keep bees.", "2 partner's persona: i sail.", "3 hello !\thi , i came from my hives ."]
    lines += ["4 how many ?\tnine .", "1 it rains .", "2 what now ?\twe wait .\t1", "3 good .\tyes ."]
    (tmp_path / "a.txt").write_text("\n".join(lines), "utf-8")
    first, second = (example.as_json() for _, example in examples_of(tmp_path / "a.txt"))
    assert "i keep bees." in first and "sail" not in first and '"nine ."' in first
    assert "it rains .\\nwhat now ?" in second and "1" not in second


def test_times_above_spoken_lines_are_left_out(tmp_path) -> None:
    lines = [f"00:{at:02}\nI SAY LINE {at} NOW." for at in range(6)]
    (tmp_path / "a.srt").write_text("\n".join(lines), "utf-8")
    (text,) = (example.as_json() for _, example in examples_of(tmp_path / "a.srt"))
    assert "LINE 5 NOW" in text and "00:" not in text


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ([f"L{at} ++$++ u{at % 2} ++$++ We sail at {at}." for at in range(9)], "data.is_fields"),
        (["joy", "anger", "3"] * 5, "data.is_words"),
    ],
)
def test_fields_between_signs_and_lists_of_words_are_refused(tmp_path, lines, key) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines), "utf-8")
    with pytest.raises(DataError) as raised:
        inspect_file(tmp_path / "a.txt")
    assert raised.value.message.key == key


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


def test_lines_below_one_of_a_few_letters_are_refused_with_the_letters(tmp_path: Path) -> None:
    lines = "".join(f"E\nM Wo warst du, {n}?\nM Am See, mit Freunden.\n" for n in range(8))
    with pytest.raises(DataError, match="one of the letters E, M"):
        read(tmp_path, lines)
    _, examples = read(tmp_path, "I came.\nA man left.\nHe saw me.\n" * 8)
    assert examples[0].text and examples[0].text.startswith("I came.")


def test_a_table_of_quoted_cells_between_blanks_is_refused_as_fields(tmp_path: Path) -> None:
    """As R's write.table has it. Seen: the quotation marks and numbers were trained as prose."""
    rows = "".join(f'"{n}" "LUKE" "Hurry up, \\"{n}\\" times!"\n' for n in range(9))
    with pytest.raises(DataError, match="has 3 fields in each line"):
        read(tmp_path, f'"character" "dialogue"\n{rows}')


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


def test_a_text_of_questions_alone_is_a_guess_and_says_that_the_answers_are_missing(tmp_path: Path) -> None:
    report, _ = read(tmp_path, "input\n" + "".join(f"Was ist {n} mal {n}?\n" for n in range(12)))
    assert report.guessed and {"data.note_no_answers", "data.note_guessed"} <= {*keys(report)}
    report, _ = read(tmp_path, "".join(f"Was ist {n} mal {n}?\nEs ist {n * n}.\n" for n in range(12)), "b.txt")
    assert not report.guessed


@pytest.mark.parametrize("names", [("pos.txt", "neg.txt"), ("train/spam/1.txt", "train/ham/1.txt")])
def test_texts_in_files_that_are_named_as_classes_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    """Seen: reviews were trained as prose, and which of them are good and which bad was lost."""
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(f"This film, number {n}, was as I expected.\n" for n in range(30)))
    with pytest.raises(DataError, match="seem to be the names of classes"):
        inspect_file(tmp_path)


def test_a_chat_of_aider_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="chat of LINE or aider"):
        read(tmp_path, "\n# aider chat started at 2024-08-05 19:33:02\n\n#### add a test\n\n> app.py\n", "history.md")


def test_instruct_and_output_mark_the_sides_of_a_conversation(tmp_path: Path) -> None:
    talk = "System: You write posts.\n\nInstruct: Write one about tea, {n}.\n\nOutput: Tea is warm, {n}.\n"
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": talk.format(n=n)}) + "\n" for n in range(6)), "utf-8")
    assert sides([one for _, one in examples_of(file)])[2] == ("Write one about tea, 2.", "Tea is warm, 2.")
