"""One attention for all examples, by kernels that only a card has: stand-ins with torch's signatures show that they are
asked rightly, and that a kernel which gives other numbers, or none, is not used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import varlen as of_torch

from core.engine import attention
from core.engine.variants import varlen

EXAMPLES = (5, 1, 12, 3)


class Card:
    """torch.nn.attention.varlen.varlen_attn in loops. leaks: an example sees the one before it. lacks: says no."""

    def __init__(self, leaks: bool = False, lacks: bool = False):
        self.leaks, self.lacks, self.calls, self.windows = leaks, lacks, 0, set[tuple[int, int]]()

    def __call__(
        self, query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        if self.lacks:
            raise RuntimeError("No viable backend for varlen_attn.")
        ends = cu_seq_q.tolist()
        assert (
            cu_seq_q is cu_seq_k
            and cu_seq_q.dtype == torch.int32
            and ends[0] == 0
            and ends[-1] == len(query) == len(key) == len(value)
        )
        assert max_q == max_k == max(b - a for a, b in zip(ends, ends[1:], strict=False)) and enable_gqa
        self.calls += 1
        self.windows.add(window_size)
        rows = [(max(0, a - self.leaks), b) for a, b in zip(ends, ends[1:], strict=False)]
        return torch.cat(
            [
                self._one(query, key, value, a, b, scale, window_size)[end - b :]
                for (a, b), end in zip(rows, ends, strict=False)
            ]
        )

    def _one(
        self, query: Any, key: Any, value: Any, a: int, b: int, scale: Any, window: tuple[int, int]
    ) -> torch.Tensor:
        q, k, v = (each[a:b].transpose(0, 1)[None] for each in (query, key, value))
        steps = torch.arange(b - a)
        behind = steps[:, None] - steps[None, :]
        mask = (behind >= 0) & (behind <= (window[0] if window[0] >= 0 else b))
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)[
            0
        ].transpose(0, 1)


@pytest.fixture(autouse=True)
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(varlen, "CARD", "cpu")
    varlen._tested_kernel.cache_clear()
    yield
    varlen._tested_kernel.cache_clear()


def attended(window: int | None) -> list[torch.Tensor]:
    """What attention gives and its gradients."""
    chance = torch.Generator().manual_seed(7)
    batch = [torch.randn(1, sum(EXAMPLES), count, 8, dtype=torch.float64, generator=chance) for count in (4, 2, 2)]
    states = [each.transpose(1, 2).requires_grad_() for each in batch]
    output, _ = attention.packed_sdpa(None, *states, None, 0.3, 0.0, EXAMPLES, window)  # type: ignore[arg-type]
    return [
        output,
        *torch.autograd.grad(output, states, torch.randn(output.shape, dtype=torch.float64, generator=chance)),
    ]


class CardBefore(Card):
    """Of torch 2.11: it knows no groups, and each head has keys and values of its own."""

    def __call__(
        self, query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
    ) -> torch.Tensor:  # fmt: skip
        assert query.shape[1] == key.shape[1] == value.shape[1]
        return super().__call__(
            query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=True
        )


@pytest.mark.parametrize("kind", [Card, CardBefore])
@pytest.mark.parametrize("window", [None, 3, 100])
def test_one_attention_for_all_equals_one_for_each(
    window: int | None, kind: type[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver of CUDA 12.8 gets torch 2.11, whose kernel raised TypeError for `enable_gqa` and was never used."""
    card = kind()
    with monkeypatch.context() as patch:
        patch.setattr(varlen, "CARD", "cuda")
        expected = attended(window)
    monkeypatch.setattr(of_torch, "varlen_attn", card)
    torch.testing.assert_close(attended(window), expected, rtol=1e-9, atol=1e-12)
    assert card.calls == 3  # two of the proof, one for the four examples
    attended(window)
    assert card.calls == 4  # the proof is made once
    assert card.windows == {None: {(-1, 0)}, 3: {(4, 0), (2, 0)}, 100: {(4, 0), (-1, 0)}}[window]


@pytest.mark.parametrize("card", [Card(leaks=True), Card(lacks=True)], ids=["leaks", "lacks"])
def test_a_kernel_that_gives_other_numbers_or_none_is_not_used(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(varlen, "CARD", "cuda")
        expected = attended(None)
    monkeypatch.setattr(of_torch, "varlen_attn", card)
    torch.testing.assert_close(attended(None), expected, rtol=0, atol=0)
    calls = card.calls
    attended(None)
    assert card.calls == calls <= 2
