"""This PC's hardware for plans and pages: CPU, RAM, GPUs. No torch; a query takes some milliseconds."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version

import psutil

from core import __version__
from core.system import devices, gpu, windows
from core.values import Frozen

log = logging.getLogger("lora_garage.machine")
# their NVIDIA driver falls back to RAM when the GPU is full
SPILLING_SYSTEMS = ("Windows", "WSL")


class Machine(Frozen):
    """The hardware. system: "Linux", "Windows", "Darwin". cores: physical ones. RAM in bytes; free is what programs can
    get."""

    system: str
    cpu: str | None = None
    cores: int | None = None
    ram_total_bytes: int | None = None
    ram_free_bytes: int | None = None
    nvidia: gpu.Nvidia = gpu.Nvidia()


def this_machine(nvidia: gpu.Nvidia | None = None) -> Machine:
    """Return this PC's system, processor, cores, RAM and GPUs. nvidia: the GPUs, if they should not be queried now."""
    try:
        ram = psutil.virtual_memory()
    except (OSError, psutil.Error):
        ram = None
    return Machine(
        system=platform.system(),
        cpu=_cpu_name(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count(),
        ram_total_bytes=ram and ram.total,
        ram_free_bytes=ram and ram.available,
        nvidia=devices.read_cards() if nvidia is None else nvidia,
    )


def driver_system() -> str:
    """Return the operating system of the GPU driver: WSL is a Linux with Windows' driver."""
    return "WSL" if "microsoft" in platform.release().lower() else platform.system()


@lru_cache(maxsize=1)
def _cpu_name() -> str | None:
    """Return the processor's name as sold, as Linux on x86 and Windows tell it; elsewhere the architecture or family
    that Python's platform module gives, such as "arm"; None if that is empty too."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        name = ""
    if not name and platform.system() == "Windows":
        # platform.processor() says "Intel64 Family 6 Model 158 Stepping 10" there
        name = windows.processor_name() or ""
    return name or platform.processor() or None


def library_versions() -> dict[str, str]:
    """Return the versions of this app and of the libraries that decide a run's numbers."""
    return {"lora_garage": __version__} | {
        name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
    }


class Monitor:
    """A thread that queries the hardware every interval_s while someone asks for the newest Machine, else every idle_s.

    NVML's queries keep the GPU of a laptop awake, at 20 W. A sleeping one is not queried at all, and keeps its last
    state. A GPU that is no longer listed, or no longer reports its memory, stays with lost=True. steady: a clock that
    never jumps. patience_s: how long `newest` waits for the thread after a pause, because a driver may hang; once,
    until it answers again.
    """

    def __init__(
        self,
        interval_s: float = 2.0,
        look: Callable[[], Machine] = this_machine,
        idle_s: float = 30.0,
        is_asleep: Callable[[], bool] = gpu.is_asleep,
        steady: Callable[[], float] = time.monotonic,
        patience_s: float = 1.0,
    ):
        """Create the thread, which `start` begins. look, is_asleep, steady: replaced in tests."""
        self._interval_s, self._idle_s, self._patience_s = interval_s, idle_s, patience_s
        self._look, self._is_asleep, self._steady = look, is_asleep, steady
        self._guard = threading.Lock()
        self._newest: Machine | None = None
        self._requested_at = self._looked_at = steady()
        self._waited_for: float | None = None  # time of the last result after which `newest` waited in vain
        self._over, self._wake = threading.Event(), threading.Event()
        self._updated = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="hardware", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError the second time: a Monitor begins once."""
        self._thread.start()

    def close(self) -> None:
        """End the thread at once, unless the driver itself hangs: then it is left behind."""
        self._over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._interval_s)

    def newest(self) -> Machine:
        """Return the thread's last result; after a longer idle time wait up to patience_s for a new one; query here if
        there is none yet."""
        self._requested_at = requested_at = self._steady()
        newest, last = self._newest, self._looked_at
        if newest is None:
            return self.look_again()
        if requested_at - last > 2 * self._interval_s and self._thread.is_alive():  # nobody had asked for a while
            self._wake.set()
            with self._updated:
                if last != self._waited_for and not self._updated.wait_for(
                    lambda: self._looked_at >= requested_at, self._patience_s
                ):
                    self._waited_for = last
        return self._newest or newest

    def look_again(self) -> Machine:
        """Query now, also GPUs that sleep, and return the result, even after a recent one: someone has just closed a
        program."""
        return self._look_now(wakes=True)

    def _look_now(self, wakes: bool) -> Machine:
        """Query the hardware, keep the result as the newest and return it. wakes: also query a GPU that sleeps."""
        with self._guard:
            begun, before = self._steady(), self._newest
            if before is not None and not wakes and self._is_asleep():
                machine = this_machine(before.nvidia)
            else:
                machine = self._look()
                if before is not None:
                    machine = machine.model_copy(update={"nvidia": with_lost(before.nvidia, machine.nvidia)})
            self._newest = machine
        with self._updated:
            self._looked_at = begun
            self._updated.notify_all()
        return machine

    def _watch(self) -> None:
        """Loop of the thread: query the hardware, then pause until the next look or a wake. A GPU asleep stays
        asleep."""
        last_error = None
        while not self._over.is_set():
            self._wake.clear()
            try:
                self._look_now(wakes=False)
            except Exception as error:  # noqa: BLE001 - a page must not lose its watch to a driver's oddity
                if repr(error) != last_error:
                    log.exception("the query of the hardware failed; it is repeated")
                last_error = repr(error)
            self._wake.wait(self._pause_s())

    def _pause_s(self) -> float:
        """Return the seconds until the next query: few if someone asked lately."""
        return self._interval_s if self._steady() - self._requested_at <= 2 * self._interval_s else self._idle_s


def with_lost(before: gpu.Nvidia, now: gpu.Nvidia) -> gpu.Nvidia:
    """Return now, with those GPUs of before as lost that are missing or no longer report their memory."""
    cards = list(now.cards)
    for old in before.cards:
        place = next((i for i, card in enumerate(cards) if _is_same(old, card)), None)
        if place is None:
            cards.append(_lost(old))
        elif cards[place].lost or (old.total_bytes and cards[place].total_bytes is None):
            cards[place] = _lost(old)
    return now.model_copy(update={"cards": tuple(cards)})


def _is_same(old: gpu.Card, card: gpu.Card) -> bool:
    """Return whether both are one GPU, by uuid; one that fell off the bus no longer reports it and keeps its index."""
    if old.uuid and card.uuid:
        return old.uuid == card.uuid
    return old.index == card.index


def _lost(card: gpu.Card) -> gpu.Card:
    """Return the GPU as lost: its name, size and the like, without what was measured."""
    known = {"index", "name", "uuid", "total_bytes", "capability", "mig", "left_out"}
    return gpu.Card(**card.model_dump(include=known), lost=True)
