#!/usr/bin/env python3
"""Start LoRA Garage: make or repair its environment in .venv, then start the app or a command in it.

    python launch.py [--host H] [--port P] [--workspace DIR] [--no-browser] [--auth USER:PASS]
    --host 0.0.0.0: other devices on the network may come in, with the printed key or the password of --auth
    python launch.py COMMAND ...        doctor, plan, estimate, inspect, models, train, queue, runs, pause, resume,
                                        chat, compare, export, trust
    python launch.py --version
    python launch.py check              what fails in seconds: lint, format, types, the rules of the house, equal catalogues
    python launch.py test [--full] [pytest args]    --full: the long forms too, hours on a small machine
    python launch.py test --windows [FILE ...]      on a Windows Python; elsewhere than on Windows under Wine (tests/windows)
    python launch.py uninstall          remove the environment and what the start scripts fetched, after a list and a question; runs, data and
                                        models stay [--workspace: those runs and data too] [--models: the hub's cache too] [--yes]
    python launch.py --repair           check every package and choose torch again, then start
    python launch.py --repair --cpu     likewise, with the torch for the processor although there is a card

Standard library only; everything else runs in .venv. A start with a complete .venv reads two small files and hands
over, without pip and without a network. `.venv/.lora-garage.json` is written last, so an install that was interrupted
has none and is continued by the next start; pip's own words are in `.venv/install.log`.

LORA_GARAGE_TORCH_INDEX overrules the choice of torch: a wheel index, "pypi", or "cpu".
Exit status: that of what was started; 1 where the environment cannot be made; 2 for a word that is no command.
"""

import os
import sys

if sys.version_info < (3, 11):  # before anything that an older Python might not know; this file parses on 3.6 and later
    sys.exit(
        "LoRA Garage needs Python 3.11, 3.12 or 3.13, and this is Python %d.%d: install a newer one from "
        "https://www.python.org/downloads/ (on Debian and Ubuntu: apt install python3.11), then start with that one, "
        "for example: python3.11 launch.py" % sys.version_info[:2]
    )

import json
import re
import time
from collections import namedtuple
from contextlib import contextmanager, nullcontext, redirect_stdout

ROOT = os.path.dirname(os.path.abspath(__file__))
LOCALES = os.path.join(ROOT, "core", "locales")
WINDOWS = os.name == "nt"
COMMANDS = (
    "doctor",
    "plan",
    "estimate",
    "inspect",
    "data",
    "models",
    "train",
    "queue",
    "runs",
    "pause",
    "resume",
    "further",
    "chat",
    "compare",
    "sum",
    "export",
    "recipe",
    "tools",
    "trust",
)
FOR_DEVELOPERS = ("check", "test")
UNINSTALL = "uninstall"
INSTALLED = os.path.exists(
    os.path.join(ROOT, "__init__.py")
)  # as the wheel's package lora_garage, in an environment of pip's or uv's
MARKER = ".lora-garage.json"
MARKER_VERSION = 1
NEWEST_TESTED = (3, 13)

# ---- which torch ------------------------------------------------------------------------------------------------------

# build: folder of PyTorch's wheel index. linux, windows: the oldest NVIDIA driver it runs on (CUDA 13: 580; CUDA 12 by
# minor version compatibility: 525.60.13 and 528.33; docs.nvidia.com/deploy/cuda-compatibility, the table that uv uses).
# low, high: compute capabilities it has kernels for (PyTorch's RELEASE.md, 2.9 to 2.15): CUDA 13 dropped the GTX 10xx
# (6.1), CUDA 12.6 never knew the RTX 50xx (12.0). cu128 ends with torch 2.11, cu126 with torch 2.14. First match wins.
CudaBuild = namedtuple("CudaBuild", "build linux windows low high")
CUDA_BUILDS = (
    CudaBuild("cu130", (580,), (580,), (7, 5), (99, 0)),
    CudaBuild("cu128", (570,), (570,), (7, 5), (12, 1)),
    CudaBuild("cu126", (525, 60, 13), (528, 33), (5, 0), (9, 0)),
)
WHEEL_INDEX = "https://download.pytorch.org/whl/"
CPU_BY_YOU = "torch_cpu_by_you"
# Reasons of choose_torch for the processor's build where PyTorch's own index was asked for it, and could not be reached.
BY_THE_PROCESSOR = (CPU_BY_YOU, "torch_no_card", "torch_amd", "torch_old_driver", "torch_unknown_card")

# index_url: None for pip's own index. build: "pypi", "cpu", "cu126", ..., the last part of its index. cuda: whether it
# should use a card. megabytes: about what is downloaded, at most. reason: a key and values of the catalogue launch.yaml.
# left_out: names of cards that the build has no kernels for.
TorchChoice = namedtuple("TorchChoice", "index_url reason build cuda megabytes left_out", defaults=((),))
NvidiaCard = namedtuple("NvidiaCard", "capability name", defaults=("",))  # capability: None where it is not known


def choose_torch(system, machine, driver_version, amd, environ, cards=()):
    """The torch build for a machine, with its reason.

    system, machine: as platform.system() and platform.machine() say. driver_version: NVIDIA's, like "580.65.06", None
    without one. amd: an AMD card is seen. cards: NvidiaCards. A build for all of them, else for the newest.
    Returns TorchChoice; its build is "none" where PyTorch has no wheels at all.
    """
    wanted = environ.get("LORA_GARAGE_TORCH_INDEX", "").strip()
    x86, arm = machine.lower() in ("x86_64", "amd64"), machine.lower() in ("aarch64", "arm64")
    if wanted.lower() == "pypi":
        return TorchChoice(None, ("torch_by_you", {"index": "PyPI"}), "pypi", bool(driver_version), 3000)
    if wanted.lower() == "cpu":
        index = WHEEL_INDEX + "cpu" if system == "Linux" else None  # elsewhere PyPI's is it
        return TorchChoice(index, (CPU_BY_YOU, {}), "cpu", False, 200)
    if wanted:
        build = wanted.rstrip("/").rsplit("/", 1)[-1]
        return TorchChoice(wanted, ("torch_by_you", {"index": wanted}), build, build != "cpu", 3000)
    if system == "Darwin":
        if x86:
            return TorchChoice(None, ("torch_intel_mac", {}), "none", False, 0)
        return TorchChoice(None, ("torch_mac", {}), "pypi", False, 80)
    if driver_version and (x86 or (system == "Linux" and arm)):
        capabilities = [card.capability for card in cards if card.capability]
        found = {"driver": driver_version, "card": "%d.%d" % max(capabilities) if capabilities else ""}
        row = best_cuda_build(system, parse_version(driver_version), capabilities)
        if row is None:
            too_old = parse_version(driver_version) < (525,)
            reason = "torch_old_driver" if too_old else "torch_unknown_card"
            return TorchChoice(WHEEL_INDEX + "cpu", (reason, found), "cpu", False, 200)
        left_out = tuple(card.name for card in cards if card.capability and not row.low <= card.capability <= row.high)
        if row.build == "cu130" and system == "Linux" and x86:  # what PyPI has for Linux is a CUDA 13 build already
            return TorchChoice(None, ("torch_pypi_cuda", found), "pypi", True, 3000, left_out)
        reason = ("torch_cuda", dict(found, build=row.build))
        return TorchChoice(WHEEL_INDEX + row.build, reason, row.build, True, 3000, left_out)
    if system == "Linux":
        return TorchChoice(WHEEL_INDEX + "cpu", ("torch_amd" if amd else "torch_no_card", {}), "cpu", False, 200)
    return TorchChoice(None, ("torch_no_card", {}), "pypi", False, 120)


