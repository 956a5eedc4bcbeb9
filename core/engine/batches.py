"""A batch of rows as tensors, with the positions that are trained. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.data.labels import Encoded


@dataclass(frozen=True)
class Batch:
    """input_ids: (B, T) int64. Trained tokens are addressed in the flattened (B*T,) grid: index: (K,) positions whose hidden states
    predict targets: (K,) token ids.

    Padded: attention_mask (B, T) int64 marks padding. Packed: B is 1, position_ids (1, T) restart with each example, lengths are
    their tokens in order. tokens: without padding. examples: trained tokens of each, in order; of a pair chosen comes first.
    reference: (N,) log-probabilities of the answers before training, 0 if not needed. is_bad: (N / 2,), for rated rows.
    """

    input_ids: torch.Tensor
    index: torch.Tensor
    targets: torch.Tensor
    tokens: int
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    lengths: tuple[int, ...] | None = None
    examples: tuple[int, ...] = ()
    reference: torch.Tensor | None = None
    is_bad: torch.Tensor | None = None

    def inputs(self) -> dict[str, Any]:
        """The arguments of a model's forward."""
        if self.lengths is None:
            return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "use_cache": False}
        packed = {"position_ids": self.position_ids, "lengths": self.lengths}
        return {"input_ids": self.input_ids, **packed, "use_cache": False}


def collate(rows: Sequence[Encoded], pad_token_id: int, device: torch.device) -> Batch:
    """Right-padded rows; a pair has one for each answer. Only the mask marks padding, because the pad token is often the end token."""
    examples = [example for row in rows for example in row.examples]
    width = max(len(row.input_ids) for row in examples)
    input_ids = torch.full((len(examples), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    for b, row in enumerate(examples):
        input_ids[b, : len(row.input_ids)] = torch.tensor(row.input_ids)
        mask[b, : len(row.input_ids)] = 1
    index, targets = _learned((b * width, row) for b, row in enumerate(examples))
    return Batch(
        input_ids.to(device), index.to(device), targets.to(device), int(mask.sum()), attention_mask=mask.to(device),
        examples=tuple(row.learned_count for row in examples), reference=_reference(rows, device), is_bad=_is_bad(rows, device),
    )  # fmt: skip


def collate_packed(rows: Sequence[Encoded], device: torch.device) -> Batch:
    """All rows packed into one, for a model whose attention isolates them (core/engine/attention); so are the two answers of a pair."""
    examples = [example for row in rows for example in row.examples]
    lengths = tuple(len(row.input_ids) for row in examples)
    input_ids = torch.tensor([token for row in examples for token in row.input_ids])[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    index, targets = _learned(zip(starts, examples, strict=True))
    return Batch(
        input_ids.to(device), index.to(device), targets.to(device), sum(lengths), position_ids=positions.to(device), lengths=lengths,
        examples=tuple(row.learned_count for row in examples), reference=_reference(rows, device), is_bad=_is_bad(rows, device),
    )  # fmt: skip


def _reference(rows: Sequence[Encoded], device: torch.device) -> torch.Tensor | None:
    return torch.tensor([each for row in rows for each in row.reference], device=device) if rows[0].second else None


def _is_bad(rows: Sequence[Encoded], device: torch.device) -> torch.Tensor | None:
    return torch.tensor([row.is_bad for row in rows], device=device) if rows[0].second else None


def _learned(rows: Iterable[tuple[int, Encoded]]) -> tuple[torch.Tensor, torch.Tensor]:
    """index and targets of rows that begin at the given grid positions. Nothing predicts the first token of a row."""
    index, targets = [], []
    for start, row in rows:
        for t in range(1, len(row.input_ids)):
            if row.learned[t]:
                index.append(start + t - 1)
                targets.append(row.input_ids[t])
    return torch.tensor(index, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64)
