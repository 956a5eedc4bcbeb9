"""Causes of wrong readings in a ninth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

from pathlib import Path

from core.data.sets.inspection import DataReport, inspect_file
from tests.kit.read_examples import examples_of


def report_of(tmp_path: Path, name: str, text: str) -> DataReport:
    (tmp_path / name).write_text(text, "utf-8")
    return inspect_file(tmp_path / name)


# ---- Markdown ------------------------------------------------------------------------------------


def test_what_a_page_of_markdown_does_not_show_is_left_out(tmp_path: Path) -> None:
    """Seen: marks of scanned pages and a list of the page's own headings, learned as verse."""
    code = "```html\n<!-- a note -->\n\n<!-- another -->\n```"
    page = "# The ferry <!-- no number -->\n\n<!-- page 3 -->\n\n{% include top.md %}\n\n- [Oars](#oars)\n" + (
        f"  1. [Ropes](#ropes)\n\nThe river is wide.\n\n- [Map](map.md)\n\n{code}\n"
    )
    report = report_of(tmp_path, "a.md", page)
    texts = [example.text for _, example in examples_of(tmp_path / "a.md")]
    assert texts == ["# The ferry", "The river is wide.", "- [Map](map.md)", *code.split("\n\n")]
    assert {left.what.key: left.count for left in report.left_out}["left_out.around_unseen"] == 4
