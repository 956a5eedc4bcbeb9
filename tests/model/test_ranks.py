"""A run on several ranks is that of one: Gloo between them, and rank 0 in this process. The others are processes where
their end is what is shown, else threads, each with a model of its own."""

from __future__ import annotations

import gc
import json
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from core.advice import plan
from core.engine import adapter, base_model
from core.engine.out_of_memory import HALVE
from core.engine.step import Step
from core.errors import PauseRequested, RecipeError
from core.progress import RankUse
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.system.gpu import Card
from core.training.ranks import begun as starting
from core.training.ranks import helpers, use
from core.training.ranks.group import RankGroup
from core.training.ranks.helpers import RankError, Ranks
from core.training.ranks.step import EXTRA, DealtStep, deal, divided, serve
from core.training.ranks.use import UseOfRank
from core.training.trainer import Trainer, TrainingData
from tests.kit.trainer import FP32, Pausing, adapter_of, assembled, pairs, pids_of, rows
from tests.kit.waits import wait_until


def recipe_of(data: dict[str, Any] | None = None, lora: dict[str, Any] | None = None, **train: Any) -> Recipe:
    usual = {
        "max_steps": 4, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "learning_rate": 1e-2,
        "eval_steps": 2,
        "save_steps": 2, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    settings = {
        "data": {"source": "x", "max_length": 16} | (data or {}),
        "adapter": {"r": 4} | (lora or {}),
        "train": usual | train,
    }
    return plan.resolve(Recipe.parse(settings), "x", has_card=False)


def tuned_of(model: Path, recipe: Recipe) -> Any:
    torch.manual_seed(1)
    return adapter.add(base_model.load(model, FP32, recipe.adapter.method == "qlora"), recipe.adapter, "tiny", None)


def trainer_of(folder: Path, model: Path, recipe: Recipe, ranks: Ranks | None = None, measured: int = 5) -> Trainer:
    """In folder, gone on from its newest checkpoint where an earlier one left one. With pairs, where the recipe
    compares."""
    if ranks:
        ranks.load(recipe, model, False, "float32", 0, threads=1)
    tuned, reporter = tuned_of(model, recipe), Pausing(RunFolder(folder))
    dealt = {"step_of": partial(DealtStep.on, ranks, reporter.check)} if ranks else {}
    make = pairs if recipe.train.compares else rows
    return assembled(tuned, recipe, reporter, TrainingData(make(20), make(measured), 0), **dealt)


class InThreads(Ranks):
    """spoil: what is done to each of the other steps before it serves."""

    def __init__(self, folder: Path, spoil: Callable[[Step], None] = lambda step: None):
        super().__init__(folder, "x")
        self._spoil, self._orders, self.steps = spoil, list[queue.SimpleQueue](), list[Step]()

    def begin(self, places: Sequence[Mapping[str, str]]) -> None:
        self.meeting.parent.mkdir(parents=True, exist_ok=True)
        self._orders = [queue.SimpleQueue() for _ in places]

    @property
    def size(self) -> int:
        return 1 + len(self._orders)

    def load(self, recipe: Recipe, model_folder: Path, *rest: Any, **others: Any) -> None:
        for number, orders in enumerate(self._orders, 1):
            step = Step.of(tuned_of(model_folder, recipe), recipe, FP32, 0)
            step.begin(recipe.train.seed)
            self._spoil(step)
            self.steps.append(step)
            threading.Thread(target=self._serve, args=(step, (number, self.size), orders), daemon=True).start()

    def _serve(self, step: Step, rank: tuple[int, int], orders: queue.SimpleQueue) -> None:
        group = RankGroup(self.meeting, *rank, step.parameters, EXTRA + rank[1])
        while order := orders.get():
            serve(step, group, json.loads(order), rank, lambda **said: self._said.__setitem__(rank[0], said))

    def all_ready(self, parameters: int, check: Callable[[], None]) -> None: ...

    def order(self, of_ranks: Sequence[Any], **order: Any) -> None:
        self._step += 1
        for orders, parts in zip(self._orders, of_ranks[1:], strict=True):
            orders.put(json.dumps({"number": self._step, "parts": parts, **order}))

    def close(self) -> None:
        for orders in self._orders:
            orders.put("")


@contextmanager
def begun(ranks: Ranks, count: int) -> Iterator[Ranks]:
    try:
        ranks.begin([{}] * (count - 1))
        yield ranks
    finally:
        ranks.close()


def nearly_the_same(trainer: Trainer, whole: Trainer) -> None:
    """Whatever was told, but for who is ahead before anything was learned: both answers then are what they were to the
    last digits."""
    assert trainer.reporter.numbers == pytest.approx(whole.reporter.numbers, rel=2e-4)
    assert trainer.reporter.told.keys() == whole.reporter.told.keys()
    for (kind, step), expected in whole.reporter.told.items():
        a_coin = {"rewards/accuracies", "eval_rewards/accuracies"} if step <= (kind == "train") else set()
        told = {name: value for name, value in trainer.reporter.told[kind, step].items() if name not in a_coin}
        assert told == pytest.approx(
            {name: value for name, value in expected.items() if name not in a_coin}, rel=2e-3, abs=2e-4
        )
    torch.testing.assert_close(adapter_of(trainer), adapter_of(whole), rtol=1e-2, atol=1e-3)
    assert trainer.position.tokens_seen == whole.position.tokens_seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trainer:
    """By one rank."""
    trainer = trainer_of(tmp_path_factory.mktemp("whole"), tiny_model, recipe_of())
    trainer.run()
    return trainer


def test_what_is_dealt_is_even_and_complete() -> None:
    assert deal([5, 9, 1, 4], 2) == [[1, 2], [0, 3]] and deal([7], 3) == [[0], [], []]
    step = [rows(3), rows(1)]
    halves = divided(step, 3, lambda part: sum(len(row.input_ids) for row in part))
    assert len(halves) == 3 and sorted(len(part) for part in halves) == [1, 1, 2]
    assert divided([rows(1)], 2, len) == [rows(1)], "one row cannot be halved, and one rank then computes nothing"


def test_pairs_are_not_parted() -> None:
    """The halves of a micro-batch are of whole pairs: each row goes to one rank with both of its answers and its
    reference."""
    step = [pairs(5), pairs(2)]
    dealt = divided(step, 3, lambda part: sum(len(row.input_ids) for row in part))
    assert sorted(map(len, dealt)) == [2, 2, 3] and all(row.second for part in dealt for row in part)
    assert sorted(row.input_ids for part in dealt for row in part) == sorted(
        row.input_ids for part in step for row in part
    )


def test_pissa_changes_the_base_and_is_refused() -> None:
    with pytest.raises(RecipeError, match="several GPUs"):
        recipe_of(lora={"init_lora_weights": "pissa"}, ranks=2)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "packed": (2, {}),
    "padded, one micro-batch": (3, {"data": {"packing": False}, "gradient_accumulation_steps": 1}),
    "dpo, also learning the better answers": (2, {"objective": "dpo", "sft_weight": 0.7}),
    "simpo": (2, {"objective": "simpo"}),
}
LONG: dict[str, tuple[int, dict[str, Any]]] = {
    "qlora": (2, {"lora": {"method": "qlora"}}),
    "three, an uneven last step": (
        3,
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 7, "max_steps": 6},
    ),
    "more ranks than rows": (4, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}),
    "clipped, dora, lora+": (2, {"lora": {"use_dora": True}, "loraplus_lr_ratio": 4, "max_grad_norm": 0.1}),
    "orpo, three": (3, {"objective": "orpo"}),
    "kto, whose micro-batch is dealt whole": (
        2,
        {"objective": "kto", "gradient_accumulation_steps": 1, "per_device_train_batch_size": 6},
    ),
    "dpo, padded, qlora, one micro-batch": (
        3,
        {"data": {"packing": False}, "gradient_accumulation_steps": 1, "objective": "dpo", "lora": {"method": "qlora"}},
    ),
    "checkpointed, 8-bit history": (2, {"gradient_checkpointing": True, "optim": "adamw_8bit"}),
}


