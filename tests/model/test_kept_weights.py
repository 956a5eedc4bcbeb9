"""4-bit weights that stay unpacked from a layer's second forward to its backward: same numbers, fewer unpackings, and
the estimate, the dry run and the probe know of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from benchmarks import counted
from core.engine import base_model
from core.engine.batches import collate
from core.engine.loss import summed_loss
from core.engine.out_of_memory import HALVE
from core.engine.variants import fused_lora, kept_weights
from core.engine.variants.layers import checkpoint_layers
from core.memory import layers
from core.memory.arithmetic import estimate, has_room_to_keep_scales, has_room_to_keep_unpacked
from core.memory.layers import kept_unpacked
from core.memory.setup import Setup
from core.models.known import known_models
from core.models.shapes.shape import Held
from core.runs.run_json import RunFacts
from core.training.memory import probe
from core.training.memory.probe import Probe
from core.trial.dry_run import dry_run
from core.trial.dry_runs import Question
from core.workspace.folder import Workspace
from tests.kit.adapters import adapted
from tests.kit.cuda import FakeCuda
from tests.kit.trainer import rows, trainer_of
from tests.model.test_counted import SETUP, SHAPE

LLAMA = next(model.shape for model in known_models() if model.id == "llama-3.1-8b-instruct")
LAYERS = 2


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "UNPACKED_ROWS", 8)


def step() -> Any:
    """A tiny model in 4 bit, fused and checkpointed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    replace_with_bnb_linear(model, ["lm_head"], quantization_config=base_model.nf4(torch.float32))
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            numbers = torch.randn(layer.out_features, layer.in_features) / 8
            layer.weight = Params4bit(numbers, requires_grad=False, quant_type="nf4", compress_statistics=True).to(
                "cpu"
            )
    model.is_loaded_in_4bit = True
    base_model.close_cpu_gradient_trap(model)
    tuned = adapted(model, method="qlora").train()
    checkpoint_layers(tuned)
    fused = fused_lora.fuse(tuned)
    assert fused.reason is None
    return SimpleNamespace(tuned=tuned, fused=fused, installed=(fused,), retreat=SimpleNamespace(reductions=[]))


def gradients(made: Any) -> torch.Tensor:
    made.tuned.zero_grad()
    summed_loss(made.tuned, collate(rows(4), 0, torch.device("cpu"))).backward()
    return torch.cat([p.grad.flatten() for p in made.tuned.parameters() if p.requires_grad])


