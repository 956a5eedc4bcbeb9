"""How long an export takes to write, beside copying the same bytes and beside llama.cpp's own script.

    .venv/bin/python -m benchmarks.export RUN [--workspace DIR] [--repeats 3]
    .venv/bin/python -m benchmarks.export --wide 0.6 [--workspace DIR] [--repeats 3]

RUN: a run with an adapter; its base is on this PC. --wide: only the quantizer, of a random llama of that many GB in 16
bit, whose rows are multiples of 256 as those of most models are. In turns, so that what else is at work meets all
alike: the base's weights copied (and synced); the same merged with the adapter; the merged folder converted by us, and
by llama.cpp's convert_hf_to_gguf.py started bare; the 16-bit file quantized. Copies are of the base's own bytes: a base
in float32 is halved by a merge. The proof is not in it: `export.json` has each phase. Seconds and ratios by the clock
and by the processor's own count, which other programs do not touch; MB/s of 16-bit bytes a core while quantizing, and
how much of the processor's time llama.cpp's own loops take for the same numbers, called alone (`ggml_quantize_chunk`)
in this process.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import psutil

from benchmarks import machine
from benchmarks.child import ratio, spread
from benchmarks.export_memory import make_model
from core import files
from core.data.tokenizer import Tokenizer
from core.engine import device
from core.export import merge, stored, verification
from core.export.exports import adapter_folder
from core.export.llamacpp import make
from core.export.llamacpp import tools as gguf_tools
from core.export.stored import Base
from core.models import starter, weights
from core.models.library import Models
from core.runs.all import Runs
from core.system.processes import worker_environment
from core.workspace.folder import Workspace

QUANTS = ("q8_0", "q4_k_m")
MEGABYTE = 1e6


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds by the clock, and those of all processors in this process and its children."""
    before, started = os.times(), time.monotonic()
    act()
    after = os.times()
    return time.monotonic() - started, sum(after[:4]) - sum(before[:4])


def copied(base: Base, target: Path) -> None:
    target.mkdir()
    for file in weights.weight_files(base.folder):
        shutil.copyfile(file, target / file.name)
    files.sync_tree(target)


def merged(base: Base, adapter: Path, target: Path) -> None:
    merge.merge(base, adapter, target, lambda fraction: None, lambda: None)
    files.sync_tree(target)


