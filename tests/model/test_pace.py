"""How long a training will take: from earlier runs, from a measurement, and when nothing is measured at all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from core import files
from core.memory import budget
from core.memory.budget import Budget
from core.memory.setup import Setup
from core.messages import msg
from core.models.known import shape_of_size
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.trial import computed_pace, pace
from core.trial.pace import PaceProbe, StandIn
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit.waits import wait_until


def add_run(
    workspace: Workspace,
    steps: list[tuple[float, int]],
    created: float,
    attempt: int = 1,
    method: str = "lora",
    device: str = "cpu",
    state: State = State.COMPLETED,
    **sections: Any,
) -> RunFolder:
    """A completed run whose steps ended at these times with so many tokens seen."""
    recipe = {"name": f"run {created:g}", "data": {"source": "sample:pirate_answers"}, "adapter": {"method": method}}
    run = Runs(workspace).create(Recipe.parse(recipe | sections), "test", RunFacts(device=device, created=created))
    files.replace_json(run.path / "state.json", Status(state=state).model_dump(mode="json"))
    for step, (time, tokens) in enumerate(steps, 1):
        line = {"v": 1, "kind": "train", "attempt": attempt, "step": step, "time": time, "tokens_seen": tokens}
        files.append_line(run.path / "metrics.jsonl", line)
    return run


def like(model: str, method: str, **adapter: Any) -> Recipe:
    return Recipe.parse({"model": {"id": model}, "data": {"source": "x"}, "adapter": {"method": method} | adapter})


# A first step of 20 s that warms up, then 100 tokens a second with a pause for a checkpoint in them: 400 in 4 s.
STEADY = [(20.0, 100), (21.0, 220), (22.0, 340), (23.5, 420), (24.0, 500)]


def test_the_pace_of_a_run_is_its_tokens_over_its_wall_time_without_the_first_step(workspace: Workspace):
    add_run(workspace, STEADY, created=1)
    estimate = pace.from_runs(Runs(workspace), like("starter", "lora"))
    assert estimate.tokens_per_second == pytest.approx(100)
    assert pace.seconds(6_000, estimate) == pytest.approx(60)
    assert "run 1" in estimate.source.render("en") and "run 1" in estimate.source.render("zh")


def test_the_newest_run_that_is_like_it_counts(workspace: Workspace):
    add_run(workspace, STEADY, created=1)
    add_run(workspace, [(t, 2 * n) for t, n in STEADY], created=2)
    add_run(workspace, [(t, 9 * n) for t, n in STEADY], created=3, method="qlora")
    add_run(workspace, [(t, 9 * n) for t, n in STEADY], created=4, state=State.FAILED)
    add_run(workspace, STEADY[:4], created=5)  # too few steps to say anything
    by_rewards = {"train": {"objective": "grpo"}, "rewards": {"judges": [{"kind": "number"}]}}
    add_run(workspace, [(t, n // 9) for t, n in STEADY], created=6, **by_rewards)  # most of its time draws answers
    runs = Runs(workspace)
    assert pace.from_runs(runs, like("starter", "lora")).tokens_per_second == pytest.approx(200)
    assert pace.from_runs(runs, like("starter", "qlora")).tokens_per_second == pytest.approx(900)
    assert pace.from_runs(runs, like("owner/another", "lora")) is None
    for slower in ("use_dora", "load_in_8bit"):
        assert pace.from_runs(runs, like("starter", "lora", **{slower: True})) is None, "its steps take longer"


def test_a_run_on_the_processor_says_nothing_of_a_card(workspace: Workspace):
    add_run(workspace, STEADY, created=1)
    add_run(workspace, [(t, 50 * n) for t, n in STEADY], created=0, device="cuda:0")
    assert pace.from_runs(Runs(workspace), like("starter", "lora"), on_card=True).tokens_per_second == pytest.approx(
        5_000
    )
    assert pace.from_runs(Runs(workspace), like("starter", "lora"), on_card=False).tokens_per_second == pytest.approx(
        100
    )


def test_the_night_between_two_attempts_is_no_training_time(workspace: Workspace):
    run = add_run(workspace, STEADY, created=1)
    for step, (time, tokens) in enumerate(STEADY, 6):
        line = {"kind": "train", "attempt": 2, "step": step, "time": time + 30_000, "tokens_seen": 500 + 3 * tokens}
        files.append_line(run.path / "metrics.jsonl", line)
    assert pace.from_runs(Runs(workspace), like("starter", "lora")).tokens_per_second == pytest.approx(300)


@pytest.mark.parametrize(
    "steps",
    [[], [(1.0, 5)] * 6, [(9.0 - i, 5 * i) for i in range(6)], [(1.0 * i, None) for i in range(6)]],
    ids=["none", "no time passes", "the clock was put back", "no tokens"],
)
def test_a_run_whose_numbers_make_no_sense_is_passed_over(workspace: Workspace, steps: list[tuple[float, Any]]):
    add_run(workspace, steps, created=1)
    assert pace.from_runs(Runs(workspace), like("starter", "lora")) is None


def test_a_run_with_a_broken_recipe_is_passed_over(workspace: Workspace):
    add_run(workspace, STEADY, created=1)
    (add_run(workspace, STEADY, created=2).path / "recipe.yaml").write_text("[", "utf-8")
    assert "run 1" in str(pace.from_runs(Runs(workspace), like("starter", "lora")).source)


SHAPE = ModelShape.from_config(
    {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9,
     "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}
)  # fmt: skip


def stand_in(length: float = 58, **changes: dict) -> StandIn:
    value = {"model": {"id": "starter"}, "data": {"source": "x"}, "adapter": {"r": 8}, **changes}
    return StandIn.from_plan(SHAPE, Setup.from_recipe(Recipe.parse(value), "cpu"), length, 0.42)


STEP = stand_in()


def test_what_is_timed_is_a_step_of_the_plan():
    assert (STEP.hidden_size, STEP.num_hidden_layers, STEP.vocab_size) == (576, 30, 49152)
    assert (STEP.rows, STEP.length, STEP.learned, STEP.four_bit, STEP.gradient_checkpointing) == (
        4,
        64,
        32,
        False,
        False,
    )
    other = stand_in(
        900, adapter={"method": "qlora"}, train={"per_device_train_batch_size": 8, "gradient_checkpointing": True}
    )
    assert (other.rows, other.length, other.four_bit, other.gradient_checkpointing) == (2, 1024, True, True)
    assert stand_in(59) == STEP, "an edit that hardly matters needs no new measurement"


def test_a_measurement_says_that_it_is_rough_and_what_measuring_on_rows_kept_apart_costs():
    estimate = pace.from_step(300, measuring=0.2)
    assert estimate.tokens_per_second == pytest.approx(250)
    assert "rough" in str(estimate.source) and "粗略" in estimate.source.render("zh")


# ---- measuring -----------------------------------------------------------------------------------


class Child:
    """Stands in for the child process: gives out its answers, then fails."""

    def __init__(self, *answers: float | None):
        self.answers, self.asked = list(answers), 0

    def __call__(self, step: StandIn, environment: Mapping[str, str], goes_on: Callable[[], bool]) -> float | None:
        self.asked += 1
        return self.answers.pop(0) if self.answers else None


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    child = Child(0.25)
    monkeypatch.setattr(pace, "run_child", child)
    return child


def this_machine(cpu: str = "A processor") -> Machine:
    return Machine(system="Linux", cpu=cpu)


def test_a_pc_is_measured_once_and_another_processor_again(workspace: Workspace, child: Child):
    child.answers.append(0.5)
    assert PaceProbe(workspace, this_machine).measured(STEP) is None and child.asked == 0
    assert PaceProbe(workspace, this_machine).measure(STEP) == 0.25
    assert (
        PaceProbe(workspace, this_machine).measure(STEP) == PaceProbe(workspace, this_machine).measured(STEP) == 0.25
        and child.asked == 1
    )
    assert PaceProbe(workspace, lambda: this_machine("another")).measure(STEP) == 0.5
    kept = json.loads((workspace.cache / "pace.json").read_text("utf-8"))
    assert list(kept.values()) == [0.25, 0.5] and all("torch 2." in key for key in kept)


def test_nothing_is_measured_while_something_trains(workspace: Workspace, child: Child):
    with lease.hold(workspace, msg("lease.training", name="a run")):
        assert PaceProbe(workspace, this_machine).measure(STEP) is None
        assert str(lease.owner(workspace)) == str(msg("lease.training", name="a run"))
    assert child.asked == 0
    assert PaceProbe(workspace, this_machine).measure(STEP) == 0.25


def test_a_measurement_that_a_run_began_beside_is_thrown_away(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    held = lease.hold(workspace, msg("lease.training", name="a run"))

    def disturbed(step: StandIn, environment: Mapping[str, str], goes_on: Callable[[], bool]) -> float:
        held.__enter__()
        return 0.01

    monkeypatch.setattr(pace, "run_child", disturbed)
    assert (
        PaceProbe(workspace, this_machine).measure(STEP) is None
        and PaceProbe(workspace, this_machine).measured(STEP) is None
    )
    held.__exit__(None, None, None)


def test_begin_returns_at_once_and_a_child_that_failed_is_not_tried_again(workspace: Workspace, child: Child):
    child.answers = [None]
    probe = PaceProbe(workspace, this_machine, rest_s=0)
    probe.begin(STEP)
    wait_until(lambda: probe._failed and not probe.busy, 5)
    probe.begin(STEP)
    assert probe.measured(STEP) is None and child.asked == 1
    child.answers = [0.3]
    other = PaceProbe(workspace, this_machine, rest_s=0)
    other.begin(STEP)
    wait_until(lambda: other.measured(STEP) == 0.3, 5)


def test_of_settings_that_are_tried_one_after_the_other_only_the_last_is_measured(workspace: Workspace, child: Child):
    now = [0.0]
    probe = PaceProbe(workspace, this_machine, rest_s=0.3, steady=lambda: now[0])
    tried = [stand_in(adapter={"r": r}) for r in (8, 16, 32)]
    for step in tried:
        probe.begin(step)
        assert probe.busy
    now[0] = 1.0
    wait_until(lambda: not probe.busy, 5)
    assert child.asked == 1 and [probe.measured(step) for step in tried] == [None, None, 0.25]


def test_a_cache_that_is_no_json_is_measured_anew(workspace: Workspace, child: Child):
    (workspace.cache / "pace.json").write_text("[1", "utf-8")
    assert PaceProbe(workspace, this_machine).measured(STEP) is None
    assert PaceProbe(workspace, this_machine).measure(STEP) == 0.25


def test_a_card_and_the_processor_beside_it_are_measured_apart(workspace: Workspace, child: Child):
    """The processor was said to be as fast as the card."""
    child.answers.append(0.5)
    card = Card(index=0, name="RTX 4060", uuid="GPU-1", free_bytes=1)
    both = Machine(system="Linux", cpu="A processor", nvidia=Nvidia(cards=(card,)))
    probe = PaceProbe(workspace, lambda: both)
    for_card, for_cpu = (STEP.model_copy(update={"device": device}) for device in ("GPU-1", "cpu"))
    assert (probe.measure(for_card), probe.measure(for_cpu)) == (0.25, 0.5)
    kept = json.loads((workspace.cache / "pace.json").read_text("utf-8"))
    assert [key.split(",")[0] for key in kept] == ["RTX 4060", "A processor"]


def test_the_pace_of_another_card_is_not_taken_for_this_one_s(workspace: Workspace):
    run = add_run(workspace, STEADY, created=1, device="cuda:0")
    run.add_facts(RunFacts(device_uuid="GPU-1"))
    question = like("starter", "lora")
    assert pace.from_runs(Runs(workspace), question, True, "GPU-2") is None
    assert pace.from_runs(Runs(workspace), question, True, "GPU-1") and pace.from_runs(Runs(workspace), question, True)


# ---- measurements that end -----------------------------------------------------------------------


class Endless:
    """A measurement for ever, until it is told to end: what run_child is to its caller. And the clock."""

    def __init__(self) -> None:
        self.now, self.at_work, self.begun = 0.0, threading.Event(), []

    def __call__(self, step: StandIn, environment: Mapping[str, str], goes_on: Callable[[], bool]) -> None:
        self.begun.append(step)
        self.at_work.set()
        while goes_on():
            threading.Event().wait(0.001)  # as the process is asked, but oftener
        self.at_work.clear()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Endless:
    child = Endless()
    monkeypatch.setattr(pace, "run_child", child)
    return child


def following(workspace: Workspace, endless: Endless) -> PaceProbe:
    probe = PaceProbe(workspace, this_machine, rest_s=0, steady=lambda: endless.now)
    probe.begin(STEP)
    assert endless.at_work.wait(5)
    return probe


def test_a_measurement_gives_way_once_other_settings_stand(workspace: Workspace, endless: Endless):
    """It went on to its end, up to two minutes, and the settings that were wanted waited."""
    probe = PaceProbe(workspace, this_machine, rest_s=2, steady=lambda: endless.now)
    probe.begin(STEP)
    endless.now = 2.0
    assert endless.at_work.wait(5)
    other = stand_in(adapter={"r": 32})
    probe.begin(other)
    assert endless.begun == [STEP] and probe.busy
    endless.now = 4.1
    wait_until(lambda: endless.begun == [STEP, other], 5)
    probe.rest()
    assert probe._failed == set(), "what was ended may be measured another time"


def test_a_measurement_that_gave_way_for_a_moment_is_made_again(
    workspace: Workspace, endless: Endless, monkeypatch: pytest.MonkeyPatch
):
    """It counted as one that had failed, and the plan had no time until the app was started anew."""
    free = iter([True, False])
    monkeypatch.setattr(PaceProbe, "_device_is_free", lambda self: next(free, True))
    probe = PaceProbe(workspace, this_machine, rest_s=0, steady=lambda: endless.now)
    probe.begin(STEP)
    wait_until(lambda: probe.begin(STEP) or len(endless.begun) > 1, 5)
    assert probe._failed == set()
    probe.rest()


def test_a_measurement_whose_page_was_closed_ends(workspace: Workspace, endless: Endless):
    probe = following(workspace, endless)
    endless.now = pace.ABANDONED_S - 1
    probe.begin(STEP)  # the page is there
    endless.now = pace.ABANDONED_S + 1
    assert probe.busy
    endless.now = 2 * pace.ABANDONED_S
    wait_until(lambda: not probe.busy, 5)
    assert probe.measured(STEP) is None


def test_who_needs_the_device_has_it_at_once_and_keeps_it(workspace: Workspace, endless: Endless):
    """Up to two minutes and 2 GB of the card were the measurement's while a run began."""
    probe = following(workspace, endless)
    probe.rest()
    assert not endless.at_work.is_set()
    probe.begin(STEP)  # the page looks again, before the run's worker has its lease
    wait_until(lambda: not probe.busy, 5)  # what followed it has left
    assert len(endless.begun) == 1
    endless.now += pace.QUIET_S
    probe.begin(STEP)
    wait_until(lambda: len(endless.begun) == 2, 5)
    probe.rest()


