"""Runs measurements in processes of their own, and summarizes several of them. No torch."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.meter import RESULT
from core.system.processes import KEPT_PRODUCTS, worker_environment

# What torch keeps by itself of what worker_environment has fewer of (core.system.processes.KEPT_PRODUCTS).
AS_SHIPPED = dict.fromkeys(KEPT_PRODUCTS, "1024")


def environment() -> dict[str, str]:
    """Return the environment of the app's workers, with a thread for each core and no hub."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return worker_environment() | {"OMP_NUM_THREADS": str(cores), "HF_HUB_OFFLINE": "1"}


def run(
    module: str,
    *arguments: str | Path,
    python: str | Path = sys.executable,
    log: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `PYTHON -m module arguments`; return the result that it prints. Raises RuntimeError with the end of its
    output if it prints none.

    log: the file of its complete output. more: additions to its environment.
    """
    command = [str(python), "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment() | dict(more or {}),
        text=True,
        errors="replace",
        check=False,
    )
    if log:
        log.write_text(done.stdout, "utf-8")
    results = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not results:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return json.loads(results[-1].removeprefix(RESULT))


def rate(result: dict[str, Any], what: str, warm_up: int, clock: str = "ends") -> float:
    """Return tokens per second ("supervised" or "computed") of a Meter's report, over the steps after the first warm_up
    ones. clock: "busy" for the processor's own seconds, which other programs lengthen less."""
    ends = result[clock]
    return sum(result[what][warm_up:]) / (ends[-1] - ends[warm_up - 1])


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Format median and range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Format median and range of the quotients of pairs that were measured one after the other."""
    return spread([a / b for a, b in zip(over, under, strict=True)], ".2f")
