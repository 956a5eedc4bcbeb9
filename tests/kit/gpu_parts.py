"""Parts for benchmarks.gpu_report.running that end in every way: well, with an error, by ending the process, never."""

from __future__ import annotations

import os
import threading

from benchmarks.gpu_report.hour import Check, Hour, LeftOut, NotWell, Part


def well(hour: Hour) -> str:
    hour.keep("run", "r1")
    return f"fine in {hour.folder}"


def needs_it(hour: Hour) -> list[str]:
    return [f"it has {hour.kept['run']}", "two | lines"]


def fails(hour: Hour) -> str:
    raise NotWell("no\nthe last words")


def raises(hour: Hour) -> str:
    raise ValueError("boom")


def ends_the_process(hour: Hour) -> str:
    """Print an error and exit, as a kernel of bitsandbytes does."""
    os.write(2, b"Error invalid device function at line 461 in file ops.cu\n")
    os._exit(1)


def crashes(hour: Hour) -> str:
    os.abort()


def hangs(hour: Hour) -> str:
    threading.Event().wait()
    return "never"


def fails_once(hour: Hour) -> str:
    if not (hour.folder / "tried").exists():
        (hour.folder / "tried").touch()
        raise NotWell("not yet")
    return "fine now"


def not_here(hour: Hour) -> str:
    raise LeftOut("needs two GPUs")


def check(name: str) -> Check:
    return Check("tests.kit.gpu_parts", name)


PARTS = (
    Part("one", 60, {"a": check("well")}, quick_seconds=60),
    Part("two", 60, {name: check(name) for name in ("fails", "raises", "ends_the_process", "crashes", "needs_it")}),
    Part("three", 3, {"hangs": check("hangs"), "after": check("well")}),
    Part(
        "four",
        60,
        {"not here": check("not_here"), "not there": check("missing"), "once": check("fails_once")},
        quick_seconds=60,
    ),
)
