"""A second start on one workspace, and trainings whose app was killed: real processes, one owner, nothing trained
twice."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from core.advice import plan
from core.errors import BusyError
from core.queue.queue import Queue
from core.recipe import Recipe
from core.runs import ended
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.process import Launcher
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import processes
from core.workspace import owner, preferences
from core.workspace.folder import Workspace
from core.workspace.owner import Ownership
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until
from tests.kit.workers import at_work
from webui.kit.wording import Wording
from webui.pages.banner import LeftRuns
from webui.state.services import Services

DEAD = 2**22 + 1  # beyond what Linux gives out


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Workspace:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(tmp_path / "ws")


# ---- who has it ----------------------------------------------------------------------------------


@contextmanager
def page_of(status: int) -> Iterator[str]:
    """The address of something that answers every request with status, as an app does (200), or the door before it
    (401)."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def asked_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has the workspace all along: whoever waits a second for it learns no more."""
    monkeypatch.setattr(owner, "CLAIM_S", 0.02)


@pytest.mark.parametrize("status", [200, 401])
def test_the_second_finds_the_page_of_the_first(tmp_path: Path, status: int, asked_soon: None) -> None:
    space = Workspace.open(tmp_path)
    first, second = Ownership(space), Ownership(space)
    with page_of(status) as address:
        assert first.claim(address) is None and owner.app_lives(space)
        other = second.claim("http://127.0.0.1:1/")
    assert other and (other.pid, other.address) == (os.getpid(), address)
    first.release()
    assert not owner.app_lives(space)


@pytest.mark.parametrize(
    "why", ["answers something else", "nobody there", "another PC", "a version that gave no address", "no file"]
)
def test_a_first_that_does_not_answer_is_named(tmp_path: Path, why: str, asked_soon: None) -> None:
    space = Workspace.open(tmp_path)
    first = Ownership(space)
    with page_of(500 if why == "answers something else" else 200) as address:
        first.claim("http://127.0.0.1:1/" if why == "nobody there" else address)
        record = json.loads((space.root / "app.owner.json").read_text("utf-8"))
        if why == "another PC":
            record["host"] = "elsewhere"
        if why == "a version that gave no address":
            del record["address"]
        (space.root / "app.owner.json").write_text("" if why == "no file" else json.dumps(record), "utf-8")
        with pytest.raises(BusyError) as refused:
            Ownership(space).claim("http://127.0.0.1:2/", patience_s=0)
    for language in ("en", "zh"):
        words = refused.value.message.render(language)
        assert "--workspace" in words and (why == "no file" or str(os.getpid()) in words)
    first.release()


def test_a_start_while_the_first_ends_waits_for_it_and_serves(tmp_path: Path) -> None:
    """Ctrl-C and start again: the page still answers while its training is paused, and is gone a moment later."""
    space = Workspace.open(tmp_path)
    first, second = Ownership(space), Ownership(space)
    with page_of(200) as address:
        first.claim(address)
        first.close_page()
        claimed = threading.Thread(target=lambda: owners.append(second.claim("http://127.0.0.1:2/")))
        owners: list[owner.Owner | None] = []
        claimed.start()
        assert owner.read(space).address == "" and not owners, "the page that goes is not shown"
        first.release()
        claimed.join()
    assert owners == [None] and owner.read(space).address == "http://127.0.0.1:2/"
    second.release()


def test_a_run_that_is_dismissed_on_the_page_is_kept_so(tmp_path: Path) -> None:
    services = Services.open(Workspace.open(tmp_path))
    run = ScriptedRun(services.workspace, "cut off").to(State.RUNNING).train(3).run
    assert not LeftRuns(services, Wording("en")).dismiss(run.id)["visible"] and (run.path / "left.json").exists()


def test_an_app_that_builds_pages_without_serving_them_owns_nothing(tmp_path: Path) -> None:
    assert not owner.app_lives(Services.open(Workspace.open(tmp_path)).workspace)


def test_a_number_alone_is_no_process(tmp_path: Path) -> None:
    me = psutil.Process()
    assert processes.process_lives(me.pid, me.create_time())
    for pid, started in ((me.pid, 1.0), (DEAD, None), (None, None), ("x", 1), (0, 0), (-1, 0)):
        assert not processes.process_lives(pid, started)


# ---- a worker whose app has gone -----------------------------------------------------------------


def queued(workspace: Workspace) -> RunFolder:
    value = {
        "name": "Tiny", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
        "adapter": {"r": 4},
        "train": {"max_steps": 100_000, "save_steps": 100_000, "eval_steps": 100_000, "sample_seconds": 0},
    }  # fmt: skip
    return Runs(workspace).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "app")


def start_app(workspace: Workspace) -> kit.App:
    """An app whose person has pressed "let the queue go on": what waits when it starts is held until then."""
    app = kit.start_app(workspace.root, **kit.ENGLISH)
    line = Queue(workspace)
    wait_until(lambda: line.read().app_is_open, 30)
    line.put(hold=None)
    return app


