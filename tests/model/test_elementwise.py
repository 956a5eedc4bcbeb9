"""Norm, rotary and gate as one function each give transformers' numbers in fp32, are nearer to them in 16 bits than
transformers is, leave alone what computes something else, and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from core.engine.batches import collate
from core.engine.families import mended, parts
from core.engine.loss import Head, summed_loss
from core.engine.variants import elementwise, fused_lora
from core.engine.variants.layers import checkpoint_layers
from tests.kit import families

CPU = torch.device("cpu")
# (norms, gates, functions that turn) that have a form; GLM 4 joins gate and up and turns neighbours, Cohere's norm
# takes the mean away.
FORMS = {
    "llama": (9, 4, 1), "qwen3": (17, 4, 1), "gemma3_text": (37, 6, 1), "qwen3_5": (11, 4, 1), "gemma4": (25, 4, 1),
    "gemma3n": (54, 4, 1),
    "lfm2": (11, 4, 1), "glm4": (17, 0, 0), "cohere2": (0, 4, 0),
}  # fmt: skip


def model_of(name: str) -> Any:
    """In fp32, with norms that are not all ones."""
    families.with_eyes()
    torch.manual_seed(0)
    kind = (
        transformers.AutoModelForImageTextToText if families.FAMILIES[name].sees else transformers.AutoModelForCausalLM
    )
    model = mended.model(kind.from_config(mended.config(families.config(name, use_cache=False)), dtype=torch.float32))
    parts.set_aside(model)
    for named, parameter in model.requires_grad_(False).named_parameters():
        if "norm" in named:
            torch.nn.init.normal_(parameter, parameter.mean().item(), 0.2)
    return families.tuned(model).train()


def loss_and_gradients(tuned: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tuned.zero_grad()
    loss = summed_loss(tuned, collate(families.rows(), 0, CPU), Head.from_config(tuned.get_base_model().config))
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])


IN_THE_GATE = ("llama", "qwen3", "gemma3_text", "lfm2", "glm4")


@pytest.mark.parametrize(
    "name", [name if name in IN_THE_GATE else pytest.param(name, marks=pytest.mark.full) for name in families.FAMILIES]
)
def test_loss_and_gradients_are_transformers_own(name: str) -> None:
    tuned = model_of(name)
    loss, gradients = loss_and_gradients(tuned)
    random = torch.get_rng_state()
    installed = elementwise.install(tuned)
    try:
        assert torch.equal(torch.get_rng_state(), random)
        assert name not in FORMS or (installed.norms, installed.gates, installed.rotaries) == FORMS[name]
        ours, mine = loss_and_gradients(tuned)
        torch.testing.assert_close(ours, loss, rtol=1e-6, atol=0)
        assert (mine - gradients).abs().max() <= 1e-4 * gradients.abs().max()
        checkpoint_layers(tuned)
        again, same = loss_and_gradients(tuned)
        assert torch.equal(again, ours) and torch.equal(same, mine)
    finally:
        installed.release()
    assert "forward" not in {name for module in tuned.modules() for name in vars(module)}
    assert name == "llama" or not hasattr(modeling_llama.apply_rotary_pos_emb, "rotaries")


def outputs_and_gradients(way: Any, *given: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from elementwise._outputs_and_gradients(way, given)


def farthest(found: Iterator[torch.Tensor], truth: list[torch.Tensor]) -> list[float]:
    return [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, truth, strict=True)]


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma3RMSNorm])
def test_a_norm_in_16_bits_is_at_least_as_near_to_the_truth_as_transformers_own(kind: type) -> None:
    torch.manual_seed(0)
    norm = kind(64).requires_grad_(False)
    norm.weight.normal_(1, 0.3)
    norm = norm.to(torch.bfloat16)
    x = torch.randn(300, 64).to(torch.bfloat16)
    exact = kind(64).requires_grad_(False)
    exact.weight.copy_(norm.weight)
    truth = list(outputs_and_gradients(exact, x.float()))
    way = elementwise._norm_function(norm)
    assert way is not None
    own = farthest(outputs_and_gradients(norm, x), truth)
    for ours, theirs in zip(farthest(outputs_and_gradients(lambda x: way(x, norm.weight), x), truth), own, strict=True):
        assert ours <= 1.05 * theirs and ours < 0.004


def test_a_gate_and_a_turn_in_16_bits_are_as_near_as_transformers_own() -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(200, 64).to(torch.bfloat16) for _ in range(2))
    own = lambda gate, up: nn.functional.silu(gate) * up  # noqa: E731
    truth = list(outputs_and_gradients(own, gate.float(), up.float()))
    ours = farthest(
        outputs_and_gradients(
            lambda gate, up: elementwise._gated(gate * 1, up * 1, elementwise.ACTS["silu"]), gate, up
        ),
        truth,
    )
    assert all(a <= 1.05 * b for a, b in zip(ours, farthest(outputs_and_gradients(own, gate, up), truth), strict=True))
    q, k, angle = torch.randn(1, 4, 50, 16), torch.randn(1, 2, 50, 16), torch.randn(1, 50, 8).repeat(1, 1, 2)
    narrow = [each.to(torch.bfloat16) for each in (q, k, angle.cos(), angle.sin())]
    wide = [each.float() for each in narrow]
    turn = modeling_llama.apply_rotary_pos_emb
    truth = list(outputs_and_gradients(lambda q, k: turn(q, k, *wide[2:]), *wide[:2]))
    ours = farthest(outputs_and_gradients(lambda q, k: elementwise._rotary(q, k, *narrow[2:]), *narrow[:2]), truth)
    theirs = farthest(outputs_and_gradients(lambda q, k: turn(q, k, *narrow[2:]), *narrow[:2]), truth)
    assert all(a <= 1.05 * b for a, b in zip(ours, theirs, strict=True))


class Clamped(LlamaRMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).clamp(-2, 2)


class Halved(LlamaMLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


def test_what_computes_something_else_keeps_its_own_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = model_of("llama")
    layers = tuned.get_base_model().model.layers
    layers[0].input_layernorm.__class__, layers[1].mlp.__class__ = Clamped, Halved
    layers[2].input_layernorm.weight.requires_grad_()
    neighbours = lambda q, k, cos, sin, unsqueeze_dim=1: (q * cos[:, None], k * sin[:, None])  # noqa: E731
    monkeypatch.setattr(modeling_llama, elementwise.ROTARY, neighbours)
    before = loss_and_gradients(tuned)[0]
    installed = elementwise.install(tuned)
    assert (installed.norms, installed.gates, installed.rotaries) == (
        7,
        3,
        0,
    ) and modeling_llama.apply_rotary_pos_emb is neighbours
    torch.testing.assert_close(loss_and_gradients(tuned)[0], before, rtol=1e-6, atol=0)
    installed.release()


def test_a_call_that_is_not_the_plain_one_and_a_second_model_of_the_family_are_as_before() -> None:
    own = modeling_llama.apply_rotary_pos_emb
    first, second = (elementwise.install(model_of("llama")) for _ in range(2))
    assert (first.rotaries, second.rotaries) == (1, 0)
    q, cos = torch.randn(1, 5, 4, 16), torch.randn(1, 5, 16)
    for ours, theirs in zip(
        modeling_llama.apply_rotary_pos_emb(q, q, cos, cos, unsqueeze_dim=2), own(q, q, cos, cos, 2), strict=True
    ):
        assert torch.equal(ours, theirs)
    second.release()
    assert modeling_llama.apply_rotary_pos_emb is not own
    first.release()
    first.release()
    assert modeling_llama.apply_rotary_pos_emb is own


@pytest.mark.parametrize(
    ("kind", "off", "expected"), [(LlamaRMSNorm, 1.0, True), (Gemma3RMSNorm, 1.0, True), (LlamaRMSNorm, 1.1, False)]
)
def test_a_cards_kernel_is_taken_where_its_numbers_are_those_of_the_module(
    kind: type, off: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for torch's kernel, which no processor has. Other numbers: the module keeps its own forward."""

    def back(above: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, shrunk: torch.Tensor) -> torch.Tensor:
        n = rows.float() * shrunk
        g = above.float() * weight
        return off * (shrunk * (g - n * (g * n).mean(-1, keepdim=True))).to(rows.dtype)

    monkeypatch.setattr(elementwise, "BLOCKWISE", ())
    monkeypatch.setattr(elementwise, "kernel_back", back)
    norm = kind(32).to(torch.bfloat16).requires_grad_(False)
    assert (elementwise._norm_function(norm) is not None) == expected


