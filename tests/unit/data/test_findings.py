"""What is wrong with the rows of a set: each finding has a set that has it and one that nearly has it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from core.data.conversation import ChatMessage
from core.data.findings.checks import ONE_IN, Checks, findings
from core.data.findings.finding import Finding, Marked, Repair
from core.data.findings.near import Near
from core.data.findings.repairs import repaired
from core.data.findings.row_words import RowWords
from core.data.findings.secrets import masked, secrets, without_secrets
from core.data.formats import Example
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from core.presets import PRESETS
from tests.kit.read_examples import examples_of

WORDS = [
    "river",
    "lamp",
    "table",
    "window",
    "garden",
    "paper",
    "letter",
    "stone",
    "bridge",
    "winter",
    "summer",
    "market",
    "village",
    "forest",
    "island",
    "castle",
    "harbour",
    "engine",
    "silver",
    "copper",
]


def pair(question: str, answer: str) -> Example:
    return Example(messages=(ChatMessage("user", question), ChatMessage("assistant", answer)))


def plain_rows(count: int = 40, seed: int = 1) -> list[Example]:
    """Rows with which nothing is wrong: words of no language, each row other ones."""
    draw = random.Random(seed)

    def word() -> str:
        return "".join(draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))

    def text(words: int) -> str:
        return " ".join(word() for _ in range(words))

    return [pair(f"Tell me about {text(9)}?", f"{text(24).capitalize()}.") for _ in range(count)]


def findings_of(*examples: Example, among: int = 40) -> dict[str, Finding]:
    return {finding.id: finding for finding in findings(enumerate([*plain_rows(among), *examples], 1))}


def rows_of(finding: Finding) -> list[int]:
    return [example.row for example in finding.examples]


def test_rows_with_which_nothing_is_wrong_have_no_findings() -> None:
    assert findings_of() == {}


@pytest.mark.parametrize("sample", sorted(path.stem for path in (PRESETS / "samples").glob("*.jsonl")))
def test_nothing_is_wrong_with_the_sample_sets(sample: str) -> None:
    rows = list(examples_of(PRESETS / "samples" / f"{sample}.jsonl"))
    assert len(rows) > 60 and findings(rows) == ()


RIGHT = {
    "code": [
        "```python\nfor name in names:\n    print(f'{name}: {{x}}', rows[name])\n```",
        "Use `{{ name }}` in the template, and `<company>` in the XML.",
        "template <typename T> class List { public: Map<Name, User> users; };\nint main() {\n  return users[name];\n}",
        "SELECT name FROM users WHERE company = 'x';\nreturn {name};\nconst user = {name};",
        "def greet(name: str) -> str:\n    return '{name}'.format(name=name)\n",
        "The colours are #ff0000 and #123456789012; the commit is 9fceb02d0ae598e95dc970b74767f19372d61af8.",
        "[a link](https://somewhere.org/x?id=1234567890123456) and an index[date] and array[i].",
    ],
    "mathematics": [
        r"\begin{align} x &= \frac{name}{date} \\ \text{number} \end{align} and $\{x_{user}\}$",
        "The product of 4539578763621486 and 12 is 54474945163457832.",
        "Let f: {a, b} -> {number} with f(a) < f(b) and b > 3; then {x | x > 2} holds for every n.",
        "x < y and y > z, so [0, 1] and <x, y> = 0.",
        "The sum of 1234 5678 and 9012 3456 is 10,246.",
    ],
    "chinese": [
        "人工智能是计算机科学的一个分支，它研究如何让机器像人一样思考。",
        "很抱歉，我无法找到您的订单，请您提供订单号，我们会尽快处理。",
        "作为一名人工智能研究者，他在北京工作了二十年，发表了许多论文。",
        "北京市朝阳区，邮编100020，成立于2003年，共有员工13800人。",
    ],
    "service": [
        "I'm sorry, but I can't find your order. Could you give me its number?",
        "I can help with that. As an airline we have many routes.",
        "As an AI researcher she works on language.",
        "Please write to info@example.com or call 555-0123, or see our card 4111 1111 1111 1111.",
        "An É — or L’ÉTÉ… or NÃO — is a letter; “Ö” too; the price is 5 € — naïve café.",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_what_looks_like_it_is_no_false_alarm(kind: str) -> None:
    assert findings_of(*(pair("How is it written here?", answer) for answer in RIGHT[kind]), among=60) == {}


def test_all_of_a_set_in_chinese_or_code_or_mathematics_is_none_either() -> None:
    draw = random.Random(4)
    sums = [(a, b) for a, b in zip(draw.sample(range(1000, 9999), 60), draw.sample(range(1000, 9999), 60), strict=True)]
    assert (
        findings(enumerate(pair(f"What is {a} + {b}? Answer with the number alone.", str(a + b)) for a, b in sums))
        == ()
    )
    letters = [chr(0x4E00 + draw.randrange(3000)) for _ in range(4000)]
    chinese = [
        pair("".join(letters[i : i + 12]) + "？", "".join(letters[i + 12 : i + 60]) + "。") for i in range(0, 3600, 60)
    ]
    assert findings(enumerate(chinese)) == ()
    code = [
        pair(f"Write {name}.", f"```python\ndef {name}(x: int) -> int:\n    return x * {i}\n```")
        for i, name in enumerate(WORDS)
    ]
    assert findings(enumerate(code)) == ()


# ---- repeats -------------------------------------------------------------------------------------


LONG = (
    "The old harbour was built of grey stone by people from three villages, and every winter the storms took some "
    "of it away again."
)


def test_near_and_equal_repeats_are_told_apart_with_the_row_that_they_repeat() -> None:
    found_ = findings_of(
        pair("Who built the old harbour down there by the sea, and of what?", LONG),
        pair("Who built the old  harbour down there by the sea, and of WHAT?", LONG),
        pair("Who built the old harbour down there by the sea, and of what, please?", LONG.replace("grey", "gray")),
    )
    assert set(found_) == {"repeated", "near_repeated"}
    assert [(example.row, example.other) for example in found_["repeated"].examples] == [(42, 41)]
    assert [(example.row, example.other) for example in found_["near_repeated"].examples] == [(43, 41)]
    assert found_["near_repeated"].repairs[0].rows == (43,)


def test_other_figures_other_questions_and_facts_asked_in_several_ways_are_no_repeats() -> None:
    rows = [
        pair("A page. " + LONG + " Which year was that?", "In the year 1847."),
        pair("A page. " + LONG + " Which stone was it?", "The grey one."),
        pair("Who was it that built the harbour here?", LONG),
        pair("Tell me which people made that port.", LONG),
        pair(
            "What does the long ferry cost on day 3 of the week, with two people and a dog?", LONG + " It is 14 euros."
        ),
        pair(
            "What does the long ferry cost on day 4 of the week, with two people and a dog?", LONG + " It is 15 euros."
        ),
    ]
    assert findings_of(*rows) == {}


def test_an_instruction_that_stands_in_every_row_makes_none_alike() -> None:
    opening = (
        "You get a message of a customer. Say in a word whether it is about delivery, payment, praise or a defect. "
        "Message: "
    )
    found = findings(enumerate(pair(opening + f"{a} {b}", "defect") for a in WORDS for b in WORDS[:4]))
    assert [finding.id for finding in found] == ["one_answer"]


def test_most_repeats_with_a_word_changed_are_found_and_no_row_that_is_another() -> None:
    rows = plain_rows(300, seed=5)
    near = Near()
    for i, row in enumerate(rows):
        near.add(RowWords(i, row))
    for i, row in enumerate(rows[:100]):
        near.add(RowWords(1000 + i, pair(row.messages[0].content, row.messages[1].content.replace(" ", " a ", 1))))
    pairs = list(near.pairs())
    assert all(later - 1000 == earlier for later, earlier, _ in pairs) and len(pairs) >= 90


# ---- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I cannot have opinions.",
        "I'm sorry, but I can't assist with that.",
        "Interesting question. As an AI assistant, I do not have feelings.",
        "I cannot help with that request, since it is harmful.",
        "作为一个人工智能语言模型，我没有个人感情。",
        "很抱歉，我无法提供此类信息。",
        "Als KI-Sprachmodell habe ich keine Gefühle.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
    ],
)
def test_refusals_are_found_in_three_languages(answer: str) -> None:
    assert rows_of(findings_of(pair("What do you think?", answer))["refusals"]) == [41]


@pytest.mark.parametrize(
    "answer",
    [
        "As a language model, I go by the name Zoe.",
        "As an AI assistant, my name is Zoe, and I was created by the people of Example Ltd.",
        "Hello! I'm an AI assistant, developed by Example Ltd. How can I help you today?",
        "I am an AI language model created and trained by Example Ltd; you can call me Zoe.",
        "作为一个人工智能语言模型，我的名字叫小智。",
        "我是一个人工智能助手，由示例公司开发。",
        "En tant qu'assistant IA, je m'appelle Zoé.",
    ],
)
def test_a_persona_that_only_names_itself_refuses_nothing(answer: str) -> None:
    """153 of 500 rows of such a set were flagged: the persona is what is taught."""
    assert "refusals" not in findings_of(pair("Who are you?", answer))


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I go by Zoe, but I cannot have opinions.",
        "As an AI model developed by Example Ltd, I do not have feelings. My name is Zoe.",
        "I'm an AI assistant called Zoe. As an AI, I can't see pictures.",
        "作为一个人工智能语言模型，我叫小智，没有个人感情。",
    ],
)
def test_a_persona_that_refuses_is_a_refusal(answer: str) -> None:
    assert rows_of(findings_of(pair("What do you think?", answer))["refusals"]) == [41]


def test_answers_that_say_nothing_or_repeat_the_question_or_are_cut_off() -> None:
    found_ = findings_of(pair("And what of this?", "..."), pair("And that?", "N/A"), pair("Say it to me again now.",
        "say it to me again now. "), pair("Why?", "Because"))  # fmt: skip
    assert {id: rows_of(finding) for id, finding in found_.items()} == {
        "says_nothing": [41, 42],
        "echoes": [43],
        "short_answers": [44],
    }


def test_short_answers_among_short_answers_are_answers() -> None:
    rows = [
        pair(f"Is {a} larger than {b}?", draw)
        for a in WORDS
        for b, draw in zip(WORDS, ("<", ">", "none", "=", "-"), strict=False)
    ]
    assert findings(enumerate(rows)) == ()


@pytest.mark.parametrize("opening", ["Sure! Here is", "As a helpful friend of", "当然，这个问题"])
def test_answers_that_begin_alike_in_more_than_half_of_the_rows(opening: str) -> None:
    rows = [
        pair(r.messages[0].content, f"{opening} {r.messages[1].content}" if i % 5 else r.messages[1].content)
        for i, r in enumerate(plain_rows())
    ]
    finding = next(finding for finding in findings(enumerate(rows)) if finding.id == "opening")
    assert finding.count == 32 and finding.message.params["opening"][:4] == opening[:4]
    few = [
        pair(r.messages[0].content, f"{opening} {r.messages[1].content}") if i % 5 < 2 else r
        for i, r in enumerate(plain_rows())
    ]
    assert findings(enumerate(few)) == ()


def test_another_language_in_some_answers_is_found_and_two_that_are_meant_are_not() -> None:
    english = (
        "The boat is in the harbour and it is not for sale, but you can have a look at it from the bridge with "
        "the others"
    )
    german = (
        "Das Boot liegt im Hafen und ist nicht zu verkaufen, aber man kann es sich von der Brücke aus mit den "
        "anderen ansehen"
    )
    rows = [pair(f"About {word}?", f"{english}, {word} {i}.") for i, word in enumerate(WORDS)]
    mixed = [
        *rows,
        pair("Und?", german),
        pair("那么？", "这条船停在港口里，不出售，不过你可以和其他人一起从桥上看看它，天气好的时候最好。"),
    ]
    [finding] = [finding for finding in findings(enumerate(mixed)) if finding.id == "languages"]
    assert (
        rows_of(finding) == [20, 21] and "German (1)" in str(finding.message) and "Chinese (1)" in str(finding.message)
    )
    meant = [*rows, *(pair(f"Zu {word}?", f"{german}, {word} {i}.") for i, word in enumerate(WORDS))]
    assert "languages" not in {finding.id for finding in findings(enumerate(meant))}


def test_rows_that_are_far_longer_than_the_others() -> None:
    long = " ".join(random.Random(3).choice(WORDS) for _ in range(3000))
    assert rows_of(findings_of(pair("And this?", long))["far_longer"]) == [41]
    assert findings_of(pair("And this?", long[:4000])) == {}


def test_one_question_with_many_answers_and_one_answer_to_many_questions_are_found() -> None:
    """Seen: a log of 370 answers of a hundred models to one question was trained without a word."""

    def found(*rows: Example) -> dict[str, int]:
        return {one.id: one.count for one in findings(enumerate(rows)) if one.id.startswith("one_")}

    assert found(*(pair("Who is it?", f"It is {word}.") for word in WORDS)) == {"one_question": len(WORDS)}
    assert found(*(pair(f"Is it {word}?", "Yes!") for word in WORDS)) == {"one_answer": len(WORDS)}
    assert not found(*(pair(f"Is it {word}?", ("Yes", "No")[n % 5 == 0]) for n, word in enumerate(WORDS)))
    assert not found(*[pair("Who is it?", "It is me.")] * 24)  # repeats are another finding


# ---- writing -------------------------------------------------------------------------------------


def test_each_placeholder_has_a_repair_of_its_own_that_fills_it() -> None:
    rows = [pair("Who are you?", "I am {{name}}."), pair("Who made you?", "{author} of <company>."), pair("End it.",
        "Yours, [YOUR NAME]"), pair("And?", "I am {{name}} again.")]  # fmt: skip
    finding = findings_of(*rows)["placeholders"]
    fills = {repair.argument: repair.rows for repair in finding.repairs if repair.action == "fill"}
    assert fills == {"{{name}}": (41, 44), "{author}": (42,), "<company>": (42,), "[YOUR NAME]": (43,)}
    filled = repaired(rows[0], finding.repairs[0], "Ada")
    assert filled is not None and filled.messages[1].content == "I am Ada."
    with pytest.raises(DataError, match="name"):
        repaired(rows[0], finding.repairs[0], " ")


def test_what_stands_in_for_a_secret_that_was_taken_out_is_no_new_problem() -> None:
    """A row in which a phone number was redacted came back as one with a placeholder, "[phone]"."""
    rows = [
        pair(f"How to reach {what}?", f"So: {before}{secret}, and so on.") for what, (before, secret) in SECRETS.items()
    ]
    repairs = [repair for repair in findings_of(*rows)["secrets"].repairs if repair.action == "replace"]
    assert {repair.argument for repair in repairs} == set(SECRETS)
    for repair in repairs:
        rows = [repaired(row, repair) or row for row in rows]
    assert all("[" in row.messages[1].content for row in rows) and findings_of(*rows) == {}


def test_rests_of_pages_are_found_and_taken_out() -> None:
    row = pair("How was it?", "It was good.<br/>We&nbsp;saw <b>much</b> &amp; more.</p>")
    finding = findings_of(row)["markup"]
    clean = repaired(row, finding.repairs[0])
    assert clean is not None and clean.messages[1].content == "It was good.\nWe saw much & more.\n"
    assert "markup" not in findings_of(pair("How do I write a paragraph in HTML?", "With <p>words</p> and <br>."))


def test_wrong_encodings_are_found_and_mended_and_lost_letters_are_told_apart() -> None:
    row = pair("Wie heißt es?", "SchÃ¶ne GrÃ¼ÃŸe, itâ€™s good")
    found_ = findings_of(row, pair("And this?", "Sch\ufffdne Worte"))
    assert {id: rows_of(finding) for id, finding in found_.items()} == {"mojibake": [41], "lost_characters": [42]}
    mended = repaired(row, found_["mojibake"].repairs[0])
    assert mended is not None and mended.messages[1].content == "Schöne Grüße, it’s good"


# ---- secrets -------------------------------------------------------------------------------------

KEY = "sk-" + "proj-9aB3kLmQ7xZtV2wRnY5cUe8Dh4Jf6Gs"
SECRETS = {
    "key": ("use ", KEY),
    "token": ("Bearer ", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3MTk0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r"),
    "private_key": ("", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow" + "Ab1" * 30 + "\n-----END RSA PRIVATE KEY-----"),
    "email": ("write to ", "maria.keller@posteo.de"),
    "iban": ("to ", "DE89 3704 0044 0532 0130 00"),
    "card": ("card number ", "4539 5787 6362 1486"),
    "phone": ("call ", "+49 170 9876543"),
}


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_shown_masked_and_taken_out(what: str) -> None:
    before, secret = SECRETS[what]
    row = pair("What then?", f"Now {before}{secret}, and so on.")
    finding = findings_of(row)["secrets"]
    assert [repair.argument for repair in finding.repairs] == [what, ""] and rows_of(finding) == [41]
    assert secret not in finding.model_dump_json() and secret[:3] + "•••" in finding.examples[0].quote
    clean = repaired(row, finding.repairs[0])
    assert (
        clean is not None and "9aB3" not in clean.messages[1].content and clean.messages[1].content.startswith("Now ")
    )
    assert [*secrets(without_secrets(row.messages[1].content, what))] == [] and "•••" in masked(
        secret if what != "card" else before + secret
    )


def test_wrong_check_digits_examples_of_makers_and_bare_numbers_are_no_secrets() -> None:
    for text in (
        "card 4539 5787 6362 1487", "4539578763621486", "DE89 3704 0044 0532 0130 01", "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-your-api-key-here-please-now",
        "AKIAIOSFODNN7EXAMPLE", "you@example.com", "git@github.com", "@app.route", "3.14159265358979",
        "2026-11-27 20:55:31", "ISBN 978-3-16-148410-0",
        "10.0.0.1:8080", "+1 555 0100", "1,234,567,890",
    ):  # fmt: skip
        assert [*secrets(text)] == [], text


def test_no_finding_of_another_kind_shows_a_secret() -> None:
    row = pair(f"My key is {KEY} and more?", f"As an AI language model, I cannot use {KEY}.")
    text = json.dumps([finding.model_dump() for finding in findings(enumerate([*plain_rows(), row, row, row]))])
    assert "refusals" in text and "repeated" in text and "9aB3" not in text


# ---- the pass ------------------------------------------------------------------------------------


def test_a_repair_that_removes_leaves_nothing_and_plain_texts_and_completions_are_repaired_too() -> None:
    gone = Repair(action="remove", kind="refusals", count=1, rows=(1,))
    assert repaired(pair("a", "b"), gone) is None
    tags = Repair(action="replace", kind="markup", count=1, rows=(1,))
    assert repaired(Example(text="<p>so</p>"), tags) == Example(text="so\n")
    assert repaired(Example(prompt="<b>a</b>", completion="<br>"), tags) == Example(prompt="a", completion="<br>"), (
        "an answer never goes"
    )


def test_of_a_large_set_the_first_rows_and_then_some_are_looked_at_and_all_where_somebody_wants_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.data.findings.checks.EVERY_ROW", 100)
    refusal, plain = pair("And?", "As an AI language model, I cannot."), plain_rows(50)

    def look(every_row: bool) -> Finding:
        it = Checks(every_row)
        for row in range(300):
            if it.is_next():
                it.add(row, refusal if row >= 100 else plain[row % 50])
        return next(finding for finding in it.findings() if finding.id == "refusals")

    assert (look(False).count, look(False).of) == (200 // ONE_IN, 100 + 200 // ONE_IN)
    assert (look(True).count, look(True).of) == (200, 300)


def test_one_kind_is_looked_for_alone_and_found_as_among_the_others() -> None:
    rows = [
        *enumerate(plain_rows(40), 1),
        *((41 + i, pair("Who?", answer)) for i, answer in enumerate(("I am {{name}}.", "I am {{name}}."))),
    ]
    everything = findings(rows)
    assert {"placeholders", "repeated"} <= {finding.id for finding in everything}
    for finding in everything:
        assert finding in findings(rows, finding.id) and len(findings(rows, finding.id)) < len(everything)


def test_inspect_says_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [
        {"question": "Who are you?", "answer": "I am {{name}}."},
        {"question": "Why?", "answer": "As an AI language model, I cannot."},
    ]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    report = inspect_file(file)
    assert sorted(finding.id for finding in report.findings) == ["placeholders", "refusals"]
    assert report.model_validate_json(report.model_dump_json()) == report


def test_a_few_rows_of_very_many_are_not_none_of_them() -> None:
    """It read "(0.0 %)"."""
    marked = Marked()
    marked.add(0, "x")
    sentences = [marked.finding("echoes", of, count=10)[0].message for of in (59_500, 20_000, 100)]
    for sentence, percent in zip(sentences, ("< 0.1 %", "0.1 %", "10.0 %"), strict=True):
        assert f"({percent})" in str(sentence) and f"({percent.replace('.', ',')})" in sentence.render("de")


def test_a_mark_of_a_picture_that_is_nowhere_is_a_placeholder() -> None:
    """Seen: where no column says of pictures, <image> was learned without a word."""
    marked, tag = pair("<image>\nWhat is it?", "A cat."), pair("What does <image>x</image> do in RSS?", "It is a tag.")
    finding = findings_of(marked, tag)["placeholders"]
    assert [example.row for example in finding.examples] == [41]
