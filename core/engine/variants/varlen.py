"""One attention for all examples of a packed row, by torch's variable-length kernel, if the GPU has it and it agrees with one
attention per example. Grouped keys and values are repeated only before torch 2.12, whose kernel takes them as they are. Imports
torch: workers only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional

from core.files import is_out_of_memory

# query (T, heads, d), key and value (T, kv heads, d), lengths of the examples, their `ends_of` on the GPU, scale, window (tokens seen,
# itself included; None: all) -> (T, heads, d)
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...], torch.Tensor, float | None, int | None], torch.Tensor]
CARD = "cuda"
TOLERANCE = 0.02  # of the largest value: 16-bit sums in another order
LENGTHS, WINDOW = (9, 70, 1, 33), 5  # of the test


def find(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> Kernel | None:
    """The kernel for this number, width and dtype of heads on this device, tested at the first call; or None. Shapes as in
    `packed_sdpa`: (1, heads, T, d)."""
    if query.device.type != CARD or query.dtype == torch.float32 or query.shape[-1] != value.shape[-1] or query.shape[0] != 1:
        return None
    return _found(query.device, query.dtype, query.shape[1], key.shape[1], query.shape[-1], window is not None)


@lru_cache(maxsize=32)
def _found(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, width: int, has_window: bool) -> Kernel | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return proven(_of_torch(varlen_attn), device, dtype, (heads, kv_heads, kv_heads), width, WINDOW if has_window else None)


def _of_torch(varlen_attn: Callable[..., Any]) -> Kernel:
    more = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

    def kernel(query: Any, key: Any, value: Any, lengths: Any, ends: Any, scale: Any, window: Any) -> torch.Tensor:
        longest = max(lengths)
        behind = -1 if window is None or window >= longest else window - 1
        if not more:
            key, value = (_repeated(each, query.shape[1]) for each in (key, value))
        return varlen_attn(query, key, value, ends, ends, longest, longest, scale=scale, window_size=(behind, 0), **more)

    return kernel


def _repeated(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(T, kv heads, d) to (T, heads, d): each one for all heads of its group."""
    return states.repeat_interleave(heads // states.shape[1], 1)


def ends_of(lengths: tuple[int, ...]) -> torch.Tensor:
    """(N + 1,) int32 in RAM: where each example begins, and the end."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def proven(
    kernel: Kernel, device: torch.device, dtype: torch.dtype, heads: tuple[int, int, int], width: int, window: int | None
) -> Kernel | None:
    """kernel, if its output and gradients equal those of plain attention over each made-up example, and changing the first example
    changes no bit of the others; otherwise None."""
    chance, tokens = torch.Generator().manual_seed(0), sum(LENGTHS)
    states = [torch.randn(tokens, each, width, generator=chance).to(device, dtype).requires_grad_() for each in heads]
    above = torch.randn(tokens, heads[0], width, generator=chance).to(device, dtype)
    expected = _plainly(*states, window)
    wanted, ends = (expected, *torch.autograd.grad(expected, states, above)), ends_of(LENGTHS).to(device)
    try:
        with torch.enable_grad():
            query, key, value = states
            given = kernel(query, key, value, LENGTHS, ends, None, window)
            found = (given, *torch.autograd.grad(given, states, above))
            query, key, value = (torch.cat([each[: LENGTHS[0]] + 1, each[LENGTHS[0] :]]) for each in states)
            other = kernel(query, key, value, LENGTHS, ends, None, window)
    except Exception as error:  # noqa: BLE001 - whatever a kernel that this card or this torch lacks raises, one attention each is there
        if is_out_of_memory(error):
            raise
        return None
    near = all((a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in zip(found, wanted, strict=True))
    return kernel if near and torch.equal(given[LENGTHS[0] :], other[LENGTHS[0] :]) else None


@torch.enable_grad()
def _plainly(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
    key, value = (_repeated(each, query.shape[1]) for each in (key, value))
    seen = []
    for parts in zip(*(whole.split(LENGTHS) for whole in (query, key, value)), strict=True):
        q, k, v = (part.transpose(0, 1)[None] for part in parts)
        steps = torch.arange(q.shape[2], device=q.device)
        behind = steps[:, None] - steps[None, :]
        mask = (behind >= 0) & (behind < (window or len(steps)))
        seen.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1))
    return torch.cat(seen)