@pytest.mark.parametrize(
    ("count", "settings"), [*CASES.values(), *(pytest.param(*each, marks=pytest.mark.full) for each in LONG.values())],
    ids=[*CASES, *LONG],
)  # fmt: skip
def test_a_run_on_ranks_learns_what_one_learns(
    count: int, settings: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    recipe = recipe_of(**settings)
    whole = trainer_of(tmp_path / "whole", tiny_model, recipe)
    whole.run()
    with begun(InThreads(tmp_path / "ranks"), count) as ranks:
        trainer = trainer_of(tmp_path / "ranks", tiny_model, recipe, ranks)
        trainer.run()
    nearly_the_same(trainer, whole)


def test_all_give_way_to_a_full_memory_of_one_and_the_curve_goes_on(
    tmp_path: Path, tiny_model: Path, whole: Trainer
) -> None:
    """Rank 1 has no room for more than two examples at once."""

    def spoil(step: Step) -> None:
        computes = step.backward

        def full(batches: Any, *rest: Any, **others: Any) -> torch.Tensor:
            if any(len(batch.examples) > 2 for batch in batches):
                step.computing = step.computing or rows(1)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return computes(batches, *rest, **others)

        step.backward = full  # type: ignore[method-assign]

    with begun(InThreads(tmp_path, spoil), 2) as ranks:
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        trainer.run()
    assert HALVE in trainer.position.retreats and ranks.steps[0].retreat.taken == trainer.position.retreats
    nearly_the_same(trainer, whole)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.full)])
