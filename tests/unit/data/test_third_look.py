"""Sets of the third look at what people own: each test has a set of that shape, made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.formats import Example
from core.data.reading import encodings
from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of

MANY = range(30)


def read(file: Path, text: str) -> tuple[DataReport, list[Example]]:
    file.write_text(text, "utf-8")
    return inspect_file(file), [example for _, example in examples_of(file)]


def sides(examples: list[Example]) -> list[tuple[str, str]]:
    return [(one.messages[-2].content, one.messages[-1].content) for one in examples]


def answers(report: DataReport) -> list[str]:
    return [next(name for name, role in roles.items() if role in ("answer", "text")) for roles in report.readings]


def keys(report: DataReport) -> list[str]:
    return [note.key for note in report.notes]


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_lists_in_the_cells_of_a_table_are_written_as_texts(tmp_path: Path) -> None:
    """Seen: "['Anxiety', 'Depression']" was trained with its brackets."""
    rows = "".join(f"What helps against cold {n}?,\"['Tea {n}', 'a warm bed']\"\n" for n in MANY)
    report, examples = read(tmp_path / "a.csv", f"question,answer\n{rows}")
    assert sides(examples)[2] == ("What helps against cold 2?", "Tea 2, a warm bed")
    assert "data.note_lists" in keys(report)
    rows = "".join(f"\"['Who', 'has', '{n}', '?']\",\"['Anna', 'has', '{n}', '.']\"\n" for n in MANY)
    assert sides(read(tmp_path / "b.csv", f"question,answer\n{rows}")[1])[2] == ("Who has 2 ?", "Anna has 2 .")


def test_options_in_the_cells_of_a_table_stay_options(tmp_path: Path) -> None:
    rows = "".join(f"Which is {n}?,\"['one', 'two']\",{'AB'[n % 2]}\n" for n in MANY)
    assert sides(read(tmp_path / "a.csv", f"question,options,answer\n{rows}")[1])[1][1] == "B. two"


def test_a_tag_for_each_word_is_refused_also_where_names_decide(tmp_path: Path) -> None:
    rows = "".join(f"\"['Who', 'is', '{n}', '?']\",\"['O', 'O', 'B', 'O']\"\n" for n in MANY)
    with pytest.raises(DataError, match="a tag for each of them"):
        read(tmp_path / "a.csv", f"question,answer_tags\n{rows}")


@pytest.mark.parametrize("tags", ["O B I", "O B-PER I-PER"])
def test_a_word_with_its_tag_in_each_line_of_a_tsv_is_refused(tags: str, tmp_path: Path) -> None:
    sentence = "".join(
        f"{n}\t{word}\t{tag}\n" for n, (word, tag) in enumerate(zip(["in", "New", "York"], tags.split(), strict=True))
    )
    with pytest.raises(DataError, match="CoNLL"):
        read(tmp_path / "a.tsv", f"#\tde.example/{{n}}\n{sentence}\n" * 9)


def test_options_of_a_table_without_names_end_at_the_key(tmp_path: Path) -> None:
    """Seen: numbers after the key were options, and one of them was the key: the answers were wrong."""
    rows = "".join(f"Welche Stadt hat Nummer {n}?,Rom,Wien,Bern,{1 + n % 3},{n}.5,0,{n % 2}\n" for n in MANY)
    _, examples = read(tmp_path / "a.csv", rows)
    assert sides(examples)[1] == ("Welche Stadt hat Nummer 1?\nA. Rom\nB. Wien\nC. Bern", "B. Wien")


def test_a_right_answer_beside_the_wrong_choices_is_one_of_the_options(tmp_path: Path) -> None:
    """Seen: refused, because "no column says which one is right"."""
    rows = "".join(f"Who wrote book {n}?,Zola {n},Austen,Dickens\n" for n in MANY)
    _, examples = read(tmp_path / "a.csv", f"question,correct_answer,choice_1,choice_2\n{rows}")
    assert sides(examples)[0] == ("Who wrote book 0?\nA. Austen\nB. Dickens\nC. Zola 0", "C. Zola 0")
    rows = "".join(f"What is {n} + 2?,{n + 2},{n + 1},{n}\n" for n in MANY)
    _, examples = read(tmp_path / "b.csv", f"question,correct_answer,choice_1,choice_2\n{rows}")
    assert sides(examples)[0] == ("What is 0 + 2?\nA. 0\nB. 1\nC. 2", "C. 2")


def test_a_kind_of_question_is_no_text_before_it(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"context_condition": "ambig", "context": f"Anna and Eva met {n} times.", "question": "Who won?",
            "ans0": "Anna", "ans1": "Eva", "label": n % 2}) + "\n" for n in MANY
    )  # fmt: skip
    assert sides(read(tmp_path / "a.jsonl", rows)[1])[0][0].startswith("Anna and Eva met 0 times.\n\nWho won?")
    rows = "".join(f"leave_{n % 9}; rules_{n},How many days of leave in year {n}?,There are {n}.\n" for n in MANY)
    _, examples = read(tmp_path / "b.csv", f"question_tag,core_question,core_answer\n{rows}")
    assert sides(examples)[3][0] == "How many days of leave in year 3?"


def test_a_column_that_may_say_if_an_answer_is_right_is_a_question_to_the_person(tmp_path: Path) -> None:
    """Seen: the answers marked with -1 were trained like the right ones."""
    rows = "".join(f"Is {n} odd?,It is the number {n}.,{(1, -1)[n % 2]}.0\n" for n in MANY)
    for names in ("short_question,short_answer", "question,answer"):
        report, _ = read(tmp_path / "a.csv", f"{names},label\n{rows}")
        assert report.undecided and answers(report) == [names.split(",")[1], "label"]
    report, _ = read(tmp_path / "b.csv", "question,answer,label\n" + rows.replace("-1.0", "3"))
    assert not report.undecided


def test_a_translation_beside_a_label_is_a_question_to_the_person(tmp_path: Path) -> None:
    rows = "".join(f"tei-zawa-ku {n},This cooked us {n} times.,1\n" for n in MANY)
    report, _ = read(tmp_path / "a.csv", f"sentence,translation,label\n{rows}")
    assert report.undecided and answers(report) == ["translation", "label"]


def test_the_names_of_classes_in_the_next_column_are_trained_in_place_of_numbers(tmp_path: Path) -> None:
    rows = [{"sentence": f"Here is the news {n}.", "label": 100 + n % 2, "label_desc": "car" if n % 2 else "art"}
        for n in MANY]  # fmt: skip
    report, examples = read(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert sides(examples)[1] == ("Here is the news 1.", "car") and "data.note_label_beside" in keys(report)
    rows[3]["label_desc"] = "other"  # not the name of one number
    report, examples = read(tmp_path / "b.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert sides(examples)[1][1] == "101" and "data.note_label_numbers" in keys(report)


def test_names_in_the_plural_and_file_names_are_known(tmp_path: Path) -> None:
    """Seen: questions alone were trained, "there are no answers to them", and the name of a file was a question."""
    rows = "".join(
        json.dumps({"iIndex": n, "lSolutions": [f"{n}"], "sQuestion": f"What is {n} + 0?"}) + "\n" for n in MANY
    )
    assert sides(read(tmp_path / "a.jsonl", rows)[1])[2] == ("What is 2 + 0?", "2")
    rows = "".join(f"dev_{n},Anna: How are you {n}?,They met {n} times.\n" for n in MANY)
    report, _ = read(tmp_path / "b.csv", f"fname,dialogue,summary\n{rows}")
    assert "fname" not in report.roles


def test_the_letter_of_the_better_answer_is_not_the_answer(tmp_path: Path) -> None:
    """Seen: chosen is A or B, and always the first answer was offered."""
    rows = "".join(f"What is {n}?,It is {n}.,No idea of {n}.,{'AB'[n % 2]}\n" for n in MANY)
    _, examples = read(tmp_path / "a.csv", f"instruction,response_a,response_b,chosen\n{rows}")
    assert [sides([one])[0][1] for one in examples[:2]] == ["It is 0.", "No idea of 1."]
    assert examples[1].rejected[-1].content == "It is 1."


@pytest.mark.parametrize("first", [0, 1])
def test_a_label_beside_answers_one_and_two_is_asked(first: int, tmp_path: Path) -> None:
    """A label of 1 was read as the first answer, though 0 may be the first, and 1 a class of both."""
    rows = [{"input": f"What is {n}?", "output_1": f"It is {n}.", "output_2": "No idea."} for n in MANY]
    text = "".join(json.dumps(row | {"label": n % 2 + first}) + "\n" for n, row in enumerate(rows))
    assert read(tmp_path / "a.jsonl", text)[0].undecided


def test_a_vertical_bar_between_columns_is_seen(tmp_path: Path) -> None:
    rows = "".join(f"#{n}|Never pay {n}{', ' * (n % 3)} or more.|Rule number {n} of many\n" for n in MANY)
    report, _ = read(tmp_path / "a.csv", rows)
    assert report.good_rows == 30 and "data.note_delimiter" in keys(report)


def test_a_title_before_question_and_answer_is_one_of_the_readings(tmp_path: Path) -> None:
    """Seen: no reading used the name of a recipe."""
    rows = "".join(f'Soup number {n},"water, salt, {n} beans",Boil it all for {n} minutes.\n' for n in MANY)
    report, _ = read(tmp_path / "a.csv", f"recipe_name,ingredients,instructions\n{rows}")
    assert {"recipe_name": "context", "ingredients": "question", "instructions": "answer"} in report.readings


# ---- JSON, folders, encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "key", "item", "becomes"),
    [
        ({"topic_list": [{"topic": "The price of it"}]}, "queries", {"query": "How much?", "answer": "Ten."},
            ("How much?", "Ten.")),
        ({"intents": [{"name": "BookFlight"}]}, "utterances", {"text": "Go to Rome, please.", "intent": "BookFlight"},
            ("Go to Rome, please.", "BookFlight")),
        ({"trajectory": [{"action": "ls -l", "response": "Here it is, all of it."}]}, "data",
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
            ("Hi", "Hello")),
        ({"comments": "two"}, "conversations",
            {"messages": [{"sender": "customer", "content": "Hi"}, {"sender": "agent", "content": "Hello"}]},
            ("Hi", "Hello")),
    ],
)  # fmt: skip
def test_of_several_lists_in_an_object_the_one_with_both_sides_is_read(
    others: dict, key: str, item: dict, becomes: tuple[str, str], tmp_path: Path
) -> None:
    _, examples = read(tmp_path / "a.json", json.dumps({**others, key: [item] * 3}))
    assert sides(examples) == [becomes] * 3


def test_a_history_of_turns_is_read_and_not_the_steps_before_it(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Find it."},
        {"role": "assistant", "content": "I look.", "agent": "main"}]  # fmt: skip
    steps = [{"action": "ls -l", "response": "I look around.", "thought": "First I look around."}]
    report, examples = read(tmp_path / "a.json", json.dumps({"trajectory": steps, "history": turns}))
    assert [turn.content for turn in examples[0].messages] == ["Be brief.", "Find it.", "I look."]
    assert report.format == "messages"


def test_rows_inside_the_texts_of_other_files_are_not_trained_again(tmp_path: Path) -> None:
    """Seen: a table was trained beside the prompts that were made of it, those for validation among them."""
    pairs = [(f"Here is a comment, number {n}.", f"Thank you very much, number {n}.") for n in MANY]
    for name, part in (("train", pairs[:20]), ("test", pairs[20:])):
        lines = [json.dumps({"text": f"[INST] Please reply to this.\n{q} [/INST] {a}"}) for q, a in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "comments.csv").write_text("Comment,Response\n" + "".join(f'"{q}","{a}"\n' for q, a in pairs))
    report = inspect_file(tmp_path)
    assert (report.good_rows, report.validation) == (30, 10) and "data.note_same_rows" in keys(report)


def test_the_type_of_an_utterance_may_be_its_class(tmp_path: Path) -> None:
    rows = "".join(f"Turn{'OnOff'[n % 2 * 2 : n % 2 * 3 + 2]},Turn it {n} times,lamp\n" for n in MANY)
    report, _ = read(tmp_path / "a.csv", f"RequestType,Utterance,Device\n{rows}")
    assert "RequestType" in answers(report)


def test_a_letter_before_a_number_is_a_sign_of_money_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("".join(f"You won å£{n}00 in cash, call now to claim it.\n" for n in MANY).encode("cp1252"))
    assert encodings.find(file, file.read_bytes(), None, lambda: None).encoding == "cp1252"


def test_times_with_a_comma_are_times_of_subtitles_in_webvtt_too(tmp_path: Path) -> None:
    """Seen: "contains no text, perhaps only images of it, like a scan"."""
    pytest.importorskip("pysubs2")
    cues = "".join(f"00:00:{n:02d},079 --> 00:00:{n:02d},979\nThis is line {n}.\n\n" for n in MANY)
    _, examples = read(tmp_path / "a.vtt", f"WEBVTT\n\n{cues}")
    assert examples[0].text and examples[0].text.startswith("This is line 0. This is line 1.")


def test_names_of_sides_between_angles_are_found_in_a_question(tmp_path: Path) -> None:
    rows = [{"instruction": f" <user>: Is {n} odd? <bot>: Yes. <user>: Why?", "output": f"So it is {n}."} for n in MANY]
    report, _ = read(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert "turn_markers" in [one.id for one in report.findings]
