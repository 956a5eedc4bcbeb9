"""The command of benchmarks.gpu_report."""

from __future__ import annotations

import argparse
import io
import platform
import sys
from pathlib import Path

import benchmarks.gpu_report as package
from benchmarks import machine
from benchmarks.gpu_report.hour import Hour
from benchmarks.gpu_report.parts import OWN_MODEL_S, QUICK_SECONDS, SECONDS
from benchmarks.gpu_report.running import go_through
from core import __version__
from core.system import gpu


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_report", description=(package.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="five minutes: kernels, experiments, a first run, the doctor"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("gpu-report"), help="where the report is written, and what belongs to it"
    )
    parser.add_argument(
        "--model",
        default="",
        help="a model that is trained with QLoRA and exported too, such as Qwen/Qwen2.5-3B-Instruct",
    )
    given = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model's answers and a folder's name may not be of the code page
    nvidia = gpu.probe()
    if not nvidia.cards:
        print(
            "NVML names no graphics card here, so there is nothing to report. `python launch.py doctor` says why.",
            file=sys.stderr,
        )
        return 2
    hour = Hour(given.folder.absolute(), model=given.model)
    versions = machine.line("torch", "transformers", "peft", "bitsandbytes")
    of = f"LoRA Garage {__version__}, {platform.system()} {platform.release()}, driver {nvidia.driver}: {versions}"
    seconds = QUICK_SECONDS if given.quick else SECONDS + (OWN_MODEL_S if given.model else 0)
    return go_through(hour, "benchmarks.gpu_report.parts", of, seconds, given.quick)


if __name__ == "__main__":
    sys.exit(main())
