"""The training step is the textbook's, on tiny models."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from core.advice import plan
from core.data.labels import Encoded
from core.data.row_order import Schedule, grouped
from core.data.validation_split import split
from core.engine import adapter
from core.engine.batches import collate
from core.engine.loss import summed_loss
from core.engine.variants import offload
from core.engine.variants.layers import stop_inside_layers
from core.messages import Message, msg
from core.recipe import Adapter, Recipe
from core.runs.folder import RunFolder
from core.training.learning_rate import schedule_factor
from core.training.trainer import Trainer, TrainingData
from tests.kit.adapters import adapted
from tests.kit.cuda import PlayedRuntime
from tests.kit.trainer import BF16, FP32, Pausing, assembled, tiny_base


def rows(count: int = 6) -> list[Encoded]:
    chance = torch.Generator().manual_seed(1)
    result = []
    for i in range(count):
        length = 5 + 3 * i
        ids = torch.randint(3, 97, (length,), generator=chance).tolist()
        result.append(Encoded(ids, [False] * 3 + [True] * (length - 3)))
    return result


def gradients(tuned: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])


def test_a_padded_batch_learns_what_its_rows_learn_alone() -> None:
    tuned = adapted(tiny_base())
    together = summed_loss(tuned, collate(rows(), 0, FP32.device))
    alone = sum(summed_loss(tuned, collate([row], 0, FP32.device)) for row in rows())
    torch.testing.assert_close(together, alone)


def test_a_family_that_bends_its_logits_is_trained_on_its_own_logits() -> None:
    from transformers import AutoModelForCausalLM, Gemma2Config

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.01, use_cache=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    batch = collate(rows(1), 0, FP32.device)
    labels = torch.tensor([[-100] * 3 + rows(1)[0].input_ids[3:]])
    expected = model(input_ids=batch.input_ids, labels=labels).loss
    torch.testing.assert_close(summed_loss(model, batch) / batch.targets.numel(), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulating_equals_one_large_batch(checkpointing: bool) -> None:
    tuned = adapted(tiny_base()).train()
    if checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        tuned.enable_input_require_grads()
    total = sum(row.learned_count for row in rows())
    (summed_loss(tuned, collate(rows(), 0, FP32.device)) / total).backward()
    large = gradients(tuned)
    tuned.zero_grad()
    for part in (rows()[:1], rows()[1:4], rows()[4:]):
        (summed_loss(tuned, collate(part, 0, FP32.device)) / total).backward()
    torch.testing.assert_close(gradients(tuned), large)


def test_every_row_is_trained_once_an_epoch_in_an_order_that_the_seed_decides() -> None:
    lengths = [5, 90, 7, 33, 8, 8, 60, 61, 9]
    first = grouped(lengths, 2, seed=1, epoch=0)
    assert sorted(i for batch in first for i in batch) == list(range(9))
    assert first == grouped(lengths, 2, seed=1, epoch=0)
    assert first != grouped(lengths, 2, seed=1, epoch=1)


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs", "max_steps", "expected"),
    [
        (10, 4, 1, 1.0, -1, 3),
        (10, 4, 2, 1.0, -1, 2),
        (10, 4, 1, 2.5, -1, 8),
        (10, 4, 1, 3.0, 7, 7),
        (1, 4, 8, 1.0, -1, 1),
    ],
)
def test_planned_steps_are_the_steps_that_run(
    rows: int, batch: int, accumulation: int, epochs: float, max_steps: int, expected: int
) -> None:
    schedule = Schedule((5,) * rows, batch, accumulation, epochs, max_steps, seed=0)
    assert schedule.total_steps == expected == len(list(schedule.steps()))
    assert all(list(schedule.steps())), "no step is empty"
    assert list(schedule.steps(done=1)) == list(schedule.steps())[1:]


def test_split_keeps_small_sets_whole_and_is_decided_by_the_seed() -> None:
    def both(rows: int, share: float, seed: int) -> tuple[list[int], ...]:
        return tuple(part.tolist() for part in split(rows, share, seed))

    assert both(19, 0.5, 1) == (list(range(19)), [])
    train, held = both(100, 0.05, 1)
    assert len(held) == 5 and sorted(train + held) == list(range(100))
    assert both(100, 0.05, 1) == (train, held) != both(100, 0.05, 2)


def test_learning_rates_equal_those_of_transformers_schedulers() -> None:
    from transformers import get_scheduler

    for kind in ("linear", "cosine"):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        reference = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=20)
        for step in range(20):
            assert schedule_factor(step, 20, 0, kind) == pytest.approx(reference.get_last_lr()[0])
            optimizer.step()
            reference.step()
    assert schedule_factor(0, 20, 4, "linear") == pytest.approx(0.2)  # a warm-up whose first step already learns
    assert schedule_factor(4, 20, 4, "linear") == 1.0


def test_a_step_can_be_left_between_two_layers_forwards_and_backwards() -> None:
    tuned = adapted(tiny_base()).train()
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt

    # 2 layers: the first two checks are in the forward, the others in the backward.
    for limit in (2, 3, 4):  # noqa: B007 - check reads it
        calls.clear()
        with pytest.raises(KeyboardInterrupt), stop_inside_layers(tuned, check):
            summed_loss(tuned, collate(rows(), 0, FP32.device)).backward()
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tuned.modules())
    assert hooks == 0


class Counting(Pausing):
    """Keeps each measurement, also where one step has several."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run)
        self.each: list[tuple[str, dict[str, float]]] = []

    def metrics(self, kind: str, step: int, **numbers: float) -> None:
        super().metrics(kind, step, **numbers)
        self.each.append((kind, numbers))


