"""What goes to the GPU by pinned RAM: bit for bit, in one copy, and in an ordinary one where the system refuses to
pin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from core.data.labels import Encoded
from core.engine.batches import Batch, collate, collate_packed
from core.engine.variants import pinned
from tests.kit.cuda import PlayedRuntime

CPU, CARD = torch.device("cpu"), torch.device("meta")
PAIRS = [
    Encoded(
        [5, 6, 7, 8, 5, 6, 9],
        [False, False, True, True, False, False, True],
        second=4,
        reference=(-1.5, -2.25),
        is_bad=bad,
    )
    for bad in (False, True)
]
ROWS = [Encoded(list(range(3, 3 + length)), [False] + [True] * (length - 1)) for length in (9, 1, 14)]


class Copied(PlayedRuntime):
    """Copies to CARD, which hold what was copied; pageable: how many of them the processor waits for."""

    def __init__(self, pins: float = math.inf):
        super().__init__(pins)
        self.copies, self.pageable = 0, 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") == CARD:
            self.copies, self.pageable = self.copies + 1, self.pageable + (not kwargs.get("non_blocking"))
            return args[0].clone()
        return super().__torch_dispatch__(operation, types, args, kwargs)


def tensors(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, value) for name, value in vars(batch).items() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("pins", [math.inf, 0], ids=["pinned", "refused"])
@pytest.mark.parametrize("rows", [ROWS, PAIRS], ids=["rows", "pairs"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a_batch_reaches_the_gpu_bit_for_bit_in_one_copy(packed: bool, rows: list[Encoded], pins: float) -> None:
    def batch(device: torch.device) -> Batch:
        return collate_packed(rows, device) if packed else collate(rows, 2, device)

    with Copied(pins) as runtime:
        there = batch(CARD)
    assert runtime.copies == 1 and runtime.pageable == (pins == 0)
    assert [name for name, _ in tensors(there)] == [name for name, _ in tensors(batch(CPU))]
    for (name, here), (_, copied) in zip(tensors(batch(CPU)), tensors(there), strict=True):
        assert here.dtype == copied.dtype and torch.equal(here, copied), name
        assert copied.storage_offset() * copied.element_size() % pinned.ALIGNED == 0, name


def test_a_batch_on_a_processor_is_not_copied() -> None:
    rows = [torch.arange(3), torch.ones(2)]
    assert all(a is b for a, b in zip(pinned.sent(rows, CPU), rows, strict=True))
