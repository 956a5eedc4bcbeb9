"""How long each test takes: in a run, and in the repository's files, which also say why the long ones are.

    python -m tests.kit.durations           write tests/durations.tsv from the newest whole run; of what its sample left
                                            out, the kept seconds stay
    python -m tests.kit.durations FOLDER    write tests/durations_full.tsv from what `test --full` has kept there: tests
                                            whose long forms take SLOWER times what the gate's take
    python -m tests.kit.durations --check   exit status 1 where a long test has no reason; a part of launch.py check

A run leaves `<test cache>/durations/<when>.tsv`, a case a line, slowest first; the newest KEPT stay. The files in the
repository hold a line for each test that takes SHOWN_S or more, its cases together: seconds, name, and from NOTABLE_S
on the reason, which is written by hand and stays when the file is written anew. A line with the name of a file alone
has the seconds of the fixtures that its tests share. A run, and `check` for the newest whole one, name the tests that
took SLOWER times as long; that fails nothing, because what else the machine did is not known.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

KEPT = 20
TESTS = Path(__file__).parents[1]
SHARES = {"gate": TESTS / "durations.tsv", "full": TESTS / "durations_full.tsv"}  # lane -> its file
FILE = "LORA_GARAGE_TEST_DURATIONS"  # the file that a run leaves, in place of one in the cache
SEED = "LORA_GARAGE_TEST_SEED"  # of the sample that a run draws (tests/kit/sampling); not set where it draws none
SHOWN_S, SLOWER, NOTABLE_S = 0.2, 3.0, 5.0
CUT_S = 2.0  # of a test's cases together, from which on the gate may run some of them (tests/kit/sampling)
WHOLE = 3000  # cases of a run that can only be the whole suite


def cache() -> Path:
    """Return LORA_GARAGE_TEST_CACHE, by default tests/.cache."""
    return Path(os.environ.get("LORA_GARAGE_TEST_CACHE") or TESTS / ".cache")


def rows(file: Path) -> Iterator[tuple[float, str, str]]:
    """Return (seconds, test or case, reason) of each line; nothing where there is no such file yet."""
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        if not line.startswith("#"):
            took, test, *reason = line.split("\t")
            yield float(took), test, "".join(reason)


def read(*files: Path) -> dict[str, float]:
    """Return each test's seconds, its cases together, by the name that pytest uses."""
    seconds: dict[str, float] = defaultdict(float)
    for file in files:
        for took, test, _ in rows(file):
            seconds[test.partition("[")[0]] += took
    return dict(seconds)


class SetupsOnce:
    """The seconds of a file's shared fixtures, which only the first chosen test of the file adds."""

    def __init__(self, seconds: Mapping[str, float]):
        self._seconds = dict(seconds)

    def of(self, test: str) -> float:
        return self._seconds.get(test.partition("::")[0], 0.0)

    def choose(self, test: str) -> None:
        self._seconds.pop(test.partition("::")[0], None)


def kept(lane: str = "gate") -> dict[str, float]:
    """Return the durations that the repository keeps for a lane; for the full lane also the gate's, where it has none
    of its own."""
    return read(SHARES["gate"]) | (read(SHARES["full"]) if lane == "full" else {})


def left_out(run: Path) -> dict[str, float]:
    """Return the kept seconds of the tests that a run left out, or of which it may have run some cases only; not of
    those that are gone."""
    took = read(run)
    of_cases = {case.partition("[")[0] for _, case, _ in rows(run) if "[" in case}
    return {
        test: seconds
        for test, seconds in kept().items()
        if test not in took and is_there(test) or test in of_cases and seconds >= max(CUT_S, took[test])
    }


def is_there(test: str) -> bool:
    """Return whether the test's file defines it; of a file alone whether it exists."""
    file, _, name = test.partition("::")
    path = TESTS.parent / file
    return path.exists() and (not name or f"def {name.rpartition('::')[2]}(" in path.read_text("utf-8"))


