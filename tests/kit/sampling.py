"""The gate runs a sample of the long tests, drawn by a seed that it prints; `--full` runs all.

* A test whose parameters take MOST_S or more together (tests/durations.tsv) keeps as many of them as take about MOST_S,
at least LEAST.
* Of the folders in DRAWN_S, tests that take SHORT_S or more are drawn until they take that many seconds. Those marked
  `gate` or `spawn`
  are always run.

`--seed N` draws the same again. Only where no test is named: who names one means all of it.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import pytest

from tests.kit import durations

MOST_S = 2.0
LEAST = 3  # cases
SHORT_S = 1.0
DRAWN_S = {"browser": 70.0, "process": 60.0, "faults": 40.0}
SEED = "LORA_GARAGE_TEST_SEED"  # set by the process that prints, for those of xdist


def begin(config: pytest.Config) -> None:
    """Decide whether this run samples: the whole suite without --full does."""
    if hasattr(config, "workerinput"):
        return
    os.environ.pop(SEED, None)
    seed = config.getoption("--seed")
    is_whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not config.getoption("keyword")
    if not config.getoption("--full") and (is_whole or seed is not None):
        os.environ[SEED] = str(random.randrange(10**6) if seed is None else seed)


def header() -> str | None:
    seed = os.environ.get(SEED)
    return f"a sample of the long tests: --seed {seed}; --full runs all" if seed else None


def drawn(names: Sequence[str], always: Collection[str], seconds: Mapping[str, float], seed: str) -> set[str]:
    """Those of names, as pytest has them with parameters, that are run. always: tests without parameters that are not
    drawn."""
    cases: dict[str, list[str]] = defaultdict(list)
    for name in names:
        cases[name.partition("[")[0]].append(name)
    left = dict(DRAWN_S)
    chosen: set[str] = set()
    # Each test draws by itself, so that a test that is added changes no other's cases.
    for test in sorted(cases, key=lambda test: random.Random(f"{seed} {test}").random()):
        count, took, folder = len(cases[test]), seconds.get(test, 0.0), test.split("/")[1]
        if took > MOST_S and count > 1:
            count, took = (fewer := min(count, max(LEAST, round(count * MOST_S / took)))), took * fewer / count
        if folder in left and took >= SHORT_S and test not in always:
            if took > left[folder]:
                continue
            left[folder] -= took
        chosen.update(random.Random(f"{seed} {test}").sample(cases[test], count))
    return chosen


def sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the cases that are not drawn out of items."""
    seed = os.environ.get(SEED)
    if not seed:
        return
    runs = [item for item in items if not any(item.iter_markers("skip"))]
    always = {
        item.nodeid.partition("[")[0]
        for item in runs
        if item.get_closest_marker("gate") or item.get_closest_marker("spawn")
    }
    chosen = drawn([item.nodeid for item in runs], always, durations.kept(), seed)
    left = [item for item in runs if item.nodeid not in chosen]
    if left:
        config.hook.pytest_deselected(items=left)
        without = set(map(id, left))
        items[:] = [item for item in items if id(item) not in without]
