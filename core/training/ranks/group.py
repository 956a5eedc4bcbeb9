"""Communication between the ranks of a run, by torch.distributed: rank 0's orders, its adapter at the start, and in
each step one all-reduce of the adapter's gradients. Imports torch: workers only.

NCCL between GPUs on Linux; Gloo for orders, on a CPU, and on Windows, where torch has no NCCL. Gloo gets the address by
which this PC reaches the main one, 127.0.0.1 within one PC; by default it would resolve the PC's own name, which is
127.0.1.1 on many Linux PCs. Rank 0 polls, so that it notices a failed rank, for which NCCL would wait for ever, and
still saves the adapter.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import distributed

from core.errors import RunError
from core.files import JsonObject
from core.messages import Message, msg
from core.progress import RankUse
from core.system.machine import library_versions
from core.training.ranks.meeting import AGENT, ENDED, RankError, own_address, reported_failure, store_of_run

POLL_S, LOOK_S = 0.001, 1.0
END_S = 5.0  # for the others to hear that the run is over
LATE = timedelta(hours=1)  # the longest that NCCL waits in a step
WAIT = timedelta(days=1)  # for rank 0, which measures or saves between steps; when it is gone so is the connection
COME = timedelta(minutes=5)  # of ranks that have been started, until all have read their libraries and connected
PREPARE = timedelta(days=2)  # of rank 0, which fetches the model and reads the data alone
PATIENCE_S = 600.0  # in a step, beyond ten times what rank 0's part took
Check = Callable[[], None]


def gloo(meeting: distributed.Store, rank: int, size: int, host: str) -> distributed.ProcessGroup:
    """Return torch's gloo process group of size ranks, bound to the address host of this PC."""
    options = distributed.ProcessGroupGloo._Options()
    options._devices = [distributed.ProcessGroupGloo.create_device(hostname=host)]
    options._timeout = COME  # to connect
    group = distributed.ProcessGroupGloo(meeting, rank, size, options)
    group._set_default_timeout(WAIT)
    # Never destroyed: on Windows that would wait for messages of a killed rank, and the worker could not exit.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    return group


