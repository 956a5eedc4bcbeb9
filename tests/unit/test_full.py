"""`python launch.py test --full`: its parts, what is read from pytest's output, and that it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.presets import PROJECT
from tests.full import Record, Row, parts

FAILING = """
FAILED tests/a.py::test_b[1] - AssertionError: x
ERROR tests/a.py::test_c
===== 1 failed, 76 passed, 2 skipped, 1 error in 123.12s (0:02:03) =====
"""


def test_every_file_of_tests_is_in_one_part() -> None:
    every = {
        file.relative_to(PROJECT).as_posix()
        for file in (PROJECT / "tests").rglob("test_*.py")
        if ".cache" not in file.parts
    }
    elsewhere = ("tests/card/", "tests/windows/")  # test --card, test --windows; the short form of the latter is a part
    expected = {file for file in every if not file.startswith(elsewhere)} | {"tests/windows/test_short_form.py"}
    inside = [
        file
        for part in parts()
        for file in ([part] if part.endswith(".py") else sorted(every))
        if file.startswith(part)
    ]
    assert len(inside) > 250 and sorted(inside) == sorted(expected)


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        ("== 3 passed in 1.20s ==\n", 0, (3, 0, 0, ())),
        ("165 passed in 11.06s\n", 0, (165, 0, 0, ())),  # as pytest -q ends
        (FAILING, 1, (76, 2, 2, ("tests/a.py::test_b[1]", "tests/a.py::test_c"))),
        ("== 5 skipped in 0.10s ==\n", 5, (0, 0, 5, ())),
        ("Segmentation fault\n", -11, (0, 1, 0, ("ended with -11",))),
        ("== 2 passed in 0.10s ==\nthe exit hook crashed\n", 3, (2, 1, 0, ("ended with 3",))),
    ],
)
def test_a_row_says_what_pytest_said_and_counts_an_end_before_its_time(output: str, code: int, expected: tuple) -> None:
    row = Row.of("tests/a.py", output, code, 1.0)
    assert (row.passed, row.failed, row.skipped, row.tests) == expected


def test_what_passed_is_not_run_again_and_what_failed_is(tmp_path: Path) -> None:
    first = Record(tmp_path / "abc")
    first.add(Row("tests/good.py", 3, 0, 1, 60.0, ()))
    first.add(Row("tests/bad.py", 2, 1, 0, 60.0, ("tests/bad.py::test_x",)))
    assert "5 passed, 1 failed, 1 skipped in 2 minutes, abc" in (tmp_path / "abc" / "table.md").read_text("utf-8")
    assert Record(tmp_path / "abc").rows.keys() == {"tests/good.py"}
    assert Record(tmp_path / "other").rows == {}
