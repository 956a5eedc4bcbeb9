"""The description of a measurement's machine: processor, cores, memory, card, Python and versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from core.system import gpu


def line(*packages: str) -> str:
    """Return one line for the top of every benchmark's output."""
    cards = ", ".join(card.name or "unknown card" for card in gpu.probe().cards) or "no card"
    memory = round(psutil.virtual_memory().total / 2**30)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{processor()}, {psutil.cpu_count()} cores, {memory} GiB, {cards}, Python {platform.python_version()}, "
        f"{versions}"
    )


def processor() -> str:
    """Return the processor's name with the instructions that decide the dtype, if the system reports them."""
    try:
        facts = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = next(
        (row.partition(":")[2].strip() for row in facts.splitlines() if row.startswith("model name")),
        platform.machine(),
    )
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in facts]
    return f"{name} ({', '.join(flags[1:] or flags)})"
