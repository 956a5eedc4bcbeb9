"""A batch of rows as tensors, with the places where something is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from core.tokenizer import Encoded


@dataclass(frozen=True)
class Batch:
    """input_ids, attention_mask: (B, T) int64. Learned tokens are addressed in the flattened (B*T,) grid:
    index: (K,) positions whose hidden state predicts, targets: (K,) the ids they should predict.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    index: torch.Tensor
    targets: torch.Tensor

    @property
    def tokens(self) -> int:
        return int(self.attention_mask.sum())


def collate(rows: Sequence[Encoded], pad_token_id: int, device: torch.device) -> Batch:
    """Right-padded rows. Padding is told by the mask alone, because pad is often the end token itself."""
    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    index, targets = [], []
    for b, row in enumerate(rows):
        ids = row.input_ids
        input_ids[b, : len(ids)] = torch.tensor(ids)
        mask[b, : len(ids)] = 1
        for t in range(1, len(ids)):
            if row.learned[t]:
                index.append(b * width + t - 1)
                targets.append(ids[t])
    return Batch(input_ids.to(device), mask.to(device), torch.tensor(index, device=device), torch.tensor(targets, device=device))
