"""Processes: environment of our workers, process groups, ending them, and their use of memory. Windows and POSIX."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

import psutil

from core.presets import PROJECT
from core.system.machine import SPILLING_SYSTEMS, driver_system

ALLOCATOR_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


# Enough for the products of a layer in a micro-batch, which the next layer reuses; a row of 32 examples of unequal
# lengths was no slower with 128 than with 256.
KEPT_PRODUCTS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}


def worker_environment() -> dict[str, str]:
    """Return the environment of all our child processes: this one's, with our folder on PYTHONPATH and quiet, patient
    libraries.

    GOMP_SPINCOUNT: by default a torch process's threads spin almost without end while they wait for each other, and
    beside another busy program a training step takes thirty times as long. Seconds of a step (starter, 4 x 58 tokens, 2
    cores) alone and beside one: by default 0.59 and 18-26, with 20000 0.64 and 3.3. Only GNU's OpenMP reads it, torch's
    on Linux.

    PYTORCH_ALLOC_CONF: packed micro-batches differ in length, and blocks cut for one fit no other. On Linux segments
    grow instead, which torch cannot do on Windows; there, and in WSL, cached blocks are released at 0.8 of the limit of
    `core.engine.device.stay_within_card`. A setting of the person's own stays.

    KEPT_PRODUCTS: a CPU's 16-bit products are compiled for each shape and cached, by default 1,024 and twice (oneDNN,
    ideep), at 0.3 MiB each, though hardly any length comes twice (docs/benchmarks.md).
    """
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    patient = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "20000")}
    kept = {name: os.environ.get(name, count) for name, count in KEPT_PRODUCTS.items()}
    return os.environ | quiet | patient | kept | _allocator() | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _allocator() -> dict[str, str]:
    """Return settings for torch's GPU allocator; none if the user has set any."""
    system = driver_system()
    if system not in ("Linux", *SPILLING_SYSTEMS) or any(os.environ.get(name) for name in ALLOCATOR_NAMES):
        return {}
    return {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True" if system == "Linux" else "garbage_collection_threshold:0.8"
    }


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST_IN_HEAP, MAX_KEPT = 32 << 20, (1 << 31) - 1  # bytes; the most that glibc takes for each
LARGEST_SHARED = 1 << 20  # bytes, of a column of a hundred thousand rows


def keep_freed_memory() -> None:
    """Let glibc (Linux) keep the memory that this process frees. Call it before libraries allocate.

    By default a training step gets the same pages from the system again and again, each cleared and each a fault.
    Three steps of the starter (570 tokens, one thread of an EPYC, bf16): 86,147 faults before, 24,467 so, with the
    same peak.
    """
    _set_mallopt((M_MMAP_THRESHOLD, LARGEST_IN_HEAP), (M_TRIM_THRESHOLD, MAX_KEPT))


def share_one_heap() -> None:
    """Let all threads share one heap of glibc (Linux), by default up to eight a core. Call it before threads start.

    The web process answers from forty threads: 288 MiB before and 238 so with a set of 10,000 rows. Large blocks lie
    outside of that heap and are returned when freed; by default glibc takes each that is returned for a reason to put
    the next into the heap.
    """
    _set_mallopt((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST_SHARED))


def _set_mallopt(*options: tuple[int, int]) -> None:
    """Set options of this process's malloc by glibc's mallopt, as pairs (option, value). Nothing happens outside Linux
    or with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # musl has none
    for option in options if mallopt else ():
        mallopt(*option)  # type: ignore[misc]


def own_group() -> dict[str, Any]:
    """Return Popen options for a separate process group, without a console window, so that Ctrl-C reaches the app
    alone, which then pauses the worker."""
    if os.name == "nt":
        # Without CREATE_NO_WINDOW the worker would share the app's console, and closing its window would end the
        # training.
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW  # type: ignore[attr-defined]
        return {"creationflags": flags}
    return {"start_new_session": True}


def start_worker(
    module: str, *arguments: str, log: IO[bytes], cwd: Path, **environment: str
) -> subprocess.Popen[bytes]:
    """Start `python -m module arguments` as a child in its own process group and return it; all its output goes to log,
    never to a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=worker_environment() | environment,
        **own_group(),
    )