def keep(lane: str, *files: Path) -> None:
    """Write a lane's durations from the files of a run; reasons that its file has stay."""
    reasons = {test: reason for _, test, reason in rows(SHARES[lane])}
    seconds, shares = read(*files), kept()
    if lane == "gate":
        seconds |= left_out(*files)
    else:
        seconds = {test: took for test, took in seconds.items() if took >= SLOWER * shares.get(test, SHOWN_S)}
    slowest = sorted(((took, test) for test, took in seconds.items() if took >= SHOWN_S), reverse=True)
    lines = ["\t".join((f"{took:.1f}", test, *filter(None, [reasons.get(test)]))) for took, test in slowest]
    head = files[-1].read_text("utf-8").partition("\n")[0]
    if len(files) > 1:
        head = f"{head.partition(',')[0]}, {sum(read(*files).values()):.0f} s of tests in {len(files)} parts"
    SHARES[lane].write_text("\n".join([head, *lines]) + "\n", "utf-8", newline="\n")


def slow(seconds: Mapping[str, float], shares: Mapping[str, float]) -> list[str]:
    """Return a line for each test that took SLOWER times its kept duration, the slowest first."""
    found = [
        (took, test) for test, took in seconds.items() if took > max(NOTABLE_S, SLOWER * shares.get(test, SHOWN_S))
    ]
    return [f"{took:.1f} s instead of {shares.get(test, SHOWN_S):.1f}: {test}" for took, test in sorted(found)[::-1]]


def whole_runs() -> list[Path]:
    """Return the files of whole runs in the cache, oldest first."""
    runs = sorted((cache() / "durations").glob("*.tsv"))
    return [run for run in runs if run.read_text("utf-8").count("\n") > WHOLE]


def check() -> int:
    """Return 1 where a test takes NOTABLE_S or more and has no reason, else 0."""
    without = [
        f"{file.name}: {took:.1f} s of {test} have no reason (its third column)"
        for file in SHARES.values()
        for took, test, reason in rows(file)
        if took >= NOTABLE_S and not reason.strip()
    ]
    print("\n".join(without) or "each long test says why")
    if newest := whole_runs()[-1:]:
        print(f"the newest whole run, {newest[0].stem}, beside tests/durations.tsv:")
        print("\n".join(slow(read(*newest), kept())) or f"no test took {SLOWER:g} times its share")
    return 1 if without else 0


class SharedSetups:
    """A pytest plugin that adds to the report of a test's setup the seconds of fixtures that further tests use too, as
    ("session" or "module", seconds)."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        began = time.perf_counter()
        try:
            return (yield)
        finally:
            self._seconds[fixturedef.scope] += time.perf_counter() - began

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "setup":
            item.user_properties += [(scope, self._seconds.pop(scope, 0.0)) for scope in ("session", "module")]


class Durations:
    """A pytest plugin that collects the durations; with xdist in the process that prints, which gets its workers'
    reports."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._began = time.time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.when == "setup":
            shared = {scope: float(seconds) for scope, seconds in report.user_properties}
            self._seconds[report.nodeid] -= sum(shared.values())
            file = report.nodeid.partition("::")[0]
            self._seconds[file] = max(self._seconds[file], shared["module"])  # each process of xdist has its own

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        took: dict[str, float] = defaultdict(float)
        for test, seconds in self._seconds.items():
            took[test.partition("[")[0]] += seconds
        if lines := slow(took, kept("full" if config.getoption("--full", False) else "gate")):
            terminalreporter.section(f"tests that took {SLOWER:g} times as long as tests/durations.tsv says")
            terminalreporter.write_line("\n".join(lines))

    def pytest_sessionfinish(self) -> None:
        if not self._seconds:
            return
        slowest = sorted(self._seconds.items(), key=lambda pair: -pair[1])
        head = (
            f"# {time.strftime('%Y-%m-%d %H:%M')}, {time.time() - self._began:.0f} s in all, "
            f"{sum(self._seconds.values()):.0f} s of tests{', a sample' if os.environ.get(SEED) else ''}"
        )
        lines = [head, *(f"{seconds:.2f}\t{test}" for test, seconds in slowest)]
        folder = cache() / "durations"
        file = Path(os.environ.get(FILE) or folder / time.strftime("%Y-%m-%d_%H%M%S.tsv"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
        for old in sorted(folder.glob("*.tsv"))[:-KEPT]:
            old.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        return check()
    files = sorted(Path(arguments[0]).glob("*.tsv")) if arguments else whole_runs()[-1:]
    if not files:
        print("no whole run is kept", file=sys.stderr)
        return 2
    keep("full" if arguments else "gate", *files)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
