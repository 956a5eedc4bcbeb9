"""Causes of wrong readings in an eighth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from core.data.sets.inspection import DataReport, inspect_file
from core.data.shapes.roles import Role
from core.errors import DataError
from tests.kit.read_examples import examples_of


def report_of(tmp_path: Path, name: str, text: str) -> DataReport:
    (tmp_path / name).write_text(text, "utf-8")
    return inspect_file(tmp_path / name)


def keys_of(report: DataReport) -> set[str]:
    """The keys of all notes, and of the reasons in them."""
    return {note.key for note in report.notes} | {
        why["key"] for note in report.notes if isinstance(why := note.params.get("why"), dict)
    }


# ---- texts that are no prose ---------------------------------------------------------------------

_WORDS = ["rain on the old roof", "the river is wide", "a lamp in the hall", "nobody came home", "bread and salt"]
_FIRST = "When Rain Salt Bread Home Nobody River Lamp Old Wide And The In On Far Near Here There Once Then"
_SENTENCES = [f"{first} {_WORDS[n % 5]}, and {_WORDS[(n + 2) % 5]}" for n, first in enumerate(_FIRST.split())]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",".join(f'"Proverb: {each}"' for each in _SENTENCES), "data.lines_divided"),
        ("\n".join(f"{n}. Meant by {each}\n   **{each}**" for n, each in enumerate(_SENTENCES)), "data.lines_begin"),
        ("\n".join(f"+ *{each}\n- Please, {each}\n- And {each}" for each in _SENTENCES), "data.lines_begin"),
        ("\n".join(f"お待たせいたしました{n} 各位久等了" for n in range(9)), "data.lines_in_scripts"),
        ("\n".join(f"{'абвгдежзиклмнопрстуф'[n]}да\n{_SENTENCES[n]}" for n in range(20)), "data.lines_in_turn"),
        ("\n\n".join(f"{each[:3]}ly of them all\n{each} in {each}" for each in _SENTENCES), "data.lines_in_turn"),
        ("\n\n".join(f"{each[:3]}ly\n{each} in it\n{each} for it" for each in _SENTENCES), "data.lines_in_turn"),
        ("\n".join(["#+TITLE: Mail", "** Mail", *_SENTENCES, "*** How do I write one"]), "data.lines_of_markup"),
    ],
)  # fmt: skip
def test_lines_that_are_made_alike_are_a_question_to_the_person(tmp_path: Path, text: str, why: str) -> None:
    """Seen: flash cards, quoted strings and lines in two languages trained as prose without a word."""
    report = report_of(tmp_path, "a.txt", text)
    assert why in keys_of(report)
    assert report.undecided


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([*_SENTENCES[:9], "- " + _SENTENCES[9], *_SENTENCES[10:]]),
        "\n\n".join("\n".join(_SENTENCES[n : n + 4]) for n in range(0, 20, 4)),  # stanzas
        '"Yes", "no", she said, and left the room.\nNobody answered, for it was late.',
    ],
)
def test_prose_and_verse_are_not_doubted(tmp_path: Path, text: str) -> None:
    assert not report_of(tmp_path, "a.txt", text).undecided


def test_headings_among_the_texts_of_a_table_are_asked(tmp_path: Path) -> None:
    """Seen: "### Name of a poet ###" learned as verse."""
    rows = [f"### Poet {n} (t20) ###\n" + "\n".join(f"{each} by {n}" for each in _WORDS) for n in range(4)]
    report = report_of(tmp_path, "a.csv", "poetry\n" + "\n".join(rows).replace(",", ""))
    assert "data.lines_of_markup" in keys_of(report)
    assert report.undecided


def test_code_that_is_a_list_of_data_is_asked(tmp_path: Path) -> None:
    entries = "".join(f' {{\n  "swahili": "Methali {n}",\n  "english": "Proverb {n}"\n }},\n' for n in range(9))
    assert "data.code_of_data" in keys_of(report_of(tmp_path, "a.js", f"var proverbs = [\n{entries}];\n"))
    assert "data.code_of_data" not in keys_of(report_of(tmp_path, "b.js", "let a = 1;\nfor (;;) {\n  f(a);\n}\n" * 9))


# ---- several files -------------------------------------------------------------------------------


def test_files_of_one_entry_a_line_may_be_classes(tmp_path: Path) -> None:
    """Seen: negative and positive reviews, a file each, trained as two texts without their classes."""
    for name in ("kotu", "iyi"):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{each}, {name}" for each in _SENTENCES), "utf-8")
    report = inspect_file(tmp_path)
    assert "data.files_as_classes" in keys_of(report)
    assert report.undecided
    (tmp_path / "iyi.txt").write_text("\n\n".join(_SENTENCES), "utf-8")  # a text of paragraphs is none
    assert not inspect_file(tmp_path).undecided


def test_files_that_are_named_good_and_bad_are_classes_and_an_empty_one_is_none(tmp_path: Path) -> None:
    for name, text in {"negativas": "No me gusta.", "positivas": "Me gusta.", "clean": ""}.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(tmp_path)
    assert (caught.value.message.key, caught.value.message.params["names"]) == (
        "data.classes_by_file",
        ["negativas", "positivas"],
    )


def test_xml_files_of_as_many_lines_are_no_list_of_labels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.xml").write_text("<q>\n" + f"<text>\n{name}\n</text>\n" * 12 + "</q>\n", "utf-8")
    with pytest.raises(DataError) as caught:
        inspect_file(tmp_path)
    assert caught.value.message.key == "data.no_data_inside"


# ---- tables --------------------------------------------------------------------------------------


def table(header: str, row: str) -> str:
    """A CSV of the header and 20 rows: {s} a sentence, {-s} in one row of three, {w} a word of its own, {n} its number,
    {k} a or b."""
    rows = (
        row.format_map(
            {"s": each.replace(",", ""), "-s": "" if n % 3 else _WORDS[n % 5], "w": word, "n": n, "k": "ab"[n % 2]}
        )
        for n, (each, word) in enumerate(zip(_SENTENCES, _FIRST.lower().split(), strict=True))
    )
    return "\n".join([header, *rows, ""])


def arrow(roles: dict[str, Role]) -> str:
    of = {role: name for name, role in roles.items()}
    return of.get("text") or f"{of['question']}>{of['answer']}"


@pytest.mark.parametrize(
    ("files", "choices"),
    [
        # Seen: only the readings of one of two files were offered.
        ({"a.csv": table("left,right", "{s} he,{s} she"), "b.csv": table("one,two,cost", "{s} he,{s} she,1{n}")},
            {"left>right", "right>left", "one>two"}),
        # Seen: age and phone as answers; the resolution of closed tickets, in a third of the rows, was none.
        ({"a.csv": table("issue,age,phone,email,resolution", "{s},{k}1,+4{n},{w}@x.org,{-s}")}, {"issue>resolution"}),
        # Seen: a word, its meaning and an example asked without the word and its meaning.
        ({"a.csv": table("entry,sense,usage", "{w},{s} he,{s} she")}, {"entry>sense", "sense>usage"}),
        # Seen: a column for each language refused, or without the way back.
        ({"a.csv": table("English,German,French,Latin", "{w} a,{w} b,{w} c,{w} d")},
            {"English>German", "German>English", "English>French"}),
        # Seen: long sides between bars trained as one text.
        *(({"a.txt": "\n".join(f"{each}, {each}, and {each}{sign}{each[5:]}" for each in _SENTENCES)},
            {"question>answer", "answer>question"}) for sign in ("|", "=>", " - ")),
    ],
)  # fmt: skip
def test_the_right_reading_is_among_the_choices(tmp_path: Path, files: dict[str, str], choices: set[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    report = inspect_file(tmp_path)
    assert report.guessed or report.undecided
    assert choices <= {*map(arrow, report.possible)}
    assert not {roles for roles in map(arrow, report.possible) if roles.endswith((">age", ">phone", ">email"))}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", table("question,ref,made", "{s},RF100000{n},2020-01-11"), "question, ref, made can be the answer"),
        ("a.csv", table("Is it {k}?,12,7", "{n},{w},{n}"), "--header no"),
        ("a.json", json.dumps([{"meta": {"n": n, "all": [{"faqs": [{"ask": s, "reply": s, "n": n}]}]}, "id": n}
            for n, s in enumerate(_SENTENCES)]), "trained is in meta.all[].faqs[]"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_could_be_done(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        report_of(tmp_path, name, text)


def test_sentences_that_two_files_share_are_no_ids(tmp_path: Path) -> None:
    for name, columns in {"a": "line_id,said", "b": "text_id,heard"}.items():
        (tmp_path / f"{name}.csv").write_text(table(columns, "{s},{s} of late"), "utf-8")
    assert "data.note_shared_ids" not in keys_of(inspect_file(tmp_path))


RASA = {
    "nlu.yml": "nlu:\n- intent: greet\n  examples: |\n    - hey [you](who)\n    - good day\n- intent: bye\n"
    "  examples: |\n    - so long\n",
    "data/rules.yml": "rules:\n- rule: one\n  steps:\n  - intent: greet\n  - action: utter_greet\n",
    "domain.yml": "responses:\n  utter_greet:\n  - text: Hello there.\n  utter_bye:\n  - text: Bye.\n",
}


def test_an_intent_of_rasa_is_answered_by_what_its_rules_say(tmp_path: Path) -> None:
    """Seen: the wordings of an intent asked beside its name, though the answers lay in the same folder."""
    (tmp_path / "data").mkdir()
    for name, text in RASA.items():
        (tmp_path / name).write_text(text, "utf-8")
    turns = [[turn.content for turn in example.messages] for _, example in examples_of(tmp_path)]
    assert turns == [["hey you", "Hello there."], ["good day", "Hello there."]]
    assert "data.note_rasa" in keys_of(inspect_file(tmp_path))
    stories = "stories:\n- story: two\n  steps:\n  - intent: greet\n  - action: utter_bye\n"
    (tmp_path / "data/stories.yml").write_text(stories, "utf-8")
    with_two = inspect_file(tmp_path)  # two responses to one intent are no answer
    assert "data.note_rasa" not in keys_of(with_two) and with_two.undecided


def test_a_card_of_anki_that_repeats_its_front_has_the_rest_as_its_answer(tmp_path: Path) -> None:
    """Seen: the question and Anki's ruler learned at the beginning of each answer."""
    ruler = '<hr id=""answer"">'
    cards = f'Capital of Peru\t"<b>Capital</b> of Peru\n\n{ruler}\n\nLima"\nRiver\t"A stream {ruler} of water"\n'
    report = report_of(tmp_path, "a.txt", f"#separator:tab\n#html:true\n{cards}")
    assert report.good_rows == 2
    answers = [example.messages[-1].content for _, example in examples_of(tmp_path / "a.txt")]
    assert answers == ["Lima", 'A stream <hr id="answer"> of water']


