"""Workers that run, found in the system's list of processes."""

from __future__ import annotations

from contextlib import suppress

import psutil


def at_work(module: str, about: str) -> list[int]:
    """Return the pids of processes `-m module ... about`. On Windows an environment's python.exe starts the real one
    with the same arguments: that one counts."""
    found = {}
    for process in psutil.process_iter(["cmdline", "ppid"]):
        command = process.info["cmdline"] or []  # of one that ended and was not waited for: none
        if module in command and about in command:
            found[process.pid] = process.info["ppid"]
    return [pid for pid in found if pid not in found.values()]


def rank_of(about: str, rank: int) -> int | None:
    """Return the pid of that rank among those that torchrun's agent has started for a run, or a workspace."""
    for pid in at_work("core.training.ranks.rank_process", about):
        with suppress(psutil.Error):
            if psutil.Process(pid).environ().get("RANK") == str(rank):
                return pid
    return None
