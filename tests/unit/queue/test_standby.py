"""When a process waits for a run, and when it ends: rules alone, no process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.advice import plan
from core.queue import standby
from core.queue.standby import (
    CLOSED_S,
    IDLE_S,
    LOOK_S,
    MIN_FREE_TO_BEGIN,
    MIN_FREE_TO_KEEP,
    OPEN_S,
    Standby,
    StartConditions,
)
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.run_json import RunFacts
from core.system import devices
from core.system.machine import Machine
from core.workspace import preferences
from core.workspace.folder import Workspace


class Pretended:
    """In place of standby.StandbyProcess."""

    def __init__(self, workspace: Workspace, device_environment: dict[str, str]):
        self.device_environment, self.start_conditions = device_environment, StartConditions.now(device_environment)
        self.mark, self.report, self.held_bytes, self.is_over, self.ended = "mark", {}, None, False, False

    def end(self) -> None:
        self.ended = True


class Page:
    """A page that is open before a Standby, on a clock of its own."""

    def __init__(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
        self.now, self.free_bytes, self.is_timing, self.is_free = 0.0, 8 << 30, False, True
        self.made: list[Pretended] = []
        monkeypatch.setattr(
            standby, "StandbyProcess", lambda *given: self.made.append(Pretended(*given)) or self.made[-1]
        )
        self.standby = Standby(
            workspace,
            lambda: Machine(system="Linux"),
            lambda: self.is_timing,
            lambda: self.free_bytes,
            lambda: self.now,
        )

    def open(self, seconds: float, beats: bool = True, touched: bool = True, every: float = LOOK_S) -> Pretended | None:
        """What waits after so long."""
        for _ in range(round(seconds / every)):
            self.now += every
            if beats:
                self.standby.note_page(touched)
            self.standby.look(lambda: self.is_free)
        return self.standby._waiting

    def ready(self) -> Pretended:
        waiting = self.open(OPEN_S + 2 * LOOK_S)
        assert waiting
        waiting.held_bytes = 400 << 20
        return waiting


@pytest.fixture
def page(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(workspace, monkeypatch)


def test_nothing_waits_before_a_page_was_open_for_a_while(page: Page) -> None:
    assert page.open(10 * OPEN_S, beats=False) is None, "no page"
    assert page.open(OPEN_S - LOOK_S) is None, "its first paint comes first"
    assert page.open(2 * LOOK_S) and len(page.made) == 1
    assert page.standby.held_bytes is None, "it is not ready"


def hide(page: Page) -> None:
    page.open(CLOSED_S, beats=False)


def leave_it_idle(page: Page) -> None:
    assert page.open(IDLE_S - 60, touched=False, every=60), "not yet"
    assert page.open(60 - 2 * LOOK_S, touched=False), "not yet"
    page.open(4 * LOOK_S, touched=False)


def run_short_of_memory(page: Page) -> None:
    page.free_bytes = MIN_FREE_TO_KEEP
    assert page.open(LOOK_S), "that much is enough to keep it"
    page.free_bytes -= 1
    page.open(LOOK_S)


def train(page: Page) -> None:
    page.is_free = False
    page.open(LOOK_S)


def turn_off(page: Page) -> None:
    preferences.choose(page.standby._workspace, keep_ready=False)
    page.open(LOOK_S)


@pytest.mark.parametrize("happen", [hide, leave_it_idle, run_short_of_memory, train, turn_off])
def test_it_ends_as_soon_as_it_is_of_no_use_or_in_the_way(page: Page, happen: Callable[[Page], None]) -> None:
    waiting = page.ready()
    assert page.standby.held_bytes == 400 << 20
    happen(page)
    assert waiting.ended and page.standby._waiting is None
    page.open(20 * OPEN_S, beats=happen is not hide, touched=False)
    assert len(page.made) == 1, "and none is begun while that is so"


def test_one_comes_again_once_the_run_has_ended_and_once_the_page_is_touched(page: Page) -> None:
    page.ready()
    train(page)
    page.is_free = True
    page.ready()
    leave_it_idle(page)
    assert page.open(10, touched=False) is None and page.open(2 * LOOK_S) is not None and len(page.made) == 3


def test_it_is_begun_beside_no_timed_step_and_where_there_is_room(page: Page) -> None:
    page.is_timing = True
    assert page.open(3 * OPEN_S) is None
    page.is_timing, page.free_bytes = False, MIN_FREE_TO_BEGIN - 1
    assert page.open(3 * OPEN_S) is None
    page.free_bytes += 1
    reading = page.open(2 * LOOK_S)
    page.is_timing = True
    page.open(LOOK_S)
    assert reading and reading.ended, "what still reads would be timed with the step"
    page.is_timing = False
    ready = page.ready()
    page.is_timing = True
    assert page.open(OPEN_S) is ready, "one that only waits takes nothing of the processor"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "HF_TOKEN", devices.VISIBLE])
def test_one_of_another_environment_is_begun_anew_and_never_taken(
    page: Page, workspace: Workspace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runs(workspace).create(
        plan.resolve(Recipe.parse({"data": {"source": "sample:pirate_answers"}}), "x", has_card=False), "app"
    )
    first = page.ready()
    monkeypatch.setenv(name, "3")
    assert page.standby.take_for(run) is None and first.ended
    second = page.ready()
    assert second is not first and second.start_conditions.environment[name] == "3"
    monkeypatch.delenv(name)
    third = page.open(2 * LOOK_S)
    assert second.ended and third not in (None, second), "seen while it waits, too"
    third.held_bytes = 1
    assert page.standby.take_for(run) is third and not third.ended
    assert page.standby.take_for(run) is None, "it is one run's"


def test_a_run_for_another_device_and_one_that_begins_too_early_are_started_anew(
    page: Page, workspace: Workspace
) -> None:
    recipe = plan.resolve(Recipe.parse({"data": {"source": "sample:pirate_answers"}}), "x", has_card=False)
    on_processor = Runs(workspace).create(recipe, "app", RunFacts(wanted_device=devices.CPU))
    waiting = page.ready()
    assert page.standby.take_for(on_processor) is None and waiting.ended, "CUDA_VISIBLE_DEVICES is -1 for it"
    anywhere = Runs(workspace).create(recipe, "app")
    reading = page.open(2 * LOOK_S)
    assert reading and reading.held_bytes is None
    assert page.standby.take_for(anywhere) is None and reading.ended, "the state of a run would wait for libraries"


def test_one_that_ends_by_itself_is_not_begun_again_and_again(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    waiting = page.ready()
    waiting.is_over, waiting.report = True, {"failed": "ImportError: no torch"}
    assert page.open(100 * OPEN_S) is None and len(page.made) == 1
    assert "ImportError: no torch" in caplog.text


def test_where_no_process_can_be_started_the_app_goes_on(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(standby, "StandbyProcess", refuse)
    assert page.open(3 * OPEN_S) is None


def test_a_plan_may_use_what_waits(page: Page) -> None:
    """Else a run that just fits would be refused the RAM that is kept for it."""
    machine = Machine(system="Linux", ram_free_bytes=1 << 30)
    assert page.standby.machine_for_run(machine) == machine
    held = page.ready().held_bytes
    assert page.standby.machine_for_run(machine).ram_free_bytes == (1 << 30) + held
    assert page.standby.machine_for_run(Machine(system="Linux")).ram_free_bytes is None


def test_a_closed_one_begins_nothing(page: Page) -> None:
    waiting = page.ready()
    page.standby.close()
    assert waiting.ended and page.open(10 * OPEN_S) is None


def test_a_setting_that_is_no_yes_or_no_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    from core.errors import RecipeError

    with pytest.raises(RecipeError):
        preferences.choose(workspace, keep_ready="perhaps")
    assert preferences.read(workspace).keep_ready
