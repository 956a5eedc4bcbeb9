"""Runs that wait for their turn: their order on disk, whose turn it is, and what a pause, a failure, a restart do to
it."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from core import files
from core.advice import plan
from core.errors import BusyError, GarageError, RecipeError, RunError
from core.messages import msg
from core.queue import queue, supervisor
from core.queue.queue import Game, Hold, Order, Queue, QueuedRun, arranged, first, time_of_day
from core.queue.supervisor import Supervisor
from core.queue.turns import busy
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace import preferences
from core.workspace.folder import Workspace
from core.workspace.preferences import Automation, parse_hours
from tests.kit.queue import HELD, NOW, FakeWorker, World, order
from tests.kit.runs import ScriptedRun, with_settings
from tests.kit.waits import wait_until


# ---- whose turn it is ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "turn"),
    [
        (order(), "a"),
        (order("b", "a"), "b"),
        (order("gone", "c"), "c"),
        (order(QueuedRun(run="a", not_before=NOW + 1), "b"), "b"),
        (order(QueuedRun(run="a", not_before=NOW), "b"), "a"),
        (order("a", hold=HELD), None),
        (order("a", QueuedRun(run="b", now=True), hold=HELD), "b"),
        # its time was still to come when the app was opened
        (order("a", QueuedRun(run="b", not_before=NOW - 1), hold=HELD), "b"),
        (order("a", QueuedRun(run="b", not_before=NOW - 200), hold=HELD), None),
        (order("a", QueuedRun(run="b", not_before=NOW - 1), hold=Hold(why="person", since=NOW - 100)), None),
        (order(QueuedRun(run="a", now=True), game=Game(why=msg("game.soon"), since=NOW)), None),
    ],
    ids=[
        "unnamed",
        "named",
        "stale",
        "time to come",
        "time come",
        "held",
        "now",
        "said before",
        "missed",
        "by hand",
        "game",
    ],
)
def test_whose_turn_it_is(given: Order, turn: str | None) -> None:
    assert first(given, ["a", "b", "c"], NOW) == turn


def test_nobody_who_waits_is_forgotten_whatever_the_file_says() -> None:
    for given in (order(), order("c", "x"), order("b"), order("c", "a", "b")):
        assert sorted(entry.run for entry in arranged(given, ["a", "b", "c"])) == ["a", "b", "c"]


def test_a_run_moves_by_one_place_and_not_beyond_the_ends(tmp_path: Path) -> None:
    line = Queue(Workspace.open(tmp_path))
    waiting = ["a", "b", "c"]
    for run, way, expected in (("a", 1, "bac"), ("a", 1, "bca"), ("a", 1, "bca"), ("c", -1, "cba"), ("c", -1, "cba")):
        assert "".join(entry.run for entry in line.move(run, way, waiting).runs) == expected
    with pytest.raises(RunError):
        line.move("x", 1, waiting)
    with pytest.raises(RunError):
        line.set_time("x", None, waiting)


def test_a_file_that_is_damaged_is_an_empty_order_and_is_mended_by_the_next_change(tmp_path: Path) -> None:
    line = Queue(Workspace.open(tmp_path))
    for damage in (
        "",
        "{",
        "[]",
        '{"runs": 7}',
        '{"runs": [{"run": "a"}], "hold": {"why": "?"}}',
        '{"app": {"pid": 1, "started": NaN}}',
        '{"app": {"pid": 1, "started": 1e300}}',
    ):
        line.path.write_text(damage, "utf-8")
        assert line.read() == Order()
        line.add("a", [])
        assert [entry.run for entry in line.read().runs] == ["a"]


def test_two_programs_that_change_the_line_at_once_lose_nothing(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    names = [f"r{i}" for i in range(40)]

    def add(mine: list[str]) -> None:
        line = Queue(space)
        for name in mine:
            line.add(name, names)

    threads = [threading.Thread(target=add, args=(names[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.run for entry in Queue(space).read().runs) == sorted(names)


@pytest.mark.parametrize(
    ("said", "hours"), [("23:30", 11.5), ("0:15", 12.25), (" 11:59 ", 24 - 1 / 60), ("12：30", 0.5), ("", None)]
)
def test_a_time_of_day_is_the_next_one(said: str, hours: float | None) -> None:
    noon = time.mktime((2026, 6, 15, 12, 0, 0, 0, 0, -1))
    moment = time_of_day(said, noon)
    assert moment is None if hours is None else abs(moment - noon - hours * 3600) < 1


@pytest.mark.parametrize("said", ["24:00", "7", "7:5", "soon", "12:60", "-1:00", "12:00:00"])
def test_what_is_no_time_of_day_is_said(said: str) -> None:
    with pytest.raises(RecipeError, match="23:00"):
        time_of_day(said, NOW)


def test_runs_train_one_after_the_other_in_the_order_they_were_given(world: World) -> None:
    for name in "abc":
        world.submit(name)
    assert world.look() == "a" and world.waiting() == ["b", "c"]
    for following in ("b", "c", None):
        world.end()
        assert world.look() == following
    assert len(world.workers) == 3 and world.line.read().runs == ()


def test_the_order_can_be_changed_and_a_run_taken_out(world: World) -> None:
    runs = {name: world.submit(name) for name in "abcd"}
    world.look()
    world.line.move(runs["d"].id, -1, [run.id for run in world.supervisor.runs.waiting()])
    world.supervisor.stop(runs["b"])
    assert world.look() == "a" and world.waiting() == ["d", "c"]
    assert runs["b"].status().state == State.STOPPED
    world.end()
    assert world.look() == "d"


def test_after_a_restart_nothing_trains_by_itself_and_nothing_is_lost(world: World) -> None:
    world.submit("a")
    for name in ("c", "b"):
        world.submit(name)
    world.line.move(world.supervisor.runs.find("b").id, -1, [run.id for run in world.supervisor.runs.waiting()])
    world.look()
    world.end()
    world.open()
    assert world.look(after_s=3600) is None and world.waiting() == ["b", "c"]
    assert world.line.read().hold.why == "restart"
    world.submit("new")  # Start means now, and lets nobody else go
    assert world.look() == "new"
    world.end()
    assert world.look() is None and world.waiting() == ["b", "c"]
    queue.act(world.space, "go", None, None)
    assert world.look() == "b"


def test_a_time_that_was_said_is_kept_over_a_restart(world: World) -> None:
    world.submit("later", not_before=world.time + 600)
    world.submit("any")  # nothing is at work yet: it begins
    assert world.look() == "any"
    world.end()
    assert world.look() is None
    world.open()
    assert world.look(after_s=500) is None
    assert world.look(after_s=101) == "later"


def test_a_time_that_passed_while_the_app_was_closed_waits_for_the_person(world: World) -> None:
    world.submit("later", not_before=world.time + 600)
    world.time += 700
    world.open()
    assert world.look(after_s=10) is None and world.waiting() == ["later"]


@pytest.mark.parametrize("dies", [True, False])
def test_after_a_failure_the_line_goes_on(world: World, dies: bool) -> None:
    a = world.submit("a")
    world.submit("b")
    world.look()
    if dies:
        world.workers[-1].end(code=-9)
    else:
        world.end(State.FAILED)
    assert world.look() == "b" and a.status().state == (State.INTERRUPTED if dies else State.FAILED)


def test_hours_that_were_saved_just_before_a_run_ended_keep_the_next_one_back(world: World) -> None:
    """Game mode looks each two seconds; the next run may be due in between."""
    first, _ = world.submit("alpha"), world.submit("beta")
    assert world.look(3) == first.name
    preferences.choose(world.space, automation=Automation(hours=parse_hours("0:00-12:00, 12:00-0:00")))
    world.end()
    assert world.look() is None and world.line.read().game.why.key == "game.hours"
    assert len(world.workers) == 1 and world.waiting() == ["beta"]


def test_a_pause_gives_the_device_free_so_the_line_waits_and_goes_on_with_the_run(world: World) -> None:
    a, _ = world.submit("a"), world.submit("b")
    world.look()
    world.supervisor.pause(a)
    assert world.look(after_s=100) is None and world.line.read().hold == Hold(why="paused", since=world.time, run=a.id)
    world.supervisor.resume(a)
    assert world.look() == "a" and world.line.read().hold is None
    world.end()
    assert world.look() == "b"


def test_a_run_that_is_resumed_while_the_supervisor_waits_for_the_lock_comes_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had listed who waits before it got the lock, so the run behind began and the resumed one waited."""
    a, _ = world.submit("a"), world.submit("b")
    world.look()
    world.supervisor.pause(a)
    world.look()
    looks, locked = threading.Thread(target=world.supervisor._look), world.line.locked
    at_lock = threading.Event()

    def announced() -> AbstractContextManager[None]:
        if threading.current_thread() is looks:
            at_lock.set()
        return locked()

    monkeypatch.setattr(world.line, "locked", announced)
    with world.line.locked():
        looks.start()
        assert at_lock.wait(30)
        world.supervisor.resume(a)
    looks.join()
    assert world.workers[-1].run == a and world.waiting() == ["b"]


