"""Keeps this PC awake during a training or an export, in each system's own way. Nothing outlives the process that
asked.

Windows: SetThreadExecutionState, which holds for as long as the thread that asked lives. Linux: `systemd-inhibit`
around a `cat` whose standard input comes from us, so that it ends with us, however that happens. macOS: `caffeinate`,
which watches our process. The lid does what it always does; systemd may refuse a person's own Sleep meanwhile. wakepy
1.0.0 was read: it speaks to GNOME and KDE over D-Bus and not to systemd, tells the desktop its own name in place of
ours, and is fifty times as long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psutil

from core.messages import Message, msg, terminal_language
from core.system import machine

log = logging.getLogger("lora_garage.awake")

# winbase.h: the state stays until the thread's next call; the system is in use, its screen may still go dark.
ES_CONTINUOUS, ES_SYSTEM_REQUIRED = 0x80000000, 0x00000001
LOOK_S = 5.0  # between two looks at the battery and at what the person chose
LEAVE_S = 2.0
LOW_PERCENT = 20  # of a battery that runs down: Windows warns from there on, and asleep the run at least survives it

Release = Callable[[], object]


class Battery:
    """percent: of a full one. plugged: None where the system does not tell."""

    def __init__(self, percent: float, plugged: bool | None):
        self.percent, self.plugged = round(percent), plugged


def battery() -> Battery | None:
    """None on a PC without one, or where it cannot be asked."""
    ask = getattr(psutil, "sensors_battery", None)  # not on every system
    with contextlib.suppress(OSError, RuntimeError, ValueError, psutil.Error):
        if ask and (found := ask()):
            return Battery(found.percent, found.power_plugged)
    return None


def hold(system: str | None = None) -> Release | Message:
    """Ask the system to stay awake: what gives it free again, or why it cannot be asked. From the thread that will give
    it free."""
    system = system or machine.driver_system()
    try:
        if system == "Windows":
            return _windows()
        if system == "Darwin":
            return _program("caffeinate", "-i", "-w", str(os.getpid()))
        if system == "WSL":  # its systemd is not the one that puts this PC to sleep
            return msg("awake.wsl")
        why = msg("awake.why").render(terminal_language())
        held: Release | Message = msg("awake.no_program", program="systemd-inhibit")
        for what in ("idle:sleep", "idle"):  # from another PC, over ssh, the second alone may be granted
            named = (f"--what={what}", "--mode=block", "--who=LoRA Garage", f"--why={why}")
            held = _program("systemd-inhibit", *named, "sh", "-c", "echo held; exec cat", waits_for=b"held\n")
            if not isinstance(held, Message):
                break
        return held
    except OSError as error:
        return msg("awake.refused", reason=error.strerror or str(error))


def _windows() -> Release:
    import ctypes

    state: Any = ctypes.windll.kernel32.SetThreadExecutionState  # type: ignore[attr-defined]
    if not state(ES_CONTINUOUS | ES_SYSTEM_REQUIRED):  # it returns the state before, and 0 where it refuses
        raise OSError("SetThreadExecutionState")
    return lambda: state(ES_CONTINUOUS)


def _program(name: str, *arguments: str, waits_for: bytes = b"") -> Release | Message:
    """A program that keeps the PC awake while it runs. waits_for: the line that it prints once it does."""
    path = shutil.which(name)
    if path is None:
        return msg("awake.no_program", program=name)
    process = subprocess.Popen(
        [path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def release() -> None:
        with contextlib.suppress(OSError):
            process.terminate()
        process.communicate()  # closes its pipes, and waits for it

    if waits_for and process.stdout is not None and process.stdout.readline() != waits_for:
        said = process.communicate()[1].decode(errors="replace").strip().splitlines()
        return msg("awake.refused", reason=said[-1][:200] if said else f"{name}, exit status {process.returncode}")
    return release


def _give_free(held: Release | Message | None) -> None:
    if held is not None and not isinstance(held, Message):
        held()


class KeepAwake:
    """Use as a context manager around the work. A thread of its own asks, and looks again each look_s whether it still
    should.

    wanted: what the person chose. say: told at first and after each change how it stands; what it raises is logged.
    """

    def __init__(
        self,
        wanted: Callable[[], bool],
        say: Callable[[Message], None],
        ask: Callable[[], Release | Message] = hold,
        look_s: float = LOOK_S,
    ):
        self._wanted, self._say, self._ask, self._look_s = wanted, say, ask, look_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="awake", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(LEAVE_S)  # a system that hangs is left behind: what was asked ends with this process

    def _keep(self) -> None:
        held: Release | Message | None = None  # a refusal is not asked for again and again
        told: Message | None = None
        while True:
            against = self._reason_against()
            if against is not None:
                _give_free(held)
                held = None
            elif held is None:
                held = self._ask()
            now = against or (held if isinstance(held, Message) else msg("awake.held"))
            if now != told:
                told = now
                try:
                    self._say(now)
                except Exception:  # noqa: BLE001 - a full disk must not let the PC fall asleep
                    log.exception("could not be written down: %s", now)
            if self._over.wait(self._look_s):
                return _give_free(held)

    def _reason_against(self) -> Message | None:
        if not self._wanted():
            return msg("awake.unwanted")
        found = battery()
        runs_down = found and found.plugged is False and found.percent < LOW_PERCENT
        return msg("awake.battery", percent=found.percent) if found and runs_down else None


def can_hold(system: str | None = None) -> Message | None:
    """Why this PC could not be kept awake; None where it could, as far as is known without asking it."""
    system = system or machine.driver_system()
    if system == "WSL":
        return msg("awake.wsl")
    program = {"Linux": "systemd-inhibit", "Darwin": "caffeinate"}.get(system)
    return msg("awake.no_program", program=program) if program and not shutil.which(program) else None
