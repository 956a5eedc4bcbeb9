"""Waits for a condition, never for a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

# How many times as long as elsewhere what has a limit may take: under Wine Python takes 10 to 100 s to read torch
# (tests/windows).
PATIENCE = float(os.environ.get("LORA_GARAGE_TEST_PATIENCE", "1"))


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0, every_s: float = 0.01) -> object:
    """Return the first true result of condition, called each every_s; fails when there is none within timeout_s, times
    PATIENCE."""
    timeout_s *= PATIENCE
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {timeout_s} s in vain"
        pause.wait(every_s)
    return answer