def test_the_line_can_go_on_without_the_run_that_was_paused_which_comes_next_when_it_is_asked_for(world: World) -> None:
    a = world.submit("a")
    for name in "bc":
        world.submit(name)
    world.look()
    world.supervisor.pause(a)
    world.look()
    world.line.put(hold=None)
    assert world.look() == "b"
    world.supervisor.resume(a)
    assert world.waiting() == ["a", "c"]
    world.end()
    assert world.look() == "a"


def test_stop_lets_the_next_one_begin(world: World) -> None:
    a, _ = world.submit("a"), world.submit("b")
    world.look()
    world.supervisor.stop(a)
    assert world.look() == "b"


def test_a_held_line_begins_nothing_and_a_hold_of_nobody_ends_with_the_next_start(world: World) -> None:
    world.submit("a")
    world.look()
    world.line.put(hold=Hold(why="person", since=world.time))
    world.submit("b")
    assert world.line.read().hold is None, "nobody waited, so there was nobody to hold"
    world.line.put(hold=Hold(why="person", since=world.time))
    world.end()
    assert world.look(after_s=50) is None


def test_the_same_start_twice_is_one_run_and_another_name_soon_after_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SAME_S", 30.0)  # a busy PC's two seconds are short
    run = world.submit("a", seed=1)
    for name in ("a", "b"):
        with pytest.raises(BusyError, match="second Start was ignored"):
            world.submit(name, seed=1)
    world.look()
    run.add_facts(RunFacts(created=time.time() - 60))
    with pytest.raises(BusyError, match="another name"):
        world.submit("a", seed=1)
    world.submit("b", seed=1)
    assert world.waiting() == ["b"]


