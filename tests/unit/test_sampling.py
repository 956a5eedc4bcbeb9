"""Which cases of long tests the gate runs."""

from __future__ import annotations

from tests.kit.sampling import LEAST, MOST_S, drawn

CASES = [f"tests/a.py::test_long[{n}]" for n in range(40)]
SHORT = [f"tests/a.py::test_short[{n}]" for n in range(40)]
SECONDS = {"tests/a.py::test_long": 4 * MOST_S, "tests/a.py::test_one": 100.0, "tests/a.py::test_few": 100.0}


def test_a_long_test_keeps_a_sample_and_every_case_comes_with_some_seed() -> None:
    one = drawn([*CASES, *SHORT, "tests/a.py::test_one"], SECONDS, "1")
    assert one >= {*SHORT, "tests/a.py::test_one"} and len(one & {*CASES}) == 10
    assert drawn([*CASES, *SHORT], SECONDS, "1") & {*CASES} == one & {*CASES}, "another test changes no sample"
    assert drawn(CASES, SECONDS, "2") != one & {*CASES}
    assert set().union(*(drawn(CASES, SECONDS, str(seed)) for seed in range(60))) == {*CASES}


def test_a_few_cases_are_kept_whatever_they_take() -> None:
    few = [f"tests/a.py::test_few[{n}]" for n in range(LEAST + 2)]
    assert len(drawn(few, SECONDS, "1")) == LEAST and len(drawn(few[:2], SECONDS, "1")) == 2
