"""The head at the learned positions, in chunks, gives what transformers' own loss gives, whatever a family does to its
logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from core.data.labels import Encoded
from core.engine import attention
from core.engine.batches import Batch, collate, collate_packed
from core.engine.loss import Head, head_losses, summed_loss
from core.engine.variants import chunk
from core.memory import arithmetic
from core.trial.allocations import Allocations
from tests.kit.adapters import adapted
from tests.kit.trainer import gradients

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# Caps and factors far from 1, so that leaving one out would be seen. tied: the head is the embedding.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "llama tied": {"tie_word_embeddings": True}, "qwen2": {}, "qwen3": {"head_dim": 8,
        "tie_word_embeddings": True},
    "mistral": {}, "gemma": {"head_dim": 8}, "gemma2": {"head_dim": 8, "final_logit_softcapping": 0.05},
    "gemma3_text": {"head_dim": 8, "final_logit_softcapping": 0.05}, "cohere": {"logit_scale": 0.0625},
    "cohere2": {"logit_scale": 0.0625}, "granite": {"logits_scaling": 8.0}, "phi": {"num_key_value_heads": 4},
    "phi3": {},
    "olmo2": {}, "smollm3": {}, "starcoder2": {}, "gpt_neox": {}, "stablelm": {},
}  # fmt: skip


def tiny(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    settings = {"vocab_size": 97, "pad_token_id": 0, "use_cache": False} | SIZES | FAMILIES[family]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.split()[0], **settings))
    return model.requires_grad_(False).eval()


def rows() -> list[Encoded]:
    chance = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 97, (5 + 4 * i,), generator=chance).tolist() for i in range(5)]
    return [Encoded(row, [False] * 3 + [True] * (len(row) - 3)) for row in ids]


def labels_of(batch: Batch) -> torch.Tensor:
    """As transformers wants them: the target of a position stands one further on."""
    labels = torch.full((batch.input_ids.numel(),), -100)
    labels[batch.index + 1] = batch.targets
    return labels.view_as(batch.input_ids)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 positions of 97 words, so that a batch has several chunks."""
    monkeypatch.setitem(arithmetic.CHUNK_BYTES, "cpu", 16 * 97 * 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_of_each_family_equal_those_of_transformers(family: str, small_chunks: None) -> None:
    tuned = adapted(tiny(family))
    batch = collate(rows(), 0, CPU)
    expected = tuned(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels_of(batch)).loss
    expected.backward()
    expected_gradients = gradients(tuned)
    head = Head.from_model(tuned.get_base_model())
    assert head.alone, "the head was not proven, so the slow way would be taken"
    bends = head.scale != 1.0 or head.cap is not None
    assert bends == bool({"final_logit_softcapping", "logit_scale", "logits_scaling"} & set(FAMILIES[family]))
    ours = summed_loss(tuned, batch, head) / batch.targets.numel()
    ours.backward()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradients(tuned), expected_gradients)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])
def test_a_bend_that_nobody_listed_is_noticed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(family)
    assert Head.from_model(model).alone
    monkeypatch.setattr(Head, "from_config", classmethod(lambda cls, config: Head()))
    assert not Head.from_model(model).alone


def test_a_family_whose_head_cannot_be_proven_is_asked_for_the_learned_positions_alone() -> None:
    """As one that scales in a way no configuration names: its own forward decides, without the logits of every
    position."""
    from transformers import LlamaForCausalLM

    class Odd(LlamaForCausalLM):
        asked: Any = None

        def forward(self, *args: Any, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
            Odd.asked = logits_to_keep
            output = super().forward(*args, logits_to_keep=logits_to_keep, **kwargs)
            output.logits = output.logits * 3
            return output

    model = Odd(tiny("llama").config).requires_grad_(False).eval()
    head = Head.from_model(model)
    assert not head.alone
    assert attention.enable(model)
    for batch in (collate(rows(), 0, CPU), collate_packed(rows(), CPU)):
        logits = model(**batch.inputs()).logits.flatten(0, 1)[batch.index]
        expected = functional.cross_entropy(logits, batch.targets, reduction="sum")
        torch.testing.assert_close(summed_loss(model, batch, head), expected)
        assert len(Odd.asked) == len(set((batch.index % batch.input_ids.shape[1]).tolist())) < batch.input_ids.shape[1]


def test_a_head_with_an_adapter_or_a_trained_head_learns_too(small_chunks: None) -> None:
    tuned = adapted(tiny("llama"), target_modules="q_proj,lm_head")
    batch = collate(rows(), 0, CPU)
    expected = tuned(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels_of(batch)).loss
    expected.backward()
    expected_gradients = gradients(tuned)
    ours = summed_loss(tuned, batch) / batch.targets.numel()
    ours.backward()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradients(tuned), expected_gradients)

    layer = torch.nn.Linear(32, 97, bias=False)
    hidden, targets = torch.randn(40, 32, requires_grad=True), torch.randint(97, (40,))
    expected = torch.autograd.grad(
        functional.cross_entropy(layer(hidden), targets, reduction="sum"), [layer.weight, hidden]
    )
    actual = torch.autograd.grad(head_losses(layer, hidden, targets, Head()).sum(), [layer.weight, hidden])
    torch.testing.assert_close(actual, expected)


