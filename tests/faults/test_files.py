"""Files that hold what they should not, and clocks that jump: nobody dies of it, and nothing else is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import files
from core.chat.client import ChatClient
from core.errors import BusyError, StopRequested
from core.export.exports import Exports
from core.export.records import ExportRequest, ExportStatus
from core.messages import msg
from core.presets import PROJECT
from core.queue.supervisor import Patience, Supervisor
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.faults import fake_worker
from tests.faults.table import FaultTable
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until
from webui.kit.wording import Wording
from webui.run import card
from webui.state.curves import Curves
from webui.state.snapshot import Snapshots

HUGE = 100 << 20
GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"kind": "tra',
    "NUL bytes": b"\0" * 5000,
    "invalid UTF-8": b"\xff\xfe\xfa{}\xc3\n",
    "another JSON type": b'["a", 1, null]\n',
    "ten thousand brackets": b"[" * 10_000 + b"\n",
    "wrong types": b'{"v": "x", "kind": ["train"], "state": 5, "command": {"a": 1}, "message": "?", "time": 1e300, '
    b'"step": -1, '
    b'"attempt": "9", "loss": "inf", "doing": [], "created": "yesterday", "name": {"x": 1}, "pid": '
    b'99999999999999999999, "stage": []}\n',
    "an endless number": b'{"kind": "train", "step": ' + b"9" * 10_000 + b', "created": ' + b"9" * 400 + b"}\n",
    "100 MB without an end of line": b"x" * HUGE,
}
LINES = ("metrics.jsonl", "events.jsonl")
VALUES = ("state.json", "control.json", "run.json", "label.json")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def snapshots(workspace: Workspace) -> Snapshots:
    runs = Runs(workspace)
    return Snapshots(runs, ChatClient(workspace), Exports(workspace, runs))


def everything_is_shown(workspace: Workspace, run: RunFolder) -> None:
    """What the pages and the supervisor do each second, on all runs."""
    pages = snapshots(workspace)
    snapshot = pages.now(fresh=True)
    assert len(snapshot.rows) == 2
    view = pages.view(run.id)
    for language in ("en", "zh"):
        wording = Wording(language)
        for part in (card.card, card.story, card.settings):
            part(view, wording)
        card.headline(snapshot.shown, wording)
    Curves(Runs(workspace)).since(run.id)
    supervisor = Supervisor(workspace, spawn=lambda *_: pytest.fail("nothing waits here"))
    supervisor._look()
    lease.owner(workspace)
    run.log_tail()


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", [*LINES, *VALUES, "gpu.owner.json"])
def test_garbage_in_any_file_breaks_no_page_and_no_other_run(
    garbage: str, name: str, workspace: Workspace, faults: FaultTable
) -> None:
    ScriptedRun(workspace, "another", 10).to(State.COMPLETED).train(3)
    scripted = ScriptedRun(workspace, "damaged", 10)
    with scripted:
        scripted.to(State.RUNNING).train(5)
        run = scripted.run
        file = workspace.root / name if name == "gpu.owner.json" else run.path / name
        content = file.read_bytes() if name in LINES else b""
        file.write_bytes(content + GARBAGE[garbage])
        everything_is_shown(workspace, run)
        if name in LINES:  # a line that is written later is read
            run.log_event("warning", message=msg("run.not_packed"))
            run.log_metrics("train", 1, 6, loss=0.5)
            assert run.events()[-1]["kind"] == "warning"
            assert [line["step"] for line in run.all_metrics() if line["kind"] == "train" and "loss" in line][:6] == [
                1,
                2,
                3,
                4,
                5,
                6,
            ]
            assert Curves(Runs(workspace)).since(run.id)["x"] == [1, 2, 3, 4, 5, 6]
    everything_is_shown(workspace, run)
    faults.add(f"garbage: {garbage}", "each file of a run, gpu.owner.json", 1)


@pytest.mark.parametrize("garbage", [name for name in GARBAGE if "100" not in name])
def test_a_worker_whose_state_was_overwritten_writes_it_anew_and_hears_the_stop_that_comes_next(
    garbage: str, workspace: Workspace
) -> None:
    run = ScriptedRun(workspace, "damaged", 10).run
    with run.lock().acquire(timeout=1), Reporter(run) as reporter:
        reporter.set_state(State.PREPARING)
        reporter.set_state(State.RUNNING)
        reporter.has_something_to_save()
        (run.path / "state.json").write_bytes(GARBAGE[garbage])
        (run.path / "control.json").write_bytes(GARBAGE[garbage])
        reporter.set_progress(10, 10, 1.0)
        wait_until(lambda: run.status().state == State.RUNNING and run.status().step == 10, 10)
        run.request("stop")
        wait_until(lambda: reporter.stop_requested, 10)
        wait_until(lambda: run.status().state == State.STOPPING, 10)
        with pytest.raises(StopRequested):
            reporter.check()
        reporter.set_state(State.STOPPED)


def is_at_work(status: Status, attempt: int) -> bool:
    return status.state == State.RUNNING and status.attempt == attempt


def test_a_run_whose_state_was_lost_goes_on_from_its_checkpoint(workspace: Workspace, faults: FaultTable) -> None:
    """Its attempts count on from what its numbers say: else the chart would show the old ones over the new."""
    supervisor = Supervisor(workspace, spawn=fake_worker.spawn)
    supervisor.start()
    try:
        run = supervisor.submit(fake_worker.recipe(120, 10), RunFacts.from_json({"script": {"step_s": 0.02}}))
        for attempt in (1, 2):
            saved = run.saved_step()
            wait_until(lambda n=attempt, before=saved: is_at_work(run.status(), n) and run.saved_step() > before, 60)
            os.kill(run.status().pid, 9)
            wait_until(lambda: run.status().state == State.INTERRUPTED, 30)
            if attempt == 1:
                supervisor.resume(run)
        for content in (b"\0" * 300, b"{"):
            (run.path / "state.json").write_bytes(content)
            assert supervisor.runs.status(run).message.key == "run.state_unreadable"
        supervisor.resume(run)
        assert run.status().attempt == 3
        wait_until(lambda: run.status().state == State.COMPLETED, 60)
    finally:
        supervisor.close()
    assert (run.adapter / "adapter_model.safetensors").read_bytes()[-32:] == fake_worker.learned(120)
    faults.add("state.json overwritten with NUL bytes, half a value", "a run that was killed twice")


def test_a_half_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    """It did: what was written after a crash or a full disk was glued to it, and both were lost."""
    file = tmp_path / "metrics.jsonl"
    files.append_line(file, {"step": 1})
    file.write_bytes(file.read_bytes() + b'{"step": 2, "lo')
    files.append_line(file, {"step": 3})
    assert file.read_bytes() == b'{"step":1}\n{"step": 2, "lo\n{"step":3}\n'


# ---- clocks --------------------------------------------------------------------------------------

YEAR = 366 * 86400.0


@pytest.fixture(params=[-YEAR, -3600.0, YEAR], ids=["a year back", "an hour back", "a year on"])
def jump(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and the PC's clock has jumped. What counts seconds since the start (monotonic) does not follow, as in
    truth."""
    real = time.time

    def jumps() -> None:
        monkeypatch.setattr(time, "time", lambda: real() + request.param)

    return jumps