def matching_cuda_build(system, driver, *capabilities):
    """The newest build that the driver runs and that has kernels for all of them, None without one."""
    for row in CUDA_BUILDS:
        runs = driver >= (row.windows if system == "Windows" else row.linux)
        if runs and all(row.low <= capability <= row.high for capability in capabilities):
            return row
    return None


def best_cuda_build(system, driver, capabilities):
    """For all of several cards, else for the newest of them that the driver has a build for."""
    rows = [matching_cuda_build(system, driver, *capabilities)]
    rows += [matching_cuda_build(system, driver, capability) for capability in sorted(capabilities, reverse=True)]
    return next((row for row in rows if row), None)


def parse_version(text):
    """ "580.65.06" -> (580, 65, 6); what is not a number ends it."""
    numbers = []
    for part in str(text).strip().split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def torch_beside_card(cuda, hip, driver_version):
    """What to say once torch is installed. cuda, hip: torch.version's; driver_version: NVIDIA's; each None without."""
    if hip:
        return "after_rocm"
    if driver_version:
        return "after_cuda" if cuda else "after_cpu_beside_card"
    return "after_cpu"


# ---- what this machine has --------------------------------------------------------------------------------------------


def nvidia_files_seen():
    """Whether an NVIDIA driver is installed, by a file of it; cheap enough for every start."""
    if WINDOWS:
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvml.dll"))
    return os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/usr/lib/wsl/lib/nvidia-smi")


