"""What only a graphics card can show. Skipped without one; `python -m benchmarks.gpu_report` runs all of it and writes
a report.

Written for CUDA and never run so far: see "What was never tried" in the README.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.data.formats import Example
from core.data.labels import Encoded
from core.data.tokenizer import Tokenizer
from core.recipe import Adapter, Recipe

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

QUESTIONS = [
    Example(prompt=f"What is {i} and {i}?", completion=f"It is {2 * i}, matey. " * (1 + i % 5)) for i in range(1, 13)
]


@pytest.fixture(scope="module")
def examples(starter_folder: Path) -> list[Encoded]:
    tokenizer = Tokenizer(starter_folder)
    return [tokenizer.encode_example(question, 256) for question in QUESTIONS]


def adapted(folder: Path, four_bit: bool = False, in_fp32: bool = False) -> Any:
    import torch

    from core.engine import adapter, base_model, device

    torch.manual_seed(0)
    chosen = device.choose()
    compute = replace(chosen, dtype=torch.float32) if in_fp32 else chosen
    return with_answers(adapter.add(base_model.load(folder, compute, four_bit), Adapter(r=8), "starter", None))


def with_answers(tuned: Any) -> Any:
    """In training, with an adapter that changes something."""
    from tests.kit.adapters import fill_b

    return fill_b(tuned, std=0.02).train()


def gradient(tuned: Any, batch: Any, head: Any = None) -> Any:
    import torch

    from core.engine.loss import summed_loss

    tuned.zero_grad()
    (summed_loss(tuned, batch, head) / batch.targets.numel()).backward()
    return torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])


def far(found: Any, truth: Any) -> float:
    return float((found - truth).norm() / truth.norm())


def same_direction(a: Any, b: Any, cosine: float = 0.999) -> bool:
    import torch

    return bool(
        torch.nn.functional.cosine_similarity(a, b, 0) > cosine and torch.isclose(a.norm(), b.norm(), rtol=0.02)
    )


def test_the_card_decides_the_dtype_and_says_why() -> None:
    import torch

    from core.engine import device

    chosen = device.choose()
    ampere = torch.cuda.get_device_capability(0)[0] >= 8
    assert chosen.on_card and chosen.dtype == (torch.bfloat16 if ampere else torch.float16)
    assert torch.cuda.get_device_name(0) in chosen.reason.render("en")


@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_and_fused_gradients_are_those_of_peft_on_padded_rows(
    four_bit: bool, checkpointing: bool, starter_folder: Path, examples: list[Encoded]
) -> None:
    """In fp32. In 16 bits it is at most twice as far from PEFT's fp32 gradient as PEFT's own in 16 bits: it rounds A
    and B too (1.34 times as far on a CPU, six layers of the starter)."""
    from core.engine import attention
    from core.engine.batches import collate, collate_packed
    from core.engine.variants import fused_lora

    def gradients(in_fp32: bool) -> tuple[Any, Any]:
        """PEFT's own, and that of what a run computes with."""
        tuned = adapted(starter_folder, four_bit, in_fp32)
        if checkpointing:
            tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            tuned.enable_input_require_grads()
        device = next(tuned.parameters()).device
        plain = gradient(tuned, collate(examples, 0, device))
        assert attention.enable(tuned.get_base_model())
        fused = fused_lora.fuse(tuned)
        assert fused.count == fused.total
        return plain, gradient(tuned, collate_packed(examples, device))

    truth, packed = gradients(in_fp32=True)
    assert far(packed, truth) < 1e-3
    plain, packed = gradients(in_fp32=False)
    print(f"from the fp32 gradient: PEFT's {far(plain, truth):.4f}, packed and fused {far(packed, truth):.4f}")
    assert far(packed, truth) < 2 * far(plain, truth)


@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_packing_proves_itself_each_time(four_bit: bool, starter_folder: Path) -> None:
    """Its proof compares bits, and a card's product of few rows may add in another order at each call."""
    from core.engine import attention, base_model, device

    model = base_model.load(starter_folder, device.choose(), four_bit)
    before = model.config._attn_implementation
    proven = []
    for _ in range(20):
        proven.append(attention.enable(model))
        attention.switch(model, before)
    assert proven == [True] * 20


def test_a_refused_pin_leaves_no_error_on_the_card() -> None:
    """2^46 bytes are refused by every system; the next kernel must not raise that refusal."""
    import torch

    from core.engine.variants import pinned

    assert pinned.empty((1 << 46,), torch.uint8) is None
    assert torch.ones(1000, device="cuda").sum().item() == 1000
    buffer = pinned.empty((1000,), torch.uint8)
    assert buffer is not None and buffer.is_pinned()


def test_what_is_put_aside_in_ram_leaves_the_card_and_changes_no_gradient(
    starter_folder: Path, examples: list[Encoded]
) -> None:
    import torch

    from core.engine.batches import collate
    from core.engine.loss import summed_loss
    from core.engine.variants.offload import Offload

    tuned = adapted(starter_folder)
    batch = collate(examples, 0, next(tuned.parameters()).device)
    expected = gradient(tuned, batch)
    torch.cuda.reset_peak_memory_stats()
    gradient(tuned, batch)
    peak = torch.cuda.max_memory_allocated()
    tuned.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    with Offload(tuned) as aside:
        (summed_loss(tuned, batch) / batch.targets.numel()).backward()
    assert aside.moved_bytes > 0 and torch.cuda.max_memory_allocated() < 0.8 * peak
    gradients = torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])
    assert same_direction(gradients, expected)


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit", "paged_adamw_8bit"])
def test_a_run_learns_and_its_memory_is_what_was_estimated(method: str, optim: str, make_workspace: Callable) -> None:
    from core.advice import plan
    from core.api.training import follow
    from core.memory.arithmetic import estimate
    from core.memory.setup import Setup
    from core.models.known import known_models
    from core.runs.all import Runs
    from core.runs.states import State

    space = make_workspace()
    value = {
        "data": {"source": "sample:pirate_answers", "max_length": 128},
        "adapter": {"method": method, "r": 8},
        "train": {"optim": optim, "max_steps": 20, "learning_rate": 5e-3, "gradient_checkpointing": True},
    }
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "card", has_card=True), "command")
    status = follow(run, space)
    assert status.state == State.COMPLETED, status.message
    losses = [line["loss"] for line in run.metrics().records if line["kind"] == "train"]
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]
    setup = Setup(method=method, r=8, per_device_train_batch_size=4, max_length=128, optim=optim)
    expected = estimate(next(model.shape for model in known_models() if model.id == "starter"), setup)
    measured = run.facts().peak_memory_bytes / 2**30
    print(f"{method} {optim}: measured {measured:.2f} GiB reserved, estimated {expected.allocated_gib:.2f} GiB")
    assert measured < expected.on_card_gib
