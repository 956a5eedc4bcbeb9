"""Operators on a card have the processor's numbers. `test --card` runs it on the null card, whose numbers layer it
holds to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.gpu

ROWS = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
SEEN = torch.ones(6, 6, dtype=torch.bool).tril()
OPERATIONS = {
    "conversion": lambda x: (100 * x).to(torch.int64).to(torch.float64) / 3,
    "linear": lambda x: functional.linear(x, x[0, :5], x[0, 0, :5]),
    "contiguous": lambda x: x.transpose(1, 2).contiguous().reshape(-1),
    "matmul": lambda x: x @ x.transpose(1, 2),
    "half": lambda x: (x.half() @ x.half().transpose(1, 2)).float(),
    "half into": lambda x: torch.mm(x[0].half(), x[1].half().T, out=x.new_empty(6, 6, dtype=torch.half)).float(),
    "softmax": lambda x: x.softmax(-1).log(),
    "mask": lambda x: x[x > 0].cumsum(0),
    "put": lambda x: x.masked_fill(x < 0, 7.0).index_put((torch.tensor([1, 2], device=x.device),), torch.zeros(6, 8,
        device=x.device)),
    "topk": lambda x: x.topk(3).values + x.argmax(-1, keepdim=True),
    "causal attention": lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    "masked attention": lambda x: functional.scaled_dot_product_attention(
        x[None], x[None], x[None], attn_mask=SEEN.to(x.device)[None, None].expand(1, 4, 6, 6)
    ),
    "cross entropy": lambda x: functional.cross_entropy(x.flatten(0, 1), torch.arange(24, device=x.device) % 8),
    "norm": lambda x: functional.rms_norm(x, (8,), x[0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("inference", [False, True], ids=["ordinary", "inference"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operator_has_the_processors_numbers(name: str, inference: bool) -> None:
    """Inference mode hands over operators that autograd takes apart first. Its rows differ: freed memory may hold an
    earlier test's results."""
    tolerance = 1e-3 if name.startswith("half") else 1e-5
    with torch.inference_mode(inference):
        on_card, on_processor = (
            OPERATIONS[name](ROWS.roll(int(inference), 0).to(device)) for device in ("cuda", "cpu")
        )
        torch.testing.assert_close(on_card.cpu(), on_processor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name", ["linear", "matmul", "softmax", "causal attention", "masked attention", "cross entropy", "norm"]
)
def test_a_gradient_has_the_processors_numbers(name: str) -> None:
    gradients = []
    for device in ("cuda", "cpu"):
        rows = ROWS.clone().to(device).detach().requires_grad_()
        OPERATIONS[name](rows).square().sum().backward()
        assert rows.grad is not None
        gradients.append(rows.grad.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_padded_rows_get_the_processors_answers(tiny_model: Path) -> None:
    """They once began at random positions, and the proof of an export wrote token ids that no model has."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    ids, mask = (
        torch.tensor([[2, 2, 5, 6, 7, 8], [2, 3, 4, 5, 6, 9]]),
        torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
    )
    config = GenerationConfig(do_sample=False, max_new_tokens=8, eos_token_id=2, pad_token_id=2)
    answers = []
    for device in ("cuda", "cpu"):
        model.to(device)
        with torch.inference_mode():
            answers.append(
                model.generate(ids.to(device), attention_mask=mask.to(device), generation_config=config).tolist()
            )
    assert answers[0] == answers[1]


@pytest.mark.skipif("LD_PRELOAD" not in os.environ, reason="of the null card")
def test_a_kernel_without_numbers_fails() -> None:
    from torch.utils._python_dispatch import _disable_current_modes

    rows = ROWS.cuda()
    with _disable_current_modes(), pytest.raises(torch.AcceleratorError, match="operation not supported"):
        rows + 1
    assert (rows + 1).sum().item() == pytest.approx(float((ROWS + 1).sum()))