def test_known_settings_end_the_measurement_of_others(workspace: Workspace, endless: Endless):
    probe = following(workspace, endless)
    known = stand_in(adapter={"r": 32})
    files.replace_json(workspace.cache / "pace.json", {probe._key(known): 7.0})
    assert probe.look(known) == 7.0
    wait_until(lambda: not probe.busy, 5)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen]]:
    """Real processes that never answer, in the measurement's place."""
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen:
        started.append(real([sys.executable, "-c", "import time; time.sleep(600)"], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    yield started
    assert all(each.poll() is not None for each in started)


def test_the_process_is_gone_when_rest_returns(workspace: Workspace, children: list[subprocess.Popen]):
    probe = PaceProbe(workspace, this_machine, rest_s=0)
    probe.begin(STEP)
    wait_until(lambda: children, 5)
    assert children[0].poll() is None
    probe.rest()
    assert children[0].poll() is not None and probe.measured(STEP) is None


QLORA = {"adapter": {"method": "qlora"}, "train": {"gradient_checkpointing": True}}


@pytest.mark.parametrize("settings", [pytest.param({}, marks=pytest.mark.spawn), QLORA], ids=["16 bit", "4 bit"])
def test_the_real_child_measures_this_pc(settings: dict[str, Any]):
    """Of the starter: between an old laptop and the fastest card there is."""
    assert 0.5 < pace.run_child(stand_in(**settings), {}, lambda: True) < 1e7


def test_a_pace_is_computed_for_a_processor_and_for_planned_gpus_from_the_size_of_the_model_alone():
    """8 billion multiplications a token, twice as many operations, three passes of them where activations are
    recomputed."""
    shape = shape_of_size("8B")
    flop = 6 * computed_pace.products_of(shape)
    assert flop == pytest.approx(6 * 8e9, rel=0.1)
    computed = computed_pace.compute(Budget(kind="cpu"), shape, recomputes=True, cores=4)
    assert computed.tokens_per_second == pytest.approx(4 * 50e9 / flop) and computed.source.key == "pace.computed"
    there = computed_pace.compute(budget.planned(12, "Linux"), shape, recomputes=True, cores=4)
    assert there.source == msg("pace.computed_for", card="RTX 3060") and there.tokens_per_second == pytest.approx(
        0.4 * 25e12 / flop
    )
    assert computed_pace.compute(Budget(kind="card", sold_gb=12.0), shape, recomputes=True, cores=4) is None, (
        "it is here: it is timed"
    )
    assert computed_pace.compute(budget.planned(13, "Linux"), shape, recomputes=True, cores=4) is None
    assert computed_pace.compute(Budget(kind="cpu"), shape_of_size("600M"), recomputes=True, cores=4) is None, (
        "a second's timing tells more"
    )
