"""Memory that a process frees and wants again is not asked of the system twice (glibc), counted by the faults of its pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys
from core.system.processes import keep_freed_memory

def blocks():
    return [bytearray(b"x") * (20 << 20) for _ in range(4)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keeps":
    keep_freed_memory()
blocks()
before = faults()
for _ in range(3):
    blocks()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_is_freed_between_two_steps_costs_no_page_again() -> None:
    found = {
        how: int(
            subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True, timeout=120).stdout
        )
        for how in ("keeps", "returns")
    }
    assert found["keeps"] < 0.1 * found["returns"], found
