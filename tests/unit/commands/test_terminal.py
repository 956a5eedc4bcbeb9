"""What commands write on a terminal, Windows' old console included."""

from __future__ import annotations

import ast

import pytest

from core.commands.terminal import columns, written_over
from core.presets import PROJECT


def test_a_line_covers_the_one_before_whatever_letters_it_had() -> None:
    assert written_over("训练 9/10, 0.1 min", "训练 10/10") == "\r训练 10/10" + " " * 8
    assert written_over("", "Loading the model") == "\rLoading the model"
    assert written_over("short", "longer than that") == "\rlonger than that"


def test_columns_are_as_wide_for_chinese() -> None:
    assert columns("ab", "c") == "ab" + " " * 16 + "c" and columns("训练", "c") == "训练" + " " * 14 + "c"


@pytest.mark.parametrize("folder", ["core", "webui"])
def test_nothing_is_written_in_escape_sequences(folder: str) -> None:
    """Windows' old console showed `←[K` in front of each line of a training."""
    texts = [
        f"{file.name}:{node.lineno}"
        for file in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\x1b[" in node.value
    ]
    assert texts == []