def test_less_is_kept_for_the_way_back() -> None:
    """A norm keeps one number a token beside its input, where transformers keeps an fp32 copy of it too."""
    norm = LlamaRMSNorm(64).requires_grad_(False)
    sizes: list[int] = []

    def kept(way: Any) -> int:
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            way(torch.randn(100, 64, requires_grad=True, dtype=torch.bfloat16))
        return sum(sizes)

    norm, weight = norm.to(torch.bfloat16), 64 * 2
    way = elementwise._norm_function(norm)
    assert kept(lambda x: way(x, norm.weight)) == 100 * (64 * 2 + 4) + weight < kept(norm) / 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_norm_and_a_gate_give_is_made_again_with_the_same_bits(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16, beside a step that keeps it: less is kept, and nothing else changes."""
    tuned = model_of("llama").to(torch.bfloat16)
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = nn.init.normal_(parameter.data.float(), std=0.05)
    fused, installed = fused_lora.fuse(tuned), elementwise.install(tuned)
    if checkpointing:
        checkpoint_layers(tuned)

    def step() -> tuple[torch.Tensor, torch.Tensor, int]:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            return *loss_and_gradients(tuned), sum(sizes.values())

    try:
        loss, gradients, kept = step()
        again = fused_lora._ForBackward.forward

        def keeping(ctx: Any, x: torch.Tensor, *rest: Any) -> Any:
            vars(x).pop("made_of", None)
            return again(ctx, x, *rest)

        monkeypatch.setattr(fused_lora._ForBackward, "forward", staticmethod(keeping))
        loss_kept, gradients_kept, all_kept = step()
    finally:
        installed.release()
        fused.release()
    assert torch.equal(loss, loss_kept) and torch.equal(gradients, gradients_kept) and gradients.abs().max() > 0
    config, tokens = tuned.get_base_model().config, collate(families.rows(), 0, CPU).input_ids.numel()
    layers, hidden, mlp = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    # the first norm's input learns nothing, so it keeps none
    spared = 2 * tokens * ((2 * layers - 1) * hidden + layers * mlp)
    assert checkpointing or all_kept - kept == spared
