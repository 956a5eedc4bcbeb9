"""Layers of the base that lie in RAM and visit the card: same numbers bit for bit, no more on the card than the plan
says, and copies that nothing but the layer itself waits for. The card is played: its memory by a count of what is
alive, its stream by copies that come late."""

from __future__ import annotations

import copy
import gc
import json
import math
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from core.engine import adapter, base_model
from core.engine.device import Compute
from core.engine.step import Step
from core.engine.variants import streaming
from core.engine.variants.streaming import Bus, Streaming, evenly_spread
from core.errors import DoesNotFitError, ModelError, RecipeError
from core.memory import arithmetic
from core.memory.arithmetic import estimate
from core.memory.setup import Setup
from core.models.known import known_models
from core.recipe import Adapter, Recipe
from core.training.memory import probe
from core.trial.allocations import BLOCK, Allocations
from core.trial.dry_run import dry_run
from core.trial.dry_runs import Question
from core.values import GIB
from tests.kit import families, tiny
from tests.kit.adapters import adapted
from tests.kit.cuda import PlayedEvent, PlayedRuntime
from tests.kit.trainer import BF16, FP32, RECIPE, rows, tiny_base
from tests.kit.waits import wait_until

CPU = torch.device("cpu")
LAYERS = 5
KNOWN = {model.id: model.shape for model in known_models()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.of_layers(LAYERS, tmp_path_factory.mktemp("seven"))


def recipe_of(**train: Any) -> Recipe:
    more = {"gradient_checkpointing": True, "optim": "adamw_torch"} | train
    return Recipe.parse(
        RECIPE | {"data": {"source": "x", "max_length": 16, "packing": True}, "train": RECIPE["train"] | more}
    )


@cache
def loaded(folder: Path, four_bit: bool, bf16: bool) -> Any:
    return streaming.load(folder, BF16 if bf16 else FP32, four_bit)[0]


def begun(
    folder: Path, count: int, four_bit: bool, compute: Any = FP32, bus: Bus | None = None, **settings: Any
) -> tuple[Step, Streaming | None]:
    """A step as the worker puts it together, its adapter saying something."""
    base = copy.deepcopy(loaded(folder, four_bit, compute is BF16))
    torch.manual_seed(0)
    tuned = adapted(base, **settings)
    streamed = streaming.begin(tuned, CPU, count, bus) if count else None
    step = Step.from_recipe(tuned, recipe_of(), compute, 0)
    step.begin(7)
    return step, streamed


def learned(step: Step, updates: int = 2) -> tuple[list[Any], torch.Tensor]:
    """Numbers of so many updates of two micro-batches and of an evaluation, and the adapter that they end with."""
    results: list[Any] = []
    for number in range(updates):
        results.append(step.compute([rows(4), rows(3)], 1e-2))
        step.apply(True, is_first=not number)
        step.note_finished()
    step.tuned.eval()
    results.append(step.evaluate_batch(rows(5)))
    return results, torch.cat([p.detach().flatten() for p in step.parameters])


@pytest.mark.parametrize(
    ("four_bit", "compute", "settings"),
    [
        pytest.param(False, FP32, {}, marks=pytest.mark.full),
        (True, BF16, {}),
        # By PEFT's own product, whose backward has kept a view of the packed weights.
        pytest.param(True, FP32, {"lora_dropout": 0.1}, marks=pytest.mark.full),
        pytest.param(True, FP32, {"use_dora": True}, marks=pytest.mark.full),
    ],
    ids=["16-bit", "4-bit", "4-bit-dropout", "4-bit-dora"],
)
def test_training_with_offloaded_layers_is_that_without_bit_for_bit(
    folder: Path, four_bit: bool, compute: Any, settings: dict[str, Any]
) -> None:
    """Forward, recomputation, optimizer and evaluation; an odd and an even number of layers, and all of them."""
    numbers, weights = learned(begun(folder, 0, four_bit, compute, **settings)[0])
    assert math.isfinite(numbers[0].loss) and weights.isfinite().all()
    for count in (LAYERS - 1, LAYERS):
        step, streamed = begun(folder, count, four_bit, compute, **settings)
        assert streamed and len(streamed.layers) == count
        actual, now = learned(step)
        assert actual == numbers and torch.equal(now, weights), count


@pytest.mark.full
@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_is_trained_bit_for_bit_as_without(name: str, tmp_path: Path, starter_folder: Path) -> None:
    """Its layers with what is its own in them: experts, embeddings in each layer, shared keys, state spaces."""
    trained_as_without(families.make(name, tmp_path, starter_folder), four_bit=True)


@pytest.mark.full
@pytest.mark.parametrize("four_bit", [False, True], ids=["16-bit", "4-bit"])
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "mixtral"])
def test_experts_that_are_offloaded_are_trained_by_adapters_of_their_own(
    name: str, four_bit: bool, tmp_path: Path, starter_folder: Path
) -> None:
    """Each is one parameter, which an adapter computes with as a whole (target_parameters)."""
    trained_as_without(families.make(name, tmp_path, starter_folder), four_bit, target_parameters="experts")