def watch_agent(rank: int) -> threading.Event:
    """Return an event that is set once torchrun's agent ends the ranks, as it does if one fails, or is gone. Rank 0
    sees the event (also at SIGTERM and SIGINT) and can save a checkpoint; the others exit at once."""
    lost = threading.Event()

    def mark_lost_and_exit() -> None:
        """Wait until the agent has ended, note the loss, and exit on every rank but 0."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int(os.environ[AGENT])).wait()
        lost.set()
        if rank:
            os._exit(1)

    if rank == 0:
        for kind in (signal.SIGTERM, signal.SIGINT):  # on Windows torchrun sends Ctrl-C
            signal.signal(kind, lambda *_: lost.set())
    threading.Thread(target=mark_lost_and_exit, name="agent", daemon=True).start()
    return lost


class Ranks:
    """This process among those of its run. Call `end` when the run is over.

    meeting: the store where they find each other. group: of torch.distributed. device: where NCCL sums; None: in RAM.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        meeting: distributed.Store,
        group: distributed.ProcessGroup,
        device: torch.device | None = None,
    ):
        """Note rank (0 to size - 1), meeting and group as above, without communicating."""
        self.rank, self.size, self._store, self._group, self.device = rank, size, meeting, group, device
        self.patience_s = PATIENCE_S
        self.use: dict[int, RankUse] = {}
        self.report_use: Callable[[tuple[RankUse, ...]], None] = lambda uses: None  # rank 0: what each has in use
        self.report_decision: Callable[[Message], None] = lambda message: None  # rank 0: for the run's events
        self.host: str | None = None  # this PC's name, where it is not the main one
        self.lost = threading.Event()

    @classmethod
    def from_environment(cls, on_card: bool, meeting: Path | None) -> Ranks:
        """Join the process group that torchrun's environment variables describe, NCCL between GPUs if every rank has
        it, else gloo; returns once rank 0 has joined.

        meeting: the file by which the ranks of one PC find each other.
        """
        rank, size, nodes = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE"))
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        lost = watch_agent(rank)
        store = store_of_run(meeting)
        store.set_timeout(COME)
        store.set("rank 0", "") if rank == 0 else store.wait(["rank 0"], PREPARE)
        own = own_address(host, port) if nodes > 1 else "127.0.0.1"
        store.set(f"nccl {rank}", str(on_card and distributed.is_nccl_available()))
        nccl = all(store.get(f"nccl {each}") == b"True" for each in range(size))
        if nccl and (name := interface_of(own)):
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
        made = lambda group_store, rank, size, timeout: gloo(group_store, rank, size, own)  # noqa: E731
        if "gloo_here" not in distributed.Backend.backend_list:
            distributed.Backend.register_backend("gloo_here", made, devices=["cpu", "cuda"])
        distributed.init_process_group(
            f"cpu:gloo_here,cuda:{'nccl' if nccl else 'gloo_here'}",
            store=distributed.PrefixStore("group", store), rank=rank, world_size=size, timeout=LATE,
        )  # fmt: skip
        ranks = cls(rank, size, store, distributed.group.WORLD, torch.device("cuda") if nccl else None)
        ranks.host = socket.gethostname() if os.environ["GROUP_RANK"] != "0" else None
        ranks.lost = lost
        return ranks

    # ---- before the first step ------------------------------------------------------------------------------------
    def exchange(self, **mine: object) -> list[JsonObject]:
        """Send these values to all ranks, wait for theirs, and return those of every rank, in order. Raises RankError.

        Sent as JSON. all_gather_object would unpickle what a peer sends, so a peer could run any code here.
        """
        own = json.dumps(mine).encode()
        longest = torch.tensor([len(own)])
        with self.rank_errors():
            distributed.all_reduce(longest, distributed.ReduceOp.MAX)
            padded = torch.frombuffer(bytearray(own.ljust(int(longest))), dtype=torch.uint8)  # JSON may end in spaces
            gathered = [torch.empty_like(padded) for _ in range(self.size)]
            distributed.all_gather(gathered, padded)
        return [json.loads(each.numpy().tobytes()) for each in gathered]

    def meet(self, **of_rank_0: object) -> JsonObject:
        """Compare library versions with rank 0's; return rank 0's values, of_rank_0 (passed by rank 0 only) included.
        Raises RunError, on all, if they differ."""
        own = {"versions": library_versions(), "host": socket.gethostname()}
        first, *others = self.exchange(**own, **of_rank_0)
        for other in others:
            for name, own_version in first["versions"].items():
                there = str(other["versions"].get(name))
                if there.partition("+")[0] != own_version.partition("+")[0]:  # 2.13.0+cpu works with 2.13.0+cu130
                    facts = {"name": name, "host": other["host"], "main": first["host"], "here": own_version}
                    raise RunError(msg("ranks.other_version", **facts, there=there), msg("ranks.alike"))
        return first

    def agree(self, base: str) -> None:
        """Exchange the fingerprints of the base. Raises RunError, on every rank, if they differ."""
        first, *others = self.exchange(base=base, host=socket.gethostname())
        for other in others:
            if other["base"] != first["base"]:
                prints = {"there": other["base"][:12], "here": first["base"][:12]}
                names = {"host": other["host"], "main": first["host"]}
                raise RunError(msg("ranks.other_base", **names, **prints), msg("ranks.alike"))

    def take_part_in_exchanges(self, after: int) -> None:
        """Take part in `after` empty exchanges, each of which waits for all ranks.

        Called with rank before loading the base and with size - rank after it, so that one rank loads after another and
        RAM never holds the base twice.
        """
        for _ in range(after):
            self.exchange()

    # ---- in a step ------------------------------------------------------------------------------------------------
    def order(self, name: str, check: Check = lambda: None, **order: object) -> None:
        """Send all ranks the next order; called by rank 0. Raises RankError, and what check raises."""
        content = io.BytesIO()
        torch.save({"name": name, **order}, content)
        sent = torch.frombuffer(content.getbuffer(), dtype=torch.uint8)
        for each in (torch.tensor([sent.numel()]), sent):
            self.wait(self._broadcast(each), check)

    def receive(self) -> dict[str, Any]:
        """Wait for rank 0's next order, and return it; called by every other rank."""
        size = torch.zeros(1, dtype=torch.int64)
        self._broadcast(size).wait()
        content = torch.empty(int(size), dtype=torch.uint8)
        self._broadcast(content).wait()
        return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True, map_location="cpu")

    def share(self, tensors: Sequence[torch.Tensor], check: Check = lambda: None) -> None:
        """Replace the tensors on every rank by those of rank 0, in place, and wait until they have arrived. check:
        called on rank 0 meanwhile; its exceptions are passed on. Raises RankError on rank 0 if another rank is gone or
        silent for too long."""
        with self._flat(tensors) as (flat, _):
            self.wait(self._broadcast(flat), check)

    def all_reduce(
        self, tensors: Sequence[torch.Tensor], extra: torch.Tensor, check: Check = lambda: None, seconds: float = 0.0
    ) -> torch.Tensor:
        """Replace tensors by their sums over all ranks, in one all-reduce; return the sum of extra. seconds: that rank
        0's part took, by which it waits longer."""
        with self._flat(tensors, extra) as (flat, further):
            self.wait(self._group.allreduce([flat], distributed.AllreduceOptions()), check, seconds)
            return further.to(extra.device, extra.dtype, copy=True)

    @contextmanager
    @torch.no_grad()
    def _flat(
        self, tensors: Sequence[torch.Tensor], extra: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Context manager: yield (one tensor that holds tensors and extra end to end, on the device of the exchange;
        its part for extra), and copy tensors back afterwards."""
        sizes = [each.numel() for each in tensors]
        more = 0 if extra is None else extra.numel()
        dtype = torch.float32 if tensors or extra is None else extra.dtype
        flat = torch.empty(sum(sizes) + more, dtype=dtype, device=self.device or "cpu")
        places = [place.view_as(each) for each, place in zip(tensors, flat[: sum(sizes)].split(sizes), strict=True)]
        for each, place in zip(tensors, places, strict=True):
            place.copy_(each)
        if extra is not None:
            flat[sum(sizes) :].copy_(extra)
        yield flat, flat[sum(sizes) :]
        for each, place in zip(tensors, places, strict=True):
            each.copy_(place)

    def _broadcast(self, tensor: torch.Tensor) -> distributed.Work:
        """Begin to copy rank 0's tensor to every rank."""
        options = distributed.BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        return self._group.broadcast([tensor], options)

    def wait(self, work: distributed.Work, check: Check = lambda: None, seconds: float = 0.0) -> None:
        """Wait for a transfer; on rank 0, check is called meanwhile. Rank 0 raises RankError if a rank is gone or
        silent for patience_s and ten times seconds, and what check raises."""
        if self.rank:
            work.wait()
            return
        patience = self.patience_s + 10 * seconds
        checked_at, end = time.monotonic(), time.monotonic() + patience
        while not work.is_completed():
            check()
            if time.monotonic() - checked_at > LOOK_S:
                checked_at = time.monotonic()
                self._check_agent()
            if self.lost.is_set():
                raise self._lost_rank_error("torchrun's agent ends this run")
            if time.monotonic() > end:
                raise RankError("ranks.silent", msg("ranks.fewer"), ranks=self.size, seconds=round(patience))
            time.sleep(POLL_S)
        with self.rank_errors():
            work.wait()

    # ---- failed ranks ---------------------------------------------------------------------------------------------
    def _check_agent(self) -> None:
        """Set lost if the agent has ended the ranks, or is gone itself."""
        try:
            is_ended = self._store.check([ENDED])
        except RuntimeError:  # the agent that serves it is gone
            is_ended = True
        if is_ended:
            self.lost.set()

    @contextmanager
    def rank_errors(self) -> Iterator[None]:
        """Context manager: raise a RuntimeError (a closed connection to another rank) on rank 0 as a lost rank's
        RankError; on the others as it is."""
        try:
            yield
        except RuntimeError as error:  # Gloo: a peer's connection is closed
            if self.rank:
                raise
            raise self._lost_rank_error(str(error)) from error

    def _lost_rank_error(self, reason: str) -> RankError:
        """Return the error of a failed rank, with the reason it reported if it could. reason: torch's, for the log."""
        if failure := reported_failure(self._store, self.size):
            return failure
        print(reason, file=sys.stderr)
        return RankError("ranks.gone", msg("ranks.fewer"), ranks=self.size)

    def end(self) -> None:
        """Send all ranks the end of the run; called by rank 0. Raises nothing: a rank that is not reached within END_S
        is ended by torchrun's agent."""
        with suppress(RankError, RuntimeError):
            self.patience_s = END_S
            self.order("end")

    # ---- memory and load of each rank -----------------------------------------------------------------------------
    def publish_use(self, own: RankUse | None) -> None:
        """Publish this rank's use of its device in the store; on rank 0, report the newest use of every rank instead.
        own None, if nothing is new, does nothing."""
        if own is None:
            return
        if self.rank:
            self._store.set(f"use {self.rank}", own.model_copy(update={"host": self.host}).model_dump_json())
            return
        self.use[0] = own
        for rank in range(1, self.size):
            if self._store.check([f"use {rank}"]):
                self.use[rank] = RankUse.model_validate_json(self._store.get(f"use {rank}"))
        self.report_use(tuple(used for _, used in sorted(self.use.items())))


def interface_of(address: str) -> str | None:
    """Return the name of the network interface that has an address, or None."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, of_it in interfaces if any(each.address == address for each in of_it)), None)
