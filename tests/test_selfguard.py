"""A run that looks after itself: faults injected while it trains, and the curve goes on or the run stops with its sentence.

Memory that is not enough is raised between the layers, forwards and backwards, where an allocator raises it too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_pause import FP32, Pausing, adapter_of, rows, tiny_base

from core import adapter, base_model, checkpoint, plan
from core.errors import PauseRequested
from core.interruption import stop_inside_layers
from core.recipe import Adapter, Recipe
from core.retreat import CHECKPOINTING, HALVE, OFFLOAD, NothingLeftError, Retreat
from core.run_folder import RunFolder
from core.text import Text
from core.trainer import Trainer, TrainingData


class Watched(Pausing):
    """Keeps what is said too, in the run's own events."""

    def __init__(self, run: RunFolder, at: int | None = None) -> None:
        super().__init__(run, at)
        self.lines: list[tuple[str, int]] = []

    def metrics(self, kind: str, step: int, **numbers: float) -> None:
        super().metrics(kind, step, **numbers)
        self.lines.append((kind, step))


def trainer_of(
    folder: Path, pause_at: int | None = None, make: Callable[[], Any] = tiny_base, lora: dict | None = None, **settings: Any
) -> Trainer:
    """A trainer in folder, gone on from its newest checkpoint where an earlier one left one."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    tuned = adapter.add(make(), Adapter(r=4, **(lora or {})), "tiny", None)
    train = {
        "max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
        "eval_steps": 3, "save_steps": 3, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    data = {"source": "x", "max_length": 16} | settings.pop("data", {})
    recipe = plan.resolve(Recipe.parse({"data": data, "train": train | settings}), "x", has_card=False)

    def save(target: Path) -> None:
        tuned.save_pretrained(target, save_embedding_layers=False)

    run = RunFolder(folder)
    trainer = Trainer(tuned, recipe, TrainingData(rows(20), rows(5), 0), FP32, Watched(run, pause_at), save)
    if saved := run.checkpoints():
        trainer.restore(checkpoint.read(saved[-1]))
    return trainer


def said(trainer: Trainer) -> list[str]:
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


# ---- the memory is not enough -----------------------------------------------------------------------------------------


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
    with stop_inside_layers(trainer.tuned, fault):
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
    undisturbed: tuple[Trainer, dict, int], tmp_path: Path
) -> None:
    """Forwards, backwards, in the first and the last micro-batch of a step, in a measurement."""
    whole, how, calls = undisturbed
    first = LOOKED_AT_BEFORE + 1
    chosen = random.Random(7).sample(range(first, calls + 1), 5)
    for at in {first, *chosen, calls}:
        fault = NoMemory(at)
        trainer = run_with(trainer_of(tmp_path / str(at), **how), fault)
        assert fault.raised == 1 and said(trainer) in WAYS, at
        nearly_the_same(trainer, whole, but=said(trainer) == ["retreat.not_measured"])


def test_several_times_in_a_run_it_saves_more_each_time_and_the_curve_still_goes_on(
    undisturbed: tuple[Trainer, dict, int], tmp_path: Path
) -> None:
    whole, how, calls = undisturbed
    fault = NoMemory(7, 11, 16, 40)  # all but the last in the first step or its measurement
    trainer = run_with(trainer_of(tmp_path, eval_steps=100, **how), fault)
    told = said(trainer)
    assert fault.raised == 4 == len(told) and told[0] in ("retreat.batch", "retreat.packed")
    assert trainer.retreat.at_once < Retreat(trainer.recipe, trainer.packed, False).at_once
    train = {key: value for key, value in whole.reporter.numbers.items() if key[0] == "train"}
    found = {key: value for key, value in trainer.reporter.numbers.items() if key[0] == "train"}
    assert found == pytest.approx(train, rel=2e-4)


def test_where_the_optimizer_gets_no_memory_for_its_state_the_first_step_is_made_anew(tmp_path: Path) -> None:
    """Half of the parameters were corrected already: they are what they were before it."""
    whole, trainer = trainer_of(tmp_path / "whole"), trainer_of(tmp_path / "run")
    whole.run()
    step, calls = trainer.optimizer.step, []

    def half(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return step(*args, **kwargs)
        with torch.no_grad():
            trainer.parameters[0].add_(1.0)
        trainer.optimizer.state[trainer.parameters[0]] = {"step": torch.tensor(1.0)}
        raise torch.OutOfMemoryError("no room for the state")

    trainer.optimizer.step = half
    trainer.run()
    assert len(said(trainer)) == 1
    nearly_the_same(trainer, whole)


def test_what_was_given_up_is_given_up_in_this_order_until_nothing_is_left() -> None:
    recipe = Recipe.parse({"data": {"source": "x", "packing": False}, "train": {"per_device_train_batch_size": 4}})
    lengths = [9, 8, 7, 6]
    card, processor = Retreat(recipe, False, on_card=True), Retreat(recipe, False, on_card=False)
    told = [card.go_on(card.parts([0, 1, 2, 3], lengths)[0], lengths, 5) for _ in range(5)]
    assert card.taken == [HALVE, HALVE, CHECKPOINTING, OFFLOAD] and told[-1] is None
    assert [(each.params.get("before"), each.params.get("now")) for each in told[:2]] == [(4, 2), (2, 1)]
    assert card.parts([0, 1, 2, 3], lengths) == [[0], [1], [2], [3]]
    assert [processor.go_on([3], lengths, 5).key, processor.go_on([3], lengths, 5)] == ["retreat.checkpointing", None]
    assert Retreat(recipe, False, True).go_on([3], lengths, 5, measuring=True) is None, "measuring keeps nothing for a way back"


def test_a_packed_micro_batch_becomes_two_that_hold_half_of_its_tokens() -> None:
    recipe = Recipe.parse({"data": {"source": "x", "max_length": 16}, "train": {"per_device_train_batch_size": 4}})
    lengths, rows_then = [10, 9, 8, 6, 5, 4], [5, 0, 1, 2, 3, 4]
    retreat = Retreat(recipe, True, on_card=False)
    assert retreat.parts(rows_then, lengths) == [rows_then]
    retreat.go_on(rows_then, lengths, 1)
    halves = retreat.parts(rows_then, lengths)
    assert (
        sorted(sum(halves, [])) == list(range(6)) and max(sum(lengths[i] for i in half) for half in halves) <= 32 == retreat.at_once
    )
    retreat.go_on([5, 4], lengths, 1)  # together 9 tokens: capacities that change nothing for them are passed over
    assert retreat.at_once == 8 and all(len(part) == 1 for part in retreat.parts(rows_then, lengths))


def test_the_run_stops_with_what_would_fit_where_nothing_is_left(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, save_steps=2)
    trainer.would_fit = lambda asked: Text(key="probe.advice_nothing", params={"asked": asked is trainer})

    def fault() -> None:
        if trainer.position.step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(NothingLeftError, match="not enough in step 5") as stopped:
        run_with(trainer, fault)
    assert stopped.value.advice.params == {"asked": True}
    assert said(trainer) == ["retreat.packed"] * (len(said(trainer)) - 1) + ["retreat.checkpointing"] and len(said(trainer)) > 1
    assert trainer.position.step == 4 and [step for kind, step in trainer.reporter.lines if kind == "train"] == [1, 2, 3, 4]
    reached = trainer_of(tmp_path / "reached", max_steps=6)
    reached.schedule = trainer.schedule
    go = reached.reporter
    go.check = lambda: (_ for _ in ()).throw(PauseRequested) if reached.position.step == 4 else None
    with pytest.raises(PauseRequested):
        reached.run()
    assert torch.equal(adapter_of(trainer), adapter_of(reached)), "the adapter of the last finished step, untouched by the retreats"


def test_another_error_is_no_lack_of_memory(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)

    def fault() -> None:
        if trainer.position.step == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        run_with(trainer, fault)
    assert said(trainer) == []


def test_a_run_that_is_paused_after_a_retreat_is_the_one_that_was_not(tmp_path: Path) -> None:
    """In float32 bit for bit: it goes on with what it gave up, also when it was paused in the very step."""
    whole = run_with(trainer_of(tmp_path / "whole", lora={"lora_dropout": 0.2}), NoMemory(9))
    for pause in (8, 14, 22, 30):
        numbers: dict = {}
        for attempt, at in enumerate((pause, None)):
            trainer = trainer_of(tmp_path / str(pause), at, lora={"lora_dropout": 0.2})
            # As often as the layers are entered before the pause; the fault of the first attempt belongs to it alone.
            fault = NoMemory(9) if attempt == 0 or not trainer.position.retreats and trainer.position.step == 0 else NoMemory()
            try:
                run_with(trainer, fault)
            except PauseRequested:
                if trainer.position.step:
                    trainer.checkpoint()
            numbers |= trainer.reporter.numbers
        assert numbers == whole.reporter.numbers, pause
        assert torch.equal(adapter_of(trainer), adapter_of(whole)), pause


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_starter_in_float32_goes_on_within_noise(seed: int, starter_folder: Path, tmp_path: Path) -> None:
    """Two random moments of a run of the starter, anywhere in it."""

    def make() -> Any:
        return base_model.load(starter_folder, FP32, four_bit=False)

    how = {"make": make, "max_steps": 3, "gradient_accumulation_steps": 1, "eval_steps": 2, "learning_rate": 1e-3}
    count = NoMemory()
    whole = run_with(trainer_of(tmp_path / "whole", **how), count)
    layers = whole.tuned.config.num_hidden_layers
    chosen = random.Random(seed).sample(range(layers + 1, count.calls + 1), 2)
    fault = NoMemory(*chosen)
    trainer = run_with(trainer_of(tmp_path / "run", **how), fault)
    assert fault.raised == 2 == len(said(trainer)), chosen
    assert trainer.reporter.numbers == pytest.approx(whole.reporter.numbers, rel=1e-4)
