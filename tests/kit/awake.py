"""Scripts that play the programs by which a PC is kept awake; they record their arguments."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

HOLDS = """#!/bin/sh
echo "$$" > {folder}/pid
printf '%s\\n' "$@" > {folder}/asked
while [ "${{1#-}}" != "$1" ]; do shift; done
exec "$@"
"""
WATCHES = HOLDS.replace('exec "$@"', 'while kill -0 "$1" 2>/dev/null; do sleep 0.05; done')
REFUSES = """#!/bin/sh
echo again >> {folder}/asked
echo 'Failed to inhibit: Access denied' >&2
exit 1
"""

REFUSES_SLEEP = HOLDS.replace("echo", 'case "$1" in *sleep*) echo Access denied >&2; exit 1;; esac\necho', 1)


class Program:
    """Puts a script called name first on PATH. script: with {folder} for where it records its arguments and pid."""

    def __init__(self, name: str, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
        if os.name == "nt":
            pytest.skip("these programs are played by scripts of a POSIX shell, and are not asked on Windows")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(script.format(folder=folder), "utf-8")
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder) + os.pathsep + os.environ["PATH"])

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text("utf-8").splitlines() if file.exists() else []

    @property
    def runs(self) -> bool:
        """Whether the script's process lives; one that has ended and is not yet waited for does not."""
        try:
            return psutil.Process(int((self.folder / "pid").read_text())).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False