def test_an_evaluation_is_dealt_and_its_number_is_that_of_one_rank(
    count: int, tmp_path: Path, tiny_model: Path
) -> None:
    """Bit for bit: rank 0 adds what each batch gave in the order of one process. The ranks begin with another adapter
    than rank 0."""
    recipe, batches = recipe_of(per_device_train_batch_size=2), dict[int, int]()

    def measure(trainer: Trainer, name: int) -> float | None:
        with torch.no_grad():
            for parameter in trainer.step.parameters:
                parameter.add_(0.05)
        watch(trainer.step, name)
        trainer.step.begin(1)
        return trainer.recovery.attempt(0, trainer.evaluation.loss)

    def watch(step: Step, name: int) -> None:
        measures = step.measure

        def counted(*arguments: Any, **others: Any) -> tuple[float, int]:
            batches[name] = batches.get(name, 0) + 1
            return measures(*arguments, **others)

        step.measure = counted  # type: ignore[method-assign]

    alone = measure(trainer_of(tmp_path / "alone", tiny_model, recipe, measured=50), -1)
    with begun(InThreads(tmp_path / "ranks", lambda step: watch(step, 1 + len(ranks.steps))), count) as ranks:
        assert measure(trainer_of(tmp_path / "ranks", tiny_model, recipe, ranks, measured=50), 0) == alone
        assert sum(batches[rank] for rank in range(count)) == batches[-1] > 4 * count, "some times dealt"
        assert all(batches[rank] >= batches[-1] // (count + 1) for rank in range(count))


def test_a_full_memory_of_one_rank_in_an_evaluation_halves_the_batches_of_all(tmp_path: Path, tiny_model: Path) -> None:
    def spoil(step: Step) -> None:
        measures = step.measure

        def full(rows: Any, compares: bool = False) -> tuple[float, int]:
            if len(rows) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return measures(rows, compares)

        step.measure = full  # type: ignore[method-assign]

    alone = trainer_of(tmp_path / "alone", tiny_model, recipe_of(), measured=20).evaluation.loss()
    with begun(InThreads(tmp_path / "ranks", spoil), 2) as ranks:
        trainer = trainer_of(tmp_path / "ranks", tiny_model, recipe_of(), ranks, measured=20)
        assert trainer.recovery.attempt(0, trainer.evaluation.loss) == pytest.approx(alone, rel=1e-6)
        assert HALVE in trainer.step.retreat.taken == ranks.steps[0].retreat.taken


@pytest.mark.full
def test_a_rank_that_is_killed_in_an_evaluation_ends_it_with_a_sentence(tmp_path: Path, tiny_model: Path) -> None:
    with begun(Ranks(tmp_path, "tiny-run"), 2) as ranks:
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks, measured=50)
        measures = trainer.step.measure

        def kill_first(*arguments: Any, **others: Any) -> tuple[float, int]:
            psutil.Process(pids_of(ranks)[0]).kill()
            return measures(*arguments, **others)

        trainer.step.measure = kill_first  # type: ignore[method-assign]
        with pytest.raises(RankError) as failed:
            trainer.evaluation.loss()
    assert failed.value.message.key == "ranks.gone"


def test_a_killed_rank_ends_all_of_them_and_the_run_goes_on_with_one(
    tmp_path: Path, tiny_model: Path, whole: Trainer
) -> None:
    with begun(Ranks(tmp_path, "tiny-run"), 2) as ranks:
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        (pid,) = pids_of(ranks)
        told: list[tuple[RankUse, ...]] = []
        ranks.tell = told.append
        finished = trainer.step.finished

        def kill_in_the_third() -> None:
            finished()
            if trainer.position.step == 3:
                psutil.Process(pid).kill()

        trainer.step.finished = kill_in_the_third  # type: ignore[method-assign]
        with pytest.raises(RankError) as failed:
            trainer.run()
        trainer.checkpoint()  # as the worker does
    assert failed.value.message.key == "ranks.gone" and failed.value.message.params["rank"] == 1
    wait_until(lambda: not psutil.pid_exists(pid))
    assert not ranks.meeting.exists()
    assert [used.used_bytes > 50 << 20 and used.total_bytes == psutil.virtual_memory().total for used in told[0]] == [
        True,
        True,
    ]
    further = trainer_of(tmp_path, tiny_model, recipe_of())
    assert further.position.step == 3
    further.run()
    further.reporter.numbers = trainer.reporter.numbers | further.reporter.numbers
    further.reporter.told = trainer.reporter.told | further.reporter.told
    nearly_the_same(further, whole)


