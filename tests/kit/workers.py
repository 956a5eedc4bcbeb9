"""The workers that are at work, as the system knows them."""

from __future__ import annotations

import psutil


def at_work(module: str, about: str) -> list[int]:
    """Processes `-m module ... about`. On Windows an environment's python.exe starts the real one with the same words:
    that one counts."""
    found = {}
    for process in psutil.process_iter(["cmdline", "ppid"]):
        command = process.info["cmdline"] or []  # of one that ended and was not waited for: none
        if module in command and about in command:
            found[process.pid] = process.info["ppid"]
    return [pid for pid in found if pid not in found.values()]