def trained_as_without(made: Path, four_bit: bool, **settings: Any) -> None:
    results = []
    for count in (0, 99):
        base, compute = streaming.load(made, FP32, four_bit)
        torch.manual_seed(0)
        tuned = families.tuned(base, **settings).train()
        if count:
            streaming.begin(tuned, CPU, count)
            experts = [p for name, p in tuned.named_parameters() if ".experts." in name and "lora_" not in name]
            assert not settings or (experts and all(p.isnan().all() for p in experts)), (
                "a layer that is away is NaN, its experts too"
            )
        step = Step.from_recipe(tuned, recipe_of(), compute, 0)
        step.begin(7)
        numbers = [step.compute([families.rows()], 1e-2) for _ in range(2)]
        results.append((numbers, torch.cat([p.grad.flatten() for p in step.parameters])))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert math.isfinite(results[0][0][0].loss)


def test_a_micro_batch_copies_each_offloaded_layer_twice_but_for_those_that_are_still_there(folder: Path) -> None:
    """Which is what the plan's minutes are made of."""
    step, streamed = begun(folder, LAYERS, False)
    assert streamed
    step.compute([rows(4)], 1e-2)
    before, bytes_before = streamed.copies, streamed.moved_bytes
    step.compute([rows(4), rows(3)], 1e-2)
    assert streamed.copies - before == 2 * 2 * (LAYERS - 2)
    assert streamed.moved_bytes - bytes_before == 2 * 2 * (LAYERS - 2) * streamed.layers[0].home.numel()


def test_a_step_that_is_left_half_way_leaves_nothing_behind_for_the_next(folder: Path) -> None:
    """As a full card leaves it, in the forward and in the backward."""
    step, _ = begun(folder, LAYERS, False)
    numbers, weights = learned(begun(folder, 0, False)[0])

    class FullError(Exception):
        pass

    def full(*_: Any) -> None:
        raise FullError

    layer = streaming.layers_of(step.tuned.get_base_model())[3]

    def full_on_the_way_back(module: Any, given: Any, output: torch.Tensor) -> None:
        output.register_hook(full)

    for when in (full, full_on_the_way_back):
        hook = layer.mlp.register_forward_hook(when)
        with pytest.raises(FullError):
            step.compute([rows(4)], 1e-2)
        hook.remove()
        step.discard_unfinished()
    actual, now = learned(step)
    assert actual == numbers and torch.equal(now, weights)


# ---- memory --------------------------------------------------------------------------------------


class FullCardError(Exception):
    pass


class PlayedCard(Allocations):
    """A card's memory, full where more than `room` bytes are alive. What lies in RAM is not there, and only a copy to
    the card reads it."""

    def __init__(self, step: Step, streamed: Streaming | None, room: float = math.inf):
        super().__init__(0)
        self.room = room
        self.in_ram = {layer.home.untyped_storage()._cdata for layer in streamed.layers} if streamed else set()
        for tensors in (step.tuned.parameters(), step.tuned.buffers(), scales_of(step)):
            self.hold(tensors, "weights")

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        used = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        reads = any(tensor.untyped_storage()._cdata in self.in_ram for tensor in used)
        assert not reads or operation is torch.ops.aten.copy_.default or operation.is_view, operation
        result = super().__torch_dispatch__(operation, types, args, kwargs)
        if sum(self.now().values()) > self.room:
            raise FullCardError
        return result

    def _note(self, storage: torch.UntypedStorage, kind: str) -> None:
        if storage._cdata not in self.in_ram:
            super()._note(storage, kind)


def scales_of(step: Step) -> Iterator[torch.Tensor]:
    for parameter in step.tuned.parameters():
        for state in filter(None, (getattr(parameter, "quant_state", None),)):
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)


