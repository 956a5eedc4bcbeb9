"""The peers' own virtual environments, made once under a cache folder and used again. Standard library only.

<cache>/<distribution>-<version>/   a venv; the file `ready` in it is written last, so a folder without it is made again
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CACHE = Path(tempfile.gettempdir()) / "lora-garage-peers"
WITHOUT_TORCHAUDIO = """
import pathlib, subprocess, sys, sysconfig
try:
    import torchaudio
except (ImportError, OSError):
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", "torchaudio"], check=True)
    (pathlib.Path(sysconfig.get_path("purelib")) / "torchaudio.py").write_text("")
"""


@dataclass(frozen=True)
class Peer:
    """A trainer on PyPI. module: its runner below benchmarks/peers. after: another program that its environment
    needs."""

    distribution: str
    version: str
    module: str
    after: str | None = None


TRL = Peer("trl", "1.16.0", "benchmarks.peers.trl_sft")
# It imports torchaudio, whose PyPI build does not load beside a torch for CPUs; for text an empty module is enough.
LLAMA_FACTORY = Peer("llamafactory", "0.9.5", "benchmarks.peers.llama_factory", WITHOUT_TORCHAUDIO)


def python_of(peer: Peer, cache: Path) -> Path:
    """Return the peer's Python, creating its environment first if it is missing (minutes, and gigabytes on a PC with a
    card)."""
    folder = cache.absolute() / f"{peer.distribution}-{peer.version}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (folder / "ready").exists():
        return python
    print(f"making {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    requirements = [f"{peer.distribution}=={peer.version}", "peft", "psutil", "bitsandbytes"]
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements], check=True
    )
    if peer.after:
        subprocess.run([str(python), "-c", peer.after], check=True)
    (folder / "ready").write_text("1", "ascii")
    return python
