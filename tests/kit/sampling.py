"""The gate runs a sample of the cases of a test that has many and takes long; `--full` runs all.

A test whose parameters take MOST_S or more together (tests/durations.tsv) keeps as many of them as take about MOST_S, at least LEAST.
Which ones is drawn by a seed that the run prints: `--seed N` draws the same again. Only where no test is named: who names one means all
of its cases.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pytest

from tests.kit import durations

MOST_S = 2.0
LEAST = 3  # cases
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
    return f"a sample of the cases of long tests: --seed {seed}; --full runs all" if seed else None


def drawn(names: Sequence[str], seconds: Mapping[str, float], seed: str) -> set[str]:
    """Those of names, as pytest has them with parameters, that are run."""
    cases: dict[str, list[str]] = defaultdict(list)
    for name in names:
        cases[name.partition("[")[0]].append(name)
    chosen: set[str] = set()
    for test, all_of_it in cases.items():
        count = len(all_of_it)
        if (took := seconds.get(test, 0.0)) > MOST_S:
            count = min(count, max(LEAST, round(count * MOST_S / took)))
        # Each test draws by itself, so that a test that is added changes no other's sample.
        chosen.update(random.Random(f"{seed} {test}").sample(all_of_it, count))
    return chosen


def sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the cases that are not drawn out of items."""
    seed = os.environ.get(SEED)
    if not seed:
        return
    runs = [item for item in items if not any(item.iter_markers("skip"))]
    chosen = drawn([item.nodeid for item in runs], durations.kept(), seed)
    left = [item for item in runs if item.nodeid not in chosen]
    if left:
        config.hook.pytest_deselected(items=left)
        without = set(map(id, left))
        items[:] = [item for item in items if id(item) not in without]
