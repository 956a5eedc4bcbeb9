"""Layers that are left out of gradient checkpointing because a card has room for what they keep: same numbers, fewer
products, and the estimate, the dry run and the probe know of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from core.engine.batches import collate
from core.engine.loss import summed_loss
from core.engine.out_of_memory import EVERY_LAYER, Retreat
from core.engine.variants import fused_lora
from core.engine.variants.layers import checkpoint_layers
from core.memory.arithmetic import estimate, most_kept_layers
from core.memory.setup import Setup
from core.messages import msg
from core.models.known import known_models
from core.runs.run_json import RunFacts
from core.training.memory import probe
from core.training.memory.probe import Probe
from core.trial.dry_run import dry_run
from core.trial.dry_runs import Question
from core.workspace.folder import Workspace
from tests.kit.adapters import adapted
from tests.kit.cuda import FakeCuda
from tests.kit.trainer import rows, trainer_of

LAYERS = 4
KNOWN = {model.id: model.shape for model in known_models()}


def computed(kept: int | None) -> tuple[torch.Tensor, int, int]:
    """Gradients, multiplications and bytes kept for the way back of a step whose last `kept` layers are left out; None:
    all of them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )  # fmt: skip
    tuned = adapted(AutoModelForCausalLM.from_config(config).requires_grad_(False)).train()
    if kept is not None:
        checkpoint_layers(tuned, kept)
    fused, size = fused_lora.fuse(tuned), 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal size
        size += tensor.nbytes
        return tensor

    with (
        FlopCounterMode(display=False) as counted,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        summed_loss(tuned, collate(rows(4), 0, torch.device("cpu"))).backward()
    fused.release()
    return torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad]), counted.get_total_flops(), size


def test_each_layer_left_out_saves_its_second_forward_and_changes_no_bit() -> None:
    gradients, every, kept_by_every = computed(0)
    (plain_gradients, plain, kept_by_none) = computed(None)
    assert torch.equal(gradients, plain_gradients) and every > plain
    a_layer = every - computed(1)[1]
    for count in (3, LAYERS):
        actual, products, size = computed(count)
        assert torch.equal(actual, gradients) and products == every - count * a_layer
    assert plain <= products < 1.01 * plain  # what the first layer hands to the embeddings
    assert size == pytest.approx(kept_by_none, rel=0.03) and kept_by_every < size / 2


@pytest.mark.parametrize(
    ("model", "layers", "kept", "setup"),
    [
        ("qwen3-0.6b", 6, 2, Setup(method="lora", max_length=512)),
        ("llama-3.1-8b-instruct", 6, 4, Setup(method="qlora", max_length=2048, supervised_tokens=1024)),
    ],
)
def test_the_estimate_is_within_3_percent_of_the_dry_run(model: str, layers: int, kept: int, setup: Setup) -> None:
    shape = KNOWN[model]
    config = shape.config() | {"num_hidden_layers": layers}
    short = shape.model_copy(update={"num_hidden_layers": layers, "window_layers": 0})
    for count in (1, kept, layers):
        with_kept = setup.model_copy(update={"kept_layers": count})
        counted, reckoned = (dry_run(Question(config=config, setup=with_kept)).estimate, estimate(short, with_kept))
        steps = [
            sum(found.terms[name] for name in ("activations", "logits", "dequantised")) for found in (counted, reckoned)
        ]
        assert steps[1] == pytest.approx(steps[0], rel=0.03), count


def test_as_many_are_left_out_as_there_is_room_for_and_none_where_there_is_none() -> None:
    shape, setup = KNOWN["llama-3.1-8b-instruct"], Setup(method="qlora", max_length=2048, kept_layers=0)
    least = estimate(shape, setup).needed_gib
    counts = [most_kept_layers(shape, setup, least + more) for more in (-0.1, 0.0, 1.0, 4.0, 100.0)]
    assert (
        counts == sorted(counts) and counts[0] == 0 and 0 < counts[2] < counts[3] < counts[4] == shape.num_hidden_layers
    )
    for count, more in zip(counts[1:4], (0.0, 1.0, 4.0), strict=True):
        needed = [estimate(shape, setup.model_copy(update={"kept_layers": count + one})).needed_gib for one in (0, 1)]
        assert needed[0] <= least + more < needed[1]
    assert most_kept_layers(shape, setup, least + 1, factor=1.2) < counts[2]


def test_where_they_do_not_fit_every_layer_is_checkpointed_first_and_stays_so() -> None:
    retreat = Retreat(4, False, True, True)
    retreat.uncheckpointed_layers = 3
    assert retreat.kept_layers == 3
    assert retreat.take_next([0, 1], [5, 5], msg("retreat.beforehand"), measuring=True).key == "retreat.batch"
    assert retreat.take_next([0, 1], [5, 5], msg("retreat.beforehand")).key == "retreat.every_layer"
    assert retreat.kept_layers == 0 and retreat.reductions[-1] == EVERY_LAYER
    retreat.uncheckpointed_layers = 3  # found anew by an attempt that goes on
    assert retreat.kept_layers == 0


@pytest.mark.parametrize(("needs", "kept"), [(5.0, True), (7.5, False)])
def test_a_card_with_room_leaves_layers_out_and_is_measured(
    needs: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    monkeypatch.setattr(probe, "this_machine", cuda.machine)
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows")
    trainer = trainer_of(tmp_path / "run", None, gradient_checkpointing=True)
    trainer.step.on_card, retreat = True, trainer.step.retreat
    monkeypatch.setattr(trainer.step, "rehearse", lambda longest: cuda.use(needs if retreat.kept_layers else 4.0))
    layers = trainer.step.tuned.get_base_model().model.layers
    run = trainer.reporter.run
    run.add_facts(RunFacts(advice={}))
    Probe(run, Workspace.open(tmp_path / "ws"), trainer.recipe, KNOWN["qwen3-0.6b"])(trainer.ahead)
    assert run.events()[0]["message"]["key"] == "probe.kept_layers"
    assert bool(retreat.kept_layers) == kept and [layer.gradient_checkpointing for layer in layers] == [not kept] * 2
