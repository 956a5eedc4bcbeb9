"""A run that looks after itself: faults injected while it trains, and the curve goes on or the run stops with its
sentence.

Memory that is not enough is raised between the layers, forwards and backwards, where an allocator raises it too.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch

from core.advice import plan
from core.data.labels import Encoded
from core.engine import adapter, base_model
from core.engine.batches import collate
from core.engine.loss import summed_loss
from core.engine.out_of_memory import CHECKPOINTING, HALVE, OFFLOAD, NothingLeftError, Retreat
from core.engine.step import LongestBatch
from core.engine.variants.layers import stop_inside_layers
from core.errors import PauseRequested
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.queue.supervisor import spawn_worker
from core.recipe import Adapter, Recipe
from core.runs import best, further
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.health import Health
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.training import checkpoint
from core.training.memory.probe import Probe
from core.training.recovery import NotFiniteError
from core.training.trainer import Ahead, Trainer, TrainingData
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun, with_settings
from tests.kit.trainer import FP32, Pausing, adapter_of, assembled, assert_same, rows, run_paused, tiny_base
from webui.kit.wording import Wording
from webui.run import card as run_panel
from webui.state.curves import Curves
from webui.state.services import Services


class Watched(Pausing):
    """Keeps what is said too, in the run's own events."""

    def __init__(self, run: RunFolder, at: int | None = None) -> None:
        super().__init__(run, at)
        self.lines: list[tuple[str, int]] = []

    def metrics(self, kind: str, step: int, **numbers: float) -> None:
        super().metrics(kind, step, **numbers)
        self.lines.append((kind, step))


def trainer_of(
    folder: Path,
    pause_at: int | None = None,
    make: Callable[[], Any] = tiny_base,
    lora: dict | None = None,
    rows_of: TrainingData | None = None,
    advice_when_full: Callable[[Ahead], Message] | None = None,
    **settings: Any,
) -> Trainer:
    """A trainer in folder, gone on from its newest checkpoint where an earlier one left one."""
    torch.manual_seed(1)
    tuned = adapter.add(make(), Adapter(r=4, **(lora or {})), "tiny", None)
    train = {
        "max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
        "eval_steps": 3, "save_steps": 3, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    data = {"source": "x", "max_length": 16} | settings.pop("data", {})
    recipe = plan.resolve(Recipe.parse({"data": data, "train": train | settings}), "x", has_card=False)
    return assembled(tuned, recipe, Watched(RunFolder(folder), pause_at), rows_of, advice_when_full=advice_when_full)


def guard_keys(trainer: Trainer) -> list[str]:
    """The keys of what the run told of itself."""
    return [event["message"]["key"] for event in trainer.reporter.run.events() if event["kind"] == "guard"]


def nearly_the_same(trainer: Trainer, whole: Trainer, but: bool = False) -> None:
    """but: for one measurement that was left out."""
    expected, found = whole.reporter.numbers, trainer.reporter.numbers
    if but:
        [left_out] = expected.keys() - found.keys()
        assert left_out[0] == "eval"
        expected = {key: value for key, value in expected.items() if key != left_out}
    assert found == pytest.approx(expected, rel=2e-4)
    torch.testing.assert_close(adapter_of(trainer), adapter_of(whole), rtol=1e-2, atol=1e-3)
    assert trainer.position.tokens_seen == whole.position.tokens_seen


# ---- the memory is not enough --------------------------------------------------------------------


STEP = msg("retreat.in_step", step=5)


class NoMemory:
    """Raises torch's own error the n-th time that a layer is entered, forwards or backwards, for each n of at."""

    def __init__(self, *at: int) -> None:
        self.at, self.calls, self.raised = set(at), 0, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls in self.at:
            self.raised += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def run_with(trainer: Trainer, fault: Callable[[], None]) -> Trainer:
    with stop_inside_layers(trainer.step.tuned, fault):
        trainer.run()
    return trainer


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "padded"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, dict, int]:
    how = {"data": {"packing": request.param}}
    count = NoMemory()
    return run_with(trainer_of(tmp_path_factory.mktemp("whole"), **how), count), how, count.calls


# A micro-batch of one example cannot become two; in a measurement it is left out.
WAYS = [["retreat.batch"], ["retreat.packed"], ["retreat.checkpointing"], ["retreat.not_measured"]]
LOOKED_AT_BEFORE = 2  # layers entered while fused_lora looks at the model, before there is anything to go back to


