"""Attention over packed examples (end to end in one row): each attends only to itself. Imports torch: workers only.

transformers can isolate them too, by a mask of T x T; here each example is one causal `scaled_dot_product_attention`
of its own, which computes nothing that the mask would discard and runs on every platform; or one kernel for all, if the
GPU has it (core/engine/variants/varlen). 16-bit types on a CPU use core/engine/variants/blockwise. Positions restart in
the batch's position_ids. Hybrid layers, ALiBi or soft-capped attention may not be isolated: `holds` tests the model
itself before training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from core.engine.families import unsupported
from core.engine.variants import eight_bit, varlen
from core.engine.variants.blockwise import attend

NAME = "lora_garage_packed"
FIRST, SECOND = 9, 7  # tokens of the two examples of the test


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    lengths: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    ends: torch.Tensor | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Compute causal attention of packed examples, each only over itself: on a CPU in bfloat16 blockwise, else by a
    tested varlen kernel, else one scaled_dot_product_attention per example.

    query: (B, heads, T, d); key, value: (B, kv heads, T, d). lengths: of the examples in each row, with sum T; None:
    one example per row. ends: (N + 1,) int32, where each example begins, and the end, if they are on the device
    already; None: computed from lengths. Returns ((B, T, heads, d), None). Raises NotImplementedError for a mask, soft
    cap, bias or cache.
    """
    is_modified = (
        attention_mask is not None or kwargs.get("softcap") is not None or kwargs.get("position_bias") is not None
    )
    if is_modified or query.shape[2] != key.shape[2]:
        raise NotImplementedError("packed attention with a mask, a soft cap, a bias or a cache")
    # Neither the blocks nor the kernel know dropout: a family that trains with it goes on to torch's own attention.
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[0] == 1 and not dropout:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return attend(query, key, value, lengths or (query.shape[2],), scale, sliding_window), None
    kernel = varlen.find(query, key, value, sliding_window) if lengths and not dropout else None
    if lengths and kernel:
        # (1, heads, T, d) -> (T, heads, d)
        query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
        ends = varlen.ends_of(lengths).to(query.device) if ends is None else ends
        return kernel(query, key, value, lengths, ends, scaling, sliding_window)[None], None
    if (groups := query.shape[1] // key.shape[1]) > 1:
        # Not by enable_gqa: of torch's kernels for GPUs only flash attention takes it.
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # One (B, heads, length, d) for each example.
    parts = [states.split(lengths, 2) if lengths else (states,) for states in (query, key, value)]
    outputs = [
        functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_window(q, sliding_window),
            dropout_p=dropout,
            is_causal=not _is_windowed(q, sliding_window),
            scale=scaling,
        )
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat([one.transpose(1, 2) for one in outputs], 1).contiguous(), None


def _is_windowed(query: torch.Tensor, window: int | None) -> bool:
    """True if the example is longer than the window of sliding attention."""
    return window is not None and query.shape[2] > window


def _window(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the (T, T) mask, True where a query may attend to a key: to itself and the window - 1 keys before it. None
    if the window covers all, so that causal attention needs no mask."""
    if not _is_windowed(query, window):
        return None
    steps = torch.arange(query.shape[2], device=query.device)
    behind = steps[:, None] - steps[None, :]
    return (behind >= 0) & (behind < window)


def enable(model: PreTrainedModel) -> bool:
    """Switch model to packed rows and return True if `holds` shows that it isolates their examples, and a family with
    local layers has passed its window on; otherwise leave it unchanged and return False."""
    before = model.config._attn_implementation
    own = _own_hidden(model)
    # A family may express local attention in its mask alone: then no window arrives here, and packing would lose it.
    windows: list[int | None] = []

    def sdpa_noting_window(*arguments: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        """Compute `packed_sdpa` and record the sliding window of the call, None if it has none."""
        windows.append(kwargs.get("sliding_window"))
        return packed_sdpa(*arguments, **kwargs)

    AttentionInterface.register(NAME, sdpa_noting_window)
    try:
        with unsupported.tolerated():  # a family with another structure is trained on padded batches
            switch(model, NAME)
            if (
                own is not None
                and holds(model, own)
                and (any(windows) or not _has_local_layers(model.config.get_text_config()))
            ):
                model.attention_before = before
                return True
    finally:
        # The windows need to be noted during the test only.
        AttentionInterface.register(NAME, packed_sdpa)
    switch(model, before)
    return False


def switch(model: PreTrainedModel, name: str) -> None:
    """Set the text model's attention; towers keep theirs, or transformers would warn of each that was removed
    (core/engine/families/parts)."""
    parts, text = (
        ((key, getattr(model.config, key, None)) for key in model.config.sub_configs),
        model.config.get_text_config(),
    )
    own = {key: name if part is text else part._attn_implementation for key, part in parts if part is not None}
    model.set_attn_implementation({"": name} | own)


@contextmanager
def set_aside(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: give model its attention from before `enable`, with mask and cache, for decoding. Does nothing
    if `enable` has changed nothing."""
    if model.config._attn_implementation != NAME:
        yield
        return
    switch(model, model.attention_before)
    try:
        yield
    finally:
        switch(model, NAME)


def _has_local_layers(config: PreTrainedConfig) -> bool:
    """Return whether some layer does not attend to all earlier tokens.

    That is any kind but full_attention in layer_types, linear attention too; without layer_types, a sliding window in
    use or an attention chunk size. A family that expresses this only in the mask would lose it.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds:
        return bool(kinds - {"full_attention"})
    uses = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    return bool(uses or getattr(config, "attention_chunk_size", None))


def _probe(model: PreTrainedModel) -> torch.Tensor:
    """Return (1, FIRST + SECOND) random token ids: two examples."""
    vocabulary, device = model.config.get_text_config().vocab_size, next(model.parameters()).device
    # A generator of its own, so that the test does not change the run's random numbers.
    return torch.randint(vocabulary, (1, FIRST + SECOND), generator=torch.Generator().manual_seed(0)).to(device)


@torch.no_grad()
def _own_hidden(model: PreTrainedModel) -> torch.Tensor | None:
    """Return the first example's hidden states with the model's own attention; None if the family's code fails."""
    with eight_bit.rows_apart(model), unsupported.tolerated():
        return model.get_decoder()(input_ids=_probe(model)[:, :FIRST], use_cache=False).last_hidden_state.float()
    return None


@torch.no_grad()
def holds(model: PreTrainedModel, own: torch.Tensor) -> bool:
    """Test whether packing isolates two examples in one row: each gives what it gives alone, the first also `own`, the
    hidden states by the model's own attention, both within 2 % of the maximum (15 % in 8 bits), and changing the first
    does not affect the second beyond rounding. True on the meta device."""
    with eight_bit.rows_apart(model) as in_8_bit:
        ids = _probe(model)
        vocabulary = model.config.get_text_config().vocab_size
        # Other tokens in the first example, of which the second must not notice anything.
        changed = torch.cat([(ids[:, :FIRST] + 1) % vocabulary, ids[:, FIRST:]], 1)
        together, other = (_hidden(model, row, (FIRST, SECOND)) for row in (ids, changed))
        if together.is_meta:
            return True  # on the meta device (core/trial/dry_run) there is nothing to compare, only that it runs
        alone = torch.cat([_hidden(model, row, (row.shape[1],)) for row in (ids[:, :FIRST], ids[:, FIRST:])], 1)
        expected = torch.cat([own, alone[:, FIRST:]], 1)
        # 16-bit sums in another order, before rounding to 8 bits
        allowed = (0.15 if in_8_bit else 0.02) * expected.abs().max()
        close = (together - alone).abs().max() <= allowed and (together - expected).abs().max() <= allowed
        touched = (together[:, FIRST:] - other[:, FIRST:]).abs().max()
        # Experts compute their tokens as groups; the first example changes the second's group sizes, and so the order
        # of sums.
        rounding = 1e-5 * expected.abs().max() if next(model.parameters()).dtype == torch.float32 else 0
        if touched > rounding:
            # a GPU's kernel may add in another order at each call: then the same row gives other numbers too
            rounding = 2 * (_hidden(model, ids, (FIRST, SECOND)) - together).abs().max()
        return bool(close) and bool(touched <= rounding)


def _hidden(model: PreTrainedModel, ids: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Return the decoder's last hidden states, (1, T, h) float32, of ids (1, T), which are examples of these lengths
    end to end."""
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(ids.device)
    decoder = model.get_decoder()
    return decoder(input_ids=ids, position_ids=positions, lengths=lengths, use_cache=False).last_hidden_state.float()
