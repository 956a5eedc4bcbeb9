"""Communication of a run's ranks: adapter weights from rank 0, gradients summed at rank 0. Imports torch: workers only.

By torch.distributed's Gloo on every system and device: NCCL does not exist on Windows and ends the process if a peer is
gone, and only the adapter is exchanged, once per step each way. On one PC the group uses 127.0.0.1 and ports chosen by
the system; its ranks find each other by a file, so no port is in use already and no firewall asks. On several PCs
(ranks/machines) it uses the addresses at which they reach each other, and they find each other by their lines.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from core.training.ranks.meeting import Meeting

MEET = timedelta(seconds=60)  # of rank 0, which comes when all are ready
LATE = timedelta(hours=1)  # of the others, which come when they are ready themselves; without rank 0 they end
# of a rank for rank 0, which measures or saves between steps; when it is gone so is the connection
WAIT = timedelta(days=1)
Wait = Callable[[Any], None]  # for torch's Work


class _Store(distributed.Store):
    """A Meeting with the interface of torch's Store."""

    def __init__(self, meeting: Meeting):
        super().__init__()
        self._meeting = meeting

    def set(self, key: str, value: bytes) -> None:
        self._meeting.put(key, value)

    def get(self, key: str) -> bytes:
        return self._meeting.get(key, MEET.total_seconds())

    def wait(self, keys: list[str], timeout: timedelta = MEET) -> None:
        self._meeting.wait(keys, timeout.total_seconds())


def _gloo(store: Any, rank: int, size: int, host: str) -> Any:
    gloo = distributed.ProcessGroupGloo
    options = gloo._Options()
    options._devices, options._timeout = [gloo.create_device(hostname=host)], MEET if rank == 0 else LATE
    group = gloo(store, rank, size, options)
    group._set_default_timeout(WAIT)
    # Never destroyed: on Windows that would wait for messages of a killed rank, and the worker could not exit.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    return group


def mesh(meeting: Path, rank: int, size: int, device_type: str) -> Any:
    """All ranks of one PC, as FSDP2 wants them: torch's default process group, of the same kind and at the same address
    as a RankGroup."""
    kind = "loopback"
    if kind not in distributed.Backend.backend_list:
        made = lambda store, rank, size, timeout: _gloo(store, rank, size, "127.0.0.1")  # noqa: E731
        distributed.Backend.register_backend(kind, made, devices=["cpu", "cuda"])
    store = distributed.PrefixStore("mesh", distributed.FileStore(str(meeting), size))
    distributed.init_process_group(kind, store=store, rank=rank, world_size=size)
    return distributed.device_mesh.DeviceMesh(device_type, range(size))


class RankGroup:
    """parameters: the trained ones. extra: how many values are summed besides their gradients. host: this rank's own
    address."""

    def __init__(
        self,
        meeting: Path | Meeting,
        rank: int,
        size: int,
        parameters: Sequence[torch.Tensor],
        extra: int,
        host: str = "127.0.0.1",
    ):
        self._store = _Store(meeting) if isinstance(meeting, Meeting) else distributed.FileStore(str(meeting), size)
        self._group = _gloo(self._store, rank, size, host)
        self._rank, self._parameters = rank, parameters
        self._sizes = [parameter.numel() for parameter in parameters]
        self._flat = torch.zeros(sum(self._sizes) + extra)  # everything exchanged, in RAM
        self.extra = extra

    @property
    def bytes(self) -> int:
        """Of one way."""
        return self._flat.nbytes

    @torch.no_grad()
    def weights(self, wait: Wait) -> None:
        """Every rank gets those of rank 0."""
        flat, options = self._flat[: sum(self._sizes)], distributed.BroadcastOptions()
        if self._rank == 0:
            for parameter, place in self._places():
                place.copy_(parameter)
        options.rootRank = options.rootTensor = 0
        wait(self._group.broadcast([flat], options))
        if self._rank:
            for parameter, place in self._places():
                parameter.copy_(place)

    def gradients(self, extra: torch.Tensor, wait: Wait) -> torch.Tensor:
        """Sum those of all ranks at rank 0. Returns the sum of extra, also valid only there."""
        for parameter, place in self._places():
            place.zero_() if parameter.grad is None else place.copy_(parameter.grad)
        told, options = self._flat[sum(self._sizes) :], distributed.ReduceOptions()
        told.copy_(extra)
        options.rootRank = 0
        wait(self._group.reduce([self._flat], options))
        if self._rank == 0:
            for parameter, place in self._places():
                parameter.grad = place.to(parameter.device, copy=True)
        return told.clone()

    def _places(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        flat = self._flat[: sum(self._sizes)].split(self._sizes)
        return ((one, place.view_as(one)) for one, place in zip(self._parameters, flat, strict=True))
