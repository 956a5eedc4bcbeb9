"""Child processes of ours: the environment they get, their own group, and their end. Windows and POSIX."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import IO, Any

import psutil

from core.workspace.folder import PROJECT


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
        # Without CREATE_NO_WINDOW the worker would share the app's console, and closing its window would end the training.
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def take_pipes() -> tuple[IO[bytes], IO[str]]:
    """What was stdin and stdout of a worker that is spoken to by lines, for its protocol alone; call it before any import that is slow.

    From then on descriptor 0 is the null device and descriptor 1 is stderr, so that a library may ask for the one and print to the
    other. On Windows it must not be the pipe: the runtime of numpy's Fortran library asks for the standard handles when it is
    loaded, and waits for the pending read of the thread that listens there (numpy issue 24290).
    """
    source = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    output = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
    os.dup2(2, 1)
    return source, output


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