# ---- of the development set ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        # Seen: of ten thousand words, the meaning of “data” alone was learned.
        ("a.json", json.dumps({"casa": ["house"], "data": ["date"]} | {f"mesa{n}": [f"table {n}"] for n in range(60)}),
            "casa"),
        # Seen: cards were left out and the few with gaps learned as texts.
        ("a.json", json.dumps([{"text": each} if n % 4 == 0 else {"front": f"Why {n}?", "back": each} for n, each in
            enumerate(_SENTENCES)]), "Why 1?"),
        # Seen: the cards of each lesson were left out, and its number offered as an answer.
        ("a.json", json.dumps([{"lesson": n, "cards": [{"front": f"Why {n}?", "back": each, "n": n}] * 2} for n, each in
            enumerate(_SENTENCES)]), "Why 0?"),
        # Seen: ten columns, the first a number, were words with their tags.
        ("a.tsv", table("n,a,b,c,d,e,f,g,English (US),German (Deutsch)", "{n},{s},x,x,x,x,x,x,{w} up,{w} auf")
            .replace(",", "\t"), "when up"),
        # Seen: a column of ones was the key of options, in a table without names.
        ("a.tsv", "".join(f"{n}\t{n}\t{each}\t{each} it\t{n}\tx\t1\n" for n, each in enumerate(_SENTENCES)),
            _SENTENCES[0]),
    ],
)  # fmt: skip
def test_the_rows_of_such_a_file_are_what_they_look_like(tmp_path: Path, name: str, text: str, first: str) -> None:
    report_of(tmp_path, name, text)
    assert next(examples_of(tmp_path / name))[1].messages[0].content == first


def test_a_document_of_nothing_but_lists_is_asked(tmp_path: Path) -> None:
    """Seen: the wordings of intents in Rasa's old format learned as prose."""
    intents = "".join(f"## intent:part_{n}\n- {each}\n- {each} again\n- {each} at last\n\n" for n, each in
        enumerate(_SENTENCES))  # fmt: skip
    assert report_of(tmp_path, "nlu.md", intents).undecided
    prose = "".join(
        f"## Part {n}\n{each}.\n\n- {each} again\n- {each} at last\n\n" for n, each in enumerate(_SENTENCES)
    )
    assert not report_of(tmp_path, "b.md", prose).undecided
