"""Game mode: when training makes room by itself, when it goes on, and what is said where that cannot be known."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import RecipeError, RunError
from core.messages import msg
from core.presets import PROJECT
from core.progress import RankUse
from core.queue import game_mode
from core.queue.game_mode import HoldState, Observation, decide, demand_of_card, demand_of_programs
from core.queue.queue import Hold
from core.runs.all import Runs
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system.gpu import Card, Holder, Nvidia
from core.system.machine import Machine
from core.workspace import preferences
from core.workspace.folder import Workspace
from core.workspace.preferences import Automation, Hours, parse_hours, parse_programs
from tests.kit import nvml
from tests.kit.queue import World

GIB = 2**30
GAME = msg("game.program", program="game.exe", gib="5.0")
NIGHT = Hours(begin=22 * 60, end=6 * 60)


# ---- the decision --------------------------------------------------------------------------------


def verdicts(wanted: Automation, *seen: tuple[float, Observation]) -> str:
    """One letter a look: H held, . not; the standing goes from each to the next."""
    standing, letters = HoldState(), ""
    for clock, sight in seen:
        verdict = decide(wanted, sight, standing, clock)
        standing = verdict.state
        letters += "H" if verdict.hold else "."
    return letters


def looks(pattern: str, every_s: float = 5.0, minute: int = 600) -> list[tuple[float, Observation]]:
    """ "g": the game wants the card, "-": nobody does, "?": it cannot be known; one look each every_s."""
    sights = {
        "g": Observation(minute, GAME),
        "-": Observation(minute),
        "?": Observation(minute, None, msg("game.cannot_tell")),
    }
    return [(1000 + i * every_s, sights[letter]) for i, letter in enumerate(pattern)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("-----", "....."),
        ("gg-gg-gg-", "........."),  # never for 10 s on end
        ("ggg", "..H"),
        ("ggg---", "..HHHH"),
        ("ggg------", "..HHHHHH."),  # free for 25 s: it goes on
        ("ggg---g------", "..HHHHHHHHHH."),  # a loading screen begins the waiting anew
        ("?????", "....."),
        ("ggg??????", "..HHHHHH."),
    ],
)
def test_it_pauses_for_what_stays_and_goes_on_when_it_is_over(pattern: str, expected: str) -> None:
    assert verdicts(Automation(watch_card=True, wanted_s=10, free_s=25), *looks(pattern)) == expected


def test_hours_hold_at_once_and_end_at_once_and_tell_how_long() -> None:
    automation = Automation(hours=(NIGHT,))
    verdict = decide(automation, Observation(23 * 60), HoldState(), 0)
    assert verdict.hold and verdict.seconds_left == 7 * 3600 and verdict.why.params["until"] == "06:00"
    observations = [
        (0, Observation(22 * 60 - 1)),
        (60, Observation(22 * 60)),
        (120, Observation(0)),
        (180, Observation(6 * 60 - 1)),
        (240, Observation(6 * 60)),
    ]
    assert verdicts(automation, *observations) == ".HHH."


def test_a_game_that_outlasts_the_hours_keeps_the_card() -> None:
    automation = Automation(hours=(NIGHT,), watch_card=True, wanted_s=10, free_s=25)
    before = decide(automation, Observation(5 * 60 + 59, GAME), HoldState(held=True), 0).state
    assert decide(automation, Observation(6 * 60, GAME), before, 2).hold
    over = decide(automation, Observation(6 * 60), before, 2)
    assert over.hold and over.seconds_left == 25.0


def test_continue_anyway_holds_until_nobody_wants_it_and_counts_once() -> None:
    automation = Automation(watch_card=True, wanted_s=0, free_s=10)
    standing, held = HoldState(ignored=True), ""
    for clock, sight in looks("ggg---ggg"):
        verdict = decide(automation, sight, standing, clock)
        standing, held = verdict.state, held + ("H" if verdict.hold else ".")
    assert held == "......HHH"
    at_night = decide(Automation(hours=(NIGHT,), free_s=0), Observation(0), HoldState(ignored=True), 0)
    assert not at_night.hold and at_night.state.ignored


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", ""),
        ("18:00-23:00", "18:00-23:00"),
        ("7:30 - 8:15，22:00至6:00", "07:30-08:15 22:00-06:00"),
        ("18.00–23.00;\n0:00-0:01", "18:00-23:00 00:00-00:01"),
    ],
)
def test_hours_are_read_as_people_write_them(said: str, found: str) -> None:
    assert " ".join(str(hours) for hours in parse_hours(said)) == found


@pytest.mark.parametrize("said", ["evenings", "18:00", "18-23", "18:00-18:00", "25:00-26:00", "18:00-23:00 7:00-8:00"])
def test_hours_that_are_none_are_said(said: str) -> None:
    with pytest.raises(RecipeError, match="18:00-23:00"):
        parse_hours(said)


def test_hours_over_midnight_cover_both_sides_of_it() -> None:
    assert [NIGHT.covers(m) for m in (22 * 60 - 1, 22 * 60, 1439, 0, 359, 360)] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]


def test_programs_are_known_with_and_without_exe() -> None:
    assert demand_of_programs(("EldenRing",), {"explorer.exe", "eldenring.exe"}) == msg(
        "game.named", program="eldenring.exe"
    )
    assert demand_of_programs(("game.exe",), {"game"}) and demand_of_programs(("game",), {"gamescope"}) is None
    assert parse_programs(" a.exe, b ，a.exe\n") == ("a.exe", "b")
    assert any("python" in name for name in game_mode.running_programs())


def test_a_file_that_is_damaged_gives_the_defaults_which_do_nothing(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    automation = Automation(hours=(NIGHT,), programs=("a",), min_gib=2.5)
    preferences.choose(space, automation=automation)
    assert preferences.read(space).automation == automation
    for damage in ("", "[]", '{"automation": {"hours": "late"}}', '{"automation": {"min_gib": -1}}'):
        (tmp_path / "preferences.json").write_text(damage, "utf-8")
        assert preferences.read(space).automation == Automation() and not Automation().game_mode


# ---- who wants the card --------------------------------------------------------------------------


def card(used_gib: float | None, *holders: tuple[int, float | None], utilization: int = 5) -> Card:
    held = tuple(
        Holder(pid=pid, name=f"p{pid}", used_bytes=None if gib is None else int(gib * GIB)) for pid, gib in holders
    )
    used = None if used_gib is None else int(used_gib * GIB)
    return Card(index=0, total_bytes=24 * GIB, used_bytes=used, holders=held, utilization_percent=utilization)


OURS = {1, 2}


@pytest.mark.parametrize(
    ("seen", "at_work", "our_gib", "wish", "unknown"),
    [
        (card(9.0, (2, 8.0), (5, 0.4)), True, 7.4, None, None),  # a desktop beside training
        (card(13.0, (2, 8.0), (5, 4.0)), True, 7.4, "game.program", None),
        (card(0.8, (5, 0.5)), False, None, None, None),
        (card(5.0, (5, 4.5)), False, None, "game.program", None),
        (card(0.9, (5, 0.5), utilization=80), False, None, "game.computing", None),  # a small game, training paused
        (card(8.9, (2, 8.0), (5, 0.5), utilization=99), True, 7.4, None, None),  # that is training itself
        (card(0.5), False, None, None, None),
        # Windows: programs are listed, their memory is not.
        (card(9.5, (2, None), (5, None)), True, 7.4, None, None),
        (card(14.0, (2, None), (5, None)), True, 7.4, "game.somebody", None),
        (card(1.2, (5, None)), False, None, None, None),
        (card(6.0, (5, None)), False, None, "game.somebody", None),
        (card(14.0, (2, None), (5, None)), True, None, None, "game.cannot_tell"),  # training has not told its own yet
        # A container: the numbers are another namespace's, so our own 8 GiB stand under a name that is not ours.
        (card(8.2, (4242, 8.1)), True, 7.4, None, None),
        (card(14.0, (4242, 8.1), (4243, 5.0)), True, 7.4, "game.somebody", None),
        (card(None, (5, None)), False, None, None, "game.cannot_tell"),
        (card(6.0).model_copy(update={"holders": None}), False, None, "game.somebody", None),
        (card(1.0).model_copy(update={"holders": None}), False, None, None, None),
        (Card(index=0, lost=True), False, None, None, "game.no_card"),
        (None, False, None, None, "game.no_card"),
    ],
)
def test_who_wants_the_card(
    seen: Card | None, at_work: bool, our_gib: float | None, wish: str | None, unknown: str | None
) -> None:
    demand, doubt = demand_of_card(seen, OURS, at_work, None if our_gib is None else int(our_gib * GIB), min_gib=1.0)
    assert (demand and demand.key, doubt and doubt.key) == (wish, unknown)
    assert "{" not in (demand or doubt or msg("game.soon")).render("zh")


def test_what_the_drivers_own_library_tells_names_the_program(tmp_path: Path) -> None:
    """Through the real pynvml on a stand-in for libnvidia-ml: a program with 6 GiB, then none, then one without
    bytes."""
    folder = nvml.compile(tmp_path)
    script = (
        "from core.system import gpu; from core.queue import game_mode; import sys\n"
        "card = gpu.probe().cards[0]; wish, unknown = game_mode.demand_of_card(card, set(), False, None, 1.0)\n"
        "print(wish.render() if wish else wish, '|', unknown.render() if unknown else unknown)"
    )

    def say(scenario: nvml.Scenario) -> str:
        file = nvml.write(tmp_path / "cards.txt", scenario)
        environment = os.environ | nvml.environment(folder, file)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, env=environment, timeout=60
        )
        return done.stdout.strip() or done.stderr

    one = nvml.cards(nvml.card(0, "RTX", 8188, 6800, graphics=f"{os.getpid()}:6144"))
    assert say(one).startswith("“python") and "uses 6.0 GiB" in say(one)
    assert say(nvml.EIGHT_GB) == "None | None"
    assert "6.6 GiB of the GPU; the driver does not report which" in say(one | {"0.compute": "!3", "0.graphics": "!3"})
    assert "No GPU" in say(nvml.dead(nvml.EIGHT_GB))


# ---- the run -------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(Workspace.open(tmp_path / "ws"), monkeypatch)
    yield made
    for worker in made.workers:
        worker._lock.release(force=True)


def with_programs(world: World, *names: str) -> None:
    preferences.choose(world.space, automation=Automation(programs=names, wanted_s=10, free_s=60))


def test_a_game_pauses_the_run_says_why_and_the_run_goes_on_after_it(world: World) -> None:
    with_programs(world, "game")
    a, _ = world.submit("a"), world.submit("b")
    assert world.look() == "a"
    world.programs = {"game.exe"}
    assert world.look(after_s=5) == "a"
    world.look(after_s=12)
    assert world.look(after_s=3) is None and a.status().state == State.PAUSED
    game = world.line.read().game
    assert game.run == a.id and game.why == msg("game.named", program="game.exe") and world.waiting() == ["b"]
    world.programs = set()
    assert world.look(after_s=5) is None
    assert abs(world.line.read().game.until - world.time - 60) < 5
    assert world.look(after_s=61) == "a", "before b, which waited behind it"
    assert a.status().attempt == 2 and world.line.read().game is None
    world.end()
    assert world.look() == "b"


def test_nothing_begins_while_a_game_runs(world: World) -> None:
    with_programs(world, "game")
    world.programs = {"game"}
    world.look(after_s=5)
    world.look(after_s=15)
    world.submit("a")
    assert world.look(after_s=5) is None and world.waiting() == ["a"] and world.line.read().game.run is None
    world.programs = set()
    world.look(after_s=5)
    assert world.look(after_s=65) == "a"


def test_chosen_hours_pause_and_end(world: World) -> None:
    noon = time.mktime((2026, 6, 15, 12, 0, 0, 0, 0, -1))
    preferences.choose(world.space, automation=Automation(hours=(Hours(begin=18 * 60, end=23 * 60),)))
    world.time = noon
    a = world.submit("a")
    assert world.look() == "a"
    world.time = noon + 6 * 3600
    world.look(after_s=3)
    assert world.look(after_s=3) is None and a.status().state == State.PAUSED
    assert abs(world.line.read().game.until - noon - 11 * 3600) < 60
    world.time = noon + 11 * 3600
    assert world.look(after_s=3) == "a"


def paused_by_game(world: World) -> object:
    with_programs(world, "game")
    a = world.submit("a")
    world.submit("b")
    world.look()
    world.programs = {"game"}
    for _ in range(4):
        world.look(after_s=6)
    assert a.status().state == State.PAUSED and world.line.read().game.run == a.id
    return a


def test_continue_anyway_lets_it_train_beside_the_game_until_the_next_one(world: World) -> None:
    a = paused_by_game(world)
    world.supervisor.continue_anyway()
    assert world.look() == "a"
    assert world.look(after_s=600) == "a"
    world.programs = set()
    world.look(after_s=5)
    world.look(after_s=65)
    assert not world.line.read().ignore_game
    world.programs = {"game"}
    for _ in range(4):
        world.look(after_s=6)
    assert a.status().state == State.PAUSED


def test_continue_anyway_counts_while_it_is_still_being_paused(world: World) -> None:
    """It was lost: the run stood still for good, and the ones behind it began in its place."""
    with_programs(world, "game")
    a = world.submit("a")
    world.submit("b")
    world.look()
    poll, world.workers[-1].poll = world.workers[-1].poll, lambda: None  # it saves, which takes its time
    world.programs = {"game"}
    for _ in range(4):
        world.look(after_s=6)
    assert a.requested_by == "game" and world.line.read().game.run is None
    world.supervisor.continue_anyway()
    world.workers[-1].poll = poll
    assert world.look() == "a" and world.look(after_s=600) == "a" and world.waiting() == ["b"]


def test_resume_on_the_run_itself_means_the_same(world: World) -> None:
    a = paused_by_game(world)
    world.supervisor.resume(a)
    assert world.look(after_s=30) == "a" and world.line.read().ignore_game


def test_stay_paused_is_the_persons_word_and_the_line_waits_for_it(world: World) -> None:
    a = paused_by_game(world)
    world.supervisor.stay_paused()
    world.programs = set()
    world.look(after_s=5)
    assert world.look(after_s=100) is None and a.status().state == State.PAUSED
    assert world.line.read().game is None and world.line.read().hold.why == "paused"


def test_stay_paused_keeps_a_hold_while_no_run_waits_and_holds_what_else_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused_by_game(world)
    for run in world.supervisor.runs.waiting():
        world.supervisor.stop(run)
    world.look()
    game, hold = world.line.read().game, Hold(why="person", since=world.time)
    world.line.put(hold=hold)
    world.supervisor.stay_paused()
    assert world.line.read().hold == hold
    world.line.put(game=game)
    monkeypatch.setattr(world.supervisor.turns.other, "waits_since", lambda: world.time)
    world.supervisor.stay_paused()
    assert world.line.read().hold.why == "paused"


def test_a_resume_that_fails_leaves_game_mode_its_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = paused_by_game(world)
    before = world.line.read()

    def refuse(*_: object) -> None:
        raise RunError("run.gone", name="a")

    monkeypatch.setattr(Runs, "queue_again", refuse)
    with pytest.raises(RunError):
        world.supervisor.resume(a)
    assert before.game.run == a.id and world.line.read() == before


def test_a_pause_that_a_person_asked_for_is_not_undone_when_the_game_ends(world: World) -> None:
    with_programs(world, "game")
    a = world.submit("a")
    world.look()
    world.supervisor.pause(a)
    world.programs = {"game"}
    for _ in range(4):
        world.look(after_s=6)
    world.programs = set()
    world.look(after_s=5)
    world.look(after_s=100)
    assert a.status().state == State.PAUSED and a.status().attempt == 1


def test_stop_wins_over_game_mode(world: World) -> None:
    with_programs(world, "game")
    a = world.submit("a")
    world.look()
    a.request("pause", by="game")
    world.supervisor.stop(a)
    world.look()
    assert a.status().state == State.STOPPED


def test_a_restart_while_a_game_runs_offers_the_run_and_starts_nothing(world: World) -> None:
    a = paused_by_game(world)
    world.open()
    world.programs = set()
    assert world.look(after_s=500) is None and a.status().state == State.PAUSED and world.line.read().game is None


def test_switching_game_mode_off_lets_what_it_paused_go_on(world: World) -> None:
    paused_by_game(world)
    preferences.choose(world.space, automation=Automation())
    world.look(after_s=5)
    assert world.look(after_s=130) == "a"


def test_a_card_that_another_program_fills_pauses_the_run(world: World) -> None:
    preferences.choose(world.space, automation=Automation(watch_card=True, wanted_s=5, free_s=10))
    busy = Machine(system="Linux", nvidia=Nvidia(cards=(card(7.0, (999_999, 6.0)),)))
    idle = Machine(system="Linux", nvidia=Nvidia(cards=(card(0.5),)))
    world.supervisor.turns._machine = lambda: machine
    machine = idle
    a = world.submit("a")
    assert world.look(after_s=5) == "a"
    a.log_metrics("gpu", 1, 1, memory_bytes=2 * GIB)
    machine = Machine(system="Linux", nvidia=Nvidia(cards=(card(9.0, (os.getpid(), 2.5), (999_999, 6.0)),)))
    world.look(after_s=3)
    world.look(after_s=6)
    assert world.look(after_s=3) is None and world.line.read().game.why.params["program"] == "p999999"
    machine = busy
    assert world.look(after_s=30) is None
    machine = idle
    world.look(after_s=3)
    assert world.look(after_s=11) == "a"


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("ranks", "is_held"), [(2, True), (1, False)])
def test_a_run_on_two_cards_makes_room_on_either_and_one_on_the_first_alone_on_that(
    world: World, ranks: int, is_held: bool, told: bool
) -> None:
    """The second one was not looked at. told: whether the driver tells whose the memory is, as Windows' does not."""
    preferences.choose(world.space, automation=Automation(watch_card=True, wanted_s=5, free_s=10))

    def two(game_gib: float) -> Machine:
        worker, game = (os.getpid(), 2.5 if told else None), (999_999, game_gib if told else None)
        cards = (card(3.1, worker), card(3.1 + game_gib, worker, *([game] if game_gib else [])))
        named = (
            each.model_copy(update={"index": i, "uuid": f"GPU-{i}", "name": f"RTX {i}"}) for i, each in enumerate(cards)
        )
        return Machine(system="Linux", nvidia=Nvidia(cards=tuple(named)))

    world.supervisor.turns._machine = lambda: machine
    machine = two(0.0)
    a = world.submit("a")
    a.add_facts(RunFacts(wanted_device="GPU-0", wanted_beside={"GPU-1": "RTX 1"}, ranks=ranks))
    assert world.look(after_s=5) == "a"
    use = tuple(RankUse(device=f"RTX {i}", used_bytes=int(2.5 * GIB), total_bytes=24 * GIB) for i in range(2))
    a.write_status(a.status().model_copy(update={"ranks": use}))
    assert [world.look(after_s=6) for _ in range(3)] == ["a", "a", "a"]
    machine = two(6.0)
    for _ in range(3):
        world.look(after_s=6)
    assert (a.status().state == State.PAUSED) == is_held
