"""Prefill for a batch of prompts, and single decoding steps. Workers only (torch).

Callers (core/chat/duel, core/chat/film, the sampler) choose tokens and end rows, within `for_decoding`.
"""

from __future__ import annotations

import inspect
import os.path
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf

import torch
from torch.nn import functional
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from core.engine import attention
from core.engine.families import vocabulary
from core.engine.variants.prepacked import prepacked
from core.memory.arithmetic import CACHE_ROOM

MIN_SHARED = 64  # tokens at the beginning of all prompts; fewer are not worth a pass of their own


@contextmanager
def for_decoding(model: torch.nn.Module) -> Iterator[None]:
    """Context manager: prepare a model to generate text. If it was switched to packed rows, it has its own attention
    meanwhile, with mask and cache; on a CPU its weights are held in the order that the kernel reads. Call it without
    gradients."""
    with attention.set_aside(model), prepacked(model):
        yield


class _RoomyLayer(DynamicLayer):
    """A layer of a cache with space for more tokens: transformers' own copies all that it holds for each token."""

    def __init__(self, layer: DynamicLayer):
        """Take over the keys and values of a layer of transformers' cache."""
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.hold(layer.keys, layer.values)

    def hold(self, *states: torch.Tensor) -> None:
        """Hold these keys and values, (B, heads, T, d), in place of its own."""
        self._rooms, (self.keys, self.values) = states, states

    def update(self, *states: torch.Tensor, **kwargs: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of new tokens, in place while there is space, and return all keys and values."""
        held, length = self.get_seq_length(), self.get_seq_length() + states[0].shape[2]
        if length > self._rooms[0].shape[2]:
            more = (0, 0, 0, length + CACHE_ROOM - held)
            self._rooms = tuple(functional.pad(own, more) for own in (self.keys, self.values))
        for room, new in zip(self._rooms, states, strict=False):
            room[:, :, held:length] = new
        self.keys, self.values = (room[:, :, :length] for room in self._rooms)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep only these rows (indices), in this order, with the space for more tokens; a row may occur several
        times."""
        length = self.get_seq_length()
        self._rooms = tuple(room.index_select(0, beam_idx.to(room.device)) for room in self._rooms)
        self.keys, self.values = (room[:, :, :length] for room in self._rooms)


_SHARED_LAYERS = (_RoomyLayer, DynamicSlidingWindowLayer)  # of a cache that several tokens can be added to


class Decoder:
    """Forward passes for generation. model: a causal LM without a peft wrapper, with its adapters as they are
    active."""

    def __init__(self, model: torch.nn.Module, pad_token_id: int):
        self._model, self.pad_token_id = model, vocabulary.padding(model, pad_token_id)
        # Some families' forward takes no position_ids or no logits_to_keep.
        self._takes = set(inspect.signature(model.forward).parameters)
        self.shares_below = inf  # tokens of a prompt, known from the first cache; 0: it cannot go on from a beginning
        self._cache = "cache" if "cache" in self._takes else "past_key_values"  # renamed in transformers 5

    def left_padded(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prompts padded on the left, on the model's device: (B, T) ids and (B, T) mask, 0 on padding.
        Raises ModelError for a token that the model does not know."""
        vocabulary.require_rows(self._model, prompts)
        longest = max(map(len, prompts))
        # On the left, so that the newest token of every row is in the last column.
        ids = [[self.pad_token_id] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self._model.device), torch.tensor(mask, device=self._model.device)

    # A context manager inside a generator would switch gradients for its consumer too, so it stays in this function.
    @torch.no_grad()
    def forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: object | None) -> tuple[torch.Tensor, object]:
        """Return, from one forward pass, (B, V) float32 logits of the last position, and the cache. ids: (B, T) new
        tokens; mask: (B, all tokens)."""
        # Counted by the mask: padding must not shift the positions of a shorter prompt.
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        optional = {"position_ids": positions, "logits_to_keep": 1}  # without the latter a long prompt has T x V logits
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=True,
            **{self._cache: cache},
            **{name: value for name, value in optional.items() if name in self._takes},
        )
        after = output[self._cache]
        if cache is None and (layers := getattr(after, "layers", None)):
            layers[:] = [
                _RoomyLayer(one) if type(one) is DynamicLayer and one.is_initialized else one for one in layers
            ]
        return output.logits[:, -1].float(), after


class DecodedRows:
    """Rows that are decoded together: repeat `next_logits`, `append` and, where rows have ended, `keep`.

    copies: rows that continue each prompt, which is read once for all of them; they are neighbours. `read_shared` reads
    once what different prompts have in common.
    """

    def __init__(self, decoder: Decoder, prompts: Sequence[list[int]], copies: int = 1):
        """Pad the prompts on the left for one batch; the model reads nothing before `next_logits`. Raises ModelError
        for a token that the model does not know."""
        self._decoder, self._prompts, self._copies, self._cache = decoder, prompts, copies, None
        self._ids, self._mask = decoder.left_padded(prompts)

    def read_shared(self) -> None:
        """Read the tokens that all prompts begin with once instead of for each row, as a passage with several questions
        has them; call it first, or not at all. Nothing changes for fewer than MIN_SHARED tokens, and for a cache that
        cannot go on from them: of linear attention, or of windows that are shorter than the prompts."""
        decoder, prompts = self._decoder, self._prompts
        longest = max(map(len, prompts))
        # The last token stays: it predicts the answer's first.
        shared = min(len(os.path.commonprefix(list(prompts))), min(map(len, prompts)) - 1)
        if len(prompts) == 1 or shared < MIN_SHARED or longest >= decoder.shares_below:
            return
        _, cache = decoder.forward(*decoder.left_padded([prompts[0][:shared]]), None)
        windows = (
            getattr(layer, "sliding_window", inf) if type(layer) in _SHARED_LAYERS else 0
            for layer in getattr(cache, "layers", ())
        )
        decoder.shares_below = min(windows, default=0)
        if longest < decoder.shares_below:
            self._cache = cache
            # From one row of the cache to one for each prompt.
            keep_rows(cache, torch.zeros(len(prompts), dtype=torch.long, device=self._mask.device))
            self._ids, rest = decoder.left_padded([prompt[shared:] for prompt in prompts])
            self._mask = torch.cat([rest.new_ones(len(rest), shared), rest], dim=1)

    def next_logits(self) -> torch.Tensor:
        """Read the newest tokens, at first the prompts (whose cache is then copied for each of their rows); return (B,
        V) float32 logits of each row's next token."""
        logits, self._cache = self._decoder.forward(self._ids, self._mask, self._cache)
        if self._copies == 1:
            return logits
        # Only now, so that a prompt is read once, however many answers follow it.
        rows = torch.arange(len(logits), device=logits.device).repeat_interleave(self._copies)
        self._copies = 1
        self.keep(rows)
        return logits[rows]

    def append(self, chosen: torch.Tensor) -> None:
        """Append one token to each row. chosen: (B,) ids."""
        self._ids = chosen.to(self._mask.device)[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(chosen), 1)], dim=1)

    def keep(self, rows: Sequence[int] | torch.Tensor) -> None:
        """Continue with these rows (indices) alone, in this order. A list with as many rows as there are changes
        nothing, so to reorder or repeat rows pass a tensor."""
        if isinstance(rows, torch.Tensor) or len(rows) < len(self._ids):
            chosen = torch.as_tensor(rows, device=self._mask.device)
            self._ids, self._mask = self._ids[chosen], self._mask[chosen]
            keep_rows(self._cache, chosen)

    @property
    def width(self) -> int:
        """The tokens of the longest row, with its padding."""
        return self._mask.shape[1]

    def can_join(self) -> bool:
        """Return whether other rows can be added: the cache, of rows that have been read, has no windows and no states
        of linear attention."""
        layers = getattr(self._cache, "layers", ())
        return bool(layers) and all(type(layer) is _RoomyLayer for layer in layers)

    def join(self, others: DecodedRows) -> None:
        """Add rows that have been read, and got their first token, by themselves; they come last."""
        both = (self, others)
        # What is padding in every row left behind by longer ones would else stay for as long as somebody joins.
        begins = [int(rows._mask.any(dim=0).int().argmax()) for rows in both]
        width = max(rows.width - begin for rows, begin in zip(both, begins, strict=True))
        padding = [width - rows.width for rows in both]  # on the left; negative where columns go

        def joined(parts: Sequence[torch.Tensor], *after: int) -> torch.Tensor:
            """Return one tensor of both parts' rows, each part padded on the left to the common width, or cut there if
            it is wider. after: padding of the dimensions after that of the tokens."""
            return torch.cat([functional.pad(part, (*after, pad, 0)) for part, pad in zip(parts, padding, strict=True)])

        self._ids = torch.cat([rows._ids for rows in both])
        self._mask = joined([rows._mask for rows in both])
        assert self._cache is not None and others._cache is not None, "can_join comes first"
        for mine, new in zip(self._cache.layers, others._cache.layers, strict=True):
            mine.hold(joined([mine.keys, new.keys], 0, 0), joined([mine.values, new.values], 0, 0))


def keep_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Keep only these rows (indices) of the cache, in this order; a row may occur several times.

    Uses `reorder_cache`, which every layer of a cache has: those of linear attention and convolutions have no
    `batch_select_indices` (transformers 5.24).
    """
    cache.reorder_cache(rows)
