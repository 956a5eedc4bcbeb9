"""16-bit attention over packed examples on a CPU, in blocks of queries against the keys they may attend to. Products
run in 16 bits where that is fast, scores and softmax in fp32. Imports torch: workers only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK = 128


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Compute causal attention per example. query: (1, heads, T, d); key, value: (1, kv heads, T, d); lengths: of the
    examples, their sum is T. window: how many tokens back, including itself, a token attends to; None: all. Returns (1,
    T, heads, d). On a CPU, in blocks of queries, with its own backward."""
    return _Attention.apply(query, key, value, lengths, scaling, window)


class _Attention(torch.autograd.Function):
    """`attend` as an autograd function, whose backward recomputes the weights."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: tuple[int, ...],
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """Return the output (1, T, heads, d), block by block; only query, key and value are saved, weights are
        recomputed."""
        ctx.save_for_backward(query, key, value)
        ctx.settings = lengths, scaling, window
        _, heads, tokens, width = query.shape
        q, k, v = _grouped(query, key.shape[1]), key[0], value[0]
        # q: (kv heads, query heads of each, T, d); k, v: (kv heads, T, d). All query heads of a key head are rows of
        # one product, so keys and values are never repeated.
        output = query.new_empty(1, tokens, heads, v.shape[-1])
        # A view with heads first: blocks are written where the caller reads them, without a transposed copy.
        target = output.view(tokens, *q.shape[:2], v.shape[-1]).permute(1, 2, 0, 3)
        for _, _, parts in _examples(lengths, window):
            for part in parts:
                weights = part.weights(q, k, scaling)
                target[:, :, part.queries] = torch.bmm(weights, v[:, part.keys]).view(*q.shape[:2], part.count, -1)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of query, key and value from recomputed weights; those of keys and values are summed in
        fp32 if an example has several blocks."""
        query, key, value = ctx.saved_tensors
        lengths, scaling, window = ctx.settings
        q, k, v = _grouped(query, key.shape[1]), key[0], value[0]
        incoming = gradient.view(gradient.shape[1], *q.shape[:2], -1).permute(1, 2, 0, 3)
        grad_query, grad_key, grad_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        grad_q = _grouped(grad_query, key.shape[1])
        for begin, end, parts in _examples(lengths, window):
            alone = len(parts) == 1  # else each block adds its share, in fp32
            sums = None if alone else [torch.zeros_like(tensor[:, begin:end], dtype=torch.float32) for tensor in (k, v)]
            for part in parts:
                weights = part.weights(q, k, scaling)
                above = incoming[:, :, part.queries].reshape(len(k), -1, v.shape[-1])
                # With S = s q k^T, P = softmax(S), O = P v: dP = dO v^T, dS = P * (dP - rowsum(P * dP)),
                # dq = s dS k, dk = s dS^T q, dv = P^T dO. P is computed again: it has T * T numbers per head.
                of_weights = torch.bmm(above, v[:, part.keys].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                of_q = torch.bmm(of_scores, k[:, part.keys]).view(*q.shape[:2], part.count, -1)
                grad_q[:, :, part.queries] = of_q.mul_(scaling)
                of_k = torch.bmm(of_scores.transpose(1, 2), part.rows(q, scaling).to(of_scores.dtype))
                of_v = torch.bmm(weights.transpose(1, 2), above)
                if sums is None:
                    grad_key[0, :, begin:end], grad_value[0, :, begin:end] = of_k, of_v
                else:
                    within = slice(part.keys.start - begin, part.keys.stop - begin)
                    sums[0][:, within] += of_k
                    sums[1][:, within] += of_v
            if sums is not None:
                grad_key[0, :, begin:end], grad_value[0, :, begin:end] = sums
        return grad_query, grad_key, grad_value, None, None, None


def _grouped(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """View (1, heads, T, d) as (kv heads, query heads of each, T, d), the same memory."""
    return query.view(kv_heads, -1, *query.shape[2:])


class _Block:
    """Queries start..end of the example that begins at `begin`, and the keys they attend to."""

    def __init__(self, begin: int, start: int, end: int, window: int | None):
        """Note which tokens are queries, start to end, and which are their keys: from `begin`, the beginning of the
        example, or at most window - 1 tokens before the first query, up to `end`. window None: no limit."""
        first = begin if window is None else max(begin, start - window + 1)
        self.queries, self.keys, self.count, self.window = slice(start, end), slice(first, end), end - start, window

    def rows(self, q: torch.Tensor, scaling: float) -> torch.Tensor:
        """Return the block's queries, scaled: (kv heads, query heads of each x count, d) float32."""
        own = q[:, :, self.queries].to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return own.mul_(scaling).view(len(q), -1, q.shape[-1])

    def weights(self, q: torch.Tensor, k: torch.Tensor, scaling: float) -> torch.Tensor:
        """Return the attention weights, (kv heads, query heads of each x count, keys) in q's type: each row sums to
        1."""
        keys = k[:, self.keys].float()
        scores = torch.bmm(self.rows(q, scaling), keys.transpose(1, 2))
        # Only the block's own keys, the last ones, can be later than a query.
        later = scores.new_full((self.count, self.count), float("-inf")).triu_(1)
        scores.view(len(q), -1, self.count, keys.shape[1])[..., -self.count :].add_(later)
        if self.window is not None and keys.shape[1] > self.window:
            behind = torch.arange(self.count)[:, None] + keys.shape[1] - self.count - torch.arange(keys.shape[1])
            scores.view(-1, self.count, keys.shape[1]).masked_fill_(behind >= self.window, float("-inf"))
        return torch.softmax(scores, -1).to(q.dtype)


def _examples(lengths: tuple[int, ...], window: int | None) -> Iterator[tuple[int, int, list[_Block]]]:
    """Yield (begin, end, blocks of at most BLOCK queries) of each example, as positions among all tokens."""
    begin = 0
    for length in lengths:
        end = begin + length
        yield begin, end, [_Block(begin, start, min(start + BLOCK, end), window) for start in range(begin, end, BLOCK)]
        begin = end