def trainer_of(tuned: torch.nn.Module, folder: Path, evaluation: int = 3, **settings) -> Trainer:
    sections = {"data": {"source": "x", "max_length": 64, **settings.pop("data", {})}, "train": settings}
    recipe = plan.resolve(Recipe.parse(sections), "x", has_card=False)
    return assembled(tuned, recipe, Counting(RunFolder(folder)), TrainingData(rows(6), rows(evaluation), 0))


def test_nothing_of_a_micro_batch_lasts_into_the_next(tmp_path: Path) -> None:
    """With checkpointing the embedded tokens require gradients: a graph that lasts keeps them, and as much again for
    their gradient."""
    step = trainer_of(adapted(tiny_base()), tmp_path, gradient_checkpointing=True).step
    step.begin(0)
    embedded: list[StorageWeakRef] = []
    lasting: list[int] = []

    def note(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        lasting.append(sum(not each.expired() for each in embedded))
        embedded.append(StorageWeakRef(output.untyped_storage()))

    step.tuned.get_base_model().get_input_embeddings().register_forward_hook(note)
    step.compute([rows(2)] * 3, 1e-3)
    assert lasting == [0, 0, 0]


def test_measuring_drops_nothing_out_and_training_goes_on_with_dropout(tmp_path: Path) -> None:
    tuned = adapted(tiny_base(), std=0.5, lora_dropout=0.5)
    trainer = trainer_of(tuned, tmp_path, max_steps=1, eval_steps=1)
    trainer._evaluate(0)
    trainer._evaluate(0)
    (_, first), (_, second) = trainer.reporter.each
    with torch.no_grad():
        expected = summed_loss(tuned.eval(), collate(rows(3), 0, FP32.device)) / sum(
            row.learned_count for row in rows(3)
        )
    assert first == second and first["eval_loss"] == pytest.approx(float(expected), rel=1e-5)
    trainer._step(1, [[0, 1]])
    assert tuned.training, "a step trains with dropout again"


@pytest.mark.parametrize("standing", ["monotonic", "perf_counter"])
def test_a_step_shorter_than_the_clock_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing: str
) -> None:
    """Windows' monotonic clock moves each 15.6 ms with Python 3.11 and 3.12 (GetTickCount64), so a step on it took 0
    s."""
    real = time.monotonic
    coarse = {"monotonic": lambda: int(real() * 64) / 64, "perf_counter": lambda: 0.0}
    monkeypatch.setattr(time, standing, coarse[standing])
    trainer = trainer_of(adapted(tiny_base()), tmp_path, max_steps=20)
    assert trainer.run().step == 20
    speeds = [numbers["tokens_per_second"] for kind, numbers in trainer.reporter.each if kind == "train"]
    assert len(speeds) == 20 and all(speed > 0 for speed in speeds)


def test_a_change_of_threads_is_heard_of_every_step_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, heard = [], []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    trainer = trainer_of(adapted(tiny_base()), tmp_path, max_steps=3, per_device_train_batch_size=2)
    assert trainer._threads.most == torch.get_num_threads()
    log_event = RunFolder.log_event
    monkeypatch.setattr(
        RunFolder, "log_event", lambda run, kind, **event: told.append((kind, event)) or log_event(run, kind, **event)
    )
    fewer = msg("threads.fewer", now=1, before=2, faster=3.0)

    def note(seconds: float, tokens: float) -> Message | None:
        heard.append(tokens)
        return fewer if len(heard) == 2 else None

    monkeypatch.setattr(trainer._threads, "note", note)
    trainer.run()
    assert len(heard) == 3 and min(heard) > 0 and told.count(("decision", {"message": fewer})) == 1


def test_whoever_sets_the_threads_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert trainer_of(adapted(tiny_base()), tmp_path, max_steps=1)._threads is None


