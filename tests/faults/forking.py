"""Workers by fork: a process that has imported everything once and forks one worker after the other, each with its
fault.

    python -m tests.faults.forking real|fake|export|gguf    gguf: an export with llama.cpp scripted

A line of JSON in, on stdin:  {workspace, run, nth, begins, act: "kill" | "full" | null, lasts, after_s}
    run: the id of a run, or the request.json of an export
A line of JSON out, on stdout: {code, done: [operations], seconds}    code: as of subprocess, -9 for killed

A trial then costs what the worker does, not the seconds in which Python reads torch. POSIX only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.presets import PROJECT
from core.system.processes import worker_environment

LIMIT_S = 120.0


@dataclass
class Trial:
    code: int
    done: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Forker:
    """The asking side. Use as a context manager."""

    def __init__(self, kind: str):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forking", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
            env=worker_environment(),
        )

    def run(self, workspace: Path, run_id: str, **fault: Any) -> Trial:
        order = {"workspace": str(workspace), "run": run_id, "nth": None, "begins": ""}
        order |= {"act": None, "lasts": False, "after_s": None} | fault
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the forking process is gone"
        return Trial(**json.loads(answer))

    def __enter__(self) -> Forker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def child(kind: str, asked: dict[str, Any], told: int) -> int:
    """The worker, with its fault. What it had done is written to the file `told` at its end, if it comes to one."""
    from core.export import export_worker
    from core.training import worker
    from tests.faults import layer

    folder = Path(asked["workspace"])
    exports = kind in ("export", "gguf")
    named = Path(asked["run"]).with_name("export.log") if exports else folder / "runs" / asked["run"] / "train.log"
    log = os.open(named, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    if kind == "fake":
        from tests.faults import fake_worker

        worker._train = fake_worker.train
    if kind == "real":
        from core.chat import film, film_time

        # The same frames each time, and so the same operations: by the clock six steps have time for some of them. One
        # neutral text will do.
        film_time.MAX_SHARE_OF_RUN, film.texts_within = 1e6, lambda lengths, tokens: 1
    if kind == "gguf":
        from tests.faults import scripted

        scripted.install()
    main = export_worker.main if exports else worker.main
    sys.argv = ["worker", asked["run"]] if exports else ["worker", "--workspace", asked["workspace"], asked["run"]]
    act = layer.killed if asked["act"] == "kill" else layer.full_disk
    fault = layer.Fault(folder, asked["nth"], act, asked["lasts"], asked["begins"])
    try:
        with layer.injected(fault):
            code = main()
    except BaseException:  # noqa: BLE001 - as Python itself: a traceback and exit status 1
        import traceback

        traceback.print_exc()
        code = 1
    os.write(told, json.dumps(fault.done).encode())
    return code


def serve(kind: str) -> None:
    with suppress(PermissionError):  # it leads one already
        os.setsid()
    if kind != "fake":
        import peft  # noqa: F401 - imported once, for all forks, as are the others
        import torch  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401

        from core.training import trainer  # noqa: F401
    from core.training import worker  # noqa: F401
    from tests.faults import fake_worker  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        started = time.monotonic()
        with tempfile.TemporaryFile() as report:  # what a slow worker did is more than a pipe holds
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = child(kind, order, report.fileno())
                finally:
                    os._exit(code)
            code = wait(pid, started, order["after_s"])
            report.seek(0)
            done = json.loads(report.read() or b"[]")
        print(json.dumps({"code": code, "done": done, "seconds": time.monotonic() - started}), flush=True)


def wait(pid: int, started: float, after_s: float | None) -> int:
    """Its exit status; killed after after_s, and after LIMIT_S in any case."""
    limit = LIMIT_S if after_s is None else after_s
    while True:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - started > limit:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)


if __name__ == "__main__":
    serve(sys.argv[1])
