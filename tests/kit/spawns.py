"""Records how the app starts its processes, on a PC whose cards the real pynvml reports: `python -m tests.kit.spawns
WORKSPACE`.

An input line {"run": id or null, "visible": CUDA_VISIBLE_DEVICES or null} is answered by a line: the device of a plan,
that of a timed step, and CUDA_VISIBLE_DEVICES of each process that was started; none of them runs our code. With
"train": true the worker itself carries the run out, and the answer has its exit status and its message.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

from core.chat.client import ChatClient
from core.chat.questions import target_of
from core.export.exports import Exports
from core.memory import budget
from core.queue.supervisor import spawn_worker
from core.runs.all import Runs
from core.runs.reporter import Reporter
from core.system import devices
from core.system.machine import this_machine
from core.training import worker
from core.workspace.folder import Workspace

UNSET = "as it was"
Real = subprocess.Popen


class Recorded(Real):
    started: dict[str, str | None] = {}

    def __init__(self, command: list[str], **options: Any):
        environment = options["env"]
        asked = environment.get(devices.VISIBLE) if options["env"] is not None else None
        Recorded.started[command[2]] = UNSET if asked == os.environ.get(devices.VISIBLE) else asked
        super().__init__([sys.executable, "-c", ""], **options)


def main() -> None:
    workspace = Workspace.open(sys.argv[1])
    subprocess.Popen = Recorded  # type: ignore[misc]
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.pop(devices.VISIBLE, None)
        if asked.get("visible") is not None:
            os.environ[devices.VISIBLE] = asked["visible"]
        run = Runs(workspace).get(asked["run"])
        if asked.get("train"):
            with run.lock().acquire(timeout=5), Reporter(run) as reporter:
                code = worker.carry_out(run, workspace, reporter)
            status = run.status()
            said = {"code": code, "message": str(status.message), "advice": str(status.advice)}
        else:
            said = started(workspace, run)
        print(json.dumps(said), flush=True)


def started(workspace: Workspace, run: Any) -> dict[str, Any]:
    Recorded.started = {}
    spawn_worker(workspace, run).wait()
    chat = ChatClient(workspace)
    chat.load(target_of(run))
    chat.unload()
    Exports(workspace).start(run, "adapter").process.wait()
    machine = this_machine()
    has = budget.of_machine(machine)
    device = budget.device_of(has, machine.nvidia)
    names = {re.sub(r"\.\w*worker$", "", name.removeprefix("core.")): seen for name, seen in Recorded.started.items()}
    return {"plan": has.name if has.kind == "card" else "cpu", "device": device, **names}


if __name__ == "__main__":
    main()
