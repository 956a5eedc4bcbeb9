"""Counts the memory that a piece of torch code has in use at its peak, by kind: follows every storage from creation to
release.

The code may run on tensors without data (device meta): their storages have sizes and ends as real ones do. A size
counts as PyTorch's allocator for GPUs counts it, in blocks of 512 bytes. Memory that a kernel takes and gives back
inside itself is not seen, except for those in `inside`. Imports torch: workers only.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512
_ITEM, _UNIQUE = torch.ops.aten._local_scalar_dense.default, torch.ops.aten._unique2.default


@dataclass
class Peak:
    """The largest use. bytes: by kind; operation: torch's name of the operation that allocated last; place:
    `Allocations.place` then."""

    bytes: dict[str, int] = field(default_factory=dict)
    operation: str = ""
    place: str = ""

    @property
    def total(self) -> int:
        """Return the bytes in use at the peak, all kinds together."""
        return sum(self.bytes.values())


class Allocations(TorchDispatchMode):
    """Counts the memory of tensors by kind, while it is entered.

    New storages are of kind `activations`, or `logits` if their last dimension is the vocabulary, unless `making` names
    another kind. truth: the value of a boolean tensor without data. check is called at every operation, and may raise.
    """

    def __init__(self, vocab_size: int, check: Callable[[], None] = lambda: None):
        super().__init__()
        self._check = check
        self.peak = Peak()
        self.place = ""
        self.truth = True
        self._vocab_size = vocab_size
        self._kind: str | None = None
        self._live: dict[int, tuple[str, int]] = {}
        self._now: dict[str, int] = {}
        self._total = 0

    def hold(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Count tensors that exist already as of this kind, until they are freed."""
        for tensor in tensors:
            self._note(tensor.untyped_storage(), kind)

    def rename(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor's bytes as of this kind from now on; does nothing for one that is not counted."""
        key = tensor.untyped_storage()._cdata
        if key in self._live:
            was, size = self._live[key]
            self._live[key] = kind, size
            self._now[was] -= size
            self._now[kind] = self._now.get(kind, 0) + size

    @contextmanager
    def making(self, kind: str) -> Iterator[None]:
        """Count what is allocated inside the context as this kind."""
        before, self._kind = self._kind, kind
        try:
            yield
        finally:
            self._kind = before

    def now(self) -> dict[str, int]:
        """Return the bytes by kind at this moment."""
        return dict(self._now)

    def forget_peak(self) -> None:
        """Start the peak anew from this moment."""
        self.peak = Peak(self.now(), place=self.place)

    def __torch_dispatch__(
        self,
        operation: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation, count the storages of its results by kind, and note the peak, what kernels hold inside
        included. Truth values and unique ids of meta tensors are made up."""
        self._check()
        if operation is _ITEM and args[0].is_meta and args[0].dtype == torch.bool:
            return self.truth
        if operation is _UNIQUE and args[0].is_meta:  # as many as there could be
            result = args[0].new_empty(args[0].numel()), torch.empty_like(args[0]), args[0].new_empty(0)
        else:
            result = operation(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for tensor in made:
            words = tensor.dim() > 1 and tensor.shape[-1] == self._vocab_size
            kind = self._kind or ("logits" if words else _DEQUANTIZES.get(operation.__name__, "activations"))
            self._note(tensor.untyped_storage(), kind)
        taken = inside(operation, args, kwargs or {}, made)
        if self._total + sum(taken.values()) > self.peak.total:
            at_once = self.now()
            for kind, size in taken.items():
                at_once[kind] = at_once.get(kind, 0) + size
            self.peak = Peak(at_once, str(operation), self.place)
        return result

    def _note(self, storage: torch.UntypedStorage, kind: str) -> None:
        """Add a new storage's bytes, in the allocator's blocks, to its kind until it is freed."""
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        if not size or key in self._live:
            return
        self._live[key] = kind, size
        self._now[kind] = self._now.get(kind, 0) + size
        self._total += size
        weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        """Subtract a storage that was freed."""
        kind, size = self._live.pop(key)
        self._now[kind] -= size
        self._total -= size


_DEQUANTIZES = {"dequantize_4bit.default": "dequantised", "dequantize_blockwise.default": "dequantised"}


def inside(
    operation: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, object], made: list[torch.Tensor]
) -> dict[str, int]:
    """Return the bytes by kind that a GPU's kernel holds beside its results (made) while it runs, where that is much:
    of bitsandbytes' 4-bit product the unpacked matrix, of flash attention's backward the gradient of the queries in
    fp32; {} for all other operations."""
    name = str(operation)
    if name.startswith("bitsandbytes.gemm_4bit"):
        return {"dequantised": math.prod(args[2]) * args[0].element_size()}
    if "_flash_attention_backward" in name and made:
        return {"activations": 4 * made[0].numel()}
    return {}