def unpacked_by_name(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    own = fused_lora._Member.base_weight
    monkeypatch.setattr(fused_lora._Member, "base_weight", lambda self, dtype: seen.append(self) or own(self, dtype))
    return seen


def test_numbers_are_the_same_and_each_weight_is_unpacked_once_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = step(), unpacked_by_name(monkeypatch)
    products: list[Any] = []
    own = Linear4bit.forward
    monkeypatch.setattr(Linear4bit, "forward", lambda self, x: products.append(self) or own(self, x))
    expected = gradients(made)
    assert (len(products), len(seen)) == ((7 + 6) * LAYERS, 7 * LAYERS)  # of down_proj no second product
    kept = kept_weights.keep(made)
    products.clear(), seen.clear()
    found = gradients(made)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (len(products), len(seen)) == (7 * LAYERS, 7 * LAYERS) and kept.is_on and not kept._kept
    made.retreat.reductions.append(HALVE)  # a step that saves memory saves this too
    products.clear()
    assert torch.equal(gradients(made), expected) and len(products) == 13 * LAYERS and not kept.is_on
    made.retreat.reductions.clear()
    made.fused.release()
    assert not any("forward" in vars(layer) for layer in made.tuned.modules()) and kept._layers
    assert not any("base_weight" in vars(member) for member in kept._layers)


def test_what_a_step_that_was_left_half_way_had_unpacked_is_forgotten() -> None:
    made = step()
    kept = kept_weights.keep(made)
    (first, *_), *_ = (group.members for group in made.fused.groups)

    def fail(gradient: torch.Tensor) -> None:
        raise KeyboardInterrupt

    hook = first.B.register_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        gradients(made)
    hook.remove()
    kept._kept[0] = torch.zeros(1)
    made.fused.forget()
    assert not kept._kept
    expected = gradients(made)
    made.fused.release()
    assert (gradients(step()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_short_batches_whose_product_unpacks_nothing_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "UNPACKED_ROWS", 10_000)
    made = step()
    expected = gradients(made)
    kept_weights.keep(made)
    assert torch.equal(gradients(made), expected)


def test_they_are_counted_and_estimated() -> None:
    before, after = (
        counted.ours(SHAPE.config(), SETUP.model_copy(update={"keeps_unpacked": on})) for on in (False, True)
    )
    # forward 7 products of 3 launches, second forward 6, gradients 7 of 2; kept: second forward 6 of 2, gradients 1
    assert (before.launches["unpacking"], after.launches["unpacking"]) == (3 * 53, 3 * 35)
    assert after.flops == before.flops
    short = LLAMA.model_copy(update={"num_hidden_layers": 4})
    setup = Setup(method="qlora", max_length=2048, supervised_tokens=1024, keeps_unpacked=True)
    seen, reckoned = (dry_run(Question(config=short.config(), setup=setup)).estimate, estimate(short, setup))
    assert reckoned.allocated_gib == pytest.approx(seen.allocated_gib, rel=0.03)
    assert kept_unpacked(short, setup) / 2 == 4096 * (2 * 4096 + 2 * 1024 + 2 * 14336)
    assert kept_unpacked(short, setup.model_copy(update={"method": "lora"})) == 0


def test_they_are_kept_where_there_is_room() -> None:
    setup = Setup(method="qlora", max_length=2048)
    needed = estimate(LLAMA, setup.model_copy(update={"keeps_unpacked": True})).needed_gib
    assert needed > estimate(LLAMA, setup).needed_gib
    assert has_room_to_keep_unpacked(LLAMA, setup, needed) and not has_room_to_keep_unpacked(
        LLAMA, setup, needed - 0.01
    )
    assert not has_room_to_keep_unpacked(LLAMA, setup, needed, factor=1.1)
    assert not has_room_to_keep_unpacked(LLAMA, setup.model_copy(update={"method": "lora"}), 80.0)


class Unpackings(TorchDispatchMode):
    """The number of times that quantized scales are undone while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation._schema.name
        given = [*args, *(kwargs or {}).values()]
        nested = name.endswith("gemm_4bit") and any(getattr(each, "dtype", None) is torch.uint8 for each in given[2:])
        self.count += nested or name.endswith("dequantize_blockwise")
        return operation(*args, **(kwargs or {}))


def test_scales_in_fp32_give_the_same_bits_and_are_not_undone_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    made = step()
    states = [layer.weight.quant_state for layer in made.tuned.modules() if isinstance(layer, Linear4bit)]
    before = [state.absmax.clone() for state in states]
    with Unpackings() as seen:
        expected = gradients(made)
    assert seen.count == (7 + 6 + 7) * LAYERS
    kept = kept_weights.keep_scales(made)
    with Unpackings() as seen:
        assert torch.equal(gradients(made), expected)
    assert seen.count == 0 and kept.is_on and all(state.absmax.dtype == torch.float32 for state in states)
    made.fused.forget()  # as a step that ran out of memory
    assert not kept.is_on and all(
        state.nested and torch.equal(state.absmax, was) for state, was in zip(states, before, strict=True)
    )
    assert torch.equal(gradients(made), expected)
    full = RuntimeError("CUDA out of memory")
    monkeypatch.setattr("bitsandbytes.functional.dequantize_blockwise", lambda *_: (_ for _ in ()).throw(full))
    assert not kept_weights.keep_scales(made).is_on and all(state.nested for state in states)


def test_scales_are_kept_in_fp32_where_there_is_room() -> None:
    """3 of 64 bytes a parameter, less the fp32 ones of 256 in 8 bits."""
    setup = Setup(method="qlora", max_length=2048)
    kept = setup.model_copy(update={"double_quant": False})
    needed, more = (estimate(LLAMA, each).needed_gib for each in (kept, setup))
    assert needed - more == pytest.approx(LLAMA.four_bit_params * (3 / 64 - 4 / 64 / 256) / 2**30 * 1.05, rel=0.1)
    assert has_room_to_keep_scales(LLAMA, setup, needed) and not has_room_to_keep_scales(LLAMA, setup, needed - 0.01)
    assert not has_room_to_keep_scales(LLAMA, setup, needed, factor=1.1)
    assert not has_room_to_keep_scales(LLAMA, setup.model_copy(update={"method": "lora"}), 80.0), "it has none"
    stored = LLAMA.model_copy(
        update={"held": Held(params=LLAMA.params, four_bit=LLAMA.four_bit_params, stored_bytes=5 << 30)}
    )
    assert not has_room_to_keep_scales(stored, setup, 80.0), "its size is that of its files, whatever their scales"


class Kept:
    """As KeptWeights or KeptScales of a step with layers in 4 bit."""

    def __init__(self, step: Any, scales: bool = False):
        self.step, self.scales, self.forgotten = step, scales, False

    @property
    def is_on(self) -> bool:
        return not (self.forgotten if self.scales else self.step.retreat.reductions)

    def forget(self) -> None:
        self.forgotten = True


def test_a_card_with_room_keeps_them_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    monkeypatch.setattr(probe, "this_machine", cuda.machine)
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows")
    trainer = trainer_of(tmp_path / "run", None, gradient_checkpointing=True)
    trainer.step.on_card = True
    monkeypatch.setattr(trainer.step, "rehearse", lambda longest: cuda.use(4.0))
    # The tiny model is not in 4 bit, which is all that the arithmetic asks.
    asked: list[Setup] = []
    monkeypatch.setattr(
        probe, "has_room_to_keep_unpacked", lambda shape, setup, free, factor: asked.append(setup) or True
    )
    monkeypatch.setattr(kept_weights, "keep", Kept)
    monkeypatch.setattr(kept_weights, "keep_scales", lambda step: Kept(step, scales=True))
    monkeypatch.setattr(
        probe, "has_room_to_keep_scales", lambda shape, setup, free, factor: asked.append(setup) or True
    )
    recipe = trainer.recipe.model_copy(
        update={"adapter": trainer.recipe.adapter.model_copy(update={"method": "qlora"})}
    )
    run = trainer.reporter.run
    run.add_facts(RunFacts(advice={}))
    looked = Probe(run, Workspace.open(tmp_path / "ws"), recipe, LLAMA)
    looked(trainer.ahead)
    said = [event["message"] for event in run.events()]
    assert [each["key"] for each in said[:2]] == ["probe.kept_unpacked", "probe.kept_scales"] and not asked[
        0
    ].keeps_unpacked
    assert (
        asked[1].keeps_unpacked and asked[1].double_quant and said[1]["params"]["size"] == pytest.approx(0.3, abs=0.02)
    )
    assert looked._setup(trainer.step, trainer.longest()).keeps_unpacked
    assert not looked._setup(trainer.step, trainer.longest()).double_quant
    trainer.step.retreat.reductions.append(HALVE)
    assert not looked._setup(trainer.step, trainer.longest()).keeps_unpacked


def test_scales_that_do_not_fit_are_quantized_again_before_anything_else_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    monkeypatch.setattr(probe, "this_machine", cuda.machine)
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows")
    trainer = trainer_of(tmp_path / "run", None)
    trainer.step.on_card = True
    monkeypatch.setattr(probe, "has_room_to_keep_scales", lambda shape, setup, free, factor: True)
    monkeypatch.setattr(kept_weights, "keep", Kept)
    monkeypatch.setattr(kept_weights, "keep_scales", lambda step: Kept(step, scales=True))
    run = trainer.reporter.run
    run.add_facts(RunFacts(advice={}))
    looked = Probe(run, Workspace.open(tmp_path / "ws"), trainer.recipe, LLAMA)
    monkeypatch.setattr(trainer.step, "rehearse", lambda longest: cuda.use(4.0 if looked._scales.forgotten else 40.0))
    looked(trainer.ahead)
    assert not trainer.step.retreat.reductions, "nothing else was given up for them"
    assert looked._scales.forgotten and looked._setup(trainer.step, trainer.longest()).double_quant