def test_a_run_that_a_command_trains_is_waited_for(world: World) -> None:
    recipe = plan.resolve(Recipe.parse({"name": "x", "data": {"source": "sample:pirate_answers"}}), "x", False)
    theirs = Runs(world.space).create(recipe, "command")
    world.submit("a")
    assert world.look() is None
    worker = FakeWorker(theirs)
    assert world.look() == "x"
    worker.end(State.COMPLETED)
    assert world.look() == "a"


def test_an_export_is_waited_for(world: World) -> None:
    from core.workspace import lease

    world.submit("a")
    with lease.hold(world.space, msg("export.lease", name="z")):
        assert world.look() is None
    world.exporting = True  # the next one was begun, and does not hold the device yet
    assert world.look() is None
    world.exporting = False
    assert world.look() == "a"


def test_rows_that_are_written_take_their_turn_between_the_runs(world: World) -> None:
    world.submit("a")
    assert world.look() == "a"
    world.rows.since = time.time()
    world.submit("b")
    assert world.look() == "a" and not world.rows.at_work, "they wait for the run that trains"
    world.end()
    assert world.look() is None and world.rows.at_work and world.waiting() == ["b"], "they were asked for before b"
    world.submit("c")
    assert world.look() is None, "a run that is started meanwhile waits for them"
    world.rows.at_work = False
    assert world.look() == "b"
    world.rows.since = time.time()
    world.end()
    assert world.look() == "c" and not world.rows.at_work, "c was asked for first"
    world.line.put(game=Game(why=msg("game.soon"), since=NOW))
    world.end()
    assert world.look() is None and not world.rows.at_work, "game mode holds them too"
    world.line.put(game=None)
    world.exporting = True
    assert world.look() is None and not world.rows.at_work, "and an export"
    world.exporting = False
    world.look()
    assert world.rows.at_work


def test_a_queue_that_waits_for_a_person_does_not_hold_back_rows(world: World) -> None:
    world.submit("a")
    world.line.put(hold=HELD)
    waiting = [run.id for run in world.supervisor.runs.waiting()]
    world.line.set_time(waiting[0], None, waiting)  # else "now", which no hold delays
    world.rows.since = time.time()
    assert world.look() is None and world.rows.at_work


def test_a_run_that_a_person_pauses_leaves_the_device_free_though_rows_wait(world: World) -> None:
    a = world.submit("a")
    world.look()
    world.rows.since = time.time() - 60
    world.supervisor.pause(a)
    assert world.look(after_s=100) is None and not world.rows.at_work
    hold = world.line.read().hold
    assert hold and hold.why == "paused"
    world.supervisor.resume(a)
    assert world.look() == "a" and not world.rows.at_work, "it goes on before them"
    world.end()
    assert world.look() is None and world.rows.at_work


def test_closing_the_app_begins_nothing_more(world: World) -> None:
    world.submit("a")
    world.submit("b")
    world.look()
    world.supervisor.close()
    assert world.look() is None and world.waiting() == ["b"]


