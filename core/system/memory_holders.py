"""Who holds this PC's memory: programs by the RAM they take, the largest first. No torch; some 50 ms for 300 processes.

Processes of one program are added up, for a browser is thirty of them. This app and its workers are left out.
"""

from __future__ import annotations

import os
from collections import Counter

import psutil

LEAST_BYTES = 200 << 20  # below it nobody wins anything by closing a program


def top_by_ram(count: int) -> list[tuple[str, int]]:
    """(name, bytes) of at most so many programs that are not ours; none where the system does not tell."""
    ours = _ours()
    used: Counter[str] = Counter()
    for process in psutil.process_iter(["pid", "name", "memory_info"]):
        name, memory = process.info["name"], process.info["memory_info"]
        if name and memory is not None and process.info["pid"] not in ours:
            used[name] += memory.rss
    return [(name, size) for name, size in used.most_common(count) if size >= LEAST_BYTES]


def _ours() -> set[int]:
    """This process, those it was started by from our own interpreter, and all that these started."""
    found = {os.getpid()}
    try:
        here = psutil.Process()
        family = [here, *(parent for parent in here.parents() if parent.name() == here.name())]
        for process in family:
            found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.Error:
        pass
    return found