class Largest(torch.overrides.TorchFunctionMode):
    """The most elements that any tensor had that a torch function returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_no_logits_are_made_but_those_of_a_chunk(small_chunks: None) -> None:
    layer = torch.nn.Linear(32, 97, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(400, 32, requires_grad=True), torch.randint(97, (400,))
    with Largest() as largest:
        head_losses(layer, hidden, targets, Head()).sum()
    assert largest.numel <= max(16 * 97, hidden.numel())
    with Largest() as peak:
        functional.cross_entropy(layer(hidden), targets)
    assert peak.numel == 400 * 97, "the measure would not have seen them"


def test_in_16_bit_the_gradient_is_as_near_the_truth_as_that_of_pytorch(small_chunks: None) -> None:
    torch.manual_seed(3)
    layer = torch.nn.Linear(32, 97, bias=False).requires_grad_(False)
    hidden, targets = 3 * torch.randn(200, 32), torch.randint(97, (200,))

    def gradient(dtype: torch.dtype, ours: bool) -> torch.Tensor:
        narrow, h = layer.to(dtype), hidden.to(dtype).requires_grad_()
        if ours:
            loss = head_losses(narrow, h, targets, Head()).sum()
        else:
            loss = functional.cross_entropy(narrow(h).float(), targets, reduction="sum")
        return torch.autograd.grad(loss, h)[0].double()

    truth = gradient(torch.float64, False)
    error = [(gradient(torch.bfloat16, ours) - truth).norm() / truth.norm() for ours in (True, False)]
    assert error[0] <= 1.2 * error[1] and error[1] > 1e-4


@pytest.mark.parametrize("cap", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_processor_takes_a_few_rows_of_logits_at_once_and_gives_the_same_bits(
    dtype: torch.dtype, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    layer = torch.nn.Linear(32, 97, bias=False).to(dtype).requires_grad_(False)
    hidden, targets = (3 * torch.randn(50, 32)).to(dtype).requires_grad_(), torch.randint(97, (50,))
    results = []
    for at_once in (50 * 97, 3 * 97, 1):
        monkeypatch.setattr(chunk, "IN_CACHE", at_once)
        losses = head_losses(layer, hidden, targets, Head(cap=cap))
        results.append((losses.detach(), *torch.autograd.grad(losses.square().sum(), hidden)))
        with torch.no_grad():
            assert torch.equal(head_losses(layer, hidden, targets, Head(cap=cap)), results[-1][0])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


def test_a_processor_holds_the_logits_of_a_chunk_once_and_not_in_fp32_too() -> None:
    """It held 8 bytes a logit: 76 MiB more with 49,152 words."""
    words, rows = 1_000_000, arithmetic.rows_at_once(1_000_000, False)
    layer = torch.nn.Linear(8, words, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.ones(3 * rows, 8, dtype=torch.bfloat16, requires_grad=True)
    with Allocations(words) as allocations:
        allocations.hold([layer.weight], "weights")
        head_losses(layer, hidden, torch.zeros(3 * rows, dtype=torch.int64), Head()).sum()
    rows_in_cache = 1
    assert allocations.peak.bytes["logits"] <= (2 * rows + 8 * rows_in_cache) * words * 1.01
