"""A stand-in for NVIDIA's driver library, so that the real pynvml can be driven on a PC without a card.

    folder = fake_nvml.compile(tmp_path)                       # builds libnvidia-ml.so.1; skips the test where it
                                                               cannot
    file = fake_nvml.write(tmp_path / "cards.txt", fake_nvml.EIGHT_GB)
    start_app(workspace, **fake_nvml.environment(folder, file))  # LD_LIBRARY_PATH and FAKE_NVML_SCENARIO
    fake_nvml.write(file, fake_nvml.dead(fake_nvml.EIGHT_GB))  # the card falls off the bus while the app looks on

LD_LIBRARY_PATH is read when a process starts, the scenario's file at each call. A scenario is a dict of the lines that
fake_nvml.c describes; `{**EIGHT_GB, "0.used": 7000}` changes one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

Scenario = dict[str, object]
GPU_IS_LOST, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND = "!15", "!9", "!13"


def card(index: int, name: str, total_mib: int, used_mib: int, capability: str = "8.9", **more: object) -> Scenario:
    """Return the scenario of a card that answers every call, with no process on it."""
    fields = {
        "name": name,
        "uuid": f"GPU-00000000-0000-0000-0000-00000000000{index}",
        "total": total_mib,
        "used": used_mib,
        "capability": capability,
        "utilization": 7,
        "temperature": 41,
        "power": 23450,
        "power_limit": 115000,
        "compute": "",
        "graphics": "",
        "mig": "!3",
        "display": 0,
    }
    return {f"{index}.{field}": value for field, value in (fields | more).items()}


def cards(*each: Scenario) -> Scenario:
    together: Scenario = {"driver": "580.65.06", "count": len(each)}
    for one in each:
        together |= one
    return together


def dead(scenario: Scenario, index: int = 0) -> Scenario:
    """Return the scenario after a card fell off the bus: its handle is still given, every call about it fails."""
    return {key: GPU_IS_LOST if key.startswith(f"{index}.") else value for key, value in scenario.items()}


# Totals as nvidia-smi shows them of such cards, MiB.
NO_DRIVER: Scenario = {"init": DRIVER_NOT_LOADED}
NO_CARD = cards()
EIGHT_GB = cards(card(0, "NVIDIA GeForce RTX 4060", 8188, 614))
BUSY_24 = cards(card(0, "NVIDIA GeForce RTX 4090", 24564, 20994, compute="4194303:20480"))
UNEQUAL = cards(
    card(0, "NVIDIA GeForce RTX 3060", 12288, 6144, "8.6", display=1),
    card(1, "NVIDIA GeForce RTX 4060", 8188, 614),
)
NOT_SUPPORTED: Scenario = {"count": 1, "0.name": "NVIDIA Something"}
MIG = cards(card(0, "NVIDIA A100-SXM4-40GB", 40960, 37, "8.0", mig=1))


def compile(folder: Path) -> Path:
    """Build libnvidia-ml.so.1 in folder and return folder. Skips the test, with the reason, where that cannot be built
    or used."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("the fake NVML needs Linux and a C compiler")
    source, library = Path(__file__).with_name("nvml.c"), folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return folder


def write(file: Path, scenario: Scenario) -> Path:
    """Replace the file whole: a reader sees the old cards or the new ones."""
    aside = file.with_suffix(".part")
    aside.write_text("".join(f"{key} {value}\n" for key, value in scenario.items()), "utf-8")
    return aside.replace(file)


def environment(folder: Path, file: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH"))))
    return {"LD_LIBRARY_PATH": path, "FAKE_NVML_SCENARIO": str(file)}