def computed_on(folder: Path, count: int, four_bit: bool, room: float = math.inf) -> PlayedCard:
    step, streamed = begun(folder, count, four_bit, BF16 if four_bit else FP32)
    card = PlayedCard(step, streamed, room)
    with card:
        learned(step, 1)
    return card


@pytest.mark.parametrize("four_bit", [False, pytest.param(True, marks=pytest.mark.full)], ids=["16-bit", "4-bit"])
def test_an_update_takes_what_a_whole_base_takes_less_all_offloaded_layers_but_two(
    folder: Path, four_bit: bool
) -> None:
    """To the byte, at the worst moment of an update and an evaluation; with one byte less the card is full."""
    on_card = computed_on(folder, 0, four_bit).peak.total
    a_layer = begun(folder, 1, four_bit)[1].layers[0].home.numel()  # type: ignore[union-attr]
    nothing = BLOCK * (3 if four_bit else 1)  # what stands for what is not there: a number of each type
    for count in (LAYERS,):
        room = on_card - (count - 2) * a_layer + nothing
        assert computed_on(folder, count, four_bit, room).peak.total == room
        with pytest.raises(FullCardError):
            computed_on(folder, count, four_bit, room - 1)


def test_a_layer_that_is_used_out_of_its_turn_gives_no_number(folder: Path) -> None:
    step, streamed = begun(folder, LAYERS, False)
    assert streamed
    layers = streaming.layers_of(step.tuned.get_base_model())
    at_rest = [n for n in range(LAYERS) if all(place.holds != n for place in streamed.places)]
    assert at_rest and all(layers[n].self_attn.q_proj.weight.isnan().all() for n in at_rest)
    layers[0].gradient_checkpointing = False
    with pytest.raises(RuntimeError, match="without gradient checkpointing"):
        step.compute([rows(4)], 1e-2)


def weights_by_dry_run(config: dict[str, Any], setup: Setup) -> float:
    return dry_run(Question(config=config, setup=setup)).estimate.terms["weights"]


def test_the_dry_run_offloads_what_a_run_offloads(folder: Path) -> None:
    """By the very code of a run: what it has less on the card are the layers of a real one."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    setup = Setup(method="qlora", r=4, max_length=16)
    whole, away = (
        weights_by_dry_run(config, setup.model_copy(update={"offload_layers": count})) for count in (0, LAYERS)
    )
    a_layer = begun(folder, 1, True, BF16)[1].layers[0].home.numel()  # type: ignore[union-attr]
    assert (whole - away) * GIB == pytest.approx((LAYERS - 2) * a_layer, abs=3 * BLOCK)  # less what stands for nothing


@pytest.mark.full
@pytest.mark.parametrize(
    ("model", "method", "count"), [("qwen3-0.6b", "lora", 20), ("llama-3.1-8b-instruct", "qlora", 28)]
)
def test_the_arithmetic_is_within_1_percent_of_the_dry_run(model: str, method: str, count: int) -> None:
    shape = KNOWN[model]
    setup = Setup(method=method, max_length=256, offload_layers=count)  # type: ignore[arg-type]
    counted = dry_run(Question(config=shape.config(), setup=setup)).estimate
    computed = estimate(shape, setup)
    assert computed.allocated_gib == pytest.approx(counted.allocated_gib, rel=0.01)
    assert computed.terms["weights"] == pytest.approx(counted.terms["weights"], rel=0.001)
    assert (
        computed.terms["weights"]
        < 0.75 * estimate(shape, setup.model_copy(update={"offload_layers": 0})).terms["weights"]
    )


# ---- the bus -------------------------------------------------------------------------------------


class LateBus(Bus):
    """Copies that arrive when they are waited for and not before; until then their place holds no number of either
    layer."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.waited = 0

    def send(self, home: torch.Tensor, place: torch.Tensor) -> Any:
        place.fill_(255)
        return home, place

    def arrived(self, arrival: Any) -> None:
        home, place = arrival
        place.copy_(home)
        self.waited += 1


@pytest.mark.parametrize("four_bit", [False, pytest.param(True, marks=pytest.mark.full)], ids=["16-bit", "4-bit"])
def test_no_layer_computes_before_it_has_arrived_or_after_its_place_was_given_away(
    folder: Path, four_bit: bool
) -> None:
    numbers, weights = learned(begun(folder, 0, four_bit)[0])
    bus = LateBus()
    step, streamed = begun(folder, LAYERS, four_bit, bus=bus)
    actual, now = learned(step)
    assert streamed and bus.waited and actual == numbers and torch.equal(now, weights)


