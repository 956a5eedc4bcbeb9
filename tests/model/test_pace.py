"""How long a training will take: from earlier runs, and from the size of the model without one."""

from __future__ import annotations

from typing import Any

import pytest

from core import files
from core.memory import budget
from core.memory.budget import Budget
from core.messages import msg
from core.models.known import shape_of_size
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.trial import computed_pace, pace
from core.workspace.folder import Workspace


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
    add_run(workspace, [(t, n // 9) for t, n in STEADY], created=7).add_facts(RunFacts(rows_trained=1))  # of 4 a batch
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


def test_a_pace_is_computed_from_the_size_of_the_model_where_no_run_tells_it(monkeypatch: pytest.MonkeyPatch):
    """8 billion multiplications a token, twice as many operations, three passes of them where activations are
    recomputed; the slowest common GPU of the size, or of the next smaller one."""
    shape = shape_of_size("8B")
    flop = 6 * computed_pace.products_of(shape)
    assert flop == pytest.approx(6 * 8e9, rel=0.1)
    for has_bfloat16, gflops in ((True, 95), (False, 50)):
        monkeypatch.setattr(computed_pace, "has_bfloat16", lambda has=has_bfloat16: has)
        computed = computed_pace.compute(Budget(kind="cpu"), shape, recomputes=True, cores=4)
        assert computed.tokens_per_second == pytest.approx(4 * gflops * 1e9 / flop)
        assert computed.source.key == "pace.computed"
    for there in (budget.planned(12, "Linux"), Budget(kind="card", sold_gb=12.0), Budget(kind="card", sold_gb=13.0)):
        computed = computed_pace.compute(there, shape, recomputes=True, cores=4)
        assert computed.source == msg("pace.computed_for", card="RTX 3060")
        assert computed.tokens_per_second == pytest.approx(0.4 * 25e12 / flop)
    assert computed_pace.compute(Budget(kind="card", sold_gb=4.0), shape, recomputes=True, cores=4) is None
    small = computed_pace.compute(Budget(kind="card", sold_gb=80.0), shape_of_size("135M"), recomputes=False, cores=4)
    assert small.tokens_per_second < 2e4, "it waits for the launches of its layers"
