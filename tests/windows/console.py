"""Consoles of Windows: a command in one of its own, its keys, its window's cross, and who shares it.

python tests/windows/console.py keys|close|list PID     done from a process of its own, which enters the console of PID
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CTRL_C_EVENT, WM_CLOSE = 0, 0x0010  # WinUser.h, wincon.h
SHOWN_S = 20.0


def in_a_console(command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> subprocess.Popen:
    """With a window of its own; what it says goes to log."""
    with open(log, "wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=dict(environment),
            creationflags=subprocess.CREATE_NEW_CONSOLE,
        )  # fmt: skip


def ask(what: str, pid: int) -> str:
    done = subprocess.run([sys.executable, __file__, what, str(pid)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def press_ctrl_c(pid: int) -> None:
    ask("keys", pid)


def close(pid: int) -> None:
    """As by a click on its cross."""
    ask("close", pid)


def sharing(pid: int) -> set[int]:
    """The processes that are attached to the console of pid."""
    return {int(each) for each in ask("list", pid).split()}


def main(what: str, pid: int) -> None:
    kernel, user = ctypes.WinDLL("kernel32", use_last_error=True), ctypes.WinDLL("user32", use_last_error=True)
    kernel.FreeConsole()
    if not kernel.AttachConsole(pid):
        raise ctypes.WinError(ctypes.get_last_error())
    if what == "list":
        found = (ctypes.c_uint32 * 64)()
        count = kernel.GetConsoleProcessList(found, 64)
        own = {kernel.GetCurrentProcessId(), *_parents()}
        print(*(each for each in found[:count] if each not in own))
    elif what == "keys":
        kernel.SetConsoleCtrlHandler(None, True)  # not for this process
        if not kernel.GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0):
            raise ctypes.WinError(ctypes.get_last_error())
    else:
        kernel.GetConsoleWindow.restype = ctypes.c_void_p
        end = time.monotonic() + SHOWN_S
        while not (window := kernel.GetConsoleWindow()):
            if time.monotonic() > end:
                sys.exit("this console has no window: is there a screen?")
            time.sleep(0.05)
        kernel.FreeConsole()  # it would end with the console
        if not user.PostMessageW(ctypes.c_void_p(window), WM_CLOSE, None, None):
            raise ctypes.WinError(ctypes.get_last_error())


def _parents() -> set[int]:
    import os

    return {os.getppid()}  # the redirector of an environment


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