CARD = torch.device("cuda:0")


def staged(monkeypatch: pytest.MonkeyPatch, size: int = 8) -> tuple[Bus, PlayedRuntime]:
    """A bus with staging buffers of a played card."""
    runtime = PlayedRuntime()
    runtime.stand_in(monkeypatch)
    bus = Bus(CARD)
    with runtime:
        assert bus.prepare(size)
    return bus, runtime


def test_on_a_card_a_copy_waits_for_what_is_queued_and_the_layer_for_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls, by a played torch.cuda: whether a card then does both at once, only a card shows."""
    bus, runtime = staged(monkeypatch)
    home, place = torch.arange(8, dtype=torch.uint8), torch.zeros(8, dtype=torch.uint8)
    arrival = bus.send(home, place)
    wait_until(arrival.done)
    assert runtime.calls == ["side waits for work"] and not place.any()
    bus.arrived(arrival)
    assert runtime.calls == ["side waits for work", "work waits for side"] and torch.equal(place, home)


def test_a_staging_buffer_is_not_filled_again_before_the_card_has_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card may be behind by more than a layer: what it has not read yet would be overwritten."""
    bus, _ = staged(monkeypatch)
    homes = [torch.full((8,), number, dtype=torch.uint8) for number in range(3)]
    places = [torch.full((8,), 255, dtype=torch.uint8) for _ in homes]
    waits, read = threading.Event(), threading.Event()

    def synchronize(event: PlayedEvent) -> None:
        waits.set()
        assert read.wait(30)
        event.catch_up()

    monkeypatch.setattr(PlayedEvent, "synchronize", synchronize)
    arrivals = [bus.send(home, place) for home, place in zip(homes, places, strict=True)]
    wait_until(lambda: waits.is_set() or arrivals[2].done())
    of_first = arrivals[0].result().stream.queue[0].args[1]
    assert torch.equal(of_first, homes[0]) and not arrivals[2].done()
    read.set()
    for arrival in arrivals:
        bus.arrived(arrival)
    assert all(torch.equal(place, home) for place, home in zip(places, homes, strict=True))


