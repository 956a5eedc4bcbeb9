"""A batch of rows as tensors, with the positions that are trained. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from core.data.labels import Encoded
from core.engine.variants import pinned, varlen


@dataclass(frozen=True)
class Batch:
    """A micro-batch as tensors. Trained tokens are addressed in the flattened (B*T,) grid.

    input_ids: (B, T) int64. index: (K,) positions whose hidden states predict targets: (K,) token ids. tokens: without
    padding. examples: trained tokens of each example, in order; of a pair, chosen comes first.

    Padded: attention_mask (B, T) int64 marks padding. Packed: B is 1, position_ids (1, T) restart with each example,
    lengths are their tokens in order, ends (N + 1,) int32 where each begins, and the end.

    Only for pairs, (N,) each: answers, trained tokens, at least 1; reference, log-probabilities before training, 0 if
    not needed. is_bad: (N / 2,), only for rated rows. weights: (K, 3), only for drawn answers (engine/variants/policy).
    """

    input_ids: torch.Tensor
    index: torch.Tensor
    targets: torch.Tensor
    tokens: int
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    lengths: tuple[int, ...] | None = None
    ends: torch.Tensor | None = None
    examples: tuple[int, ...] = ()
    answers: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    is_bad: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def inputs(self) -> dict[str, object]:
        """Return the arguments of a model's forward: a padded batch has a mask, a packed one positions and lengths."""
        if self.lengths is None:
            return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "use_cache": False}
        packed = {"position_ids": self.position_ids, "lengths": self.lengths, "ends": self.ends}
        return {"input_ids": self.input_ids, **packed, "use_cache": False}

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on device, all sent in one copy."""
        tensors: dict[str, torch.Tensor] = {
            name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **dict(zip(tensors, pinned.sent(list(tensors.values()), device), strict=True)))


def collate(rows: Sequence[Encoded], pad_token_id: int, device: torch.device) -> Batch:
    """Collate rows to a Batch on device, padded on the right to the longest; a pair becomes two rows of the batch. Only
    the mask marks padding, because the pad token is often the end token."""
    examples = [example for row in rows for example in row.examples]
    width = max(len(row.input_ids) for row in examples)
    input_ids = torch.full((len(examples), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    for b, row in enumerate(examples):
        input_ids[b, : len(row.input_ids)] = torch.tensor(row.input_ids)
        mask[b, : len(row.input_ids)] = 1
    index, targets = _learned((b * width, row) for b, row in enumerate(examples))  # in the flattened grid
    counts = tuple(row.learned_count for row in examples)
    return Batch(input_ids, index, targets, int(mask.sum()), mask, examples=counts, **_of_pairs(rows, counts)).to(
        device
    )


def collate_packed(rows: Sequence[Encoded], device: torch.device) -> Batch:
    """Pack all rows, and both answers of a pair, end to end into one row of a Batch on device, without padding and with
    positions that restart, for a model whose attention isolates them (core/engine/attention)."""
    examples = [example for row in rows for example in row.examples]
    lengths = tuple(len(row.input_ids) for row in examples)
    input_ids = torch.tensor([token for row in examples for token in row.input_ids])[None]
    # Each example counts from 0, as if it were alone.
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    index, targets = _learned(zip(starts, examples, strict=True))
    counts, ends = tuple(row.learned_count for row in examples), varlen.ends_of(lengths)
    batch = Batch(
        input_ids, index, targets, sum(lengths), None, positions, lengths, ends, counts, **_of_pairs(rows, counts)
    )
    return batch.to(device)


def _of_pairs(rows: Sequence[Encoded], counts: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return the fields of a Batch that only some rows have; {} for plain examples.

    Drawn answers: weights alone. Pairs and rated rows: answers (trained tokens of each example, at least 1), reference
    log-probabilities, is_bad.
    """
    if weights := [numbers for row in rows for numbers in row.for_batch()]:
        return {"weights": torch.tensor(weights)}
    if not rows[0].second:
        return {}
    reference, is_bad = [each for row in rows for each in row.reference], [row.is_bad for row in rows]
    # At least 1, because losses by the mean of an answer's tokens divide by it.
    answers = torch.tensor(counts).clamp(min=1)
    return {"answers": answers, "reference": torch.tensor(reference), "is_bad": torch.tensor(is_bad)}


def _learned(rows: Iterable[tuple[int, Encoded]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return index and targets of the trained tokens, (K,) int64 each: index is the grid position before a token, which
    predicts it. rows: (grid position at which it begins, row). Nothing predicts the first token of a row."""
    index, targets = [], []
    for start, row in rows:
        for t in range(1, len(row.input_ids)):
            if row.learned[t]:
                index.append(start + t - 1)  # the hidden state before a token predicts it
                targets.append(row.input_ids[t])
    return torch.tensor(index, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64)