@pytest.mark.parametrize("packing", [True, False])
def test_steps_of_the_trainer_are_those_of_adamw_on_transformers_own_loss(packing: bool, tmp_path: Path) -> None:
    """Three whole steps, two micro-batches each: packed, fused and in chunks, or padded, against the textbook."""
    tuned, reference = adapted(tiny_base()), adapted(tiny_base()).train()
    trainer = trainer_of(
        tuned, tmp_path, 0, max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant", data={"packing": packing},
    )  # fmt: skip
    assert trainer.step.packed == packing
    parameters = [p for p in reference.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    losses = []
    for micro_batches in trainer.schedule.steps():
        chosen = [rows(6)[i] for micro in micro_batches for i in micro]
        batch = collate(chosen, 0, FP32.device)
        labels = torch.full((batch.input_ids.numel(),), -100)
        labels[batch.index + 1] = batch.targets
        loss = reference(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels.view_as(batch.input_ids)
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    trainer.run()
    assert [numbers["loss"] for kind, numbers in trainer.reporter.each if kind == "train"] == pytest.approx(
        losses, rel=1e-5
    )
    ours = [p for p in tuned.parameters() if p.requires_grad]
    for a, b in zip(ours, parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_put_aside_in_ram_changes_no_gradient_and_no_weight_moves(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "SMALLEST_BYTES", 1024)
    tuned = adapted(tiny_base()).train()
    if checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        tuned.enable_input_require_grads()
    batch = collate(rows(), 0, FP32.device)
    summed_loss(tuned, batch).backward()
    expected = gradients(tuned)
    tuned.zero_grad()
    with offload.Offload(tuned, pin_memory=False) as aside:
        summed_loss(tuned, batch).backward()
    assert torch.equal(gradients(tuned), expected)
    width = batch.input_ids.numel() * 32 * 4
    assert aside.moved_bytes >= 2 * width, "at least the input of each layer"
    if checkpointing:
        assert aside.moved_bytes <= 8 * width, "not what is inside the layers"


def test_what_is_put_aside_are_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALLEST_BYTES", 1)
    layer = torch.nn.Linear(64, 64)
    x = torch.ones(2, 64, requires_grad=True)
    with offload.Offload(layer, pin_memory=False) as aside:
        (layer(x * 2) ** 2).sum().backward()
    assert 0 < aside.moved_bytes < layer.weight.numel() * 4


def test_what_is_put_aside_lies_in_ordinary_ram_where_the_system_pins_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a full card under Windows the run ended, although there was RAM."""
    monkeypatch.setattr(offload, "SMALLEST_BYTES", 1)
    layer = torch.nn.Linear(64, 64)

    def gradient(granted: int) -> torch.Tensor:
        x, runtime = torch.ones(2, 64, requires_grad=True), PlayedRuntime(granted)
        with runtime, offload.Offload(layer) as aside:
            hidden = layer(x * 2) ** 2
            (hidden * hidden).sum().backward()
        assert len(runtime.pinned) == min(granted, 4) and aside.moved_bytes == 4 * 2 * 64 * 4
        return x.grad

    everything, first, nothing = (gradient(granted) for granted in (99, 1, 0))
    assert torch.equal(everything, first) and torch.equal(everything, nothing)


def test_4bit_gradients_are_right_after_an_evaluation(in_4_bit: Callable[[Any], Any]) -> None:
    """On CPUs with AVX512_BF16 bitsandbytes repacks 4-bit weights in the first eval forward and loses the gradient.

    It looked like this: cosine 0.15 against a dequantised reference (0.60 on the four layers here), the run learned
    nothing, and nothing was said.
    """
    base, reference = in_4_bit(BF16), in_4_bit(BF16).dequantize()
    ids = torch.arange(3, 51).reshape(2, 24).tolist()
    batch = collate([Encoded(row, [True] * 24) for row in ids], 0, FP32.device)
    with torch.no_grad():
        base(input_ids=batch.input_ids)  # the evaluation

    def gradient(model: torch.nn.Module) -> torch.Tensor:
        torch.manual_seed(0)
        tuned = adapted(model).train()
        summed_loss(tuned, batch).backward()
        return gradients(tuned)

    quantized = gradient(base)
    expected = gradient(reference)
    assert torch.nn.functional.cosine_similarity(quantized, expected, dim=0) > 0.98
    assert quantized.norm() == pytest.approx(float(expected.norm()), rel=0.1)


def test_qlora_keeps_every_linear_layer_in_4_bit_and_nothing_is_upcast(in_4_bit: Callable[[Any], Any]) -> None:
    from bitsandbytes.nn import Linear4bit

    base = in_4_bit(BF16)
    linears = [m for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    assert linears and all(isinstance(m, Linear4bit) for m in linears)
    assert all(m.weight.quant_state.nested and m.weight.quant_state.quant_type == "nf4" for m in linears)
    assert {p.dtype for p in base.parameters()} == {torch.bfloat16, torch.uint8}
    assert all(
        p.dtype == torch.float32 for p in adapter.add(base, Adapter(r=4), "x", None).parameters() if p.requires_grad
    )
