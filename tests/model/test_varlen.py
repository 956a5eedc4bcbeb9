"""One attention for all examples, by kernels that only a card has: stand-ins with torch's signatures show that they are
asked rightly, and that a kernel which gives other numbers, or none, is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    whole = [torch.randn(1, sum(EXAMPLES), count, 8, dtype=torch.float64, generator=chance) for count in (4, 2, 2)]
    states = [each.transpose(1, 2).requires_grad_() for each in whole]
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
    seen = card.calls
    attended(None)
    assert card.calls == seen <= 2


class Efficient:
    """torch's memory-efficient attention on a processor, in loops. forgets: its backward sees no window."""

    def __init__(self, forgets: bool = False):
        self.forgets, self.calls, self.windows = forgets, 0, set[int | None]()

    def forward(
        self, query: Any, key: Any, value: Any, bias: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float, custom_mask_type: int, compute_log_sumexp: bool = False, *, scale: float | None = None,
        seqlen_k: Any = None,
        window_size: int | None = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        ends = cu_seqlens_q.tolist()
        assert query.shape == key.shape == value.shape and len(query) == 1 and bias is seqlen_k is None
        assert (
            cu_seqlens_q.dtype == torch.int32
            and cu_seqlens_k is cu_seqlens_q
            and (ends[0], ends[-1]) == (0, query.shape[1])
        )
        assert max_seqlen_q == max_seqlen_k == max(b - a for a, b in zip(ends, ends[1:], strict=False))
        assert (dropout_p, custom_mask_type, compute_log_sumexp) == (0.0, 1, True) and window_size != 0
        self.calls += 1
        self.windows.add(window_size)
        parts = [self._one(query, key, value, a, b, scale, window_size) for a, b in zip(ends, ends[1:], strict=False)]
        logsumexp = query.new_zeros(len(parts), query.shape[2], max_seqlen_q, dtype=torch.float64)
        for number, (_, scores) in enumerate(parts):
            logsumexp[number, :, : scores.shape[1]] = scores.logsumexp(-1)
        seed, offset = (torch.empty((), dtype=torch.long) for _ in range(2))
        return torch.cat([output for output, _ in parts])[None], logsumexp, seed, offset, max_seqlen_q, max_seqlen_k

    def _one(self, query: Any, key: Any, value: Any, a: int, b: int, scale: Any, window: int | None) -> tuple[Any, Any]:
        """(T, heads, d), and scores (heads, T, T) with -inf where nothing is seen."""
        q, k, v = (each[0, a:b].transpose(0, 1) for each in (query, key, value))
        behind = torch.arange(b - a)[:, None] - torch.arange(b - a)[None, :]
        seen = (behind >= 0) & (behind < (window or b))
        scores = (q @ k.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)).masked_fill(~seen, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(0, 1), scores

    def backward(
        self, grad_out_: Any, query: Any, key: Any, value: Any, bias: Any, out: Any, cu_seqlens_q: Any,
        cu_seqlens_k: Any,
        max_seqlen_q: int, max_seqlen_k: int, logsumexp: Any, dropout_p: float, philox_seed: Any, philox_offset: Any,
        custom_mask_type: int, bias_requires_grad: bool, *, scale: float | None = None,
        num_splits_key: int | None = None,
        window_size: int | None = None, shared_storage_dqdkdv: bool = False,
    ) -> tuple[Any, ...]:  # fmt: skip
        assert (
            (dropout_p, custom_mask_type, bias_requires_grad) == (0.0, 1, False)
            and bias is None
            and max_seqlen_k == max_seqlen_q
        )
        found: list[list[Any]] = [[], [], []]
        ends = cu_seqlens_q.tolist()
        for number, (a, b) in enumerate(zip(ends, ends[1:], strict=False)):
            _, scores = self._one(query, key, value, a, b, scale, None if self.forgets else window_size)
            q, k, v, above, output = (each[0, a:b].transpose(0, 1) for each in (query, key, value, grad_out_, out))
            share = (scores - logsumexp[number, :, : b - a, None]).exp().to(q)
            of_scores = (
                share
                * (above @ v.transpose(1, 2) - (above * output).sum(-1, keepdim=True))
                * (scale or q.shape[-1] ** -0.5)
            )
            for into, each in zip(
                found, (of_scores @ k, of_scores.transpose(1, 2) @ q, share.transpose(1, 2) @ above), strict=True
            ):
                into.append(each.transpose(0, 1))
        return *(torch.cat(each)[None] for each in found), None


@contextmanager
def registered(kernel: Efficient) -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL")
    library.impl("_efficient_attention_forward", kernel.forward, "CPU")
    library.impl("_efficient_attention_backward", kernel.backward, "CPU")
    try:
        yield
    finally:
        library._destroy()


@pytest.mark.parametrize("window", [None, 3, 100])
def test_where_flash_attention_lacks_the_memory_efficient_one_is_asked_for_all(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RTX 20 and some builds computed each of twenty examples by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(varlen, "CARD", "cuda")
        expected = attended(window)
    monkeypatch.setattr(of_torch, "varlen_attn", Card(lacks=True))
    kernel = Efficient()
    with registered(kernel):
        torch.testing.assert_close(attended(window), expected, rtol=1e-9, atol=1e-12)
        assert kernel.calls == 3 and kernel.windows == {None: {None}, 3: {5, 3}, 100: {5, None}}[window]
        attended(window)
        assert kernel.calls == 4, "the proof is made once"


def test_flash_attention_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_torch, "varlen_attn", Card())
    kernel = Efficient()
    with registered(kernel):
        attended(3)
    assert kernel.calls == 0


def test_a_memory_efficient_kernel_whose_gradients_are_others_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(varlen, "CARD", "cuda")
        expected = attended(3)
    monkeypatch.setattr(of_torch, "varlen_attn", Card(lacks=True))
    kernel = Efficient(forgets=True)
    with registered(kernel):
        torch.testing.assert_close(attended(3), expected, rtol=0, atol=0)
        assert kernel.calls == 2, "those of the proof"


def test_the_memory_efficient_kernel_is_left_where_one_example_is_far_longer_than_the_others() -> None:
    """It keeps a number for each head, example and place of the longest: 1.6 GiB of an 8B for 100 short examples and
    one of 4,096."""
    assert varlen.suits(varlen._efficient, (500, 700, 400, 448)) and varlen.suits(varlen._efficient, (2048,))
    assert not varlen.suits(varlen._efficient, (4096, *[40] * 100))
    assert varlen.suits(lambda *_: None, (4096, *[40] * 100))
