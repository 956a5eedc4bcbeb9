"""Keeps this PC awake during a training or an export, in each system's own way. The effect ends with the process.

Windows: SetThreadExecutionState, which lasts as long as the thread that called it. Linux: `systemd-inhibit` around a
`cat` whose standard input comes from this process, so that it ends with it in any case. macOS: `caffeinate`, which
watches this process. Closing the lid acts as always; systemd may meanwhile refuse a person's own Sleep.
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
LOW_PERCENT = 20  # of an unplugged battery: Windows warns from there on, and a sleeping run at least survives

Release = Callable[[], object]


class Battery:
    """The state of a battery. percent: of its capacity. plugged: None if the system does not report it."""

    def __init__(self, percent: float, plugged: bool | None):
        self.percent, self.plugged = round(percent), plugged


def battery() -> Battery | None:
    """Return the state of the battery; None without one, or if it cannot be read."""
    read = getattr(psutil, "sensors_battery", None)  # not on every system
    with contextlib.suppress(OSError, RuntimeError, ValueError, psutil.Error):
        if read and (state := read()):
            return Battery(state.percent, state.power_plugged)
    return None


def hold(system: str | None = None) -> Release | Message:
    """Keep the system awake (also against idling, where possible); return a function that ends it, or a message why
    that is impossible. system: as `driver_system` names it.

    Both must be called from the same thread.
    """
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
        for what in ("idle:sleep", "idle"):  # over ssh only the second may be granted
            named = (f"--what={what}", "--mode=block", "--who=LoRA Garage", f"--why={why}")
            held = _program("systemd-inhibit", *named, "sh", "-c", "echo held; exec cat", waits_for=b"held\n")
            if not isinstance(held, Message):
                break
        return held
    except OSError as error:
        return msg("awake.refused", reason=error.strerror or str(error))


def _windows() -> Release:
    """Keep the PC awake for this thread's life, and return what ends it. Raises OSError if Windows refuses."""
    import ctypes

    state: Any = ctypes.windll.kernel32.SetThreadExecutionState  # type: ignore[attr-defined]
    if not state(ES_CONTINUOUS | ES_SYSTEM_REQUIRED):  # it returns the state before, and 0 where it refuses
        raise OSError("SetThreadExecutionState")
    return lambda: state(ES_CONTINUOUS)


def _program(name: str, *arguments: str, waits_for: bytes = b"") -> Release | Message:
    """Start a program that keeps the PC awake while it runs; return a function that ends it, or a message why it
    cannot. waits_for: the line that it prints once it does."""
    path = shutil.which(name)
    if path is None:
        return msg("awake.no_program", program=name)
    process = subprocess.Popen(
        [path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def end_program() -> None:
        """End the program, which lets the PC sleep again, and wait for its end."""
        with contextlib.suppress(OSError):
            process.terminate()
        process.communicate()  # closes its pipes, and waits for it

    if waits_for and process.stdout is not None and process.stdout.readline() != waits_for:
        errors = process.communicate()[1].decode(errors="replace").strip().splitlines()
        return msg("awake.refused", reason=errors[-1][:200] if errors else f"{name}, exit status {process.returncode}")
    return end_program


def _release_if_held(held: Release | Message | None) -> None:
    """Let the PC sleep again, if held is the function that does so; nothing for None, or the message of a refusal."""
    if held is not None and not isinstance(held, Message):
        held()


class KeepAwake:
    """Context manager that keeps the PC awake during the work.

    Its thread checks every look_s whether it still should: is_needed, the person's choice, and the battery. report:
    called at first and after each change with the state; its exceptions are logged.
    """

    def __init__(
        self,
        is_needed: Callable[[], bool],
        report: Callable[[Message], None],
        acquire: Callable[[], Release | Message] = hold,
        look_s: float = LOOK_S,
    ):
        """Create the thread; it starts with the block. report: called with each change of state. acquire: `hold`,
        replaced in tests. look_s: seconds between two checks."""
        self._is_needed, self._report, self._acquire, self._look_s = is_needed, report, acquire, look_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="awake", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(LEAVE_S)  # a hanging system is left behind: its inhibitor ends with this process

    def _keep(self) -> None:
        """Loop of the thread: hold the PC awake unless a reason speaks against it, report each change, and release it
        at the end."""
        held: Release | Message | None = None  # a refusal is kept, not repeated
        reported: Message | None = None
        while True:
            against = self._reason_against()
            if against is not None:
                _release_if_held(held)
                held = None
            elif held is None:
                held = self._acquire()
            now = against or (held if isinstance(held, Message) else msg("awake.held"))
            if now != reported:
                reported = now
                try:
                    self._report(now)
                except Exception:  # noqa: BLE001 - a full disk must not let the PC fall asleep
                    log.exception("this state could not be reported: %s", now)
            if self._over.wait(self._look_s):
                return _release_if_held(held)

    def _reason_against(self) -> Message | None:
        """Return why the PC is not to be kept awake now (not wanted, or its battery runs down); None if it is."""
        if not self._is_needed():
            return msg("awake.unwanted")
        state = battery()
        runs_down = state and state.plugged is False and state.percent < LOW_PERCENT
        return msg("awake.battery", percent=state.percent) if state and runs_down else None


def can_hold(system: str | None = None) -> Message | None:
    """Return why this PC could not be kept awake; None if it could, as far as is known without trying."""
    system = system or machine.driver_system()
    if system == "WSL":
        return msg("awake.wsl")
    program = {"Linux": "systemd-inhibit", "Darwin": "caffeinate"}.get(system)
    return msg("awake.no_program", program=program) if program and not shutil.which(program) else None