def test_a_clock_that_jumps_stops_no_run_and_shows_no_nonsense(
    jump: Callable, workspace: Workspace, faults: FaultTable
) -> None:
    supervisor = Supervisor(workspace, spawn=fake_worker.spawn)
    supervisor.start()
    try:
        run = supervisor.submit(fake_worker.recipe(60, 10), RunFacts.from_json({"script": {"step_s": 0.05}}))
        wait_until(lambda: run.status().step >= 5, 60)
        jump()
        snapshot = snapshots(workspace).now(fresh=True)
        assert snapshot.busy is not None and snapshot.busy.id == run.id
        card.card(snapshot.shown, Wording("en"))
        supervisor.pause(run)
        wait_until(lambda: run.status().state in (State.PAUSED, State.COMPLETED), 60)
        if run.status().state == State.PAUSED:
            supervisor.resume(run)
        wait_until(lambda: run.status().state == State.COMPLETED, 60)
    finally:
        supervisor.close()
    assert (run.adapter / "adapter_model.safetensors").read_bytes()[-32:] == fake_worker.learned(60)
    faults.add("the clock jumps (a year on, an hour back, a year back)", "app during a run")


def test_a_heartbeat_is_judged_by_whether_it_changes_not_by_the_clock(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the clock put back, a worker that hung while it saved counted as alive for an hour."""
    supervisor = Supervisor(workspace, patience=Patience(fresh_s=5.0))
    run = ScriptedRun(workspace, "hangs", 10).run
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (run.path / "run.lock").touch()
    for heartbeat in (time.time() + YEAR, time.time() - YEAR):
        os.utime(run.path / "run.lock", (heartbeat, heartbeat))
        assert supervisor._beats_still(run)
        now[0] += 4.0
        assert supervisor._beats_still(run)
        now[0] += 2.0
        assert not supervisor._beats_still(run)


def test_an_export_that_never_began_is_told_from_one_that_begins_whatever_the_clock(
    workspace: Workspace, monkeypatch
) -> None:
    job = Exports(workspace)._job("x")
    job.path.mkdir(parents=True)
    job.write(ExportStatus(since=time.time()))
    assert job.status().active
    real = time.time
    for by in (YEAR, -YEAR):
        monkeypatch.setattr(time, "time", lambda by=by: real() + by)
        assert job.status().state == "failed"
    assert ExportRequest.model_fields  # the request of an attempt that never began is not needed to say so


def test_the_lease_is_free_the_moment_its_holder_is_killed(workspace: Workspace, faults: FaultTable) -> None:
    """And whose note is still there is not named as the one who holds it."""
    import subprocess
    import sys

    code = (
        "import sys, time\nfrom core.workspace import lease\nfrom core.messages import msg\nfrom core.workspace.folder "
        "import Workspace\n"
        "with lease.hold(Workspace.open(sys.argv[1]), msg('lease.training', name='dead')):\n print('held', "
        "flush=True)\n time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE, cwd=PROJECT)
    assert holder.stdout.readline().strip() == b"held"
    with pytest.raises(BusyError, match="dead"), lease.hold(workspace, msg("x")):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with lease.hold(workspace, msg("lease.training", name="next")):
        assert json.loads((workspace.root / "gpu.owner.json").read_text("utf-8"))["doing"]["params"]["name"] == "next"
    faults.add("SIGKILL of the holder of gpu.lock", "lease")
