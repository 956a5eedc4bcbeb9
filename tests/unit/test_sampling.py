"""Which of the long tests, and of their cases, the gate runs."""

from __future__ import annotations

from tests.kit.sampling import DRAWN_S, LEAST, MOST_S, SHORT_S, drawn

CASES = [f"tests/unit/a.py::test_long[{n}]" for n in range(40)]
SHORT = [f"tests/unit/a.py::test_short[{n}]" for n in range(40)]
SECONDS = {
    "tests/unit/a.py::test_long": 4 * MOST_S,
    "tests/unit/a.py::test_one": 100.0,
    "tests/unit/a.py::test_few": 100.0,
}


def test_a_long_test_keeps_a_sample_and_every_case_comes_with_some_seed() -> None:
    one = drawn([*CASES, *SHORT, "tests/unit/a.py::test_one"], (), SECONDS, "1")
    assert one >= {*SHORT, "tests/unit/a.py::test_one"} and len(one & {*CASES}) == 10
    assert drawn([*CASES, *SHORT], (), SECONDS, "1") & {*CASES} == one & {*CASES}, "another test changes no sample"
    assert drawn(CASES, (), SECONDS, "2") != one & {*CASES}
    assert set().union(*(drawn(CASES, (), SECONDS, str(seed)) for seed in range(60))) == {*CASES}


def test_a_few_cases_are_kept_whatever_they_take() -> None:
    few = [f"tests/unit/a.py::test_few[{n}]" for n in range(LEAST + 2)]
    assert len(drawn(few, (), SECONDS, "1")) == LEAST and len(drawn(few[:2], (), SECONDS, "1")) == 2


def test_long_tests_of_the_browser_are_drawn_up_to_their_seconds_and_those_of_the_gate_always_run() -> None:
    long = [f"tests/browser/b.py::test_{n}" for n in range(30)]
    seconds = dict.fromkeys(long, 10.0) | {"tests/browser/b.py::test_short": SHORT_S / 2}
    always = {"tests/browser/b.py::test_29"}
    one, other = (drawn([*long, "tests/browser/b.py::test_short"], always, seconds, seed) for seed in ("1", "2"))
    for run in (one, other):
        assert run >= always | {"tests/browser/b.py::test_short"} and len(run) == 2 + DRAWN_S["browser"] // 10
    assert one != other
    assert set().union(*(drawn(long, always, seconds, str(seed)) for seed in range(60))) == {*long}
