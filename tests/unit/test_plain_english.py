"""The rules of plain English that `launch.py check` has: each finds what it is for, and lets a plain sentence pass."""

from __future__ import annotations

import pytest

from tools.plain_english import problems


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""Of the card or of the PC."""', 1),
        ('"""None for what is no time."""', 1),
        ('"""The rows of a set, in file order."""', 0),
        ('"""Return the rows."""\ndef rows():\n    """Where a row begins."""', 1),
        ("def found(): ...", 1),
        ("class Row:\n    def of(self): ...\n    def _said(self): ...", 2),
        ("def matches(): ...\ndef from_recipe(): ...\ndef founded(): ...", 0),
        ('def f():\n    """`of` is a name here, not a first word."""', 0),
        ("def rows(seen, *, found=None): ...\ndef first(*told, **_asked): ...", 4),
        ("def rows(matches): ...\nsaid = 1", 0),
        ("MOST_ROWS = 1\n_LEAST_WORDS, SHOWN = 2, 3\nMAX_ROWS = 4\nprint(MAX_ROWS)", 2),
        ("x = 1", 0),
    ],
)
def test_a_fragment_and_a_vague_name_are_found_and_nothing_else(source: str, count: int) -> None:
    assert len(list(problems(source))) == count