def launcher_keys(run: RunFolder) -> list[str]:
    return [event["message"]["key"] for event in run.events() if event["kind"] == "launcher"]


def kill(app: kit.App) -> None:
    app.process.kill()
    app.process.wait()


def workers(workspace: Workspace) -> list[int]:
    return at_work("core.training.worker", str(workspace.root))


def test_it_goes_on_the_next_app_watches_it_and_closing_that_one_pauses_it(workspace: Workspace) -> None:
    run = queued(workspace)
    first = start_app(workspace)
    again = None
    try:
        wait_until(lambda: run.status().step >= 2, 90)
        pid = run.status().pid
        kill(first)
        wait_until(lambda: launcher_keys(run) == ["launcher.alone"], 30)
        step = run.status().step
        wait_until(lambda: run.status().step > step, 30)
        again = kit.start_app(workspace.root, **kit.ENGLISH)
        wait_until(lambda: launcher_keys(run)[-1] == "launcher.back", 30)
        status = run.status()
        assert (status.pid, status.attempt, workers(workspace)) == (pid, 1, [pid]), "not started a second time"
        assert again.stop() == 0
        assert (
            run.status().state == State.PAUSED
            and run.saved_step() == run.status().step > step
            and workers(workspace) == []
        )
    finally:
        first.stop()
        if again:
            again.stop()
        for left in workers(workspace):
            psutil.Process(left).kill()


def test_a_worker_beside_a_living_launcher_or_app_is_not_alone(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    run = ScriptedRun(space, "watched").to(State.RUNNING).run
    watch = Launcher(run, space)
    watch.look()
    assert launcher_keys(run) == [], "the process that made it lives"
    run.add_facts(RunFacts(launcher_pid=DEAD))
    ours = Ownership(space)
    ours.claim("http://127.0.0.1:1/")
    watch = Launcher(run, space)
    watch.look()
    assert launcher_keys(run) == [], "another app has the workspace"
    ours.release()
    for _ in range(3):
        watch.look()
    assert launcher_keys(run) == ["launcher.alone"], "said once"


def test_a_damaged_file_of_preferences_means_the_default(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    preferences.choose(space, model_folders=("/models",))
    assert preferences.read(space).model_folders == ("/models",)
    (space.root / "preferences.json").write_text("{half", "utf-8")
    assert preferences.read(space).model_folders == ()


# ---- runs that were cut off ----------------------------------------------------------------------


def offered(space: Workspace) -> list[str]:
    runs = Runs(space)
    return [found.words.key for run in runs.list() if (found := ended.left_run(run, runs.status(run)))]


def test_a_run_that_went_away_is_offered_with_what_would_be_lost(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    scripted = ScriptedRun(space, "cut off").to(State.RUNNING).train(12)
    runs = Runs(space)
    left = ended.left_run(scripted.run, runs.status(scripted.run))
    assert left.words.key == "left_runs.nothing_saved"
    scripted.save(10)
    (scripted.save(11) / "trainer.pt").write_bytes(b"")  # half of one does not count
    scripted.run.log_metrics("train", 1, 13, loss=1.0)  # a step that state.json had not told of yet
    left = ended.left_run(scripted.run, runs.status(scripted.run))
    assert (left.step, left.saved) == (13, 10)
    assert "step 13" in str(left.words) and "step 10" in str(left.words) and str(left.words).endswith("repeat: 3.")


def test_leaving_it_lasts_and_counts_for_that_attempt_only(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    scripted = ScriptedRun(space, "cut off").to(State.RUNNING).train(12)
    assert len(offered(space)) == 1
    ended.dismiss(scripted.run)
    assert offered(Workspace.open(tmp_path)) == []
    scripted.run.write_status(Runs(space).status(scripted.run))
    Runs(space).queue_again(scripted.run, "test")
    for state in (State.PREPARING, State.RUNNING):
        scripted.run.write_status(scripted.run.status().model_copy(update={"state": state}))
    assert len(offered(space)) == 1, "it went away once more"


@pytest.mark.parametrize(("by", "count"), [("person", 0), ("close", 1)])
def test_a_run_that_a_person_paused_is_not_asked_about(tmp_path: Path, by: str, count: int) -> None:
    space = Workspace.open(tmp_path)
    scripted = ScriptedRun(space, "paused").to(State.RUNNING).train(12)
    scripted.run.request("pause", by=by)
    scripted.to(State.PAUSED)
    assert len(offered(space)) == count


@pytest.mark.parametrize("state", [State.COMPLETED, State.STOPPED, State.FAILED, State.QUEUED])
def test_runs_that_ended_or_wait_are_not_offered(tmp_path: Path, state: State) -> None:
    space = Workspace.open(tmp_path)
    ScriptedRun(space, "over").to(state)
    assert offered(space) == []