def probe_nvidia():
    """(driver version or None, NvidiaCards), from nvidia-smi, else from the driver's own file, which names no cards."""
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    for place in (r"C:\Windows\System32\nvidia-smi.exe", "/usr/lib/wsl/lib/nvidia-smi"):
        program = program or (place if os.path.exists(place) else None)
    if program:
        query = [program, "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20)
            found = parse_nvidia_smi(done.stdout) if done.returncode == 0 else (None, ())
        except (OSError, subprocess.SubprocessError):
            found = (None, ())
        if found[0]:
            return found
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            words = file.readline().split()
        return next((word for word in words if word[:1].isdigit() and "." in word), None), ()
    except OSError:
        return None, ()


def parse_nvidia_smi(output):
    """Lines of "580.65.06, 8.9, NVIDIA GeForce RTX 4060" -> ("580.65.06", (NvidiaCard((8, 9), "NVIDIA GeForce RTX 4060"),))."""
    driver, cards = None, []
    for line in output.splitlines():
        parts = [part.strip() for part in line.split(",", 2)]
        if len(parts) == 3 and len(parse_version(parts[0])) >= 2:
            driver = driver or parts[0]
            capability = parse_version(parts[1])
            cards.append(NvidiaCard(capability if len(capability) == 2 else None, parts[2]))
    return driver, tuple(cards)


def read_windows():
    """core/system/windows.py as a module. It needs the standard library alone; core itself needs more, which may not be there yet."""
    import importlib.util

    file = os.path.join(ROOT, "core", "system", "windows.py")
    spec = importlib.util.spec_from_file_location("lora_garage_windows", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What would end an install. name: of the doctor's finding; key, fix: of the catalogue, with their values.
Obstacle = namedtuple("Obstacle", "name key fix values")


def of_windows(folder, machine, long_paths, runtime):
    """Obstacles to an install in folder. long_paths, runtime: as core/system/windows.py tells them."""
    windows = read_windows()
    found = []
    if long_paths is False and len(folder) > windows.MOST_ROOT:
        values = {"folder": folder, "found": len(folder), "most": windows.MOST_ROOT}
        found.append(Obstacle("path", "path_too_long", "fix_path", values))
    if runtime is not None and runtime < windows.LEAST_RUNTIME:
        values = {
            "needed": "%d.%d" % windows.LEAST_RUNTIME,
            "url": windows.runtime_url(machine),
            "found": ".".join(map(str, runtime)),
        }
        found.append(Obstacle("runtime", "runtime_old" if runtime else "runtime_missing", "fix_runtime", values))
    return found


def amd_card_seen():
    """Linux only: an AMD device with a compute node. True for the graphics inside a Ryzen too."""
    import glob

    if not os.path.exists("/dev/kfd"):
        return False
    for path in glob.glob("/sys/class/drm/card*/device/vendor"):
        try:
            with open(path) as file:
                if file.read().strip() == "0x1002":
                    return True
        except OSError:
            pass
    return False


def index_answers(url, timeout_s=5.0):
    """None if the wheel index can be reached, else why not. A name server that hangs counts as no after timeout_s."""
    import threading

    answer = []

    def ask():
        import ssl
        import urllib.error
        import urllib.request

        request = urllib.request.Request(url.rstrip("/") + "/torch/", method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=timeout_s).close()
            answer.append(None)
        except urllib.error.URLError as error:
            # A certificate that only pip was told of (a company proxy) is pip's to judge.
            certificate = isinstance(error.reason, ssl.SSLError)
            answer.append(None if certificate else str(getattr(error, "code", None) or error.reason))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason shown
            answer.append(str(error) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s + 1)
    return answer[0] if answer else say_text("no_answer", seconds="%g" % timeout_s)


# ---- is the environment complete? -------------------------------------------------------------------------------------

Needs = namedtuple("Needs", "requirements test_requirements digest test_digest")


def read_needs(pyproject, constraints):
    """What pyproject.toml asks for, and a digest of it together with the tested versions."""
    import hashlib
    import tomllib

    project = tomllib.loads(pyproject)["project"]
    extra = project.get("optional-dependencies", {}).get("test", [])

    def digest(requirements):
        value = json.dumps([MARKER_VERSION, sorted(requirements), constraints])
        return hashlib.sha256(value.encode()).hexdigest()[:16]

    return Needs(project["dependencies"], extra, digest(project["dependencies"]), digest(extra))


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group()


def why_not_ready(marker, needs, base, nvidia, with_tests=False):
    """None when the environment may be used as it is, else the key of the reason.

    marker: what the last complete install wrote, None without one. base: real path of the environment's interpreter,
    None if it is gone. nvidia: whether a driver is there now.
    """
    if base is None:
        return "absent" if marker is None else "python_moved"
    if not isinstance(marker, dict) or marker.get("version") != MARKER_VERSION:
        return "unfinished"
    if marker.get("base") != base:
        return "python_moved"
    if marker.get("needs") != needs.digest:
        return "changed"
    if nvidia and not marker.get("nvidia"):
        return "new_card"
    if with_tests and marker.get("test") != needs.test_digest:
        return "tests_missing"
    return None


class Environment:
    """The folder .venv: where its interpreter is, whether it is complete."""

    def __init__(self, root):
        self.root = root
        self.folder = os.path.join(root, ".venv")
        self.python = os.path.join(self.folder, "Scripts" if WINDOWS else "bin", "python.exe" if WINDOWS else "python")
        self.marker_path = os.path.join(self.folder, MARKER)
        self.log = os.path.join(self.folder, "install.log")
        self.constraints = os.path.join(root, "constraints.txt")

    def needs(self):
        with open(os.path.join(self.root, "pyproject.toml"), encoding="utf-8") as file:
            pyproject = file.read()
        with open(self.constraints, encoding="utf-8") as file:
            return read_needs(pyproject, file.read())

    def version(self):
        """The program's own; core.__version__ is the same, and core is not imported here."""
        import tomllib

        with open(os.path.join(self.root, "pyproject.toml"), encoding="utf-8") as file:
            return tomllib.loads(file.read())["project"]["version"]

    def base(self):
        """The interpreter behind .venv (Windows copies it, so there its home folder), None if either is gone."""
        if not os.path.exists(self.python):  # follows the link: False too where the Python beneath was removed
            return None
        if not WINDOWS:
            return os.path.realpath(self.python)
        try:
            with open(os.path.join(self.folder, "pyvenv.cfg"), encoding="utf-8") as file:
                home = [line.split("=", 1)[1].strip() for line in file if line.split("=")[0].strip() == "home"]
        except OSError:
            return None
        return home[0] if home and os.path.exists(os.path.join(home[0], "python.exe")) else None

    def marker(self):
        try:
            with open(self.marker_path, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def write_marker(self, value):
        aside = self.marker_path + ".part"
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
        os.replace(aside, self.marker_path)

    def drop_marker(self):
        if os.path.exists(self.marker_path):
            os.remove(self.marker_path)


# ---- installing -------------------------------------------------------------------------------------------------------


class CannotInstall(Exception):
    """Carries the key and values of the sentence that says what to do. fix: the key of a second one, where the first does not."""

    def __init__(self, key, fix=None, **values):
        super().__init__(key)
        self.key, self.fix, self.values = key, fix, values


# Runs in .venv: packages whose files are missing or cut short, by the sizes in their own RECORD; then torch.
# Only code is looked at: gradio rewrites its .pyi files at each start.
CHECK_PROGRAM = r"""
import importlib.metadata as m, json, os, sys
code, broken = (".py", ".so", ".pyd", ".dll", ".dylib"), []
for d in m.distributions():
    files = d.files
    if files is None or d.version is None:
        broken.append(None); continue
    for f in files:
        if f.size and f.suffix in code:
            try: good = os.path.getsize(f.locate()) == f.size
            except OSError: good = False
            if not good: broken.append(d.metadata["Name"] + "==" + d.version); break
torch = {}
if not broken:
    try:
        import torch
        torch = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None)}
    except Exception as e:
        torch = {"error": (str(e) or type(e).__name__)[:300]}
print(json.dumps({"broken": [b for b in broken if b], "torch": torch}))
"""


class Installer:
    """Brings an Environment to completeness, in steps of one line each.

    run(command, label) -> exit status, its output appended to the log; ask(command, limit_s) -> Answer. Both are handed
    in, so that a test can play pip.
    """

    def __init__(self, environment, run, ask, say, facts):
        self.env, self.run, self.ask, self.say, self.facts = environment, run, ask, say, facts
        self.bar = "off"

    def install(self, reason, needs, with_tests):
        """Raises CannotInstall; leaves no marker unless everything is there."""
        start = time.monotonic()
        marker = self.env.marker() or {}
        with_tests = with_tests or bool(marker.get("test"))
        works = self.still_works()
        if not works:
            self.need_venv()
        only_tests = reason == "tests_missing" and works
        stays_cpu = reason != "repair" and bool(marker.get("cpu"))
        choice = None if only_tests else self.choose(reason, needs, stays_cpu)
        if only_tests:
            self.say("because_tests_missing", folder=self.env.folder)
        self.env.drop_marker()
        if not only_tests:
            if not works:
                self.make_environment()
            self.sweep_half_installed()
            # From 25.2 on pip goes on with a download that broke off; without it one of 3 GB begins again each time.
            if self.run(self.pip_command(["install", "pip>=25.2"]), say_text("step_pip")) == 0:
                self.bar = "raw"  # which an older one does not know: lines that LoggedRun reads
            choice = self.install_torch(choice, needs)
            label = say_text("step_packages", count=len(set(map(name_of, needs.requirements))))
            self.pip(label, ["install", "-c", self.env.constraints, *needs.requirements])
        if with_tests:
            self.pip(say_text("step_tests"), ["install", "-c", self.env.constraints, *needs.test_requirements])
        torch = self.check()
        said = torch_beside_card(torch.get("cuda"), torch.get("hip"), self.facts.driver)
        self.say(said, torch=torch.get("version"), cuda=torch.get("cuda"), hip=torch.get("hip"), driver=self.facts.driver)
        self.env.write_marker(
            {
                "version": MARKER_VERSION,
                "needs": needs.digest,
                "test": needs.test_digest if with_tests else None,
                "python": "%d.%d.%d" % sys.version_info[:3],
                "base": self.env.base(),
                "build": choice.build if choice else marker.get("build"),
                "torch": torch.get("version"),
                "nvidia": self.facts.nvidia,
                "cpu": choice.reason[0] == CPU_BY_YOU if choice else marker.get("cpu"),
            }
        )
        self.say("ready", seconds="%.0f" % (time.monotonic() - start))

    def choose(self, reason, needs, stays_cpu):
        facts = self.facts
        environ = dict({"LORA_GARAGE_TORCH_INDEX": "cpu"}, **facts.environ) if stays_cpu else facts.environ
        choice = choose_torch(facts.system, facts.machine, facts.driver, facts.amd, environ, facts.cards)
        self.say("because_" + reason, folder=self.env.folder)
        if choice.build == "none":
            raise CannotInstall(choice.reason[0], **choice.reason[1])
        self.say(choice.reason[0], **choice.reason[1])
        if choice.left_out:
            self.say("card_left_out", cards=", ".join(choice.left_out))
        has_it = choice.cuda and choice.build == installed_torch_tag(self.env.folder)  # then pip fetches nothing from there
        problem = facts.index_answers(choice.index_url) if choice.index_url and not has_it else None
        if problem and choice.cuda:
            raise CannotInstall("card_index_unreachable", index=choice.index_url, reason=problem)
        if problem:
            choice = self.plain(choice, say_text("index_unreachable", index=choice.index_url, reason=problem))
        for obstacle in facts.obstacles(self.env.root):  # before gigabytes arrive
            raise CannotInstall(obstacle.key, obstacle.fix, **obstacle.values)
        if reason == "absent":
            self.say("will_do", packages=len(set(map(name_of, needs.requirements))), megabytes=choice.megabytes + 220)
            self.need_disk(choice)
        return choice

    def plain(self, choice, why):
        self.say("fall_back", reason=why)
        # On Linux PyPI's torch is the CUDA build whatever the card, unless pip is told of another place.
        megabytes = 3000 if self.facts.system == "Linux" else 120
        return choice._replace(index_url=None, build="pypi", megabytes=megabytes)

    def need_disk(self, choice):
        import shutil
        import tempfile

        needed_gb = (2.5 if choice.megabytes < 1000 else 9.0) + choice.megabytes / 1000
        places = [(self.env.root, needed_gb)]
        temporary = tempfile.gettempdir()  # where pip puts what it downloads, often on another drive
        if os.stat(temporary).st_dev != os.stat(self.env.root).st_dev:
            places.append((temporary, choice.megabytes / 1000 + 0.3))
        for folder, gb in places:
            free_gb = shutil.disk_usage(folder).free / 1e9
            # PyPI's torch may turn out small (a local wheel): only what is surely too little stops here.
            if free_gb < min(gb, 3.0 if folder == self.env.root or choice.index_url else 0.3):
                raise CannotInstall("disk_full", free="%.1f" % free_gb, needed="%.0f" % gb, folder=folder)
            if free_gb < gb:
                self.say("disk_tight", free="%.1f" % free_gb, needed="%.0f" % gb, folder=folder)

    def still_works(self):
        """Whether .venv's interpreter starts and has pip; not so once the Python beneath is of another version."""
        return os.path.exists(self.env.python) and self.ask([self.env.python, "-c", "import pip"]).out is not None

    def need_venv(self):
        import importlib.util

        if not all(getattr(importlib.util.find_spec(name), "origin", None) for name in ("ensurepip", "venv")):
            raise CannotInstall("no_venv", command=apt_line(self.facts.root_user))

    def make_environment(self):
        import shutil

        if os.path.isdir(self.env.folder):
            self.say("removing_old", folder=self.env.folder)
            shutil.rmtree(self.env.folder, ignore_errors=True)
        try:
            os.makedirs(self.env.folder, exist_ok=True)
        except OSError as error:
            raise CannotInstall("cannot_write", folder=self.env.root, reason=error.strerror or error) from None
        python = getattr(sys, "_base_executable", None) or sys.executable  # not the one in .venv, which has just gone
        if self.run([python, "-m", "venv", self.env.folder], say_text("step_venv")):
            raise CannotInstall("venv_failed", log=self.env.log)

    def sweep_half_installed(self):
        """Remove what a killed pip leaves: ~folders of a half-done uninstall, .dist-info without the RECORD written last."""
        import glob
        import shutil

        for pattern in ("Lib/site-packages", "lib/python*/site-packages"):
            for folder in glob.glob(os.path.join(self.env.folder, pattern)):
                for name in os.listdir(folder):
                    path = os.path.join(folder, name)
                    recordless = name.endswith(".dist-info") and not os.path.exists(os.path.join(path, "RECORD"))
                    if name.startswith("~") or recordless:
                        shutil.rmtree(path, ignore_errors=True)

    def install_torch(self, choice, needs):
        wanted = [need for need in needs.requirements if name_of(need) == "torch"]
        tag = installed_torch_tag(self.env.folder)
        if must_remove(tag, choice):
            self.pip(say_text("step_remove_torch", tag=tag or "PyPI"), ["uninstall", "-y", "torch"])
        label = say_text("step_torch", build=say_text(build_name(choice.build)), megabytes=choice.megabytes)
        if choice.index_url:
            try:
                self.pip(label, ["install", "--index-url", choice.index_url, *wanted])
                return choice
            except CannotInstall as problem:
                if problem.key != "pip_failed":
                    raise
                if choice.cuda:  # PyPI's may not be able to use the card
                    raise CannotInstall("card_torch_failed", index=choice.index_url, log=self.env.log) from None
            choice = self.plain(choice, say_text("index_failed", index=choice.index_url, log=self.env.log))
        beside = self.cpu_builds(wanted) if self.facts.system == "Linux" and choice.reason[0] in BY_THE_PROCESSOR else []
        if beside:  # a tenth of what PyPI has for Linux, which brings CUDA along
            choice, wanted = choice._replace(build="cpu", megabytes=200), [*wanted, "torch==" + beside[0]]
        label = say_text("step_torch", build=say_text(build_name(choice.build)), megabytes=choice.megabytes)
        self.pip(label, ["install", *wanted])
        return choice

    def cpu_builds(self, wanted):
        """The versions of torch that pip finds marked +cpu, newest first: in PIP_FIND_LINKS, or an index of one's own."""
        import re

        listed = self.ask(self.pip_command(["index", "versions", "torch"])).out or ""
        least = parse_version(wanted[0].partition(">=")[2])
        return [found for found in re.findall(r"[\d.]+\+cpu\b", listed) if parse_version(found.partition("+")[0]) >= least]

    def check(self):
        """torch's version and CUDA, after reinstalling packages whose files are not as their RECORD says."""
        for attempt in (1, 2):
            self.say("step_check")
            answer = self.ask([self.env.python, "-c", CHECK_PROGRAM], CHECK_S)
            if answer.why:
                self.keep(answer)
            found = json.loads(answer.out) if answer.out else {"broken": [], "torch": {"error": answer.why}}
            if not found["broken"]:
                break
            if attempt == 1:
                self.pip(
                    say_text("step_repair", packages=", ".join(found["broken"])),
                    ["install", "--force-reinstall", "--no-deps", *found["broken"]],
                )
        else:
            raise CannotInstall("broken_packages", packages=", ".join(found["broken"]), folder=self.env.folder)
        if "error" in found["torch"]:
            raise CannotInstall("torch_does_not_load", reason=found["torch"]["error"], log=self.env.log)
        return found["torch"]

    def keep(self, answer):
        """In the log, all that a check which failed said."""
        os.makedirs(os.path.dirname(self.env.log), exist_ok=True)
        with open(self.env.log, "a", encoding="utf-8", newline="\n") as log:
            log.write("\n%s\n%s\n" % (answer.why, answer.stderr))

    def pip_command(self, arguments):
        quiet = ["--disable-pip-version-check", "--no-input"]
        bar = ["--progress-bar", self.bar] if arguments[0] == "install" else []
        return [self.env.python, "-m", "pip", arguments[0], *quiet, *bar, *arguments[1:]]

    def pip(self, label, arguments):
        """Three tries, unless its own words name a cause that no other try mends. Raises CannotInstall."""
        said = label
        for attempt in range(1, TRIES + 1):
            begun = size_of(self.env.log)
            if self.run(self.pip_command(arguments), said) == 0:
                return
            cause = cause_of(read_from(self.env.log, begun))
            if cause:
                raise CannotInstall(cause, step=label, folder=self.env.root, log=self.env.log)
            said = say_text("step_again", step=label, attempt=attempt + 1, tries=TRIES)
        raise CannotInstall("pip_failed", step=label, log=self.env.log)


TRIES = 3
WITH_LOG = ("venv_failed", "pip_failed", "pip_disk_full", "pip_path_too_long", "card_torch_failed")  # they end with its last lines
# What pip, Python and Windows (in its language, but with its number) say, by the cause that it means.
CAUSES = (
    ("pip_path_too_long", ("Windows Long Path support", "[WinError 206]")),
    ("pip_disk_full", ("[Errno 28]", "[WinError 112]", "No space left on device")),
)


def cause_of(said):
    """The key of what pip failed for, None where its words name none that is known."""
    return next((key for key, words in CAUSES if any(word in said for word in words)), None)


def size_of(file):
    return os.path.getsize(file) if os.path.exists(file) else 0


def read_from(file, begin):
    if not os.path.exists(file):
        return ""
    with open(file, "rb") as opened:
        opened.seek(begin)
        return opened.read().decode("utf-8", "replace")


# obstacles(folder): of_windows's there, else none.
MachineFacts = namedtuple(
    "MachineFacts",
    "system machine driver cards amd nvidia environ root_user index_answers obstacles",
    defaults=(lambda folder: (),),
)


def machine_facts():
    import platform

    driver, cards = probe_nvidia()
    return MachineFacts(
        system=platform.system(),
        machine=platform.machine(),
        driver=driver,
        cards=cards,
        amd=amd_card_seen(),
        nvidia=bool(driver) or nvidia_files_seen(),
        environ=dict(os.environ),
        root_user=is_root(),
        index_answers=index_answers,
        obstacles=obstacles if WINDOWS else lambda folder: (),
    )


def obstacles(folder):
    import platform

    windows = read_windows()
    return of_windows(folder, platform.machine(), windows.long_paths(), windows.runtime_version())


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


def apt_line(root_user):
    package = "python%d.%d-venv" % sys.version_info[:2]
    return ("apt install " if root_user else "sudo apt install ") + package


def installed_torch_tag(folder):
    """ "cpu" of torch-2.13.0+cpu, "" of torch-2.13.0, None without torch."""
    import glob

    for pattern in ("Lib/site-packages", "lib/python*/site-packages"):
        for path in glob.glob(os.path.join(folder, pattern, "torch-*.dist-info")):
            version = os.path.basename(path)[len("torch-") : -len(".dist-info")]
            return version.partition("+")[2]
    return None


def must_remove(tag, choice):
    """Whether the torch that is there must go first, because pip would be content with it. tag: installed_torch_tag's."""
    if tag is None:
        return False
    if choice.reason[0] == CPU_BY_YOU:
        # PyPI's says nothing of how it was built: with CUDA on Linux, where another index is asked for the processor's.
        return tag.startswith(("cu", "rocm")) or (tag == "" and bool(choice.index_url))
    of_a_card = choice.build.startswith("rocm") or (choice.build.startswith("cu") and choice.build[2:].isdigit())
    return tag != choice.build if of_a_card else choice.cuda and tag == "cpu"


def build_name(build):
    if build in ("pypi", "cpu"):
        return "build_" + build
    return "build_cu" if build[:2] == "cu" and build[2:].isdigit() else "build_other"


class LoggedRun:
    """Runs a command with its output in the log, and one line on the terminal that ends with how long it took."""

    def __init__(self, log):
        self.log, self.file, self.first = log, "", (0, 0, 0)  # when a file was first seen, at which byte, of how many

    def __call__(self, command, label):
        import subprocess

        start = time.monotonic()
        live = sys.stdout.isatty()
        print(one_row("  %s ..." % label) if live else "  %s ..." % label, end="", flush=True)
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        with open(self.log, "ab") as log:
            log.write(("\n$ " + " ".join(command) + "\n").encode())
            log.flush()
            seen_from = log.tell()
            environ = dict({"PIP_RESUME_RETRIES": "20"}, **os.environ)  # by an option, an older pip would refuse to start
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ)
            try:
                while True:
                    try:
                        status = process.wait(1.0 if live else None)
                        break
                    except subprocess.TimeoutExpired:
                        seconds = "%.0f s" % (time.monotonic() - start)
                        print(
                            "\r" + one_row("  %s %s ... %s" % (seconds, label, self.newest_download(seen_from, time.monotonic()))),
                            end="",
                            flush=True,
                        )
            except BaseException:
                print(flush=True)
                try:
                    process.wait(10)  # pip got the same Ctrl-C and tidies up
                except (subprocess.TimeoutExpired, KeyboardInterrupt):
                    process.kill()
                    process.wait()
                raise
        seconds = time.monotonic() - start
        end = say_text("step_done" if status == 0 else "step_failed", seconds="%.0f" % seconds)
        print("\r%s\r  %s ... %s" % (one_row(""), label, end) if live else " " + end, flush=True)
        return status

    def newest_download(self, seen_from, now):
        """The file that pip is fetching, shortened to stay on one line; by its lines "Progress BYTES of BYTES" how far it is."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(seen_from, os.path.getsize(self.log) - 4000))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        done = total = 0
        for words in map(str.split, lines):
            if words[:1] == ["Downloading"] and len(words) > 1:
                self.file, done, total = words[1].rsplit("/", 1)[-1].split("-")[0], 0, 0
            elif words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                done, total = int(words[1]), int(words[3])
        if done >= total:
            return self.file
        if self.first[2] != total:
            self.first = now, done, total
        since, begun, _ = self.first
        left = "%d:%02d" % divmod((total - done) * (now - since) / (done - begun), 60) if done > begun else "?"
        return say_text("how_far", file=self.file, done="%.0f" % (done / 1e6), total="%.0f" % (total / 1e6), left=left)


def one_row(text):
    """text cut or filled to the width of the terminal, so that the next one can overwrite it. Chinese is two wide."""
    import shutil
    import unicodedata

    room, row = shutil.get_terminal_size().columns - 1, ""
    for letter in text:
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return row
        row += letter
    return row + " " * room


# out: a command's stdout, None where it did not end well; why: then, in words; stderr: all that it said there.
Answer = namedtuple("Answer", "out why stderr")

CHECK_S = 600.0  # some 25,000 files and the first import of torch, which a virus scanner reads whole, from a hard disk


def ask(command, limit_s=180.0):
    """The Answer of a command that prints little. limit_s: seconds it may take."""
    import subprocess

    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=limit_s,
            env=child_environ(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stderr or ""
        said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        return Answer(None, say_text("ended_late", seconds="%.0f" % limit_s), said)
    except OSError as error:
        return Answer(None, str(error), "")
    if done.returncode == 0:
        return Answer(done.stdout, None, done.stderr)
    return Answer(None, how_it_ended(done.returncode, done.stderr), done.stderr)


def how_it_ended(code, stderr):
    """Its exit status (a crash as the system names it) and the last line that it said."""
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    if code < 0:
        name = say_text("ended_signal", number=-code)
    else:  # Windows' own, as in 0xC0000005, an access violation, or 0xC0000135, a DLL that is missing
        name = say_text("ended_status", status="0x%08X" % code if code > 255 else code)
    return "%s: %s" % (name, last[:300]) if last else name


@contextmanager
def one_installer(root):
    """Two starts at once: the second waits until the first has installed. Freed by the system if that one dies."""
    try:
        file = open(os.path.join(root, ".install.lock"), "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CannotInstall("cannot_write", folder=root, reason=error.strerror or error) from None
    with file:
        if not try_lock(file):
            say("waiting_for_other")
            while not try_lock(file):
                time.sleep(0.5)
        yield


def try_lock(file):
    try:
        if WINDOWS:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def ensure_environment(environment, with_tests=False, repair=False):
    """Make .venv complete if it is not. False where it cannot be; the reason has been said."""
    needs = environment.needs()

    why = None

    def reason():
        return why_not_ready(environment.marker(), needs, environment.base(), nvidia_files_seen(), with_tests)

    if not repair and reason() is None:
        return True
    if sys.version_info[:2] > NEWEST_TESTED:
        say("python_untested", found="%d.%d" % sys.version_info[:2])
    try:
        with one_installer(environment.root):
            why = reason()
            if repair and why not in ("absent", "python_moved"):
                why = "repair"
            if why:
                Installer(environment, LoggedRun(environment.log), ask, say, machine_facts()).install(why, needs, with_tests)
        return True
    except CannotInstall as problem:
        for key in filter(None, (problem.key, problem.fix)):
            say(key, to=sys.stderr, **problem.values)
        if problem.key in WITH_LOG:
            print_tail(environment.log)
        # A card that appeared, and what it needs is not to be had now: nothing was touched, and all works as it did.
        return why == "new_card" and reason() == why
    except KeyboardInterrupt:
        say("interrupted", to=sys.stderr)
    return False


def print_tail(log, lines=15):
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            said = [line for line in file if not line.startswith("Progress ")]
        print("".join("    " + line for line in said[-lines:]), file=sys.stderr)
    except OSError:
        pass


# ---- starting ---------------------------------------------------------------------------------------------------------


def child_environ():
    """The environment of all that runs in .venv: our packages come from ROOT, wherever the person stands."""
    environ = dict(os.environ)
    earlier = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = ROOT + (os.pathsep + earlier if earlier else "")
    environ["PYTHONSAFEPATH"] = "1"  # a folder called core or webui where the person stands must not hide ours
    environ.setdefault("PYTHONUTF8", "1")
    if WINDOWS:  # where no LANG says it
        environ.setdefault("LORA_GARAGE_LANG", language())
    return environ


def hand_over(environment, arguments):
    """Run .venv's Python with arguments; its exit status becomes ours."""
    command = [environment.python, *arguments]
    if not WINDOWS:
        sys.stdout.flush()
        try:
            os.execve(environment.python, command, child_environ())
        except OSError as error:
            say("cannot_start", to=sys.stderr, reason=error.strerror, python=environment.python)
            return 1
    import subprocess

    process = subprocess.Popen(command, env=child_environ())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the child was told by the same key; it says goodbye in its own time
            continue


def parse(arguments):
    """(kind, rest): "app", "help", "version", "unknown", UNINSTALL, or one of FOR_DEVELOPERS or COMMANDS; --repair is taken out by main."""
    if arguments[:1] in (["-h"], ["--help"]):
        return "help", []
    if arguments[:1] == ["--version"]:
        return "version", []
    if not arguments or arguments[0].startswith("-"):
        return "app", arguments
    if arguments[0] in (*FOR_DEVELOPERS, *COMMANDS, UNINSTALL):
        return arguments[0], arguments[1:]
    return "unknown", arguments


def main(arguments=None):
    """Exit status. arguments: None for those of the command line, as the wheel's command `lora-garage` calls it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] == ["--repair", "--cpu"]:
        os.environ["LORA_GARAGE_TORCH_INDEX"] = "cpu"
        arguments = ["--repair", *arguments[2:]]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Into a file or a pipe: UTF-8, as what runs in .venv writes there, whatever the code page.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    repair = "--repair" in arguments[:1]
    kind, rest = parse(arguments[1:] if repair else arguments)
    environment = Environment(ROOT)
    if kind == "help":
        print(as_typed(__doc__))
        return 0
    if kind == "version":
        print("LoRA Garage " + environment.version())
        return 0
    if kind == "unknown":
        import difflib

        words = (*COMMANDS, UNINSTALL, *FOR_DEVELOPERS)
        near, known = difflib.get_close_matches(rest[0], words, 1), ", ".join(words)
        say("unknown_near" if near else "unknown", to=sys.stderr, found=rest[0], near="".join(near), known=known)
        return 2
    if kind in FOR_DEVELOPERS and not os.path.isdir(os.path.join(ROOT, "tests")):
        say("for_developers", to=sys.stderr)
        return 2
    if kind == UNINSTALL:
        return uninstall(environment, rest)
    if INSTALLED:
        if repair:
            say("not_ours_to_repair", to=sys.stderr, python=sys.executable)
            return 2
        environment.python = sys.executable
        return start(environment, kind, rest)
    if kind == "doctor" and not repair:
        return doctor(environment, rest)
    # The stdout of a command is its own, often JSON: what is said here goes to stderr then.
    with redirect_stdout(sys.stderr) if kind in COMMANDS else nullcontext():
        ready = ensure_environment(environment, with_tests=kind in FOR_DEVELOPERS, repair=repair)
    if not ready:
        return 1
    if kind == "test" and "--windows" in rest:
        os.chdir(ROOT)
        return hand_over(environment, ["-m", "tests.windows", *(word for word in rest if word != "--windows")])
    if kind == "test":
        return run_tests(environment, rest)
    if kind == "check":
        return run_checks(environment)
    return start(environment, kind, rest)


def start(environment, kind, rest):
    return hand_over(environment, ["-m", "webui", *rest] if kind == "app" else ["-m", "core.commands", kind, *rest])


# ---- doctor: the part that works without .venv -------------------------------------------------------------------------


def doctor(environment, arguments):
    """core's doctor where .venv can run it; else what the standard library can see. Installs nothing."""
    why = why_not_ready(environment.marker(), environment.needs(), environment.base(), nvidia_files_seen())
    if why in (None, "new_card", "changed", "unfinished") and environment.base():
        if ask([environment.python, "-c", "import core.commands, core.system.checkup"]).out is not None:
            if why:
                os.environ["LORA_GARAGE_NOT_READY"] = why  # core's doctor cannot ask us: it does not import this file
            return hand_over(environment, ["-m", "core.commands", "doctor", *arguments])
        why = why or "broken"
    facts = machine_facts()
    choice = choose_torch(facts.system, facts.machine, facts.driver, facts.amd, facts.environ, facts.cards)
    fix = "fix_repair" if why in ("broken", "python_moved") else "fix_start"
    findings = [
        ("python", True, ("doctor_python", {"found": "%d.%d.%d" % sys.version_info[:3], "path": sys.executable}), None),
        ("environment", False, ("because_" + why, {"folder": environment.folder}), (fix, {})),
        ("torch", True, choice.reason, None),
        *((o.name, False, (o.key, o.values), (o.fix, o.values)) for o in facts.obstacles(environment.root)),
    ]
    if choice.left_out:
        findings.append(("gpu", True, ("card_left_out", {"cards": ", ".join(choice.left_out)}), None))
    if "--json" in arguments:
        shown = [{"name": n, "ok": ok, "found": as_json(f), "fix": as_json(x)} for n, ok, f, x in findings]
        print(json.dumps({"ok": False, "version": environment.version(), "findings": shown}, indent=1))
    else:
        print("LoRA Garage " + environment.version())
        for _, ok, found, fix in findings:
            print("%s %s" % ("ok " if ok else "!! ", say_text(found[0], **found[1])))
            if fix:
                print("    " + say_text(fix[0], **fix[1]))
    return 1


def as_json(sentence):
    """A key and its values as core.messages.Text is written, with the English sentence."""
    if sentence is None:
        return None
    key, values = sentence
    return {"key": "launch." + key, "params": values, "sentence": sentences("en")[key].format_map(Forgiving(values))}


# ---- uninstall --------------------------------------------------------------------------------------------------------


def uninstall(environment, arguments):
    """Remove what was installed into this folder; the folder itself, runs, data and models stay unless they are named too."""
    import shutil

    if INSTALLED:
        say("uninstall_by_its_tool", python=sys.executable)
        return 2
    wrong = [word for word in arguments if word not in ("--workspace", "--models", "--yes")]
    if wrong:
        say("uninstall_unknown", to=sys.stderr, found=wrong[0])
        return 2
    home = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface")
    cache = os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(os.environ.get("HF_HOME") or home, "hub"))
    own = {os.path.join(environment.root, name): True for name in (".venv", ".uv", ".uv.part", ".install.lock")}
    workspace = os.environ.get("LORA_GARAGE_HOME") or os.path.join(environment.root, "workspace")
    places = {**own, workspace: "--workspace" in arguments, cache: "--models" in arguments}
    places = {path: goes for path, goes in places.items() if os.path.lexists(path)}
    for path, goes in places.items():
        say("uninstall_goes" if goes else "uninstall_stays", path=path, gb="%.2f" % (bytes_below(path) / 1e9))
    going = [path for path, goes in places.items() if goes]
    if not going:
        say("uninstall_nothing")
        return 0
    if "--yes" not in arguments:
        if not sys.stdin.isatty():
            say("uninstall_ask_first", to=sys.stderr)
            return 2
        if input(say_text("uninstall_sure") + " ").strip().lower() not in ("y", "yes", "是"):
            say("uninstall_kept")
            return 1
    for path in going:
        try:  # renamed first: where a file of it is in use, Windows refuses that, and nothing is half removed
            os.rename(path, path + ".removed")
            if os.path.isdir(path + ".removed") and not os.path.islink(path + ".removed"):
                shutil.rmtree(path + ".removed")
            else:
                os.unlink(path + ".removed")
        except OSError as error:
            say("uninstall_failed", to=sys.stderr, path=path, reason=error.strerror or error)
            return 1
    say("uninstall_done", folder=environment.root)
    return 0


def bytes_below(path):
    if os.path.islink(path) or not os.path.isdir(path):
        return os.lstat(path).st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


# ---- tests ------------------------------------------------------------------------------------------------------------

# The first is Debian's, without a window: a page takes it two thirds of the processor.
BROWSER_NAMES = ("chromium-headless-shell", "google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "chrome")
BROWSER_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)
PLAYWRIGHT_PATH = "from playwright.sync_api import sync_playwright as p\nwith p() as x: print(x.chromium.executable_path)"


def find_browser(which, works):
    """An installed Chrome or Chromium that starts, else None."""
    for path in (*(which(name) for name in BROWSER_NAMES), *BROWSER_PLACES):
        if path and works(path):
            return path
    return None


def browser_works(path):
    """Elsewhere than on Windows (where it would open a window): it can say its version."""
    if not os.path.exists(path):
        return False
    return WINDOWS or ask([path, "--version"]).out is not None


def obtain_browser(environment, run):
    """(path, None), or (None, reason). Tries an installed one, Playwright's own, Debian's package."""
    import shutil

    asked = os.environ.get("LORA_GARAGE_BROWSER")
    if asked:
        return (asked, None) if browser_works(asked) else (None, say_text("browser_asked_missing", path=asked))
    found = find_browser(shutil.which, browser_works)
    if found:
        return found, None
    own = (ask([environment.python, "-c", PLAYWRIGHT_PATH]).out or "").strip()
    if own and browser_works(own):
        return own, None
    say("browser_wanted")
    install = [environment.python, "-m", "playwright", "install", "chromium"]
    if run(install, say_text("step_browser_playwright")) == 0 and own and browser_works(own):
        return own, None
    if shutil.which("apt-get") and is_root():
        run(["apt-get", "update", "-q"], say_text("step_apt_update"))
        command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", "chromium", "fonts-noto-cjk"]
        run(command, say_text("step_browser_apt"))
        found = find_browser(shutil.which, browser_works)
        if found:
            return found, None
        return None, say_text("browser_none_apt", log=environment.log)
    return None, say_text("browser_none")


def run_tests(environment, arguments):
    browser, reason = obtain_browser(environment, LoggedRun(environment.log))
    os.environ.pop("LORA_GARAGE_NO_BROWSER", None)
    if browser:
        os.environ["LORA_GARAGE_BROWSER"] = browser
        say("browser_is", path=browser)
    else:
        os.environ.pop("LORA_GARAGE_BROWSER", None)
        os.environ["LORA_GARAGE_NO_BROWSER"] = reason
        say("browser_missing", reason=reason)
    # pytest runs in ROOT; what names a file from where the person stands keeps its meaning.
    arguments = [os.path.abspath(a) if os.path.exists(a.split("::")[0]) and not a.startswith("-") else a for a in arguments]
    os.chdir(ROOT)
    return hand_over(environment, ["-m", "pytest", *side_by_side(arguments), *arguments])


# Each in .venv's Python, in ROOT, the quickest first. The tests are those of the house itself: floors, sizes, catalogues.
CHECKS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
    "the rules of the house": ("pytest", "-q", "--durations-min=5", "tests/unit/test_architecture.py", "tests/unit/test_words.py"),
}