def test_wherever_the_memory_was_not_enough_the_curve_is_that_of_an_undisturbed_run(
    undisturbed: tuple[Trainer, dict, int], tmp_path: Path, full: bool
) -> None:
    """Forwards, backwards, in the first and the last micro-batch of a step, in a measurement."""
    whole, how, calls = undisturbed
    places = range(LOOKED_AT_BEFORE + 1, calls + 1)
    for at in places if full else [places[0], *random.Random(7).sample(places[1:-1], 3), places[-1]]:
        fault = NoMemory(at)
        trainer = run_with(trainer_of(tmp_path / str(at), **how), fault)
        assert fault.raised == 1 and guard_keys(trainer) in WAYS, at
        nearly_the_same(trainer, whole, but=guard_keys(trainer) == ["retreat.not_measured"])


def test_several_times_in_a_run_it_saves_more_each_time_and_the_curve_still_goes_on(
    undisturbed: tuple[Trainer, dict, int], tmp_path: Path
) -> None:
    whole, how, calls = undisturbed
    fault = NoMemory(7, 11, 40)  # the first two in the first step
    trainer = run_with(trainer_of(tmp_path, eval_steps=100, **how), fault)
    keys = guard_keys(trainer)
    assert fault.raised == 3 == len(keys) and keys[0] in ("retreat.batch", "retreat.packed")
    assert trainer.step.retreat.at_once < Retreat.from_recipe(trainer.recipe, trainer.step.packed, False).at_once
    train = {key: value for key, value in whole.reporter.numbers.items() if key[0] == "train"}
    lines = {key: value for key, value in trainer.reporter.numbers.items() if key[0] == "train"}
    assert lines == pytest.approx(train, rel=2e-4)