@pytest.mark.parametrize("four_bit", [False, pytest.param(True, marks=pytest.mark.full)], ids=["16-bit", "4-bit"])
def test_layers_pass_through_two_pinned_buffers_bit_for_bit(
    folder: Path, four_bit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that arrive as late as they may, and no RAM that is pinned besides."""
    numbers, weights = learned(begun(folder, 0, four_bit)[0])
    runtime = PlayedRuntime()
    runtime.stand_in(monkeypatch)
    with runtime:
        step, streamed = begun(folder, LAYERS, four_bit, bus=Bus(CARD))
        actual, now = learned(step)
    assert streamed and actual == numbers and torch.equal(now, weights)
    assert runtime.pinned == [max(layer.home.numel() for layer in streamed.layers)] * 2
    assert not streamed.waits and streamed.message.key == "offload.begun"


def test_where_pinned_ram_is_refused_a_run_is_slower_and_says_so_and_nothing_else_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal of `cudaHostRegister` stayed CUDA's last error, and the next kernel ended the run as out of
    memory."""
    numbers, weights = learned(begun(folder, 0, False)[0])
    runtime = PlayedRuntime(pins=0)
    runtime.stand_in(monkeypatch)
    with runtime:
        step, streamed = begun(folder, LAYERS, False, bus=Bus(CARD))
        actual, now = learned(step)
    assert streamed and actual == numbers and torch.equal(now, weights)
    assert streamed.waits and streamed.message.key == "offload.unpinned"
    assert begun(folder, 3, False)[1].message.key == "offload.begun"  # type: ignore[union-attr]


def test_a_copy_that_fails_in_the_thread_fails_the_step_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, _ = staged(monkeypatch, 4)
    with pytest.raises(RuntimeError, match="size"):  # a layer of 8 bytes does not fit
        bus.arrived(bus.send(torch.zeros(8, dtype=torch.uint8), torch.zeros(8, dtype=torch.uint8)))


def test_the_thread_of_a_model_ends_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two models has its own."""

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("offloaded-layers")]

    gc.collect()  # models of other tests
    wait_until(lambda: not threads())
    runtime = PlayedRuntime()
    runtime.stand_in(monkeypatch)
    with runtime:
        steps = [begun(folder, LAYERS, False, bus=Bus(CARD))[0] for _ in range(2)]
        for step in steps:
            step.evaluate_batch(rows(5))
    assert len(threads()) == 2
    del step, steps
    gc.collect()
    wait_until(lambda: not threads())


# ---- what is refused -----------------------------------------------------------------------------


def test_what_cannot_be_offloaded_is_refused_with_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = adapter.add(tiny_base(), Adapter(r=4), "tiny", None)
    monkeypatch.setattr(base_model, "bits", lambda base: 8)
    with pytest.raises(ModelError, match="8 bit"):
        streaming.begin(tuned, CPU, 1)
    monkeypatch.undo()
    monkeypatch.setattr(streaming, "GradientCheckpointingLayer", type("Other", (), {}))
    with pytest.raises(ModelError, match="llama"):
        streaming.begin(tuned, CPU, 1)


def test_layers_are_spread_so_that_each_has_work_before_it() -> None:
    assert evenly_spread(8, 0) == [] and evenly_spread(8, 8) == evenly_spread(8, 99) == [*range(8)]
    assert evenly_spread(8, 2) == [3, 7] and evenly_spread(7, 3) == [2, 4, 6]
    assert all(len(evenly_spread(layers, count)) == count for layers in (1, 5, 32) for count in range(layers + 1))


@pytest.mark.parametrize(
    "more",
    [
        {"adapter": {"init_lora_weights": "pissa"}}, {"adapter": {"load_in_8bit": True}}, {"train": {"ranks": 2}},
        {"train": {"gradient_checkpointing": False}},
    ],
)  # fmt: skip
def test_what_cannot_go_with_offloaded_layers_is_said_with_the_setting(more: dict[str, Any]) -> None:
    value = {"data": {"source": "x"}} | more
    Recipe.parse(value)
    for count in (-1, 5):
        with pytest.raises(RecipeError, match=f"offload_layers {count}"):
            Recipe.parse(value | {"train": more.get("train", {}) | {"offload_layers": count}})


def test_a_base_for_which_there_is_not_the_ram_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = KNOWN["llama-3.1-8b-instruct"]
    assert arithmetic.ram_to_offload_gib(shape, Setup(method="qlora")) == pytest.approx(5.3 + 3, abs=0.1)
    needed = arithmetic.ram_to_offload_gib(shape, Setup(method="qlora", offload_layers=5))
    assert needed == pytest.approx(5.3 + 2 * 0.105 + 3, abs=0.1)  # two staging buffers of a layer in 4 bit
    for there, is_enough in ((needed - 0.1, False), (needed + 0.1, True)):
        monkeypatch.setattr(probe.psutil, "virtual_memory", lambda: SimpleNamespace(available=there * GIB))  # noqa: B023
        monkeypatch.setattr(probe, "limit_of_process", lambda: None)
        monkeypatch.setattr(probe, "this_machine", lambda: None)
        for count in (0, 5):
            recipe = Recipe.parse(
                {"data": {"source": "x"}, "adapter": {"method": "qlora"}, "train": {"offload_layers": count}}
            )
            memory_probe = probe.Probe(None, None, recipe, shape)  # type: ignore[arg-type]
            if is_enough or not count:
                memory_probe.require_ram()
                continue
            with pytest.raises(DoesNotFitError, match=rf"{needed:.1f} GiB of RAM, but {there:.1f}"):
                memory_probe.require_ram()


@pytest.mark.gpu
@pytest.mark.parametrize("four_bit", [False, True], ids=["16-bit", "4-bit"])
def test_on_a_card_offloaded_layers_give_the_same_numbers_in_less_memory(folder: Path, four_bit: bool) -> None:
    card = Compute(torch.device("cuda:0"), torch.bfloat16, BF16.reason)
    results, held = [], []
    for count in (0, LAYERS):
        base, compute = streaming.load(folder, card, four_bit)
        torch.manual_seed(0)
        tuned = adapter.add(base, Adapter(r=4), "tiny", None)
        before = torch.cuda.memory_allocated()
        streamed = streaming.begin(tuned, compute.device, count)
        held.append(torch.cuda.memory_allocated() - before)
        step = Step.from_recipe(tuned, recipe_of(), compute, 0)
        step.begin(7)
        results.append(learned(step))
        assert not count or not streamed.waits
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1]) and held[1] < held[0]
