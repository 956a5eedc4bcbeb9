"""The null card: NVIDIA's libraries on host memory, so that the unmodified CUDA build of torch trains without a GPU.

`NullCard().ready()` makes what is missing in `<test cache>/card` and keeps what is there:

    venv/    the CUDA build of torch (requirements.txt) beside the packages of the project's .venv
    lib/     the libraries built from null/*.c: they carry NVIDIA's SONAMEs, are preloaded, and stay on this PC

0.83 GB downloaded, 2.5 GB on disk, one to three minutes; the build takes seconds. Linux on x86-64 with gcc. NVIDIA's
headers are read from the wheel of its runtime while the libraries are built; nothing of NVIDIA's is copied. How it
binds, what it shows and what it cannot: docs/null-card.md.

    python -m tests.card.card                 make it
    python -m tests.card.card python X ...    run Python on X with the null card; NULLCARD_* are its settings
                                              (null/runtime.c)
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock

from core.presets import PROJECT
from tests.kit.durations import cache

HERE = Path(__file__).parent
REQUIREMENTS, SOURCES, SITE = HERE / "requirements.txt", HERE / "null", HERE / "site"

# SONAME -> how the names of its functions begin, and the version of its symbols ("" for none).
LIBRARIES = {
    "libcudart.so.13": (r"(__)?cuda", "libcudart.so.13"),
    "libcublas.so.13": (r"cublas(?!Lt)", "libcublas.so.13"),
    "libcublasLt.so.13": (r"cublasLt", "libcublasLt.so.13"),
    "libcudnn.so.9": (r"cudnn", "libcudnn.so.9"),
    "libcufft.so.12": (r"cufft", "libcufft.so.12"),
    "libcusolver.so.12": (r"cusolver", "libcusolver.so.12"),
    "libcusparse.so.12": (r"cusparse(?!Lt)", "libcusparse.so.12"),
    "libcusparseLt.so.0": (r"cusparseLt", ""),
    "libnvrtc.so.13": (r"nvrtc", "libnvrtc.so.13"),
    "libnccl.so.2": (r"nccl", ""),
    "libnvshmem_host.so.3": (r"nvshmem", "NVSHMEM"),
    "libcufile.so.0": (r"cuFile", ""),
    "libcuda.so.1": (r"cu(?!File|da|blas|dnn|fft|solver|sparse|pti)[A-Z]", ""),
    "libcupti.so.13": (r"cupti", ""),
}
WRITTEN = {"libcudart": "runtime.c", "libcuda": "driver.c", "libcublasLt": "blas.c", "libcudnn": "dnn.c"}
# What the driver answers with a text or with an object; every other function of a stub only counts its call and returns
# 0.
GIVES_TEXT = re.compile(r"(GetErrorString|GetErrorName|StatusString|StatusName|GetLastErrorString|ncclGetLastError)")
GIVES_OBJECT = re.compile(r"Create(?!Descriptor)")
NO_OBJECT = re.compile(r"BackendCreateDescriptor|nvrtcCreate|Graph")
IS_KERNEL = re.compile(r"cublas\w*(gemm|Gemm|gemv|dot|Dot|trsm)")


class NotPossible(Exception):
    """One sentence: what is missing here, and what to do."""


class NullCard:
    """The environment and the libraries in one folder."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder or cache().absolute() / "card"
        self.venv, self.lib = self.folder / "venv", self.folder / "lib"
        self.python = self.venv / "bin" / "python"

    @property
    def packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.venv / "lib" / version / "site-packages"

    def versions(self) -> str:
        """The versions of torch and bitsandbytes, as the table of results names them."""
        names = (
            *self.packages.glob("torch-*.dist-info"),
            *Path(sysconfig.get_paths()["purelib"]).glob("bitsandbytes-*.dist-info"),
        )
        return ", ".join(name.name.removesuffix(".dist-info").replace("-", " ") for name in names)

    # ---- running ----------------------------------------------------------------------------------------------------

    def environment(self, settings: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        """Variables under which any program finds the card. settings: NULLCARD_* of null/runtime.c. Numbers are
        computed unless NULLCARD_NUMBERS is 0."""
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        preloaded = ":".join(str(self.lib / soname) for soname in LIBRARIES)
        return os.environ | {
            "LD_PRELOAD": preloaded,
            "LD_LIBRARY_PATH": str(self.lib),
            "PYTHONPATH": f"{SITE}:{PROJECT}",
            "NULLCARD_NUMBERS": "1",
            "NULLCARD_STATE": str(state / f"{os.getpid()}"),
            "TOKENIZERS_PARALLELISM": "false",
        } | dict(settings)  # fmt: skip

    # ---- making -----------------------------------------------------------------------------------------------------

    def ready(self) -> NullCard:
        """Raises NotPossible. Two at once wait for each other."""
        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise NotPossible(f"The null card is for Linux on x86-64; this is {sys.platform} on {platform.machine()}.")
        if missing := [tool for tool in ("gcc", "nm", "readelf") if not shutil.which(tool)]:
            raise NotPossible(
                f"The null card is built with gcc; here is no {', no '.join(missing)}: install Debian's "
                f"build-essential."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            self._fill_venv()
            self._build()
        return self

    def _fill_venv(self) -> None:
        digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        stamp, link = self.venv / ".filled", self.packages / "project.pth"
        if not stamp.exists() or stamp.read_text() != digest:
            if (free := shutil.disk_usage(self.folder).free) < 4e9:
                raise NotPossible(
                    f"The null card needs 4 GB of disk while it is made; {free / 1e9:.1f} GB are free in {self.folder}."
                )
            print("The CUDA build of torch: 0.83 GB to download, 2.5 GB on disk", flush=True)
            shutil.rmtree(self.venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.venv)], check=True)
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--no-compile",
                "--target",
                str(self.packages),
            ]
            # Without settings that offer local files: the processor's build of torch is one of those.
            index = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"} | {
                "PIP_CONFIG_FILE": os.devnull
            }
            done = subprocess.run([*pip, "-r", str(REQUIREMENTS)], env=index, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise NotPossible(f"pip could not install the CUDA build of torch: {last}")
            stamp.write_text(digest)
        link.write_text(sysconfig.get_paths()["purelib"] + "\n")  # behind the environment's own packages

    def _build(self) -> None:
        """Compile the libraries where a source, torch or bitsandbytes has changed since the last build."""
        binaries = [*sorted((self.packages / "torch/lib").glob("lib*.so")), bitsandbytes_library()]
        hasher = hashlib.sha256(repr([(str(each), each.stat().st_size) for each in binaries]).encode())
        for source in (Path(__file__), *sorted(SOURCES.rglob("*.[ch]"))):
            hasher.update(source.read_bytes())
        stamp = self.lib / ".built"
        if stamp.exists() and stamp.read_text() == hasher.hexdigest():
            return
        if unknown := linked_libraries(binaries) - LIBRARIES.keys():
            raise NotPossible(f"This torch needs {', '.join(sorted(unknown))}, which tests/card/card.py does not know.")
        shutil.rmtree(self.lib, ignore_errors=True)
        self.lib.mkdir()
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            for soname, (source, version_map) in write_stubs(needed_by(binaries, self.include), Path(aside)).items():
                self._compile(soname, source, version_map)
        gcc("-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", self.lib / "libnvidia-ml.so.1",
            SOURCES / "nvml.c",
            self.lib / "libcudart.so.13")  # fmt: skip
        stamp.write_text(hasher.hexdigest())

    @property
    def include(self) -> Path:
        return self.packages / "nvidia/cu13/include"

    def _compile(self, soname: str, stubs: Path, version_map: Path) -> None:
        own = WRITTEN.get(soname.split(".so")[0])
        gcc("-shared", "-fPIC", "-fno-builtin", f"-I{SOURCES}", f"-I{self.include}", *cudnn_version(self.packages),
            f"-Wl,-soname,{soname}", f"-Wl,--version-script,{version_map}", "-o", self.lib / soname, stubs,
            *([SOURCES / own] if own else []), "-ldl", "-lpthread")  # fmt: skip


def gcc(*arguments: object) -> None:
    done = subprocess.run(["gcc", "-O1", "-g", "-w", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise NotPossible(f"gcc could not build the null card: {done.stderr[-2000:]}")


def bitsandbytes_library() -> Path:
    folder = Path(sysconfig.get_paths()["purelib"]) / "bitsandbytes"
    built = sorted(folder.glob("libbitsandbytes_cuda13*.so"))
    if not built:
        raise NotPossible(f"No CUDA 13 library of bitsandbytes lies in {folder}.")
    return built[-1]


def cudnn_version(packages: Path) -> list[str]:
    """gcc's definitions of the version of cuDNN that torch requires, from torch's own metadata."""
    (torch,) = packages.glob("torch-*.dist-info")
    required = " ".join(Distribution.at(torch).requires or ())
    match = re.search(r"nvidia-cudnn-cu\d+==(\d+)\.(\d+)\.(\d+)", required)
    if not match:
        raise NotPossible(
            "torch's metadata names no version of cuDNN: tests/card/card.py must learn how this torch asks for it."
        )
    return [
        f"-DCUDNN_{name}={number}" for name, number in zip(("MAJOR", "MINOR", "PATCH"), match.groups(), strict=True)
    ]


def linked_libraries(binaries: Sequence[Path]) -> set[str]:
    """SONAMEs of NVIDIA's libraries that the binaries are linked to."""
    dynamic = subprocess.run(["readelf", "-d", *binaries], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\(NEEDED\).*\[(lib(?:cu|nv|nccl)\w*\.so[.\d]*)\]", dynamic))


def needed_by(binaries: Sequence[Path], include: Path) -> set[str]:
    """Names of the functions that torch's and bitsandbytes' binaries expect from NVIDIA's libraries, and the driver's
    own, which torch looks up by name."""
    names: set[str] = set()
    for binary in binaries:
        lines = subprocess.run(
            ["nm", "-D", "--undefined-only", binary], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        names |= {line.split()[-1].split("@")[0] for line in lines if line.split()[0] == "U"}
    header = (include / "cuda.h").read_text(errors="replace")
    names |= set(re.findall(r"CUresult CUDAAPI (cu[A-Z]\w+)\s*\(", header))
    names |= set(re.findall(r"#\s*define (cu[A-Z]\w+)\s+(?:__CUDA_API_PT\w+\()?cu[A-Z]\w+", header))
    return names | set(re.findall(r"\b(cu[A-Z]\w+_v\d)\b", header))


def write_stubs(needed: set[str], folder: Path) -> dict[str, tuple[Path, Path]]:
    """SONAME -> C file of the functions that null/*.c does not define, and the linker's version map. Raises NotPossible
    for a function of NVIDIA's that belongs to no library of LIBRARIES."""
    sources = "".join(source.read_text() for source in SOURCES.glob("*.c"))
    written = set(re.findall(r"^(?:API\s+)?[a-zA-Z][\w\s\*]*?\b(\w+)\s*\([^;]*?\)\s*\{", sources, re.M))
    missing, files = {name for name in needed - written if re.fullmatch(r"\w+", name)}, {}
    homeless = {
        name
        for name in missing
        if re.match(r"(cuda|cublas|cudnn|cufft|cusolver|cusparse|nvrtc|nccl|nvshmem|cuFile|nvJitLink)[A-Z]", name)
    }
    for soname, (begins, version) in LIBRARIES.items():
        stem = soname.split(".so")[0]
        inside = sorted(name for name in missing if re.match(begins, name))
        homeless -= set(inside)
        source, version_map = folder / f"{stem}.c", folder / f"{stem}.map"
        source.write_text("\n".join(['#include "card.h"', *map(stub, inside)]) + "\n")
        version_map.write_text(f"{version} {{ global: *; }};\n")
        files[soname] = source, version_map
    if homeless:
        raise NotPossible(
            f"This torch asks for functions of a library that tests/card/card.py does not know: "
            f"{', '.join(sorted(homeless)[:5])}."
        )
    return files


def stub(name: str) -> str:
    """One C function that counts its call."""
    note = f'static int at; nullcard_note("{name}", &at);'
    if GIVES_TEXT.search(name) and not name.startswith("cuG"):
        return f'const char *{name}(void) {{ {note} return "null card"; }}'
    if GIVES_OBJECT.search(name) and not NO_OBJECT.search(name):
        return f"int {name}(void **made) {{ {note} if (made) *made = nullcard_handle(); return 0; }}"
    if IS_KERNEL.match(name):
        return f'int {name}(void) {{ nullcard_launch("{name}"); return 0; }}'
    return f"int {name}(void) {{ {note} return 0; }}"


def main(arguments: Sequence[str]) -> int:
    card = NullCard().ready()
    if not arguments:
        print(card.folder)
        return 0
    command = [str(card.python), *arguments[1:]] if arguments[0] == "python" else list(arguments)
    given = {name: value for name, value in os.environ.items() if name.startswith("NULLCARD_")}
    return subprocess.run(command, env=card.environment(given)).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))
