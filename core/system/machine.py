"""This PC's hardware for plans and pages: CPU, RAM, GPUs. No torch; a look takes some milliseconds."""

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
# whose NVIDIA driver gives a program the PC's RAM in place of a card that is full
SPILLING_SYSTEMS = ("Windows", "WSL")


class Machine(Frozen):
    """system: "Linux", "Windows", "Darwin". cores: physical ones. RAM in bytes; free is what programs can still get."""

    system: str
    cpu: str | None = None
    cores: int | None = None
    ram_total_bytes: int | None = None
    ram_free_bytes: int | None = None
    nvidia: gpu.Nvidia = gpu.Nvidia()


def this_machine(nvidia: gpu.Nvidia | None = None) -> Machine:
    """nvidia: the cards, where they are not to be asked now."""
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
        nvidia=devices.here() if nvidia is None else nvidia,
    )


def driver_system() -> str:
    """The system whose driver the card has: WSL is a Linux whose card is Windows's."""
    return "WSL" if "microsoft" in platform.release().lower() else platform.system()


@lru_cache(maxsize=1)
def _cpu_name() -> str | None:
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
    """Ours, and of those that decide a run's numbers."""
    return {"lora_garage": __version__} | {
        name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
    }


class Monitor:
    """A thread that looks every interval_s while somebody asks for the newest Machine, each idle_s while nobody does:
    NVML's questions keep the card of a laptop awake, at 20 W. One that sleeps is not asked at all, and stays as it was
    seen last.

    A card that was seen and is no longer listed, or no longer tells its memory, stays in it with lost=True. steady: a
    clock that never jumps. patience_s: how long somebody who asks after a while waits for the thread, whose driver may
    hang; once, until it sees again.
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
        self._interval_s, self._idle_s, self._patience_s = interval_s, idle_s, patience_s
        self._look, self._is_asleep, self._steady = look, is_asleep, steady
        self._guard = threading.Lock()
        self._newest: Machine | None = None
        self._asked_at = self._seen_at = steady()
        self._waited_for: float | None = None  # the look after which one was waited for in vain
        self._over, self._wake = threading.Event(), threading.Event()
        self._seen = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="hardware", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The thread ends at once, unless the driver itself hangs: then it is left behind."""
        self._over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._interval_s)

    def newest(self) -> Machine:
        """What the thread saw last; looks itself where nothing was seen yet."""
        self._asked_at = asked_at = self._steady()
        newest, last = self._newest, self._seen_at
        if newest is None:
            return self.look_again()
        if asked_at - last > 2 * self._interval_s and self._thread.is_alive():  # nobody had asked for a while
            self._wake.set()
            with self._seen:
                if last != self._waited_for and not self._seen.wait_for(
                    lambda: self._seen_at >= asked_at, self._patience_s
                ):
                    self._waited_for = last
        return self._newest or newest

    def look_again(self) -> Machine:
        """Now, whatever was seen a moment ago: somebody has just closed a program."""
        return self._look_now(wakes=True)

    def _look_now(self, wakes: bool) -> Machine:
        """wakes: a card that sleeps is asked all the same."""
        with self._guard:
            begun, before = self._steady(), self._newest
            if before is not None and not wakes and self._is_asleep():
                seen = this_machine(before.nvidia)
            else:
                seen = self._look()
                if before is not None:
                    seen = seen.model_copy(update={"nvidia": with_lost(before.nvidia, seen.nvidia)})
            self._newest = seen
        with self._seen:
            self._seen_at = begun
            self._seen.notify_all()
        return seen

    def _watch(self) -> None:
        told = None
        while not self._over.is_set():
            self._wake.clear()
            try:
                self._look_now(wakes=False)
            except Exception as error:  # noqa: BLE001 - a page must not lose its watch to a driver's oddity
                if repr(error) != told:
                    log.exception("the watch of the cards failed, and goes on")
                told = repr(error)
            self._wake.wait(self._pause_s())

    def _pause_s(self) -> float:
        return self._interval_s if self._steady() - self._asked_at <= 2 * self._interval_s else self._idle_s


def with_lost(before: gpu.Nvidia, now: gpu.Nvidia) -> gpu.Nvidia:
    """now, with the cards of before that are missing or no longer tell their memory as lost ones under their old
    names."""
    cards = list(now.cards)
    for old in before.cards:
        place = next((i for i, card in enumerate(cards) if _is_same(old, card)), None)
        if place is None:
            cards.append(_lost(old))
        elif cards[place].lost or (old.total_bytes and cards[place].total_bytes is None):
            cards[place] = _lost(old)
    return now.model_copy(update={"cards": tuple(cards)})


def _is_same(old: gpu.Card, card: gpu.Card) -> bool:
    """By uuid; a card that fell off the bus no longer tells it and keeps its index."""
    if old.uuid and card.uuid:
        return old.uuid == card.uuid
    return old.index == card.index


def _lost(card: gpu.Card) -> gpu.Card:
    known = {"index", "name", "uuid", "total_bytes", "capability", "mig", "left_out"}
    return gpu.Card(**card.model_dump(include=known), lost=True)