def test_where_the_optimizer_gets_no_memory_for_its_state_the_first_step_is_made_anew(tmp_path: Path) -> None:
    """Half of the parameters were corrected already: they are what they were before it."""
    uninterrupted, trainer = trainer_of(tmp_path / "whole"), trainer_of(tmp_path / "run")
    uninterrupted.run()
    step, calls = trainer.step.optimizer.step, []

    def half(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return step(*args, **kwargs)
        with torch.no_grad():
            trainer.step.parameters[0].add_(1.0)
        trainer.step.optimizer.state[trainer.step.parameters[0]] = {"step": torch.tensor(1.0)}
        raise torch.OutOfMemoryError("no room for the state")

    trainer.step.optimizer.step = half
    trainer.run()
    assert len(guard_keys(trainer)) == 1
    nearly_the_same(trainer, uninterrupted)


def test_what_was_given_up_is_given_up_in_this_order_until_nothing_is_left() -> None:
    recipe = Recipe.parse({"data": {"source": "x", "packing": False}, "train": {"per_device_train_batch_size": 4}})
    lengths = [9, 8, 7, 6]
    card, processor = (
        Retreat.from_recipe(recipe, False, on_card=True),
        Retreat.from_recipe(recipe, False, on_card=False),
    )
    messages = [card.take_next(card.parts([0, 1, 2, 3], lengths)[0], lengths, STEP) for _ in range(5)]
    assert card.reductions == [HALVE, HALVE, CHECKPOINTING, OFFLOAD] and messages[-1] is None
    assert [(each.params.get("before"), each.params.get("now")) for each in messages[:2]] == [(4, 2), (2, 1)]
    assert card.parts([0, 1, 2, 3], lengths) == [[0], [1], [2], [3]]
    assert [processor.take_next([3], lengths, STEP).key, processor.take_next([3], lengths, STEP)] == [
        "retreat.checkpointing",
        None,
    ]
    assert Retreat.from_recipe(recipe, False, True).take_next([3], lengths, STEP, measuring=True) is None, (
        "measuring keeps nothing for a way back"
    )


def test_a_packed_micro_batch_becomes_two_that_hold_half_of_its_tokens() -> None:
    recipe = Recipe.parse({"data": {"source": "x", "max_length": 16}, "train": {"per_device_train_batch_size": 4}})
    lengths, rows_then = [10, 9, 8, 6, 5, 4], [5, 0, 1, 2, 3, 4]
    retreat = Retreat.from_recipe(recipe, True, on_card=False)
    assert retreat.parts(rows_then, lengths) == [rows_then]
    retreat.take_next(rows_then, lengths, STEP)
    halves = retreat.parts(rows_then, lengths)
    assert (
        sorted(sum(halves, [])) == list(range(6))
        and max(sum(lengths[i] for i in half) for half in halves) <= 32 == retreat.at_once
    )
    retreat.take_next([5, 4], lengths, STEP)  # together 9 tokens: capacities that change nothing are passed over
    assert retreat.at_once == 8 and all(len(part) == 1 for part in retreat.parts(rows_then, lengths))


def test_the_run_stops_with_what_would_fit_where_nothing_is_left(tmp_path: Path) -> None:
    def advice_when_full(ahead: Ahead) -> Message:
        return Message(key="probe.advice_nothing", params={"asked": ahead.step is trainer.step})

    trainer = trainer_of(tmp_path, advice_when_full=advice_when_full, save_steps=2)

    def fault() -> None:
        if trainer.position.step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(NothingLeftError, match="Step 5 ran out of memory") as stopped:
        run_with(trainer, fault)
    assert stopped.value.advice.params == {"asked": True}
    assert (
        guard_keys(trainer) == ["retreat.packed"] * (len(guard_keys(trainer)) - 1) + ["retreat.checkpointing"]
        and len(guard_keys(trainer)) > 1
    )
    assert trainer.position.step == 4 and [step for kind, step in trainer.reporter.lines if kind == "train"] == [
        1,
        2,
        3,
        4,
    ]
    reached = trainer_of(tmp_path / "reached", max_steps=6)
    assert reached.schedule == trainer.schedule
    go = reached.reporter
    go.check = lambda: (_ for _ in ()).throw(PauseRequested) if reached.position.step == 4 else None
    with pytest.raises(PauseRequested):
        reached.run()
    assert torch.equal(adapter_of(trainer), adapter_of(reached)), (
        "the adapter of the last finished step, untouched by the retreats"
    )


def test_a_longest_batch_that_does_not_fit_is_computed_in_parts_before_the_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = trainer_of(tmp_path / "whole")
    uninterrupted.run()
    trainer = trainer_of(tmp_path / "run")
    rehearse = trainer.step.rehearse

    def scarce(longest: LongestBatch) -> None:
        if longest.tokens > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rehearse(longest)

    monkeypatch.setattr(trainer.step, "rehearse", scarce)
    assert trainer.longest().tokens > 32
    shape = ModelShape.from_config(trainer.step.tuned.get_base_model().config.to_dict())
    trainer.run(Probe(trainer.reporter.run, Workspace.open(tmp_path / "ws"), trainer.recipe, shape))
    assert guard_keys(trainer) == ["retreat.packed"] and trainer.step.retreat.at_once == 32
    nearly_the_same(trainer, uninterrupted)


def test_another_error_is_no_lack_of_memory(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)

    def fault() -> None:
        if trainer.position.step == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        run_with(trainer, fault)
    assert guard_keys(trainer) == []


def test_a_run_that_is_paused_after_a_retreat_is_the_one_that_was_not(tmp_path: Path) -> None:
    """In float32 bit for bit: it goes on with what it gave up, also when it was paused in the very step."""
    uninterrupted = run_with(trainer_of(tmp_path / "whole", lora={"lora_dropout": 0.2}), NoMemory(9))
    for pause in (8, 22):
        numbers: dict = {}
        for attempt, at in enumerate((pause, None)):
            trainer = trainer_of(tmp_path / str(pause), at, lora={"lora_dropout": 0.2})
            # As often as the layers are entered before the pause; the fault of the first attempt belongs to it alone.
            fault = (
                NoMemory(9)
                if attempt == 0 or not trainer.position.retreats and trainer.position.step == 0
                else NoMemory()
            )
            try:
                run_with(trainer, fault)
            except PauseRequested:
                if trainer.position.step:
                    trainer.checkpoint()
            numbers |= trainer.reporter.numbers
        assert numbers == uninterrupted.reporter.numbers, pause
        assert torch.equal(adapter_of(trainer), adapter_of(uninterrupted)), pause


@pytest.mark.full
def test_the_starter_in_float32_goes_on_within_noise(starter_folder: Path, tmp_path: Path) -> None:
    """Two random moments of a run of the starter, anywhere in it."""

    def make() -> Any:
        return base_model.load(starter_folder, FP32, four_bit=False)

    how = {"make": make, "max_steps": 3, "gradient_accumulation_steps": 1, "eval_steps": 2, "learning_rate": 1e-3}
    count = NoMemory()
    expected = run_with(trainer_of(tmp_path / "whole", **how), count)
    layers = expected.step.tuned.config.num_hidden_layers
    for seed in range(1, 6):
        chosen = random.Random(seed).sample(range(layers + 1, count.calls + 1), 2)
        fault = NoMemory(*chosen)
        trainer = run_with(trainer_of(tmp_path / str(seed), **how), fault)
        assert fault.raised == 2 == len(guard_keys(trainer)), chosen
        assert trainer.reporter.numbers == pytest.approx(expected.reporter.numbers, rel=1e-4)


# ---- a step that gives no number -----------------------------------------------------------------

POISON = 3  # a token


def poisoned(*which: int) -> list[Encoded]:
    """Rows of which some hold a token whose embedding is infinite, and no other does."""
    examples = [Encoded([4 if token == POISON else token for token in row.input_ids], row.learned) for row in rows(20)]
    for i in which:
        examples[i].input_ids[0] = POISON
    return examples


def poisoned_base() -> Any:
    base = tiny_base()
    with torch.no_grad():
        base.get_input_embeddings().weight[POISON] = float("inf")
    return base


def trainer_on(folder: Path, data: list[Encoded], **how: Any) -> Trainer:
    return trainer_of(folder, rows_of=TrainingData(data, [], 0), **how)


def test_a_poisoned_row_costs_the_steps_that_read_it_and_nothing_else(tmp_path: Path) -> None:
    how = {"make": poisoned_base, "max_steps": 9, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = trainer_on(tmp_path / "run", poisoned(7), **how)
    trainer.run()
    guards = [event for event in trainer.reporter.run.events() if event["kind"] == "guard"]
    reading = [n for n, batches in enumerate(trainer.schedule.steps(), 1) if any(7 in batch for batch in batches)]
    assert [event["step"] for event in guards] == reading and {event["message"]["key"] for event in guards} == {
        "sanity.left_out"
    }
    assert trainer.position.step == 9 and adapter_of(trainer).isfinite().all()
    clean = trainer_on(tmp_path / "clean", poisoned(), **how)
    clean.run()
    first = reading[0]
    for step in range(1, first):
        assert trainer.reporter.numbers["train", step] == clean.reporter.numbers["train", step]
    finite = [value for value in trainer.reporter.numbers.values() if math.isfinite(value)]
    assert len(finite) == 9 - len(reading) and "nan" in guards[0]["message"]["params"]["loss"]


def test_three_in_a_row_go_back_once_with_half_the_rate_and_then_the_run_ends_with_the_last_good_adapter(
    tmp_path: Path,
) -> None:
    """From step 6 on nothing gives a number any more, whatever is tried."""
    trainer = trainer_of(tmp_path, max_steps=12, save_steps=2, lr_scheduler_type="constant")
    rates: dict[int, list[float]] = {}
    weight = trainer.step.tuned.get_base_model().get_input_embeddings().weight
    good = weight.detach().clone()
    before, at_five = trainer._step, []

    def step(number: int, micro_batches: Any) -> Any:
        with torch.no_grad():
            weight.copy_(good if number <= 5 else torch.full_like(good, math.nan))
        at_five[:] = [adapter_of(trainer)] if number == 6 else at_five
        groups = before(number, micro_batches)
        rates.setdefault(number, []).append(groups[0]["learning_rate"])
        return groups

    trainer._step = step
    with pytest.raises(NotFiniteError) as ended:
        trainer.run()
    assert guard_keys(trainer) == ["sanity.left_out"] * 2 + ["sanity.no_numbers"] + ["sanity.left_out"] * 2
    assert rates == {
        1: [1e-2],
        2: [1e-2],
        3: [1e-2],
        4: [1e-2],
        5: [1e-2, 5e-3],
        6: [1e-2, 5e-3],
        7: [1e-2, 5e-3],
        8: [1e-2, 5e-3],
    }
    assert ended.value.message.key == "run.not_finite" and "half the learning rate" in str(ended.value)
    assert torch.equal(adapter_of(trainer), at_five[0]), "step 5 was learned with half the rate, and nothing since"
    assert checkpoint.read(trainer.reporter.run.checkpoints()[-1]).position.health.back == 1


def test_where_no_step_ever_gave_a_number_nothing_is_kept(tmp_path: Path) -> None:
    def make() -> Any:
        base = tiny_base()
        with torch.no_grad():
            base.get_input_embeddings().weight.fill_(math.nan)
        return base

    trainer = trainer_of(tmp_path, make=make)
    with pytest.raises(NotFiniteError) as ended:
        trainer.run()
    assert ended.value.message.key == "run.not_finite_at_once" and trainer.position.step == 0


def test_a_run_paused_among_steps_without_a_number_is_the_one_that_was_not(tmp_path: Path) -> None:
    how = {"make": poisoned_base, "max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    which = (0, 3, 7, 11, 12, 15)

    def attempts(folder: Path, *pauses: int) -> tuple[Trainer, dict, list]:
        numbers: dict = {}
        for at in (*pauses, None):
            trainer = trainer_on(folder, poisoned(*which), pause_at=at, **how)
            try:
                trainer.run()
            except PauseRequested:
                if trainer.position.step:
                    trainer.checkpoint()
            except NotFiniteError:
                pass
            numbers |= trainer.reporter.numbers
        return trainer, {key: value for key, value in numbers.items() if math.isfinite(value)}, guard_keys(trainer)

    whole, expected, told = attempts(tmp_path / "whole")
    assert "sanity.no_numbers" in told or told.count("sanity.left_out") > 2, "else nothing is shown by this"
    for at in (20, 45):
        paused, numbers, _ = attempts(tmp_path / str(at), at, 9)
        assert numbers == expected and torch.equal(adapter_of(paused), adapter_of(whole)), at


def test_what_a_run_makes_of_its_losses() -> None:
    health = Health()
    health.note_start(2.0)
    assert [health.judge(2.4, True, 1), health.judge(math.nan, False, 2)] == [
        "good",
        "skip",
    ] and health.started_at == 2.4
    assert [health.judge(loss, True, 9) for loss in (5.5, 9.0, 5.5, 5.5)] == ["good"] * 4 and not health.is_worth_saving
    assert health.judge(5.3, True, 9) == "good" and health.far == 0, "one that is less far begins the count anew"
    assert not health.is_good and health.is_worth_saving
    verdicts = [health.judge(6.0, True, 9) for _ in range(5)]
    assert verdicts == ["good"] * 4 + ["roll_back"] and health.has_diverged
    again = Health(started_at=2.4, back=1)
    assert [again.judge(math.inf, False, 9) for _ in range(3)] == ["skip", "skip", "stop"]
    assert again.share_of_learning_rate == 0.5


# ---- a learning rate that is far too hot ---------------------------------------------------------


@lru_cache(maxsize=1)
def taught() -> dict[str, torch.Tensor]:
    base = tiny_base().requires_grad_(True).train()
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-2)
    batch = collate(rows(20), 0, FP32.device)
    for _ in range(40):
        (summed_loss(base, batch) / batch.targets.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return base.state_dict()


def taught_base() -> Any:
    """One that knows its rows already, and so has something to lose."""
    base = tiny_base()
    base.load_state_dict(taught())
    return base


def test_a_learning_rate_far_too_hot_ends_in_words_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    trainer = trainer_on(
        tmp_path, rows(20), make=taught_base, max_steps=40, learning_rate=1.0, lr_scheduler_type="constant"
    )
    untrained = adapter_of(trainer)
    with pytest.raises(NotFiniteError) as ended:
        trainer.run()
    assert ended.value.message.key == "run.ran_away_at_once" and guard_keys(trainer) == ["sanity.ran_away"]
    assert trainer.position.step == 0 and torch.equal(adapter_of(trainer), untrained)
    assert len(trainer.reporter.lines) < 40 and "learning rate" in ended.value.message.render("en")


def test_a_run_that_ran_away_once_goes_on_from_before_that_and_learns(tmp_path: Path) -> None:
    """Something shakes the adapter in step 8: as a rate that is too hot does, but that half of it is not."""
    trainer = trainer_on(tmp_path, rows(20), make=taught_base, max_steps=20, save_steps=2, learning_rate=1e-3)
    before, shaken = trainer._step, []

    def step(number: int, micro_batches: Any) -> Any:
        groups = before(number, micro_batches)
        if number == 8 and not shaken:
            shaken.append(number)
            with torch.no_grad():
                for parameter in trainer.step.parameters:
                    parameter.add_(torch.randn_like(parameter) * 20)
        return groups

    trainer._step = step
    trainer.run()
    [guard] = [event for event in trainer.reporter.run.events() if event["kind"] == "guard"]
    assert guard["what"] == "went_back" and guard["message"]["params"]["back"] == 6, "8 was saved after it was shaken"
    assert trainer.position.step == 20 and trainer.position.health.back == 1
    assert trainer.reporter.numbers["train", 20] < trainer.reporter.numbers["train", 1]


@pytest.mark.full
def test_the_starter_with_a_rate_far_too_hot_ends_in_words(starter_folder: Path, tmp_path: Path) -> None:
    def make() -> Any:
        return base_model.load(starter_folder, FP32, four_bit=False)

    trainer = trainer_on(tmp_path, rows(20), make=make, max_steps=40, learning_rate=0.3, gradient_accumulation_steps=1)
    with pytest.raises(NotFiniteError) as ended:
        trainer.run()
    assert ended.value.message.key == "run.ran_away_at_once" and guard_keys(trainer) == ["sanity.ran_away"]


# ---- the best one --------------------------------------------------------------------------------


OVERFITS = {
    "max_steps": 60,
    "eval_steps": 2,
    "save_steps": 1000,
    "learning_rate": 3e-2,
    "early_stopping_patience": 3,
    "save_total_limit": 1,
}


def test_a_run_ends_once_nothing_gets_better_and_its_best_checkpoint_is_there(tmp_path: Path) -> None:
    """Random tokens, so that whatever is learned of some rows helps with no other."""
    trainer = trainer_of(tmp_path, **OVERFITS)
    trainer.run()
    measured = {step: loss for (kind, step), loss in trainer.reporter.numbers.items() if kind == "eval" and step}
    lowest = min(measured, key=measured.get)
    assert trainer.position.step == lowest + 6 < 60 and trainer.position.since_best == 3
    assert trainer.best_to_keep() == checkpoint.name_of(lowest) == trainer.position.best_checkpoint
    again = run_paused(lambda at: trainer_of(tmp_path / "paused", at, **OVERFITS), [90])
    assert_same(again, trainer)
    assert again.best_to_keep() == trainer.best_to_keep()


def test_how_long_a_run_waits_for_a_better_measurement() -> None:
    def wait(steps: int, every: int, held: int = 5, **train: Any) -> int:
        return best.patience(Recipe.parse({"data": {"source": "x"}, "train": train}), steps, every, held)

    assert [wait(100, 20), wait(100, 2), wait(100, 20, held=0)] == [3, 20, 0]
    assert [wait(100, 2, early_stopping_patience=4), wait(100, 20, early_stopping_patience=0)] == [4, 0]


def test_the_last_state_is_kept_where_it_was_the_best_or_is_wanted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    name = checkpoint.name_of(4)
    (run.path / "checkpoints" / name).mkdir(parents=True)
    (run.path / "checkpoints" / name / "COMPLETE").write_text("{}", "utf-8")
    recipe = Recipe.parse({"data": {"source": "x"}})
    assert [best.to_keep(run, recipe, name, since) for since in (0, 1)] == [None, name]
    assert best.to_keep(run, with_settings(recipe, "train.load_best_model_at_end=false"), name, 1) is None
    assert best.to_keep(run, recipe, checkpoint.name_of(6), 1) is None, "one that is gone"


def test_a_worker_ends_early_and_what_it_kept_is_the_best(tmp_path: Path, tiny_model: Path) -> None:
    """A real process: the run, its card, chat's list and a run that trains it further all name the same step."""
    (tmp_path / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    space = Workspace.open(tmp_path)
    value = {
        "name": "Best", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
        "adapter": {"r": 4},
        "train": {
            "max_steps": 90, "learning_rate": 0.1, "lr_scheduler_type": "constant", "eval_steps": 1, "save_steps": 50,
            "early_stopping_patience": 2, "per_device_train_batch_size": 2, "sample_seconds": 0,
        },
    }  # fmt: skip
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command")
    assert spawn_worker(space, run).wait(300) == 0, run.log_tail()
    status, facts = run.status(), run.facts()
    assert (status.state, status.message.key) == (State.COMPLETED, "run.completed_early") and status.step < 90, status
    kept = run.checkpoint(facts.best_checkpoint)
    measured = {
        line["step"]: line["eval_loss"] for line in run.all_metrics() if line["kind"] == "eval" and line["step"]
    }
    assert facts.adapter_step == min(measured, key=measured.get) == status.step - 2 and facts.adapter_is_best
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (kept / "adapter" / name).read_bytes()
    assert (run.adapter / name).read_bytes() != (
        run.checkpoints()[-1] / "adapter" / name
    ).read_bytes() or kept == run.checkpoints()[-1]
    assert f"| adapter of step | {facts.adapter_step}, the best measured |" in (run.adapter / "README.md").read_text(
        "utf-8"
    )
    assert further.facts_of(run).parent.step == facts.adapter_step
    assert further.facts_of(run).parent.eval_loss == facts.best_eval_loss
    assert str(facts.adapter_step) in status.message.render("zh")


# ---- seen by the person --------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_card_says_what_the_run_did_of_itself_and_which_step_was_kept(language: str, tmp_path: Path) -> None:
    services, w = Services.open(Workspace.open(tmp_path)), Wording(language)
    with ScriptedRun(services.workspace, "guarded") as scripted:
        scripted.to(State.RUNNING)
        told = [
            msg("retreat.packed", what=STEP, before=2048, now=1024),
            msg("sanity.left_out", step=9, loss="nan", grad_norm="inf"),
            msg("sanity.no_numbers", step=12, loss="nan", grad_norm="nan", back=6, start=2.5, rate=1e-4),
            msg("retreat.checkpointing", what=STEP),
        ]
        for message in told:
            scripted.run.log_event("guard", what="retreat", step=1, message=message)
        card = run_panel.card(services.snapshots.now(fresh=True).shown, w)
        story = run_panel.story(services.snapshots.now(fresh=True).shown, w)
        sentences = [escape(message.render(language)) for message in told]
        assert w.t("run_guard.head", count=4) in card and not any(each in card for each in sentences)
        assert all(each in story for each in sentences)
        scripted.run.add_facts(RunFacts(adapter_step=40, adapter_is_best=True, best_eval_loss=1.2345))
        assert "1.234" not in run_panel.story(services.snapshots.now(fresh=True).shown, w), "no adapter yet"
        scripted.run.write_status(scripted.run.status().model_copy(update={"has_adapter": True}))
        assert w.t("run_guard.kept_best", step=40, loss="1.234") in run_panel.story(
            services.snapshots.now(fresh=True).shown, w
        )


def test_the_curve_is_drawn_anew_from_where_a_run_went_back(tmp_path: Path) -> None:
    services = Services.open(Workspace.open(tmp_path))
    with ScriptedRun(services.workspace, "went back") as scripted:
        for step, loss in enumerate([3.0, 2.5, 2.0, math.nan, math.nan, math.nan], 1):
            scripted.run.log_metrics("train", 1, step, loss=loss)
        curves = Curves(services.runs)
        assert curves.since(scripted.run.id)["bx"] == [4, 5, 6]
        for step, loss in enumerate([1.9, 1.8], 3):
            scripted.run.log_metrics("train", 1, step, loss=loss)
        drawn = curves.since(scripted.run.id)
        assert (drawn["x"], drawn["y"], drawn["bx"], drawn["reset"]) == ([1, 2, 3, 4], [3.0, 2.5, 1.9, 1.8], [], True)


def test_memory_that_is_short_for_the_rows_of_an_evaluation_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused while the rows are copied to the card, before anything is computed with them (seen on the null card)."""
    trainer, left = trainer_of(tmp_path), [1]
    own = trainer.step.batch

    def batch(rows: Any) -> Any:
        if left and not trainer.step.tuned.training:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(rows)

    monkeypatch.setattr(trainer.step, "batch", batch)
    trainer.run()
    assert not left and trainer.position.step == trainer.schedule.total_steps
