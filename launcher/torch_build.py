"""The build of torch for this machine, with its reason."""

import os
from collections import namedtuple

# build: folder of PyTorch's wheel index. linux, windows: the oldest NVIDIA driver it runs on (CUDA 13: 580; CUDA 12 by
# minor version compatibility: 525.60.13 and 528.33; docs.nvidia.com/deploy/cuda-compatibility, the table that uv uses).
# low, high: compute capabilities it has kernels for (PyTorch's RELEASE.md, 2.9 to 2.15): CUDA 13 dropped the GTX 10xx
# (6.1), CUDA 12.6 never knew the RTX 50xx (12.0). cu128 ends with torch 2.11, cu126 with torch 2.14. First match wins.
# LEAST: bitsandbytes has no code for older cards (GTX 750 Ti and 9xx), so they are not used, though cu126 has some for
# 5.0.
CudaBuild = namedtuple("CudaBuild", "build linux windows low high")

CUDA_BUILDS = (
    CudaBuild("cu130", (580,), (580,), (7, 5), (99, 0)),
    CudaBuild("cu128", (570,), (570,), (7, 5), (12, 1)),
    CudaBuild("cu126", (525, 60, 13), (528, 33), (5, 0), (9, 0)),
)

LEAST = (6, 0)
WHEEL_INDEX = "https://download.pytorch.org/whl/"

CPU_BY_YOU = "torch_cpu_by_you"

# Reasons of choose_torch for a CPU build, which comes from PyTorch's own index if that can be reached.
BY_THE_PROCESSOR = (
    CPU_BY_YOU,
    "torch_no_card",
    "torch_amd",
    "torch_old_driver",
    "torch_old_card",
    "torch_unknown_card",
)

# index_url: None for pip's own index. build: "pypi", "cpu", "cu126", ..., the last part of its index. cuda: whether it
# should use a card. megabytes: about what is downloaded, at most. reason: a key and values of the catalogue
# launch.yaml.
# left_out: names of cards that the build has no kernels for.
TorchChoice = namedtuple("TorchChoice", "index_url reason build cuda megabytes left_out", defaults=((),))
NvidiaCard = namedtuple("NvidiaCard", "capability name", defaults=("",))  # capability: None where it is not known


def choose_torch(system, machine, driver_version, amd, environ, cards=()):
    """Return the torch build for a machine, with its reason: one for all GPUs, else for the newest.

    system, machine: from platform.system() and platform.machine(). driver_version: NVIDIA's, like "580.65.06", None
    without one. amd: whether an AMD GPU is present. cards: NvidiaCards. Returns TorchChoice; its build is "none" if
    PyTorch has no wheels at all.
    """
    setting = environ.get("LORA_GARAGE_TORCH_INDEX", "").strip()
    x86, arm = machine.lower() in ("x86_64", "amd64"), machine.lower() in ("aarch64", "arm64")
    if setting.lower() == "pypi":
        return TorchChoice(None, ("torch_by_you", {"index": "PyPI"}), "pypi", bool(driver_version), 3000)
    if setting.lower() == "cpu":
        index = WHEEL_INDEX + "cpu" if system == "Linux" else None  # on other systems PyPI's build is for the CPU
        return TorchChoice(index, (CPU_BY_YOU, {}), "cpu", False, 200)
    if setting:
        build = setting.rstrip("/").rsplit("/", 1)[-1]
        return TorchChoice(setting, ("torch_by_you", {"index": setting}), build, build != "cpu", 3000)
    if system == "Darwin":
        if x86:
            return TorchChoice(None, ("torch_intel_mac", {}), "none", False, 0)
        return TorchChoice(None, ("torch_mac", {}), "pypi", False, 80)
    if driver_version and (x86 or (system == "Linux" and arm)):
        known = [card.capability for card in cards if card.capability]
        facts = {"driver": driver_version, "card": "%d.%d" % max(known) if known else ""}
        if known and len(known) == len(cards) and max(known) < LEAST:
            return TorchChoice(
                WHEEL_INDEX + "cpu", ("torch_old_card", dict(facts, least="%d.%d" % LEAST)), "cpu", False, 200
            )
        row = best_cuda_build(system, parse_version(driver_version), [each for each in known if each >= LEAST])
        if row is None:
            too_old = parse_version(driver_version) < (525,)
            reason = "torch_old_driver" if too_old else "torch_unknown_card"
            return TorchChoice(WHEEL_INDEX + "cpu", (reason, facts), "cpu", False, 200)
        low = max(row.low, LEAST)
        left_out = tuple(card.name for card in cards if card.capability and not low <= card.capability <= row.high)
        if row.build == "cu130" and system == "Linux" and x86:  # what PyPI has for Linux is a CUDA 13 build already
            return TorchChoice(None, ("torch_pypi_cuda", facts), "pypi", True, 3000, left_out)
        reason = ("torch_cuda", dict(facts, build=row.build))
        return TorchChoice(WHEEL_INDEX + row.build, reason, row.build, True, 3000, left_out)
    if system == "Linux":
        return TorchChoice(WHEEL_INDEX + "cpu", ("torch_amd" if amd else "torch_no_card", {}), "cpu", False, 200)
    return TorchChoice(None, ("torch_no_card", {}), "pypi", False, 120)


def matching_cuda_build(system, driver, *capabilities):
    """Return the newest build that the driver runs and that has kernels for all capabilities, None without one."""
    for row in CUDA_BUILDS:
        runs = driver >= (row.windows if system == "Windows" else row.linux)
        if runs and all(row.low <= capability <= row.high for capability in capabilities):
            return row
    return None


def best_cuda_build(system, driver, capabilities):
    """Return a build for all of several GPUs, else for the newest of them that the driver has a build for."""
    rows = [matching_cuda_build(system, driver, *capabilities)]
    rows += [matching_cuda_build(system, driver, capability) for capability in sorted(capabilities, reverse=True)]
    return next((row for row in rows if row), None)


def parse_version(text):
    """Parse "580.65.06" to (580, 65, 6), up to the first part that is not a number."""
    numbers = []
    for part in str(text).strip().split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def torch_beside_card(cuda, hip, driver_version):
    """Return the key of the message after installing torch.

    cuda, hip: torch.version's; driver_version: NVIDIA's; each None without.
    """
    if hip:
        return "after_rocm"
    if driver_version:
        return "after_cuda" if cuda else "after_cpu_beside_card"
    return "after_cpu"


def installed_torch_tag(folder):
    """Return "cpu" for torch-2.13.0+cpu, "" for torch-2.13.0, None without torch."""
    import glob

    for pattern in ("Lib/site-packages", "lib/python*/site-packages"):
        for path in glob.glob(os.path.join(folder, pattern, "torch-*.dist-info")):
            version = os.path.basename(path)[len("torch-") : -len(".dist-info")]
            return version.partition("+")[2]
    return None


def must_remove(tag, choice):
    """Return whether the installed torch must be removed first, because pip would accept it. tag: from
    installed_torch_tag."""
    if tag is None:
        return False
    if choice.reason[0] == CPU_BY_YOU:
        # PyPI's has no tag: on Linux it is a CUDA build, and the CPU build comes from another index.
        return tag.startswith(("cu", "rocm")) or (tag == "" and bool(choice.index_url))
    of_a_card = choice.build.startswith("rocm") or (choice.build.startswith("cu") and choice.build[2:].isdigit())
    return tag != choice.build if of_a_card else choice.cuda and tag == "cpu"


def build_name(build):
    if build in ("pypi", "cpu"):
        return "build_" + build
    return "build_cu" if build[:2] == "cu" and build[2:].isdigit() else "build_other"
