"""Which of the long tests, and of their cases, the gate runs."""

from __future__ import annotations

from types import SimpleNamespace

from tests.kit.sampling import DRAWN, LEAST, MAX_S, drawn, lanes

CASES = [f"tests/unit/a.py::test_long[{n}]" for n in range(40)]
SHORT = [f"tests/unit/a.py::test_short[{n}]" for n in range(40)]
SECONDS = {
    "tests/unit/a.py::test_long": 4 * MAX_S,
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
    seconds = dict.fromkeys(long, 10.0) | {"tests/browser/b.py::test_short": DRAWN["browser"].least / 2}
    always = {"tests/browser/b.py::test_29"}
    one, other = (drawn([*long, "tests/browser/b.py::test_short"], always, seconds, seed) for seed in ("1", "2"))
    for run in (one, other):
        assert run >= always | {"tests/browser/b.py::test_short"} and len(run) == 2 + DRAWN["browser"].total // 10
    assert one != other
    assert set().union(*(drawn(long, always, seconds, str(seed)) for seed in range(60))) == {*long}


def test_what_a_file_shares_counts_for_the_first_test_drawn_of_it_unless_one_always_runs() -> None:
    one, other = ([f"tests/browser/{file}.py::test_{n}" for n in range(3)] for file in "ab")
    seconds = dict.fromkeys([*one, *other], DRAWN["browser"].total / 6) | {
        "tests/browser/a.py": 2 * DRAWN["browser"].total
    }
    assert drawn([*one, *other], (), seconds, "1") == {*other}
    assert drawn([*one, *other], {one[0]}, seconds, "1") == {*one, *other}


def test_each_test_that_the_gate_does_not_run_whole_is_listed_in_one_lane() -> None:
    """By items as pytest collects them: a name and marks."""

    def item(name: str, *marks: str) -> SimpleNamespace:
        return SimpleNamespace(nodeid=name, get_closest_marker=lambda mark: mark in marks)

    items = [
        *(item(name) for name in CASES), *(item(name) for name in SHORT), item("tests/unit/a.py::test_late", "full"),
        item("tests/browser/b.py::test_drawn"), item("tests/browser/b.py::test_kept", "gate"),
        item("tests/unit/a.py::test_part[1]", "full"), item("tests/unit/a.py::test_part[2]"),
    ]  # fmt: skip
    assert lanes(items, SECONDS | {"tests/browser/b.py::test_drawn": 9.0, "tests/browser/b.py::test_kept": 9.0}) == {
        "full alone": ["tests/unit/a.py::test_late"],
        "drawn": ["tests/browser/b.py::test_drawn (9.0 s)"],
        "some of its cases": ["tests/unit/a.py::test_long (10 of 40)", "tests/unit/a.py::test_part (1 of 2)"],
    }