def test_an_end_that_a_full_disk_kept_from_the_line_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = world.submit("a"), world.submit("b")
    world.look()
    world.supervisor.pause(a)

    write = files.replace

    def full(path: Path, data: str | bytes, **how: bool) -> None:
        if path.name == "line.json":
            raise OSError(28, "No space left on device")
        write(path, data, **how)

    with monkeypatch.context() as patched, pytest.raises(RunError, match="No space left"):
        patched.setattr("core.files.replace", full)
        world.look()
    assert world.look() is None and world.line.read().hold.run == a.id, "else b would have begun"


# ---- commands ------------------------------------------------------------------------------------
def test_the_commands_list_move_time_and_take_out(world: World) -> None:
    a, b, c = (world.submit(name) for name in "abc")
    world.look()
    space = world.space
    assert [row["name"] for row in queue.listing(space)["runs"]] == ["b", "c"]
    queue.act(space, "up", "c", None)
    queue.act(space, "at", b.id, "23:00")
    listed = queue.listing(space)
    assert [(row["name"], row["not_before"] is not None) for row in listed["runs"]] == [("c", False), ("b", True)]
    assert listed["app_is_open"], "this process is the app here"
    queue.act(space, "at", b.id, "now")
    queue.act(space, "down", "c", None)
    queue.act(space, "remove", "c", None)
    world.look()
    assert c.status().state == State.STOPPED and world.waiting() == ["b"]
    queue.act(space, "hold", None, None)
    assert queue.listing(space)["hold"]["why"] == "person"
    for action, name, at in (
        ("up", None, None),
        ("up", "a", None),
        ("at", "b", None),
        ("at", "b", "noon"),
        ("remove", "?", None),
    ):
        with pytest.raises(GarageError):
            queue.act(space, action, name, at)


def test_without_an_app_a_run_is_taken_out_at_once_and_blocks_no_command(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    recipe = plan.resolve(Recipe.parse({"name": "x", "data": {"source": "sample:pirate_answers"}}), "x", False)
    run, message = queue.create(space, recipe, RunFacts(), "23:00")
    assert message.params["place"] == 1 and Queue(space).read().runs[0].not_before > time.time()
    assert busy(Runs(space)) is None and not queue.listing(space)["app_is_open"]
    queue.act(space, "remove", run.id, None)
    assert run.status().state == State.STOPPED and queue.listing(space)["runs"] == []


# ---- real processes ------------------------------------------------------------------------------
def test_two_real_runs_train_one_after_the_other(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    space = Workspace.open(tmp_path)

    def wanted(name: str) -> Recipe:
        value = {
            "name": name, "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
            "adapter": {"r": 4},
            "train": {"max_steps": 2, "sample_seconds": 0},
        }  # fmt: skip
        return plan.resolve(Recipe.parse(value), name, has_card=False)

    supervisor = Supervisor(space)
    supervisor.start()
    try:
        a = supervisor.submit(wanted("a"))
        wait_until(lambda: a.status().state != State.QUEUED, 120)
        b = supervisor.submit(with_settings(wanted("b"), "train.seed=7"))
        assert b.status().state == State.QUEUED
        wait_until(lambda: b.status().state == State.COMPLETED, 300)  # seconds on a PC of its own
    finally:
        supervisor.close()
    times = {run.name: [event["time"] for event in run.events() if event["kind"] == "state"] for run in (a, b)}
    assert (
        a.status().state == State.COMPLETED and times["a"][-1] <= times["b"][0] and a.has_adapter() and b.has_adapter()
    )


def test_a_run_that_is_resumed_within_a_tick_of_the_clock_is_seen(workspace: Workspace) -> None:
    """Linux before 6.13 writes the time of a file to four milliseconds, FAT to two seconds."""
    looks = Supervisor(workspace)
    with ScriptedRun(workspace, "back at once") as scripted:
        scripted.to(State.PAUSED, msg("run.paused", step=5))
    file = scripted.run.path / "state.json"
    before = file.stat()
    assert looks._unsettled() == []
    looks.runs.queue_again(scripted.run, "app")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [run.id for run, _ in looks._unsettled()] == [scripted.run.id]


def test_a_queued_run_whose_state_cannot_be_read_for_a_moment_is_begun_afterwards(workspace: Workspace) -> None:
    """As where a scanner holds the file. It waited until the app started again, and what came later waited behind
    it."""
    looks = Supervisor(workspace)
    with ScriptedRun(workspace, "held") as scripted:
        pass
    file = scripted.run.path / "state.json"
    content, before = file.read_bytes(), file.stat()
    file.write_bytes(b"{")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert looks._unsettled() == []
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [run.id for run, _ in looks._unsettled()] == [scripted.run.id]
