"""A batch of rows as tensors, with the places where something is learned. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.data.labels import Encoded


@dataclass(frozen=True)
class Batch:
    """input_ids: (B, T) int64. Learned tokens are addressed in the flattened (B*T,) grid: index: (K,) positions whose
    hidden state predicts, targets: (K,) the ids they should predict.

    Padded: attention_mask (B, T) int64 tells the padding. Packed: B is 1, position_ids (1, T) restart with each example
    and lengths are their tokens, in order. tokens: without padding.
    """

    input_ids: torch.Tensor
    index: torch.Tensor
    targets: torch.Tensor
    tokens: int
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    lengths: tuple[int, ...] | None = None

    def inputs(self) -> dict[str, Any]:
        """What a model's forward is given."""
        if self.lengths is None:
            return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "use_cache": False}
        packed = {"position_ids": self.position_ids, "lengths": self.lengths}
        return {"input_ids": self.input_ids, **packed, "use_cache": False}


def collate(rows: Sequence[Encoded], pad_token_id: int, device: torch.device) -> Batch:
    """Right-padded rows. Padding is told by the mask alone, because pad is often the end token itself."""
    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for b, row in enumerate(rows):
        input_ids[b, : len(row.input_ids)] = torch.tensor(row.input_ids)
        mask[b, : len(row.input_ids)] = 1
    index, targets = _learned((b * width, row) for b, row in enumerate(rows))
    return Batch(input_ids.to(device), index.to(device), targets.to(device), int(mask.sum()), attention_mask=mask.to(device))


def collate_packed(rows: Sequence[Encoded], device: torch.device) -> Batch:
    """Rows end to end in one, for a model whose attention keeps them apart (core/engine/attention)."""
    lengths = tuple(len(row.input_ids) for row in rows)
    input_ids = torch.tensor([token for row in rows for token in row.input_ids])[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    index, targets = _learned(zip(starts, rows, strict=True))
    return Batch(
        input_ids.to(device), index.to(device), targets.to(device), sum(lengths), position_ids=positions.to(device), lengths=lengths
    )


def _learned(rows: Iterable[tuple[int, Encoded]]) -> tuple[torch.Tensor, torch.Tensor]:
    """index and targets of rows that begin at the given places of the grid. The first token of a row has no one before it."""
    index, targets = [], []
    for start, row in rows:
        for t in range(1, len(row.input_ids)):
            if row.learned[t]:
                index.append(start + t - 1)
                targets.append(row.input_ids[t])
    return torch.tensor(index, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64)
