"""Child processes of ours: the environment they get, their own group, and their end. Windows and POSIX."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Any

import psutil

from core.workspace import PROJECT


def worker_environment() -> dict[str, str]:
    """Environment of every child process of ours.

    GOMP_SPINCOUNT: by default the threads of a torch process spin almost without end while they wait for each other, and
    as soon as anything else runs on the PC a training step takes thirty times as long. Seconds of one step (starter,
    batch of 4 x 58 tokens, 2 cores; quiet / beside one busy process): default 0.59 / 18-26, 20000 0.64 / 3.3,
    2000 0.70 / 1.4, never spinning 1.06 / 1.0. Read by GNU's OpenMP, which torch uses on Linux; elsewhere it does nothing.
    """
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    patient = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "20000")}
    return os.environ | quiet | patient | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def device_environment(wanted: object) -> dict[str, str]:
    """wanted: "cpu" hides every card, the uuid of a card all others; anything else leaves it to torch."""
    if not isinstance(wanted, str):
        return {}
    return {"CUDA_VISIBLE_DEVICES": "" if wanted == "cpu" else wanted}


def own_group() -> dict[str, Any]:
    """So that Ctrl-C in the terminal reaches the app alone, which then asks the worker to pause."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def is_ours(pid: int | None, argument: str) -> bool:
    """Whether pid lives and was started with argument: a number alone may belong to another program by now."""
    try:
        return pid is not None and argument in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def kill_tree(pid: int) -> None:
    try:
        parent = psutil.Process(pid)
        processes = [*parent.children(recursive=True), parent]
    except psutil.Error:
        return
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
