"""Puts this PC to sleep when the queue is empty. Asks the operating system; nothing runs as another user."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable

from core.messages import Message, msg

# SetSuspendState through rundll32 ignores its arguments and hibernates where hibernation is on; this way it hears
# "Suspend".
_WINDOWS = (
    "Add-Type -AssemblyName System.Windows.Forms; "
    "if (-not [System.Windows.Forms.Application]::SetSuspendState('Suspend', $false, $false)) { exit 1 }"
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "Linux": ("systemctl", "suspend"),
    "Windows": ("powershell", "-NoProfile", "-NonInteractive", "-Command", _WINDOWS),
    "Darwin": ("pmset", "sleepnow"),
}
WAIT_S = 30.0


def command(system: str | None = None) -> tuple[str, ...] | Message:
    """What would be run, or the reason why this PC cannot be put to sleep."""
    found = COMMANDS.get(system or platform.system())
    if found is None:
        return msg("queue.sleep_unknown_system", system=system or platform.system())
    return found if shutil.which(found[0]) else msg("queue.sleep_no_command", command=found[0])


def now(run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> Message | None:
    """Put the PC to sleep; the reason where it would not. Returns after it woke up, or at once where it is asked
    only."""
    asked = command()
    if isinstance(asked, Message):
        return asked
    try:
        done = run(list(asked), capture_output=True, text=True, timeout=WAIT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:  # it slept in between
        return None
    except OSError as error:
        return msg("queue.sleep_failed", reason=error.strerror or str(error))
    if done.returncode == 0:
        return None
    said = next(
        (line.strip() for line in (done.stderr or "").splitlines() if line.strip()), f"exit code {done.returncode}"
    )
    return msg("queue.sleep_failed", reason=said[:200])
