"""A fake card: torch.cuda's functions answered by a simulated caching allocator, as Linux or as Windows drives it.

What is reserved shrinks only by `empty_cache`, or by a refusal. On Linux a full card refuses; on Windows (WDDM) and WSL
the driver gives RAM instead, so that nothing refuses but a fraction that was set. Tensors stay the processor's: `use`
says what a step needs.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.values import GIB


class FakeCuda:
    """Sizes in GiB. others: what other programs hold of total; spills: whether the driver gives RAM in place of a full
    card; context: CUDA's own memory, taken when cuBLAS is first asked for."""

    def __init__(self, total: float = 8.0, others: float = 1.0, spills: bool = True, context: float = 0.0):
        self.total, self.others, self.spills = total, others, spills
        self.held = self.reserved = self.peak = 0.0
        self.context, self.begun = context, False
        self.fraction = 1.0
        self.refused = 0

    def machine(self, system: str = "Windows") -> Machine:
        """Return a machine with this card as NVML reports it now."""
        used = self.others + self.reserved + (self.context if self.begun else 0.0)
        card = Card(
            index=0, name="RTX", uuid="GPU-1", total_bytes=int(self.total * GIB), free_bytes=int(max(0.0,
                self.total - used) * GIB),
            used_bytes=int(min(self.total, used) * GIB),
        )  # fmt: skip
        return Machine(system=system, nvidia=Nvidia(driver="580", cards=(card,)))

    def use(self, size: float) -> None:
        """Allocate size and free it again; it stays reserved. Raises torch's OutOfMemoryError."""
        most = self.total * self.fraction
        if not self.spills:
            most = min(most, self.total - self.others)
        if self.held + size > most:
            self.reserved = self.held  # cached blocks are given back before it is refused
            self.refused += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size:.2f} GiB")
        self.reserved = max(self.reserved, self.held + size)
        self.peak = max(self.peak, self.reserved)

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Replace functions of torch.cuda by this card's."""
        names = (
            "empty_cache", "reset_peak_memory_stats", "max_memory_reserved", "max_memory_allocated", "memory_reserved",
            "mem_get_info",
            "synchronize", "get_device_properties", "set_per_process_memory_fraction",
            "current_blas_handle", "memory_allocated", "get_per_process_memory_fraction",
        )  # fmt: skip
        for name in names:
            patch.setattr(torch.cuda, name, getattr(self, name))

    # ---- torch.cuda's -----------------------------------------------------------------------------------------------
    def empty_cache(self) -> None:
        self.reserved = self.held

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.reserved

    def max_memory_reserved(self) -> int:
        return int(self.peak * GIB)

    max_memory_allocated = max_memory_reserved

    def memory_allocated(self, device: object = 0) -> int:
        return int(self.held * GIB)

    def get_per_process_memory_fraction(self, device: object = 0) -> float:
        return self.fraction

    def memory_reserved(self, device: object = 0) -> int:
        return int(self.reserved * GIB)

    def mem_get_info(self, device: object = 0) -> tuple[int, int]:
        return int(max(0.0, self.total - self.others - self.reserved) * GIB), int(self.total * GIB)

    def current_blas_handle(self) -> int:
        self.begun = True
        return 0

    def synchronize(self, device: object = None) -> None: ...

    def get_device_properties(self, device: object) -> SimpleNamespace:
        return SimpleNamespace(uuid="1")

    def set_per_process_memory_fraction(self, fraction: float, device: object = 0) -> None:
        self.fraction = fraction


class PlayedRuntime(TorchDispatchMode):
    """CUDA's runtime as far as core/engine/variants/streaming uses it: streams, events, pinned RAM and the last error.

    As a context, every operation of its thread is a kernel. A call of the runtime that fails is remembered, and the
    next kernel raises it, as the real one does (`cudaGetLastError`); torch's own allocation of pinned RAM raises at
    once and leaves nothing. What is queued on another stream than the current one happens when an event after it is
    waited for, and not before.
    pins: how many times RAM may be pinned. pinned: the bytes of each. calls: of streams and events, in order.
    """

    OUT_OF_MEMORY = "CUDA error: out of memory"

    def __init__(self, pins: float = math.inf):
        super().__init__()
        self.pins, self.pinned = pins, list[int]()
        self.last_error: str | None = None
        self.calls: list[str] = []
        self.work = PlayedStream(self, "work")

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Replace streams, events and cudart of torch.cuda by this runtime's."""
        side = partial(PlayedStream, self, "side")
        for name, value in (
            ("Stream", lambda device: side()), ("current_stream", lambda device=None: self.work), ("stream", queued_on),
            ("Event", PlayedEvent), ("cudart", lambda: SimpleNamespace(cudaHostRegister=self.register)),
        ):  # fmt: skip
            patch.setattr(torch.cuda, name, value)

    def register(self, pointer: int, size: int, flags: int) -> int:
        """cudaHostRegister, as torch's binding calls it: returns the error, which stays the runtime's last."""
        if len(self.pinned) < self.pins:
            self.pinned.append(size)
            return 0
        self.last_error = self.OUT_OF_MEMORY
        return 2

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.pop("pin_memory", None):
            if len(self.pinned) >= self.pins:
                raise torch.AcceleratorError(self.OUT_OF_MEMORY)
            made = operation(*args, **kwargs)
            self.pinned.append(made.nbytes)
            return made
        if error := self.last_error:
            self.last_error = None
            raise torch.AcceleratorError(error)
        return operation(*args, **kwargs)


class PlayedStream:
    """queue: operations not yet carried out, the oldest first. done: how many were."""

    def __init__(self, runtime: PlayedRuntime, name: str):
        self.runtime, self.name, self.device = runtime, name, torch.device("cuda:0")
        self.queue: list[Callable[[], object]] = []
        self.done, self.lock = 0, threading.Lock()

    def record_event(self, event: PlayedEvent | None = None) -> PlayedEvent:
        event = event or PlayedEvent()
        event.stream = self
        with self.lock:  # an operation that another thread carries out now is in neither of the two
            event.after = self.done + len(self.queue)
        return event

    def wait_event(self, event: PlayedEvent) -> None:
        self.runtime.calls.append(f"{self.name} waits for {event.stream.name}")
        event.catch_up()

    def wait_stream(self, other: PlayedStream) -> None:
        self.wait_event(other.record_event())


class PlayedEvent:
    stream: PlayedStream
    after: int

    def __init__(self, blocking: bool = False): ...

    def catch_up(self) -> None:
        with self.stream.lock:
            while self.stream.done < self.after:
                self.stream.queue.pop(0)()
                self.stream.done += 1

    def synchronize(self) -> None:
        self.catch_up()


@contextmanager
def queued_on(stream: PlayedStream):
    """Replaces torch.cuda.stream: operations inside are queued on stream, not carried out."""

    class Queued(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operation is torch.ops.prim.device.default:
                # of a fake tensor (tests/kit/pretended): a question, not a kernel
                return operation(*args)
            stream.queue.append(partial(operation, *args, **(kwargs or {})))
            return args[0]

    with Queued():
        yield
