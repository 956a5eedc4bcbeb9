"""Runs tests again and again beside a program that keeps one core busy, and counts their failures: for races.

python -m tools.under_load 50 tests/browser/test_form.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

BUSY = "while True: pass"
COUNT = re.compile(r"(\d+) (passed|failed|error)")


def main() -> int:
    rounds, tests = int(sys.argv[1]), sys.argv[2:]
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    counts: dict[str, int] = {}
    began = time.monotonic()
    try:
        for number in range(1, rounds + 1):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
            done = subprocess.run(command, capture_output=True, text=True)
            for count, outcome in COUNT.findall(done.stdout.splitlines()[-1]):
                counts[outcome] = counts.get(outcome, 0) + int(count)
            print(f"round {number} of {rounds}, {time.monotonic() - began:.0f} s: {counts}", flush=True)
            if done.returncode:
                print(done.stdout[-6000:], flush=True)
    finally:
        busy.kill()
        busy.wait()
    return 0 if set(counts) == {"passed"} else 1


if __name__ == "__main__":
    sys.exit(main())