def bare(tools: gguf_tools.Tools, folder: Path, kind: str, target: Path) -> None:
    """Run llama.cpp's own script as its authors start it. Raises RuntimeError with the end of its output."""
    script = [
        sys.executable,
        str(tools.converter / "convert_hf_to_gguf.py"),
        str(folder),
        "--outtype",
        kind,
        "--outfile",
        str(target),
    ]
    environment = worker_environment()
    environment["PYTHONPATH"] = os.pathsep.join(
        (str(tools.converter), str(tools.runtime))
    )  # its own folder is not looked in: PYTHONSAFEPATH
    done = subprocess.run(
        script, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode or not target.is_file():
        raise RuntimeError(f"convert_hf_to_gguf.py ended with {done.returncode}:\n{done.stderr[-2000:]}")


class Kernels:
    """llama.cpp's own loops, each called alone on one core, once for each type. No importance matrix."""

    ROWS, COLUMNS, TIMES = 512, 4096, 5

    def __init__(self, tools: gguf_tools.Tools):
        self._call = ctypes.CDLL(str(next(tools.runtime.glob("llama_cpp_py_sync/*ggml-base*")))).ggml_quantize_chunk
        self._call.restype = ctypes.c_size_t
        self._call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
        self._numbers = np.random.default_rng(0).standard_normal((self.ROWS, self.COLUMNS), np.float32) * np.float32(
            0.02
        )
        self.rates: dict[str, float] = {}

    def rate(self, kind: gguf.GGMLQuantizationType) -> float:
        """Return MB/s of 16-bit numbers by the processor's own count, the best of TIMES."""
        if kind.name not in self.rates:
            made, best = np.empty(4 * self._numbers.size, np.uint8), float("inf")
            for _ in range(self.TIMES):
                began = time.process_time()
                self._call(kind, self._numbers.ctypes.data, made.ctypes.data, 0, self.ROWS, self.COLUMNS, None)
                best = min(best, time.process_time() - began)
            self.rates[kind.name] = 2 * self._numbers.size / MEGABYTE / best
        return self.rates[kind.name]

    def seconds(self, file: Path) -> float:
        """Return the loops' own time for everything that is quantized in a file."""
        plain = {gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16")}
        found = [tensor for tensor in gguf.GGUFReader(file).tensors if tensor.tensor_type not in plain]
        return sum(2 * int(tensor.n_elements) / MEGABYTE / self.rate(tensor.tensor_type) for tensor in found)


class Round:
    """One round of all exports, in a folder that is deleted afterwards. seconds, processor_s: by kind of work.
    kernel_s: of llama.cpp's loops alone. Without an adapter only quantizing."""

    def __init__(self, tools: gguf_tools.Tools, kernels: Kernels, base: Base, adapter: Path | None, folder: Path):
        self.seconds: dict[str, float] = {}
        self.processor_s: dict[str, float] = {}
        self.kernel_s: dict[str, float] = {}
        if adapter:
            self._take("copy", lambda: copied(base, folder / "copy"))
            self._take("merge", lambda: merged(base, adapter, folder / "merged"))
        else:
            copied(base, folder / "merged")
            for file in base.folder.glob("*.json"):
                shutil.copyfile(file, folder / "merged" / file.name)
        kind = {"float16": "f16"}.get(base.dtype_name, "bf16")
        template = Tokenizer(adapter or base.folder).template
        if adapter:
            self._take("bare", lambda: bare(tools, folder / "merged", kind, folder / "bare.gguf"))
        found: dict[str, Path] = {}
        for quant in (kind, *QUANTS):
            order = make.MakeOrder(
                tools=tools, quant=quant, name="benchmark", base=base, adapter=adapter or base.folder,
                merged=folder / "merged", target=folder / "out",
                work=folder / "work", log=folder / "log", rows=[], method=verification.Method(device.on_cpu()),
                stage=lambda stage, fraction: None, check=lambda: None,
            )  # fmt: skip
            order.work.mkdir(exist_ok=True)
            if quant == kind:
                self._take("convert", lambda order=order: found.update(sixteen=make.convert(order, template)))  # type: ignore[misc]
            else:
                self._take(quant, lambda order=order: found.update(made=make.quantize(order, found["sixteen"])[0]))  # type: ignore[misc]
                self.kernel_s[quant] = kernels.seconds(found["made"])
        self.sixteen_bytes = found["sixteen"].stat().st_size
        self.copied_bytes = sum(file.stat().st_size for file in weights.weight_files(base.folder))

    def _take(self, what: str, act: Callable[[], object]) -> None:
        self.seconds[what], self.processor_s[what] = timed(act)


def report(rounds: list[Round], cores: int, kernels: Kernels) -> str:
    def of(what: str, by: str = "seconds") -> list[float]:
        return [max(1e-9, getattr(each, by)[what]) for each in rounds]

    megabytes = rounds[0].copied_bytes / MEGABYTE, rounds[0].sixteen_bytes / MEGABYTE
    lines = [
        f"{megabytes[0]:,.0f} MB copied, {megabytes[1]:,.0f} MB of 16-bit GGUF; {len(rounds)} rounds; median (range)"
    ]
    there = [what for what in ("copy", "merge", "bare", "convert", *QUANTS) if what in rounds[0].seconds]
    lines += [f"{what:8} {spread(of(what), ',.2f')} s" for what in there]
    for what, beside in (("merge", "copy"), ("convert", "copy"), ("convert", "bare")):
        if beside not in there:
            continue
        by = [ratio(of(what, each), of(beside, each)) for each in ("seconds", "processor_s")]
        lines.append(f"{what} over {beside}: {by[0]} by the clock, {by[1]} by the processor's own count")
    for quant in QUANTS:
        clock = [each.sixteen_bytes / MEGABYTE / each.seconds[quant] / cores for each in rounds]
        own = [each.sixteen_bytes / MEGABYTE / max(1e-9, each.processor_s[quant]) for each in rounds]
        lines.append(f"{quant}: {spread(clock)} MB/s a core by the clock, {spread(own)} by the processor's own count")
        loops = [each.kernel_s[quant] / max(1e-9, each.processor_s[quant]) for each in rounds]
        alone = rounds[0].sixteen_bytes / MEGABYTE / rounds[0].kernel_s[quant]
        lines.append(
            f"{quant}: llama.cpp's loops alone {alone:.0f} MB/s, {spread(loops, '.2f')} of the processor's time"
        )
    lines.append("loops alone, MB/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in kernels.rates.items()))
    return "\n".join(lines)


def of_run(workspace: Workspace, name: str) -> tuple[Base, Path]:
    run = Runs(workspace).find(name)
    model = run.recipe().model
    base = stored.read_base(
        Models(workspace).obtain(model.id, model.revision, lambda *_: None, lambda: None, to_train=False)
    )
    return base, adapter_folder(run, None)


def random_base(workspace: Workspace, gb: float, folder: Path) -> tuple[Base, None]:
    known = starter.ensure(workspace.models, lambda *_: None, lambda: None)
    return stored.read_base(make_model(folder, known, int(gb * 1e9 / 2), 49152)[0]), None


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("run", nargs="?")
    asked.add_argument("--wide", type=float, metavar="GB")
    asked.add_argument("--workspace", default=None)
    asked.add_argument("--repeats", type=int, default=3)
    options = asked.parse_args()
    if (options.run is None) == (options.wide is None):
        asked.error("either RUN or --wide GB")
    workspace = Workspace.open(options.workspace)
    tools = gguf_tools.obtain(workspace)
    kernels, rounds = Kernels(tools), []
    print(machine.line("torch", "transformers"))
    print(
        f"llama.cpp {gguf_tools.CONVERTER_BUILD}/{gguf_tools.RUNTIME_BUILD}; "
        f"load of the last minute: {psutil.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(dir=workspace.cache) as made:
        base, adapter = (
            random_base(workspace, options.wide, Path(made)) if options.wide else of_run(workspace, options.run)
        )
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory(dir=workspace.cache) as folder:
                rounds.append(Round(tools, kernels, base, adapter, Path(folder)))
    print(report(rounds, psutil.cpu_count(logical=False) or 2, kernels))
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