def is_ours(pid: int | None, argument: str) -> bool:
    """Return whether pid lives and has argument in its command line: a pid alone may belong to another program by now.
    False if that cannot be read."""
    try:
        return pid is not None and argument in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def exit_now(code: int) -> NoReturn:
    """End this process at once, without Python's own clean-up; all files must be closed and locks released.

    The clean-up can take long, or for ever, if torch's threads, a GPU's driver or an atexit function of a library waits
    for something, and a run that has reported "completed" would keep the memory that the next one needs.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a log on a full disk, or closed
            stream.flush()
    os._exit(code)


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, and wait 5 seconds for their end. Nothing happens if it is gone."""
    try:
        parent = psutil.Process(pid)
        processes = [*parent.children(recursive=True), parent]
    except psutil.Error:
        return
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def kill_children() -> None:
    """Kill all descendants of this process, without waiting for their end."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()


LEAVE_S = 1.0  # seconds to wait for a slow thread, or for one that never started
EVERY_S = 0.003  # a measurement costs half a percent of that; a layer's workspace lives longer
# With less free RAM the system is about to kill or swap programs.
MIN_FREE_BYTES = 200 << 20


class ResidentPeak:
    """Context manager that measures the peak of this process's resident memory.

    bytes: the peak so far. is_over: whether it exceeded limit_bytes, or the PC ran out of memory.
    """

    def __init__(self, limit_bytes: int | None = None):
        self._process = psutil.Process()
        self._limit = limit_bytes
        self._done, self._left = threading.Event(), threading.Event()
        self.bytes, self.is_over = 0, False
        self._look()

    def __enter__(self) -> ResidentPeak:
        # Thread.start waits for its thread to begin: for ever, if memory is so short that the thread dies before.
        _thread.start_new_thread(self._watch, ())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._left.wait(LEAVE_S)
        self._look()

    def _watch(self) -> None:
        """Loop of the thread: look every EVERY_S; the limit is also exceeded when the PC has almost no free memory."""
        looks = 0
        try:
            while not self._done.wait(EVERY_S):
                self._look()
                looks += 1
                if looks % 30 == 0 and psutil.virtual_memory().available < MIN_FREE_BYTES:
                    self.is_over = True
        finally:
            self._left.set()

    def _look(self) -> None:
        """Update the peak with the current RSS, and is_over by the limit; nothing if the RSS cannot be read."""
        try:
            now = self._process.memory_info().rss
        except psutil.Error:
            return
        self.bytes = max(self.bytes, now)
        if self._limit is not None and now > self._limit:
            self.is_over = True


def limit_of_process() -> int | None:
    """Return the system's memory limit for this process (ulimit -d, -v), None without one."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)


MIN_BYTES = 200 << 20  # closing a smaller program gains nothing


def top_by_ram(count: int) -> list[tuple[str, int]]:
    """Return (name, bytes) of the programs that use most RAM, the processes of one name summed: at most `count`, each
    of at least MIN_BYTES and none of ours; empty if the system does not report them."""
    ours = _ours()
    used: Counter[str] = Counter()
    for process in psutil.process_iter(["pid", "name", "memory_info"]):
        name, memory = process.info["name"], process.info["memory_info"]
        if name and memory is not None and process.info["pid"] not in ours:
            used[name] += memory.rss
    return [(name, size) for name, size in used.most_common(count) if size >= MIN_BYTES]


def _ours() -> set[int]:
    """Return the pids of this process, of its parents with our own interpreter, and of all their children, as far as
    they can be read."""
    ours = {os.getpid()}
    try:
        this_process = psutil.Process()
        family = [this_process, *(parent for parent in this_process.parents() if parent.name() == this_process.name())]
        for process in family:
            ours |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.Error:
        pass
    return ours


def process_lives(pid: object, started: object) -> bool:
    """Return whether the process with this pid, started within two seconds of `started` (since 1970; any other value is
    not compared), lives: a pid alone may belong to another by now."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return not isinstance(started, int | float) or abs(process.create_time() - started) <= 2
    except psutil.Error:
        return False
