"""The gate runs a sample of the long tests, drawn by a seed that it prints; `--full` runs all.

* A test whose cases take MAX_S or more together (tests/durations.tsv) runs as many of them as take about MAX_S, at
  least LEAST.
* Of the tests in the folders of DRAWN that take that folder's `least` seconds or more, as many are drawn as take its
  `total`, what their file's shared fixtures take included. Tests marked `gate` or `spawn` always run.

`--seed N` draws the same again. Nothing is sampled if tests are named on the command line.

    python -m tests.kit.sampling        lists the tests that the gate does not run completely, by lane
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pytest

from tests.kit import durations

MAX_S = durations.CUT_S
LEAST = 3  # cases


class Draw(NamedTuple):
    """Which tests of a folder are drawn. least: seconds of a test from which on it is; total: of all that are drawn."""

    least: float
    total: float


DRAWN = {"browser": Draw(1, 30), "process": Draw(1, 25), "faults": Draw(1, 15), "model": Draw(3, 20)}


def begin(config: pytest.Config) -> None:
    """Decide whether this run samples: it does if it has the complete suite without --full."""
    if hasattr(config, "workerinput"):
        return
    os.environ.pop(durations.SEED, None)
    seed = config.getoption("--seed")
    is_whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not config.getoption("keyword")
    if not config.getoption("--full") and (is_whole or seed is not None):
        os.environ[durations.SEED] = str(random.randrange(10**6) if seed is None else seed)


def header() -> str | None:
    seed = os.environ.get(durations.SEED)
    return f"a sample of the long tests: --seed {seed}; --full runs all" if seed else None


def is_long(test: str, seconds: float) -> bool:
    """Return whether this test is drawn unless it is marked. seconds: of the cases that run."""
    draw = DRAWN.get(test.split("/")[1])
    return draw is not None and seconds >= draw.least


def cases_run(count: int, seconds: float) -> int:
    """Return how many of a test's cases the gate runs. seconds: of all cases together."""
    return min(count, max(LEAST, round(count * MAX_S / seconds))) if seconds > MAX_S else count


def drawn(names: Sequence[str], always: Collection[str], seconds: Mapping[str, float], seed: str) -> set[str]:
    """Return the names that are run. names: pytest's, with parameters. always: tests, without parameters, that always
    run."""
    cases: dict[str, list[str]] = defaultdict(list)
    for name in names:
        cases[name.partition("[")[0]].append(name)
    counts = {test: cases_run(len(every), seconds.get(test, 0.0)) for test, every in cases.items()}
    took = {test: seconds.get(test, 0.0) * counts[test] / len(every) for test, every in cases.items()}
    by_chance = {test for test in cases if test not in always and is_long(test, took[test])}
    left = {folder: draw.total for folder, draw in DRAWN.items()}
    setups = durations.SetupsOnce(seconds)
    chosen: set[str] = set()
    # Each test draws by itself, so that a test that is added changes no other's cases; those that always run are first.
    for test in sorted(cases, key=lambda test: (test in by_chance, random.Random(f"{seed} {test}").random())):
        if test in by_chance:
            folder, cost = test.split("/")[1], took[test] + setups.of(test)
            if cost > left[folder]:
                continue
            left[folder] -= cost
        setups.choose(test)
        chosen.update(random.Random(f"{seed} {test}").sample(cases[test], counts[test]))
    return chosen


def is_always_run(item: pytest.Item) -> bool:
    return bool(item.get_closest_marker("gate") or item.get_closest_marker("spawn"))


def sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remove the cases that are not drawn from items."""
    seed = os.environ.get(durations.SEED)
    if not seed:
        return
    runs = [item for item in items if not any(item.iter_markers("skip"))]
    always = {item.nodeid.partition("[")[0] for item in runs if is_always_run(item)}
    chosen = drawn([item.nodeid for item in runs], always, durations.kept(), seed)
    left = [item for item in runs if item.nodeid not in chosen]
    if left:
        config.hook.pytest_deselected(items=left)
        without = set(map(id, left))
        items[:] = [item for item in items if id(item) not in without]


def lanes(items: Sequence[pytest.Item], seconds: Mapping[str, float]) -> dict[str, list[str]]:
    """Return by lane the tests that the gate does not always run completely, each in one lane, with their number of
    cases where that matters."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    by_lane: dict[str, list[str]] = {"full alone": [], "drawn": [], "some of its cases": []}
    for test, every in sorted(cases.items()):
        short = [item for item in every if not item.get_closest_marker("full")]
        took = seconds.get(test, 0.0)
        count = cases_run(len(short), took)
        if not short:
            by_lane["full alone"].append(test)
        elif is_long(test, took * count / len(short)) and not any(map(is_always_run, short)):
            by_lane["drawn"].append(f"{test} ({took:.1f} s)")
        elif count < len(every):
            by_lane["some of its cases"].append(f"{test} ({count} of {len(every)})")
    return by_lane


class Collected:
    """A pytest plugin that keeps the items of a collection."""

    items: Sequence[pytest.Item] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def main() -> int:
    collected = Collected()
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(["--collect-only", "--full", "-qq"], [collected])
    for lane, tests in lanes(collected.items, durations.kept()).items():
        print("\n".join([f"# {lane}: {len(tests)} tests", *tests, ""]))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
