"""A base that several ranks hold together by FSDP2, in processes of this PC: what they learn is what one process
learns, and none of them ever has the whole. Rank 0 is this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

from core.engine import base_model
from core.engine.out_of_memory import HALVE
from core.engine.step import Step
from core.engine.variants import fsdp, streaming
from core.errors import ModelError, RecipeError
from core.memory.arithmetic import estimate, sharded_weights, weights
from core.memory.setup import Setup
from core.models.known import known_models
from core.recipe import Recipe
from core.training.ranks.meeting import RankError
from core.training.ranks.step import SharedStep
from core.training.trainer import Ahead, Trainer
from core.trial.dry_run import dry_run
from core.trial.dry_runs import Question
from core.values import GIB
from tests.kit import tiny
from tests.kit.cuda import PlayedRuntime
from tests.kit.ranks import in_processes
from tests.kit.waits import wait_until
from tests.model.test_ranks import nearly_the_same, recipe_of, trainer_of

LAYERS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return tiny.of_layers(LAYERS, tmp_path_factory.mktemp("six"))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No gather that full_where had fail."""
    monkeypatch.setattr(fsdp._Gather, "allocate", fsdp._Gather.allocate)
    yield


def alone(where: Path, model: Path, **settings: Any) -> Trainer:
    trainer = trainer_of(where, model, recipe_of(**settings))
    trainer.run()
    return trainer


class Counted:
    """Bytes of 4-bit matrices that are alive in this process, in parts, gathered or on their way: the most of them,
    while rank 0 computes its longest batch alone. Counted is all of their type that has come since it was made, but for
    random states and scales, which are smaller."""

    def __init__(self) -> None:
        self._kept = tensors()  # alive, so that no new tensor gets the address of one that was there before
        self.before = {tensor.untyped_storage().data_ptr() for tensor in self._kept}
        self.most, self.random = 0, torch.get_rng_state().nbytes

    def __call__(self, ahead: Ahead) -> None:
        """Forward and backward, as the probe has it."""
        assert isinstance(ahead.step, SharedStep) and ahead.step.sharded
        sharded = ahead.step.sharded
        most = planned(sharded)
        sharded.lead, leads = (lambda layer: (self._look(most), leads(layer))), sharded.lead  # type: ignore[assignment, misc]
        ahead.step.rehearse(ahead.longest())
        sharded.lead = leads

    def _look(self, most: float) -> None:
        """A thread of Gloo releases a finished gather a moment after the step does, so more than planned may wait."""
        wait_until(lambda: self._held() <= most, timeout_s=10)
        self.most = max(self.most, self._held())

    def _held(self) -> int:
        gc.collect()  # what waits to be collected is not held by the step
        held = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors()}
        return sum(
            size for place, size in held.items() if place not in self.before and size >= 512 and size != self.random
        )


def planned(sharded: fsdp.Sharded) -> float:
    """Bytes of 4-bit matrices that a rank holds at most: its part of all layers, and two whole layers."""
    return sharded.bytes / distributed.get_world_size() + 2 * sharded.bytes / LAYERS


def tensors() -> list[torch.Tensor]:
    objects = (each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter))
    return [
        each
        for each in objects
        if each.device.type == "cpu" and each.dtype == torch.uint8 and each.untyped_storage().nbytes()
    ]


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "4-bit, two micro-batches of one rank against one": (
        2,
        {"lora": {"method": "qlora"}, "per_device_train_batch_size": 1, "gradient_checkpointing": True},
    ),
}
LONG: dict[str, tuple[int, dict[str, Any]]] = {
    "16-bit, without checkpointing": (2, {}),
    "three, an uneven last step": (
        3,
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 7,
            "max_steps": 6,
            "gradient_checkpointing": True,
        },
    ),
    "padded, one micro-batch, dora": (
        3,
        {
            "data": {"packing": False},
            "gradient_accumulation_steps": 1,
            "lora": {"use_dora": True},
            "gradient_checkpointing": True,
        },
    ),
    "dpo, 4-bit, whose reference rank 0 computes alone": (2, {"objective": "dpo", "lora": {"method": "qlora"}}),
    "4-bit, padded, without checkpointing": (2, {"data": {"packing": False}, "lora": {"method": "qlora"}}),
}