def run_checks(environment):
    """All of CHECKS side by side, told in their order, whatever the first ones say; 1 where one of them has found something."""
    import subprocess
    import tempfile

    begun, found = {}, []
    for name, command in CHECKS.items():
        said = tempfile.TemporaryFile()
        line = [environment.python, "-m", *command]
        begun[name] = said, subprocess.Popen(line, cwd=ROOT, env=child_environ(), stdout=said, stderr=subprocess.STDOUT)
    for name, (said, check) in begun.items():
        if check.wait():
            found.append(name)
        said.seek(0)
        print("== " + name + "\n" + said.read().decode("utf-8", "replace").rstrip(), flush=True)
        said.close()
    print("== found something: " + ", ".join(found) if found else "== nothing found", flush=True)
    return 1 if found else 0


def side_by_side(arguments):
    """Two test processes where all tests are asked for, the one that is done helping the other: most tests wait for others. Three on two
    processors were no faster (18:48 min), and pages answered up to nine times as late."""
    chosen = any(not a.startswith("-") or a.startswith(("-n", "-k", "-s", "--pdb", "--collect-only")) for a in arguments)
    return [] if chosen or (os.cpu_count() or 1) < 2 else ["-n", "2", "--dist", "worksteal"]


# ---- sentences --------------------------------------------------------------------------------------------------------


