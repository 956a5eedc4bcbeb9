"""Suspends this PC when the queue is empty. Asks the operating system; nothing runs as another user."""

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
    """Return the command that suspends this PC, or the reason why it cannot be suspended."""
    words = COMMANDS.get(system or platform.system())
    if words is None:
        return msg("queue.sleep_unknown_system", system=system or platform.system())
    return words if shutil.which(words[0]) else msg("queue.sleep_no_command", command=words[0])


def now(run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> Message | None:
    """Suspend the PC. Returns the reason if that failed; returns after it woke up, or at once if the system only
    accepts it."""
    words = command()
    if isinstance(words, Message):
        return words
    try:
        done = run(list(words), capture_output=True, text=True, timeout=WAIT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:  # it slept in between
        return None
    except OSError as error:
        return msg("queue.sleep_failed", reason=error.strerror or str(error))
    if done.returncode == 0:
        return None
    reason = next(
        (line.strip() for line in (done.stderr or "").splitlines() if line.strip()), f"exit code {done.returncode}"
    )
    return msg("queue.sleep_failed", reason=reason[:200])
