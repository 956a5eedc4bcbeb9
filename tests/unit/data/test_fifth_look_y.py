"""Causes of wrong readings in a fifth set of files that nobody had seen: each rule, with a file of the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.sets.inspection import DataReport, inspect_file
from core.errors import DataError


def read(folder: Path, name: str, content: Any) -> DataReport:
    """Write a file, an object as JSON, and inspect it."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return inspect_file(folder / name)


def offered(report: DataReport) -> list[dict[str, str]]:
    return [dict(roles) for roles in report.possible]


def refused(folder: Path, name: str, content: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(folder, name, content)
    return caught.value


def test_lists_of_one_length_are_columns(tmp_path: Path) -> None:
    """Seen: answers trained without their prompts, and a list that "appears once and does not belong to any row"."""
    asked = [[{"role": "user", "content": f"What is {n} plus {n}, please?"}] for n in range(6)]
    replies = [{"content": f"It is {n + n}.", "model": "m"} for n in range(6)]
    report = read(tmp_path, "run.json", {"prompts": asked, "replies": replies, "judged": [{"ok": True}] * 6, "seed": 1})
    assert report.format == "messages"
    assert report.good_rows == 6
    report = read(
        tmp_path, "other.json", {"tags": ["a", "b"], "items": [{"text": f"A text of item {n}."} for n in "ab"]}
    )
    assert "stands beside the rows" in str(report.left_out[0].why)


def test_the_list_with_texts_is_looked_at_before_there_is_none(tmp_path: Path) -> None:
    events = [
        {"id": n, "pages": [{"list": [{"code": 401, "parameters": ["Good day to you, sir."]}]}]} for n in range(3)
    ]
    value = {"fights": [{"regions": [], "troop": 5}], "data": [1, 2, 3], "events": [None, *events]}
    error = refused(tmp_path, "map.json", value)
    assert error.message.key == "data.nested"
    assert error.message.params["texts"] == ["pages[].list[].parameters[]"]