def sentences(wanted):
    """The catalogue core/locales/<wanted>/launch.yaml, or the section launch of core/locales/<wanted>.yaml, read as lines of
    `key: "text"`: no YAML reader is installed yet."""
    alone = os.path.join(LOCALES, wanted, "launch.yaml")
    found, within = {}, os.path.exists(alone)
    with open(alone if within else os.path.join(LOCALES, wanted + ".yaml"), encoding="utf-8") as file:
        for line in file:
            if line[0] not in " #\n" and line.rstrip().endswith(":"):
                within = line.rstrip() == "launch:"
            key, colon, value = line.strip().partition(": ")
            if within and colon and not line.startswith("#"):
                found[key] = json.loads(value)
    return found


class Forgiving(dict):
    def __missing__(self, name):
        return "{" + name + "}"


def language():
    """What LORA_GARAGE_LANG, the locale or Windows' display language says where it is spoken here, else "en"."""
    for name in ("LORA_GARAGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if os.environ.get(name):
            wanted = os.environ[name][:2].lower()
            return wanted if any(os.path.exists(os.path.join(LOCALES, wanted + end)) for end in ("", ".yaml")) else "en"
    if WINDOWS:
        import ctypes

        return {0x04: "zh", 0x07: "de"}.get(ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF, "en")
    return "en"


def say_text(key, **values):
    return as_typed(sentences(language())[key].format_map(Forgiving(values)))


def as_typed(text):
    return text.replace("python launch.py", "lora-garage") if INSTALLED else text


def say(key, to=None, **values):
    print(say_text(key, **values), file=to or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
