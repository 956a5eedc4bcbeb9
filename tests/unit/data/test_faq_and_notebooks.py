"""Pages of questions and notebooks hold pairs; what holds none stays text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.formats import Example
from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError
from tests.kit.read_examples import examples_of


def read(file: Path, text: str) -> tuple[DataReport, list[Example]]:
    file.write_text(text, "utf-8")
    return inspect_file(file), [example for _, example in examples_of(file)]


def sides(examples: list[Example]) -> list[tuple[str, str]]:
    return [(one.messages[-2].content, one.messages[-1].content) for one in examples]


def left_out(report: DataReport) -> dict[str, int]:
    return {left.what.key: left.count for left in report.left_out}


FAQ = """# Häufige Fragen

Hier stehen sie.

## Wann fährt die Fähre?

Jede Stunde.

- im Winter seltener

### Und nachts

Nur am Samstag.

## Was kostet sie?
Zwei Euro.

```
# no heading
fare = 2
```

## **Wo hält sie?** {#wo}

Am Steg.

## Impressum

Niemand.
"""


def test_a_page_of_questions_becomes_pairs_and_the_rest_is_named(tmp_path: Path) -> None:
    report, examples = read(tmp_path / "faq.md", FAQ)
    assert sides(examples) == [
        ("Wann fährt die Fähre?", "Jede Stunde.\n\n- im Winter seltener\n\n### Und nachts\n\nNur am Samstag."),
        ("Was kostet sie?", "Zwei Euro.\n\n```\n# no heading\nfare = 2\n```"),
        ("Wo hält sie?", "Am Steg."),
    ]
    assert left_out(report) == {"left_out.around_sections": 2}
    assert [note.key for note in report.notes] == ["data.note_questions"]


@pytest.mark.parametrize(
    "item",
    ["<h3>{q}</h3><p>{a}</p>", "<details><summary>{q}</summary><p>{a}</p></details>", "<dt>{q}</dt><dd>{a}</dd>"],
)
def test_questions_of_a_web_page(item: str, tmp_path: Path) -> None:
    body = "".join(item.format(q=f"What is number {n}?", a=f"It is {n}.") for n in range(4))
    _, examples = read(tmp_path / "faq.html", f"<html><body><h1>Questions</h1>{body}</body></html>")
    assert sides(examples)[2] == ("What is number 2?", "It is 2.") and len(examples) == 4


@pytest.mark.parametrize(
    "text",
    [
        "# Why?\n\nBecause.\n\n# Where?\n\nThere.\n",
        "# One\n\nText.\n\n# Two\n\nText.\n\n# Three\n\nText.\n\n# Why?\n\nSo.\n\n# When?\n\nNow.\n\n# Who?\n\n",
        "Why? He asked again.\n\nWhy? She knew.\n\nWhy? Nobody said.\n",
    ],
)
def test_a_text_with_a_few_questions_stays_a_text(text: str, tmp_path: Path) -> None:
    report, examples = read(tmp_path / "page.md", text)
    assert report.format == "text" and "\n\n".join(one.text or "" for one in examples) == text.strip()


def notebook(*cells: tuple[str, object]) -> str:
    made = [
        {"cell_type": kind, "source": source, "metadata": {}} | ({"outputs": [{"x": 1}]} if kind == "code" else {})
        for kind, source in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_explanations_of_a_notebook_are_questions_and_the_code_after_them_answers(tmp_path: Path) -> None:
    text = notebook(
        ("code", "import math"),
        ("markdown", ["# Roots\n", "Take the square root of 2."]),
        ("code", ["x = math.sqrt(2)\n", "x"]),
        ("code", "print(x)"),
        ("markdown", "Now round it."),
        ("code", "round(x)"),
        ("raw", "ignored"),
        ("markdown", "The end."),
    )
    report, examples = read(tmp_path / "lesson.ipynb", text)
    assert sides(examples) == [
        ("# Roots\nTake the square root of 2.", "x = math.sqrt(2)\nx\n\nprint(x)"),
        ("Now round it.", "round(x)"),
    ]
    assert left_out(report) == {"left_out.around_outputs": 4, "left_out.around_cells": 2}


def test_a_notebook_without_pairs_is_one_text(tmp_path: Path) -> None:
    report, examples = read(tmp_path / "a.ipynb", notebook(("code", "a = 1"), ("code", "b = 2"), ("markdown", "End.")))
    assert report.format == "text" and [one.text for one in examples] == ["a = 1", "b = 2", "End."]
    assert report.continued == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": 3}', '{"worksheets": []}', "not json"])
def test_a_broken_notebook_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read(tmp_path / "a.ipynb", text)
    assert refused.value.message.key == "data.broken_notebook"


def test_cells_of_odd_types_are_no_crash(tmp_path: Path) -> None:
    cells = [3, None, {"cell_type": "code", "source": 7}, {"cell_type": "code", "source": ["a", 3, "b"]}]
    _, examples = read(tmp_path / "a.ipynb", json.dumps({"cells": cells}))
    assert [one.text for one in examples] == ["ab"]


def test_headings_of_html_in_markdown_ask_too(tmp_path: Path) -> None:
    page = "".join(f'<h3 name="q{at}">\nWhat is <code>{at}</code>?\n</h3>\n\nA number.\n\n' for at in range(3))
    assert sides(read(tmp_path / "faq.md", page)[1]) == [(f"What is {at}?", "A number.") for at in range(3)]
