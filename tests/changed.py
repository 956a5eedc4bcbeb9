"""`python launch.py test --changed [COMMIT] [pytest arguments]`: the tests that a change can reach, nearest first,
in about a minute.

The change is what differs from COMMIT now, uncommitted files included; without COMMIT from HEAD, and where nothing
differs from it, from the commit before it. Which tests reach it, and how far they are from it: tests/kit/reach.py.
Up to MAX_S seconds of tests are run, of those more than NEAR modules away up to FAR_S; of these the quicker and the
nearer ones. Seconds are those of tests/durations.tsv.
What is left out is said: `python launch.py test` runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.presets import PROJECT
from tests.kit import durations
from tests.kit.reach import Change, Project

# Modules between a change and a test. Of 63 commits of one to three modules, these run 88 of the 100 tests that came
# with them, in 20 s of tests at the median; far ones by their distance alone 81, and up to 30 s of far ones no more.
NEAR = 1
MAX_S, FAR_S = 55.0, 20.0  # of tests, which two processes run side by side
QUICK_S = 0.03  # a test that tests/durations.tsv does not name: the mean of the 2,334 that take less than 0.2 s


@dataclass(frozen=True)
class Choice:
    """Tests as pytest names them, nearest first. seconds: of all that are run, one after the other."""

    run: list[str]
    left: list[str]
    seconds: float

    @classmethod
    def of(cls, distances: Mapping[str, int], seconds: Mapping[str, float]) -> Choice:
        setups = durations.SetupsOnce(seconds)

        def cost(test: str) -> float:
            return seconds.get(test, QUICK_S) + setups.of(test)

        def worth(test: str) -> tuple[float, float]:
            """Return what tests are sorted by: near ones by their distance, far ones by distance times seconds."""
            is_near = distances[test] <= NEAR
            return (distances[test], cost(test)) if is_near else (NEAR + 1, distances[test] * cost(test))

        run, left, spent, far = [], [], 0.0, 0.0
        for test in sorted(distances, key=lambda test: (*worth(test), test)):
            took, is_far = cost(test), distances[test] > NEAR
            is_within = spent + took <= MAX_S and (not is_far or far + took <= FAR_S)
            # What was changed itself, or uses it, is run whatever it takes.
            if is_within or distances[test] == 0:
                run.append(test)
                setups.choose(test)
                spent += took
                far += took * is_far
            else:
                left.append(test)
        return cls(sorted(run, key=distances.__getitem__), sorted(left, key=distances.__getitem__), spent)

    def files_left(self) -> str:
        """Return ": file (number of its tests left), ...", the nearest first; "" where none is left."""
        counts = Counter(test.partition("::")[0] for test in self.left)
        return ": " + ", ".join(f"{file} ({count})" for file, count in counts.items()) if counts else ""


def main(arguments: list[str]) -> int:
    """pytest's exit status; 0 where no test reaches the change, 2 for a COMMIT that git does not know."""
    base = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    project = Project(PROJECT, durations.cache() / "modules.pickle")
    try:
        change = Change(project, base or "HEAD")
        if not change.paths and base is None:
            change = Change(project, "HEAD~1")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"git cannot say what differs from {base or 'HEAD'}: {said.strip()}", file=sys.stderr)
        return 2
    choice = Choice.of(project.tests(change.nodes()), durations.kept())
    files = f"{len(change.paths)} files differ from {change.base}"
    if not choice.run:
        print(f"{files}; no test uses what changed in them.")
        return 0
    print(f"{files}; {len(choice.run) + len(choice.left)} tests can reach what changed.")
    print(
        f"{len(choice.run)} of them are run, {choice.seconds:.0f} s of tests; {len(choice.left)} are left to "
        f"`python launch.py test`{choice.files_left()}.",
        flush=True,
    )
    names = Path(tempfile.mkstemp(prefix="lora-garage-tests-", suffix=".txt")[1])
    names.write_text("\n".join(choice.run) + "\n", "utf-8")
    workers = ["-n", "2", "--dist", "loadfile"] if choice.seconds > 10 and (os.cpu_count() or 1) > 1 else []
    os.chdir(PROJECT)
    import pytest

    try:
        return pytest.main(["-q", "--durations=3", *workers, *arguments, f"@{names}"])
    finally:
        names.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