@pytest.mark.parametrize(
    ("count", "settings"), [*CASES.values(), *(pytest.param(*each, marks=pytest.mark.full) for each in LONG.values())],
    ids=[*CASES, *LONG],
)  # fmt: skip
def test_a_base_in_parts_is_trained_as_a_whole_one(
    count: int, settings: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    """A rank holds its part, and of a layer two beside it: what is counted of 4-bit matrices is, to the byte, what the
    plan reckons with."""
    unsharded = alone(tmp_path / "whole", folder, **settings)
    recipe = recipe_of(ranks=count, fsdp=True, **settings)
    with in_processes(tmp_path / "ranks", folder, recipe, count) as (ranks, _):
        counted = Counted()
        trainer = trainer_of(tmp_path / "ranks", folder, recipe, ranks)
        trainer.run(counted)
        most = planned(trainer.step.sharded)  # type: ignore[attr-defined]
    nearly_the_same(trainer, unsharded)
    assert trainer.step.fused and trainer.step.fused.reason == unsharded.step.fused.reason  # type: ignore[union-attr]
    if settings.get("lora", {}).get("method") == "qlora" and settings.get("gradient_checkpointing"):
        assert counted.most == most


def test_a_layer_is_gathered_through_ordinary_ram_where_the_system_pins_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[torch.Tensor] = []
    monkeypatch.setattr(fsdp.distributed, "all_gather_into_tensor", lambda here, *_, **__: gathered.append(here))
    monkeypatch.setattr(fsdp.distributed, "is_nccl_available", lambda: False)  # as on Windows
    output, own = torch.empty(8, dtype=torch.uint8, device="meta"), torch.zeros(4, dtype=torch.uint8)
    sharded = fsdp.Sharded(None, [])
    for pins, pinned in ((1, [8]), (0, [])):
        with PlayedRuntime(pins) as runtime:
            sharded.gather(0, output, own, None, False)
        assert runtime.pinned == pinned and gathered[-1].shape == output.shape and gathered[-1].device.type == "cpu"


def full_where(step: Step, where: str, for_good: bool = False) -> Step:
    """This rank has no room for three rows in its fourth layer, or for the layer itself: for_good also when what it
    held is free."""
    layer = streaming.layers_of(step.tuned.get_base_model())[3]
    collate = step.batch
    size = [0]

    def batch(rows: Any) -> Any:
        collated = collate(rows)
        size[0] = len(collated.examples)
        return collated

    def full(*_: Any) -> None:
        if size[0] >= 3:
            size[0] = size[0] if for_good else 0
            raise torch.OutOfMemoryError("CUDA out of memory")

    def leaving(module: Any, given: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(full)

    step.batch = batch  # type: ignore[method-assign]
    if where == "gather":
        allocate = fsdp._Gather.allocate
        fsdp._Gather.allocate = lambda gather, *size, **how: (  # type: ignore[method-assign]
            full() if gather._gather.args == (3,) else None, allocate(gather, *size, **how)
        )[1]  # fmt: skip
    else:
        layer.register_forward_hook(leaving) if where == "backward" else layer.mlp.register_forward_hook(full)
    return step


def full_elsewhere(where: str, for_good: bool = False) -> str:
    """For the other ranks: they have no room."""
    return f"""
from core.training.ranks.step import SharedStep
from tests.model.test_fsdp import full_where
made = SharedStep.on
SharedStep.on = lambda *given: full_where(made(*given), {where!r}, {for_good})"""


@pytest.mark.full
@pytest.mark.parametrize("where", ["forward", "backward", "gather"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_memory_of_one_rank_in_the_middle_of_a_layer_halves_the_batches_of_all(
    rank: int, where: str, tmp_path: Path, folder: Path
) -> None:
    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 6, "eval_steps": 100}
    unsharded = alone(tmp_path / "whole", folder, **settings)
    recipe = recipe_of(ranks=2, fsdp=True, gradient_checkpointing=True, **settings)
    before = full_elsewhere(where) if rank else ""
    with in_processes(tmp_path / "ranks", folder, recipe, 2, before) as (ranks, _):
        trainer = trainer_of(tmp_path / "ranks", folder, recipe, ranks)
        if not rank:
            full_where(trainer.step, where)
        trainer.run()
    assert HALVE in trainer.position.retreats
    nearly_the_same(trainer, unsharded)


@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_without_memory_for_a_layer_ends_all_at_once_with_a_sentence(
    rank: int, tmp_path: Path, folder: Path
) -> None:
    """Where it was rank 0 the other waited for it, ten minutes, and was said to be silent."""
    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 6, "eval_steps": 100}
    recipe = recipe_of(ranks=2, fsdp=True, gradient_checkpointing=True, **settings)
    before = full_elsewhere("gather", for_good=True) if rank else ""
    with in_processes(tmp_path, folder, recipe, 2, before) as (ranks, _):
        trainer = trainer_of(tmp_path, folder, recipe, ranks)
        if not rank:
            full_where(trainer.step, "gather", for_good=True)
        with pytest.raises(RankError, match="memory") as failed:
            trainer.run()
    assert (failed.value.message.key, failed.value.message.params["rank"]) == ("ranks.failed", rank)


@pytest.mark.full
@pytest.mark.parametrize("then", [1, 3])
def test_a_killed_rank_loses_nothing_and_the_run_goes_on_with_another_number(
    then: int, tmp_path: Path, folder: Path
) -> None:
    unsharded, recipe = alone(tmp_path / "whole", folder), recipe_of(ranks=2, fsdp=True)
    with in_processes(tmp_path / "ranks", folder, recipe, 2) as (ranks, others):
        trainer = trainer_of(tmp_path / "ranks", folder, recipe, ranks)
        layer = streaming.layers_of(trainer.step.tuned.get_base_model())[2]
        layer.register_forward_pre_hook(lambda *_: others[0].kill() if trainer.position.step == 2 else None)
        with pytest.raises(RankError) as failed:
            trainer.run()
        trainer.checkpoint()  # as the worker does
    assert failed.value.message.key == "ranks.gone" and trainer.position.step == 2
    recipe = recipe_of(ranks=3, fsdp=True)
    with in_processes(tmp_path / "again", folder, recipe, 3) if then > 1 else nullcontext((None, [])) as (ranks, _):
        further = trainer_of(tmp_path / "ranks", folder, recipe if ranks else recipe_of(), ranks)
        further.run()
    further.reporter.numbers = trainer.reporter.numbers | further.reporter.numbers
    further.reporter.told = trainer.reporter.told | further.reporter.told
    nearly_the_same(further, unsharded)


def test_the_plan_reckons_with_a_part_and_two_layers() -> None:
    shape = next(model.shape for model in known_models() if model.id == "llama-3.1-8b-instruct")
    for method, parts in (("lora", 13.0), ("qlora", 3.25)):
        setup = Setup(method=method)  # type: ignore[arg-type]
        total, of_layers = weights(shape, setup), sharded_weights(shape, setup)
        assert of_layers / GIB == pytest.approx(parts, rel=0.01), "6.98 billion numbers"
        for ranks in (2, 3):
            part = weights(shape, setup.model_copy(update={"shards": ranks}))
            assert part == pytest.approx(total - of_layers * (1 - 1 / ranks - 2 / 32))


@pytest.mark.full
@pytest.mark.parametrize(("model", "method"), [("qwen3-0.6b", "lora"), ("llama-3.1-8b-instruct", "qlora")])
def test_the_arithmetic_of_a_part_is_within_1_percent_of_the_dry_run(model: str, method: str) -> None:
    shape = next(known.shape for known in known_models() if known.id == model)
    setup = Setup(method=method, max_length=256, shards=2)  # type: ignore[arg-type]
    counted = dry_run(Question(config=shape.config(), setup=setup)).estimate
    computed = estimate(shape, setup)
    assert computed.allocated_gib == pytest.approx(counted.allocated_gib, rel=0.01)
    assert computed.terms["weights"] == pytest.approx(counted.terms["weights"], rel=0.001)


@pytest.mark.parametrize(
    "more",
    [
        {"train": {"ranks": 1}}, {"adapter": {"load_in_8bit": True}}, {"adapter": {"target_parameters": "experts"}},
        {"train": {"activation_offload": True}}, {"train": {"offload_layers": 3}},
        {"adapter": {"init_lora_weights": "pissa"}},
    ],
)  # fmt: skip
def test_what_cannot_go_with_a_base_in_parts_is_said(more: dict[str, Any]) -> None:
    value = {"data": {"source": "x"}} | more
    Recipe.parse(value)
    with pytest.raises(RecipeError, match=r"fsdp|ranks 2"):
        Recipe.parse(value | {"train": {"ranks": 2, "fsdp": True} | more.get("train", {})})


def test_a_base_whose_layers_cannot_be_in_parts_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = SimpleNamespace(config=SimpleNamespace(model_type="odd"))
    tuned = SimpleNamespace(get_base_model=lambda: base)
    monkeypatch.setattr(base_model, "bits", lambda base: 8)
    with pytest.raises(ModelError, match="8 bit"):
        fsdp.shard(tuned, torch.device("cpu"), None)
    monkeypatch.undo()
    monkeypatch.setattr(streaming, "layers_of", lambda base: [])
    with pytest.raises(ModelError, match="odd"):
        fsdp.shard(tuned, torch.device("cpu"), None)
