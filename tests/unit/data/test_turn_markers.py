"""Conversations written into one text become turns: in rows and in text files, whatever an answer is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.data.sets.inspection import inspect_file
from core.data.shapes.turn_markers import turns_in
from tests.kit.read_examples import examples_of

STYLES = {
    "guanaco, in one line": ("### Human: Why?### Assistant: So.### Human: And?### Assistant: Thus.", ""),
    "headings without a colon": ("### Question\nWhy?\n\n### Answer\nSo.\n", ""),
    "Alpaca": ("Below is an instruction.\n\n### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n3", ""),
    "Llama 2": ("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST] So. </s><s>[INST] And? [/INST] Thus. </s>", ""),
    "Mistral": ("[INST] Why? [/INST]So.</s>[INST] And? [/INST]Thus.", ""),
    "ChatML": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\nSo.<|im_end|>",
        "",
    ),
    "Llama 3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>",
        "",
    ),
    "Gemma": ("<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\nSo.<end_of_turn>\n", ""),
    "Zephyr": ("<|system|>\nBe brief.</s>\n<|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>", ""),
    "DeepSeek": ("<｜begin▁of▁sentence｜>Be brief.<｜User｜>Why?<｜Assistant｜>So.<｜end▁of▁sentence｜>", "not read"),
    "Vicuna": ("A chat. USER: Why? ASSISTANT: So.</s>USER: And? ASSISTANT: Thus.</s>", ""),
    "names": ("User: Why?\nBecause\nAssistant: So.\nUser: And?\nUser: Now?\nAssistant: Thus.", ""),
    "bold names": ("**Q:** Why?\n\n**A:** So.", ""),
    "a passage first": ("All is well.\n\nQuestion: Why?\nAnswer: So.", ""),
    "OIG": ("<human>: Why?\n<bot>: So.", ""),
    "German": ("Frage: Warum?\nAntwort: Darum.", ""),
    "Chinese": ("问：为什么？\n答：因为。", ""),
}
TURNS = {
    "guanaco, in one line": "u Why? | a So. | u And? | a Thus.",
    "Alpaca": "s Below is an instruction. | u Add\n\n1 2 | a 3",
    "Llama 2": "s Be brief. | u Why? | a So. | u And? | a Thus.",
    "Mistral": "u Why? | a So. | u And? | a Thus.",
    "ChatML": "s Be brief. | u Why? | a So.",
    "Zephyr": "s Be brief. | u Why? | a So.",
    "Vicuna": "s A chat. | u Why? | a So. | u And? | a Thus.",
    "names": "u Why?\nBecause | a So. | u And?\nNow? | a Thus.",
    "a passage first": "u All is well.\n\nWhy? | a So.",
    "German": "u Warum? | a Darum.",
    "Chinese": "u 为什么？ | a 因为。",
}


def shorthand(turns: list[dict[str, str]] | None) -> str | None:
    return None if turns is None else " | ".join(f"{turn['role'][0]} {turn['content']}" for turn in turns)


def talks(file: Path) -> list[str | None]:
    return [shorthand([message.as_dict() for message in example.messages]) for _, example in examples_of(file)]


def rows(folder: Path, texts: list[str], column: str = "text") -> Path:
    file = folder / "a.jsonl"
    file.write_text("\n".join(json.dumps({column: text}) for text in texts), "utf-8")
    return file


@pytest.mark.parametrize("style", STYLES)
def test_a_text_with_markers_is_a_conversation(style: str, tmp_path: Path) -> None:
    text, unread = STYLES[style]
    expected = None if unread else TURNS.get(style, "u Why? | a So.")
    assert shorthand(turns_in(text)) == expected
    if expected is None:
        return
    for column in ("text", "dialog_text", "conversation"):
        file = rows(tmp_path, [text, text.replace("So", "No")], column)
        report = inspect_file(file)
        assert report.format in ("messages", "sharegpt") and report.good_rows == 2
        assert {"data.note_turn_markers", "data.note_marked_turns"} & {note.key for note in report.notes}
        assert talks(file)[0] == expected


def test_a_recipe_that_asks_for_text_trains_the_markers_too(tmp_path: Path) -> None:
    assert inspect_file(rows(tmp_path, ["User: a\nAssistant: b"]), "text").format == "text"


@pytest.mark.parametrize("write", [json.dumps, repr, lambda turns: repr(turns).replace("}, ", "}\n ")])
def test_turns_that_a_table_holds_as_json_or_python_are_read(write: Callable[[object], str], tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So it's."}]
    (tmp_path / "a.csv").write_text('id,conversations\n1,"' + write(turns).replace('"', '""') + '"\n')
    assert talks(tmp_path / "a.csv") == ["u Why? | a So it's."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nWrite\n"
            "<|im_start|>user\nHi\n### Human: x<|im_end|>\n",
            "u How? | a Write\n<|im_start|>user\nHi\n### Human: x",
        ),
        ("<s>[INST] How? [/INST] Write [INST] q [/INST]. </s>", "u How? | a Write [INST] q [/INST]."),
        (
            "### Human: How?\n### Assistant: ### Response: is a heading\nUser: too",
            "u How? | a ### Response: is a heading\nUser: too",
        ),
        ("User: How?\nAssistant: Q: is short\nQ: for a question", "u How? | a Q: is short\nQ: for a question"),
        ("User: a\nAssistant: b\nUser: c\nAssistant:", "u a | a b | u c"),
        ("### Human: a\n### Assistant:", "u a | a "),
        ("[INST] a", None),
        ("[INST] a [/INST] b [INST] c", None),
        ("<|im_start|>user\na<|im_end|>", None),
        ("<|im_start|>\na", None),
        ("Q: Which?\nA: Red\nB: Blue\nAnswer: A", None),
        ("Assistant: a\nUser: b", None),
        ("He said: so.\nShe said: no.", None),
        ("", None),
        ("User:", None),
        ("The user: a person\n" * 50, None),
    ],
)  # fmt: skip
def test_markers_within_an_answer_unclosed_ones_and_empty_turns(text: str, expected: str | None) -> None:
    assert shorthand(turns_in(text)) == expected


def test_a_row_without_markers_among_many_is_named_and_a_row_without_answer_too(tmp_path: Path) -> None:
    texts = [f"### Human: {i}?\n### Assistant: {i}." for i in range(20)]
    file = rows(tmp_path, [*texts, "No conversation.", "### Human: a\n### Assistant:"])
    report = inspect_file(file)
    assert (report.good_rows, report.rows) == (20, 22)
    assert [problem.text.key for problem in report.problems] == ["data.no_turn_markers", "data.empty_answer_turn"]


def test_markers_in_some_rows_are_a_finding_and_the_text_stays_text(tmp_path: Path) -> None:
    plain = [f"A text about the number {i} and others." for i in range(12)]
    report = inspect_file(rows(tmp_path, [*plain, "### Human: Why?\n### Assistant: So it is."]))
    assert report.format == "text" and report.good_rows == 13
    finding = next(finding for finding in report.findings if finding.id == "turn_markers")
    assert (finding.count, finding.repairs[0].rows) == (1, (13,))


def test_markers_in_an_answer_are_a_finding_but_not_in_code(tmp_path: Path) -> None:
    answers = ["So.</s>[INST] And? [/INST]", "Write `[INST]` first.", "No <b>thing</b>."]
    lines = [{"question": f"Why {i}?", "answer": answer} for i, answer in enumerate(answers)]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert {finding.id: finding.count for finding in inspect_file(file).findings if finding.id == "turn_markers"} == {
        "turn_markers": 1
    }


FILES = {
    "empty lines between pairs": (
        "User: a\nAssistant: b\n\nc\n\nUser: d\nAssistant: e\n", ["u a | a b\n\nc", "u d | a e"]
    ),
    "empty lines everywhere": (
        "### Human: a\n\n### Assistant: b\n\n### Human: c\n\n### Assistant: d\n", ["u a | a b | u c | a d"]
    ),
    "rulers, one of an answer": (
        "Human: a\n\nAssistant: b\n---\nc\n\n---\n\nHuman: d\n\nAssistant: e\n", ["u a | a b\n---\nc", "u d | a e"]
    ),
    "questions alone": ("Q: a\nA: b\nQ: c\nA: d\n", ["u a | a b", "u c | a d"]),
    "system texts": (
        "System: s\nUser: a\nAssistant: b\nUser: c\nAssistant: d\nSystem: t\nUser: e\nAssistant: f\n",
        ["s s | u a | a b | u c | a d", "s t | u e | a f"],
    ),
    "ChatML": (
        "".join(f"<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\nb\n\nc<|im_end|>\n"
                for q in "ad"),
        ["s s | u a | a b\n\nc", "s s | u d | a b\n\nc"],
    ),
    "Llama 2": ("<s>[INST] a [/INST] b\n\nc </s>\n<s>[INST] d [/INST] e </s>\n", ["u a | a b\n\nc", "u d | a e"]),
    "Alpaca": (
        "Below is an instruction.\n\n### Instruction:\na\n\n### Response:\nb\n\n" * 2,
        ["s Below is an instruction. | u a | a b"] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_text_file_is_divided_where_conversations_begin(name: str, tmp_path: Path) -> None:
    text, expected = FILES[name]
    file = tmp_path / "a.txt"
    file.write_text(text, "utf-8")
    assert talks(file) == expected
    assert "data.note_conversations" in {note.key for note in inspect_file(file).notes}


def test_a_conversation_without_an_end_is_divided_at_questions(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("".join(f"User: {i} {'word ' * 30}\nAssistant: {i} {'text ' * 30}\n" for i in range(300)))
    examples = [example for _, example in examples_of(file)]
    assert 40 < len(examples) < 80
    assert [m.content.split()[0] for e in examples for m in e.messages if m.role == "user"] == [*map(str, range(300))]


@pytest.mark.parametrize(
    "text",
    [
        "Call me Ishmael.\n\nQuestion: what is a whale?\n\nAnswer: a fish.\n\n" + "Some years ago, never mind. " * 900,
        "# A guide\n\nUser: a person.\n\nAdmin: another.\n",
        "To do:\nAnswer: the mail\n",
    ],
)
def test_prose_with_a_name_and_a_colon_stays_prose(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(text)
    report = inspect_file(file)
    assert report.format == "text" and "data.note_conversations" not in {note.key for note in report.notes}


def test_a_file_that_stops_being_a_conversation_is_read_in_bounded_blocks(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("User: a\nAssistant: b\n" * 4000 + "x" * 5_000_000 + "\nUser: c\nAssistant: d\n")
    report = inspect_file(file)
    assert report.rows > 40 and report.good_rows > 40


def test_a_greeting_before_the_first_question_is_left_out_by_name(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    call = "AGENT: Welcome.\n\nCUSTOMER: Where is my bag?\n\nAGENT: In Rome.\n"
    for column in ("conversation", "text"):
        file.write_text(json.dumps({column: call}) + "\n", "utf-8")
        ((_, example),) = examples_of(file)
        assert [message.content for message in example.messages] == ["Where is my bag?", "In Rome."]
        assert [str(left.what) for left in inspect_file(file).left_out] == ["Opening messages of the side that answers"]


def test_a_lost_call_of_a_tool_is_no_answer(tmp_path) -> None:
    turns = ["user: Is it open?", "assistant: None", "tool: Error: no such shop", "assistant: It is not."]
    text = "\n".join([*turns, "user: Thanks.", "assistant: Bye."])
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for _ in range(3)), "utf-8")
    report = inspect_file(tmp_path / "a.jsonl")
    assert "left_out.chat_call" in {each.what.key for each in report.left_out}
    (first, *_) = talks(tmp_path / "a.jsonl")
    assert "None" not in str(first) and "Error" not in str(first) and "It is not." in str(first)
