"""The hardware of this machine: its GPUs and their driver, and obstacles to an install."""

import os
from collections import namedtuple

from launcher import ROOT, WINDOWS
from launcher.sentences import say_text
from launcher.tools import find_uv
from launcher.torch_build import NvidiaCard, parse_version

# What would end an install. name: of the doctor's finding; key, fix: of the catalogue, with their values.
Obstacle = namedtuple("Obstacle", "name key fix values")

# obstacles(folder): of Windows (windows_obstacles), else none. uv: its program.
MachineFacts = namedtuple(
    "MachineFacts",
    "system machine driver cards amd nvidia environ root_user index_problem obstacles uv",
    defaults=(lambda folder: (), None),
)


def has_nvidia_driver():
    """Return whether an NVIDIA driver is installed, by one of its files; cheap enough for every start."""
    if WINDOWS:
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvml.dll"))
    return os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/usr/lib/wsl/lib/nvidia-smi")


def probe_nvidia():
    """Return (driver version or None, NvidiaCards), from nvidia-smi, else from the driver's own file, which lists no
    GPUs."""
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    for place in (r"C:\Windows\System32\nvidia-smi.exe", "/usr/lib/wsl/lib/nvidia-smi"):
        program = program or (place if os.path.exists(place) else None)
    if program:
        query = [program, "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20)
            result = parse_nvidia_smi(done.stdout) if done.returncode == 0 else (None, ())
        except (OSError, subprocess.SubprocessError):
            result = (None, ())
        if result[0]:
            return result
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            words = file.readline().split()
        return next((word for word in words if word[:1].isdigit() and "." in word), None), ()
    except OSError:
        return None, ()


def parse_nvidia_smi(output):
    """Parse lines of "580.65.06, 8.9, NVIDIA GeForce RTX 4060".

    Returns ("580.65.06", (NvidiaCard((8, 9), "NVIDIA GeForce RTX 4060"),)).
    """
    driver, cards = None, []
    for line in output.splitlines():
        parts = [part.strip() for part in line.split(",", 2)]
        if len(parts) == 3 and len(parse_version(parts[0])) >= 2:
            driver = driver or parts[0]
            capability = parse_version(parts[1])
            cards.append(NvidiaCard(capability if len(capability) == 2 else None, parts[2]))
    return driver, tuple(cards)


def has_amd_card():
    """Return whether Linux lists an AMD device with a compute node. True for the graphics inside a Ryzen too."""
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


def index_problem(url, timeout_s=5.0):
    """Return why the wheel index cannot be reached; None if it can, or if only its certificate is unknown. Takes at
    most a second more than timeout_s."""
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
            # A certificate known only to pip (a company proxy) is left to pip.
            certificate = isinstance(error.reason, ssl.SSLError)
            answer.append(None if certificate else str(getattr(error, "code", None) or error.reason))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason shown
            answer.append(str(error) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s + 1)
    return answer[0] if answer else say_text("no_answer", seconds="%g" % timeout_s)


def machine_facts():
    """Return what the choice of a build depends on: system, GPUs, driver, environment, and what can be checked
    later."""
    import platform

    driver, cards = probe_nvidia()
    return MachineFacts(
        system=platform.system(),
        machine=platform.machine(),
        driver=driver,
        cards=cards,
        amd=has_amd_card(),
        nvidia=bool(driver) or has_nvidia_driver(),
        environ=dict(os.environ),
        root_user=is_root(),
        index_problem=index_problem,
        obstacles=obstacles if WINDOWS else lambda folder: (),
        uv=find_uv(),
    )


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


def read_windows():
    """Import core/system/windows.py as a module of its own.

    It needs only the standard library; core itself needs packages that may not be installed yet.
    """
    import importlib.util

    file = os.path.join(ROOT, "core", "system", "windows.py")
    spec = importlib.util.spec_from_file_location("lora_garage_windows", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def windows_obstacles(folder, machine, long_paths, runtime):
    """Return obstacles to an install in folder. long_paths, runtime: as read by core/system/windows.py."""
    windows = read_windows()
    problems = []
    if long_paths is False and len(folder) > windows.MAX_ROOT:
        values = {"folder": folder, "found": len(folder), "most": windows.MAX_ROOT}
        problems.append(Obstacle("path", "path_too_long", "fix_path", values))
    if runtime is not None and runtime < windows.MIN_RUNTIME:
        values = {
            "needed": "%d.%d" % windows.MIN_RUNTIME,
            "url": windows.runtime_url(machine),
            "found": ".".join(map(str, runtime)),
        }
        problems.append(Obstacle("runtime", "runtime_old" if runtime else "runtime_missing", "fix_runtime", values))
    return problems


def obstacles(folder):
    import platform

    windows = read_windows()
    return windows_obstacles(folder, platform.machine(), windows.long_paths(), windows.runtime_version())