@pytest.mark.full
@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_pause_within_any_step_goes_on_with_another_number_of_ranks(
    step: int, tmp_path: Path, tiny_model: Path, whole: Trainer
) -> None:
    with begun(Ranks(tmp_path, "tiny-run"), 3) as ranks:
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        summed = trainer.step.summed

        def asked(*arguments: Any) -> torch.Tensor:
            if trainer.position.step == step - 1:
                trainer.reporter.at = trainer.reporter.checks + 1
            return summed(*arguments)

        trainer.step.summed = asked  # type: ignore[method-assign]
        with pytest.raises(PauseRequested):
            trainer.run()
        pids = pids_of(ranks)
        if trainer.position.step:
            trainer.checkpoint()
    assert not any(map(psutil.pid_exists, pids))
    with begun(InThreads(tmp_path), 2) as ranks:
        further = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        assert further.position.step == step - 1
        further.run()
    further.reporter.numbers = trainer.reporter.numbers | further.reporter.numbers
    further.reporter.told = trainer.reporter.told | further.reporter.told
    nearly_the_same(further, whole)


@pytest.mark.full
def test_a_rank_that_hangs_and_one_that_cannot_load_end_with_a_sentence(tmp_path: Path, tiny_model: Path) -> None:
    with begun(Ranks(tmp_path, "tiny-run", patience_s=1.0), 2) as ranks:
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        (pid,) = pids_of(ranks)
        psutil.Process(pid).suspend()
        with pytest.raises(RankError) as failed:
            trainer.run()
    assert failed.value.message.key == "ranks.silent" and not psutil.pid_exists(pid)
    with begun(Ranks(tmp_path, "tiny-run"), 2) as ranks:
        ranks.load(recipe_of(), tmp_path / "nothing", False, "float32", 0, threads=1)
        with pytest.raises(RankError) as failed:
            ranks.all_ready(1, lambda: None)
    assert failed.value.message.key == "ranks.failed" and "nothing" in str(failed.value)


@pytest.mark.full
def test_a_rank_leaves_when_rank_0_is_killed(tmp_path: Path, tiny_model: Path) -> None:
    """Its stdin closes, which is all that it would be told."""
    ranks = Ranks(tmp_path, "tiny-run")
    with begun(ranks, 2):
        trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        (pid,) = pids_of(ranks)
        ranks._children[1].close()  # type: ignore[attr-defined]
        wait_until(lambda: not psutil.pid_exists(pid))


def test_a_run_that_goes_on_with_one_rank_clears_away_where_several_met(tmp_path: Path) -> None:
    """Rank 0 was killed; the file stayed, and would have left with the run in an archive."""
    (tmp_path / helpers.MEETING).write_bytes(b"x")
    reporter = Pausing(RunFolder(tmp_path))
    with starting.started(recipe_of(), reporter.run, reporter) as ranks:  # type: ignore[arg-type]
        assert ranks is None and not (tmp_path / helpers.MEETING).exists()


def test_what_a_rank_has_in_use_is_asked_each_two_seconds_and_left_out_where_nobody_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, now = Card(index=0, name="RTX 3060", uuid="GPU-a"), [0.0]
    monkeypatch.setattr(use.gpu, "newest", lambda card: card.model_copy(update={"utilization_percent": 98}))
    asked = UseOfRank(card, lambda: (5, 12), lambda: now[0])
    assert asked.look() == RankUse(device="RTX 3060", used_bytes=5, total_bytes=12, load_percent=98)
    now[0] = 1.9
    assert asked.look() is None
    now[0] = 2.0
    assert asked.look() is not None

    def given_up() -> tuple[int, int]:
        raise RuntimeError("CUDA error: unknown error")

    assert UseOfRank(card, given_up).look() is None
    monkeypatch.setattr(use.gpu, "newest", lambda card: None)
    assert UseOfRank(card, lambda: (5, 12)).look() == RankUse(device="RTX 3060", used_bytes=5, total_bytes=12)


def test_no_end_of_a_worker_waits_for_its_group_to_be_taken_apart(tmp_path: Path) -> None:
    """Under Wine that waited for ever where a rank had been killed."""
    group = RankGroup(tmp_path / "meeting", 0, 1, [], EXTRA)
    kept = weakref.ref(group._group)
    del group
    gc.collect()
    assert kept() is not None


def test_each_rank_has_a_card_of_its_own_or_the_run_says_that_they_are_too_few(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(helpers.run_process, "is_for_card", lambda facts: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    run = RunFolder(tmp_path)
    assert helpers.environments(run, 2) == [{"CUDA_VISIBLE_DEVICES": "GPU-b"}]
    with pytest.raises(helpers.RunError, match="3 GPUs, but only 2 can"):
        helpers.environments(run, 3)
