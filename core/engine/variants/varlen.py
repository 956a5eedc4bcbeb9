"""One attention for all examples of a packed row, if torch's flash attention for that runs on this GPU (from RTX 30 on)
and agrees with one attention per example. Imports torch: workers only.

Grouped keys and values are repeated before torch 2.12.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate

import torch
from torch.nn import functional

from core.files import is_out_of_memory

# query (T, heads, d), key and value (T, kv heads, d), lengths of the examples, their `ends_of` on the GPU, scale,
# window (tokens seen, itself included; None: all) -> (T, heads, d)
Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...], torch.Tensor, float | None, int | None], torch.Tensor
]
CARD = "cuda"
TOLERANCE = 0.02  # of the largest value: 16-bit sums in another order
LENGTHS, WINDOW = (9, 70, 1, 33), 5  # of the test


def find(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> Kernel | None:
    """Return a tested kernel of attention for these heads, width, dtype and device, with or without a sliding window
    (its size does not matter). The first call for such a combination tests the kernels.

    query: (1, heads, T, d); key, value: (1, kv heads, T, d). None if no kernel passes, on a CPU, in float32, for values
    of another width than the queries, or for several rows.
    """
    if (
        query.device.type != CARD
        or query.dtype == torch.float32
        or query.shape[-1] != value.shape[-1]
        or query.shape[0] != 1
    ):
        return None
    return _tested_kernel(query.device, query.dtype, query.shape[1], key.shape[1], query.shape[-1], window is not None)


@lru_cache(maxsize=32)
def _tested_kernel(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, width: int, has_window: bool
) -> Kernel | None:
    """Return torch's varlen_attn if it agrees with one attention per example on made-up states; else None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    made_up = (device, dtype, (heads, kv_heads, kv_heads), width, WINDOW if has_window else None)
    return proven(_torch_kernel(varlen_attn), *made_up)


def _torch_kernel(varlen_attn: Callable[..., torch.Tensor]) -> Kernel:
    """Return torch's varlen_attn as a Kernel, for versions with and without grouped heads."""
    more = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

    def torch_varlen(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: tuple[int, ...],
        ends: torch.Tensor,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Compute causal attention of all packed examples by one call of torch's varlen_attn; keys and values are
        repeated for all query heads where it knows no groups."""
        longest = max(lengths)
        # torch counts the tokens before the query; -1 stands for all of them.
        behind = -1 if window is None or window >= longest else window - 1
        if not more:
            key, value = (_repeated(each, query.shape[1]) for each in (key, value))
        return varlen_attn(
            query, key, value, ends, ends, longest, longest, scale=scale, window_size=(behind, 0), **more
        )

    return torch_varlen


def _repeated(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeat (T, kv heads, d) to (T, heads, d): each one for all heads of its group."""
    return states.repeat_interleave(heads // states.shape[1], 1)


def ends_of(lengths: tuple[int, ...]) -> torch.Tensor:
    """Return where each example begins, and the end: (N + 1,) int32 in RAM."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def proven(
    kernel: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    heads: tuple[int, int, int],
    width: int,
    window: int | None,
) -> Kernel | None:
    """Return kernel if its output and gradients equal those of plain attention over each made-up example, and changing
    the first example changes no bit of the others; otherwise None, also if it raises. Raises only out-of-memory
    errors."""
    chance, tokens = torch.Generator().manual_seed(0), sum(LENGTHS)
    states = [torch.randn(tokens, each, width, generator=chance).to(device, dtype).requires_grad_() for each in heads]
    above = torch.randn(tokens, heads[0], width, generator=chance).to(device, dtype)
    expected = _plain_attention(*states, window)
    expected_all, ends = (expected, *torch.autograd.grad(expected, states, above)), ends_of(LENGTHS).to(device)
    try:
        with torch.enable_grad():
            query, key, value = states
            output = kernel(query, key, value, LENGTHS, ends, None, window)
            results = (output, *torch.autograd.grad(output, states, above))
            # Another first example: what leaks into the others would change their bits, however little.
            query, key, value = (torch.cat([each[: LENGTHS[0]] + 1, each[LENGTHS[0] :]]) for each in states)
            other = kernel(query, key, value, LENGTHS, ends, None, window)
    except Exception as error:  # noqa: BLE001 - any error of a missing kernel: attention per row still works
        if is_out_of_memory(error):
            raise
        return None
    near = all((a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in zip(results, expected_all, strict=True))
    return kernel if near and torch.equal(output[LENGTHS[0] :], other[LENGTHS[0] :]) else None


@torch.enable_grad()
def _plain_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
    """Compute causal attention (within the window) for each example of LENGTHS separately, to test a kernel against."""
    key, value = (_repeated(each, query.shape[1]) for each in (key, value))
    outputs = []
    for parts in zip(*(states.split(LENGTHS) for states in (query, key, value)), strict=True):
        q, k, v = (part.transpose(0, 1)[None] for part in parts)
        steps = torch.arange(q.shape[2], device=q.device)
        behind = steps[:, None] - steps[None, :]  # (queries, keys)
        mask = (behind >= 0) & (behind < (window or len(steps)))
        outputs.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1))
    return torch.cat(outputs)
