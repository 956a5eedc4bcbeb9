"""The doctor: problems of this PC for LoRA Garage, each with its one fix.

`gather` inspects the machine once, `examine` judges the result and is a pure function; `run` does both. torch and
bitsandbytes are imported only in a child process with a time limit, which takes most of the 3 to 5 seconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from core.messages import msg
from core.presets import PROJECT
from core.system import devices, gpu, surroundings
from core.system.surroundings import CheckResult, Surroundings, result
from core.values import Frozen

MIN_FOR_FLASH = (8, 0)  # compute capability: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp
TORCH_S = 600.0  # as in launcher/running: the first import, read by a virus scanner from a hard disk
# Oldest NVIDIA driver for a major version of CUDA, by minor version compatibility (docs.nvidia.com/deploy/
# cuda-compatibility; 12.x on Windows from 528.33). A test holds launcher/torch_build.py's table against it.
OLDEST_DRIVER = {11: (450,), 12: (525,), 13: (580,)}


class Torch(Frozen):
    """Facts about torch from a child process.

    cuda, hip: versions it was built for. arches: like ("sm_75", "sm_86").
    """

    version: str | None = None
    cuda: str | None = None
    hip: str | None = None
    sees_card: bool = False
    flash: bool | None = None  # whether this build has flash attention
    arches: tuple[str, ...] = ()
    error: str | None = None
    bitsandbytes_error: str | None = None  # why it cannot be imported
    bitsandbytes_on_cpu: str | None = None  # why it has no library for torch's GPU


class Facts(Frozen):
    """The input of all checks. None if unknown."""

    system: str
    machine: str
    python: tuple[int, int, int]
    executable: str
    in_own_environment: bool
    install_finished: bool
    missing: tuple[str, ...]  # requirements of pyproject.toml that are not there, or in a version it does not admit
    bitsandbytes: str | None
    torch: Torch
    nvidia: gpu.Nvidia
    amd: bool
    around: Surroundings


def run(workspace_root: Path, log: Path, port: int, keeps_awake: bool = True) -> list[CheckResult]:
    """Check this PC, the installation and the workspace, and return all results, good ones too, in the order in which
    their fixes should be done.

    log: the app's log file. keeps_awake: whether runs and exports keep this PC awake, as the person chose.
    """
    return examine(gather(workspace_root, log, port, keeps_awake))


# ---- judging -------------------------------------------------------------------------------------


def examine(facts: Facts) -> list[CheckResult]:
    """Return every finding, the good ones too."""
    around = facts.around
    return [
        *_program_checks(facts),
        *surroundings.examine_windows(around),
        *_gpu_checks(facts),
        *surroundings.examine(around),
    ]


def _program_checks(facts: Facts) -> Iterator[CheckResult]:
    """Yield the checks of Python's version, the environment and the packages."""
    python = msg("doctor.python", version=".".join(map(str, facts.python)), path=facts.executable)
    yield result("python", python, None if (3, 11) <= facts.python[:2] <= (3, 13) else msg("doctor.python_fix"))
    if not facts.in_own_environment:
        yield result("environment", msg("doctor.environment_other", path=facts.executable))
    elif facts.install_finished:
        yield result("environment", msg("doctor.environment"))
    else:
        yield result("environment", msg("doctor.unfinished"), msg("doctor.start_fix"))
    if facts.missing:
        yield result("packages", msg("doctor.packages_missing", packages=list(facts.missing)), msg("doctor.repair_fix"))
    else:
        yield result("packages", msg("doctor.packages"))


def _gpu_checks(facts: Facts) -> Iterator[CheckResult]:
    """Yield the checks of the GPUs, of torch with them (at most one problem, the first that stops it), and of
    bitsandbytes."""
    torch, nvidia = facts.torch, facts.nvidia
    yield from map(_card, nvidia.cards)
    old = [card for card in nvidia.cards if devices.is_too_old(card)]
    yield from (result("gpu", devices.too_old(card)) for card in old)
    if torch.error is not None:
        yield result("torch", msg("doctor.torch_error", reason=torch.error), msg("doctor.repair_fix"))
    elif nvidia.driver is None:
        key = "doctor.torch_cuda_no_driver" if torch.cuda else "doctor.torch_rocm" if torch.hip else "doctor.torch_cpu"
        yield result("torch", msg(key, version=torch.version, cuda=torch.cuda, hip=torch.hip))
    elif not nvidia.cards:
        yield result("gpu", msg("doctor.no_cards", driver=nvidia.driver), msg("doctor.no_cards_fix"))
    elif len(old) < len(nvidia.cards):
        nvidia = nvidia.model_copy(update={"cards": tuple(card for card in nvidia.cards if card not in old)})
        yield _torch_beside_driver(torch, nvidia)
        strangers = _without_kernels(torch, nvidia)
        for card in strangers if len(strangers) < len(nvidia.cards) else ():  # the others are used
            capability = "{}.{}".format(*(card.capability or (0, 0)))
            yield result(
                "gpu", msg("doctor.card_left_out", version=torch.version, card=card.name, capability=capability)
            )
        if len(nvidia.cards) - len(strangers) > 1:
            yield result("cards", msg("doctor.several_cards", count=len(nvidia.cards) - len(strangers)))
        if torch.sees_card and torch.flash is not None:
            yield _flash_attention(torch.flash, [card for card in nvidia.cards if card not in strangers])
    if facts.system == "Darwin":
        yield result("machine", msg("doctor.mac"))
    elif facts.amd and nvidia.driver is None:
        yield result("machine", msg("doctor.amd_rocm" if torch.hip else "doctor.amd"))
    if facts.bitsandbytes is None:
        yield result("bitsandbytes", msg("doctor.no_bitsandbytes"), msg("doctor.repair_fix"))
    elif torch.bitsandbytes_error:
        problem = msg("doctor.bitsandbytes_error", version=facts.bitsandbytes, reason=torch.bitsandbytes_error)
        yield result("bitsandbytes", problem, msg("doctor.repair_fix"))
    elif torch.bitsandbytes_on_cpu:
        problem = msg("doctor.bitsandbytes_on_cpu", version=facts.bitsandbytes, reason=torch.bitsandbytes_on_cpu)
        yield result("bitsandbytes", problem, msg("doctor.repair_fix"))
    else:
        yield result("bitsandbytes", msg("doctor.bitsandbytes", version=facts.bitsandbytes))


def _flash_attention(is_built_in: bool, cards: list[gpu.Card]) -> CheckResult:
    """Report flash attention. Never a problem: without it another kernel is used that needs no more memory."""
    known = [card.capability for card in cards if card.capability]
    if is_built_in and known and max(known) < MIN_FOR_FLASH:
        return result("flash_attention", msg("doctor.flash_card", capability="{}.{}".format(*max(known))))
    return result("flash_attention", msg("doctor.flash" if is_built_in else "doctor.flash_none"))


def _card(card: gpu.Card) -> CheckResult:
    """Return a result, never a problem, that names a GPU with its memory and compute capability."""
    unknown = msg("doctor.unknown")
    description = msg(
        "doctor.gpu",
        index=card.index,
        name=card.name or unknown,
        total=unknown if card.total_bytes is None else card.total_bytes / 2**30,
        free=unknown if card.free_bytes is None else card.free_bytes / 2**30,
        capability=unknown if card.capability is None else "{}.{}".format(*card.capability),
    )
    return result("gpu", description)


def _torch_beside_driver(torch: Torch, nvidia: gpu.Nvidia) -> CheckResult:
    """Return whether torch has CUDA, the driver is new enough, kernels exist for a GPU, and torch sees it: the first
    problem with its fix, else the good result."""
    values = {"version": torch.version, "cuda": torch.cuda, "driver": nvidia.driver}

    def torch_problem(key: str, fix: str, **more: object) -> CheckResult:
        """Return the result "torch" as a problem with its fix; both sentences get the versions of torch, CUDA and
        driver as values."""
        return result("torch", msg(key, **values, **more), msg(fix, **values, **more))

    driver = version_numbers(nvidia.driver or "")
    if torch.cuda is None:
        too_old = bool(driver) and driver < OLDEST_DRIVER[12]
        return torch_problem(
            "doctor.torch_cpu_beside_card", "doctor.driver_and_repair_fix" if too_old else "doctor.repair_fix"
        )
    oldest = OLDEST_DRIVER.get(version_numbers(torch.cuda)[0]) if version_numbers(torch.cuda) else None
    if oldest and driver and driver < oldest:
        return torch_problem("doctor.driver_too_old", "doctor.driver_fix", oldest=str(oldest[0]))
    if (strangers := _without_kernels(torch, nvidia)) and len(strangers) == len(nvidia.cards):
        capability = "{}.{}".format(*(strangers[0].capability or (0, 0)))
        return torch_problem("doctor.no_kernels", "doctor.repair_fix", card=strangers[0].name, capability=capability)
    if not torch.sees_card:
        return torch_problem("doctor.torch_blind", "doctor.torch_blind_fix")
    return result("torch", msg("doctor.torch_cuda", **values))


def _without_kernels(torch: Torch, nvidia: gpu.Nvidia) -> list[gpu.Card]:
    """Return the GPUs for which this torch has no kernels; one of unknown capability is not among them."""
    known = [card for card in nvidia.cards if card.capability and torch.arches]
    return [card for card in known if not has_kernels(torch.arches, card.capability or (0, 0))]


def has_kernels(arches: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Return whether a torch build with code for these architectures (arches, such as "sm_86" or "compute_90") runs on
    a GPU of this compute capability.

    Machine code runs on its own major version from its minor on ("sm_86" on 8.9); "compute_" is compiled upwards.
    """
    for arch in arches:
        if not (named := re.match(r"(sm|compute)_(\d+)(\d)", arch)):
            continue
        major, minor = int(named[2]), int(named[3])
        if (major, minor) <= capability and (named[1] == "compute" or major == capability[0]):
            return True
    return False


def version_numbers(version: str) -> tuple[int, ...]:
    """Parse "580.65.06" to (580, 65, 6); () if it does not start with a number."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


# ---- looking -------------------------------------------------------------------------------------


def gather(workspace_root: Path, log: Path, port: int, keeps_awake: bool) -> Facts:
    """Return the facts about this machine for the doctor. Changes nothing except for a file that is created in the
    workspace and removed at once."""
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        python=sys.version_info[:3],
        executable=sys.executable,
        in_own_environment=Path(sys.prefix).resolve() == (PROJECT / ".venv").resolve(),
        install_finished=(PROJECT / ".venv" / ".lora-garage.json").exists()
        and not os.environ.get("LORA_GARAGE_NOT_READY"),
        missing=missing_requirements(),
        bitsandbytes=_version_of("bitsandbytes"),
        torch=torch_facts(),
        nvidia=gpu.probe(),
        amd=_has_amd_card(),
        around=surroundings.gather(workspace_root, log, port, keeps_awake),
    )


def missing_requirements() -> tuple[str, ...]:
    """Return requirements of pyproject.toml that this interpreter lacks, or has in a wrong version."""
    from packaging.requirements import Requirement

    needs = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    lacking = []
    for need in map(Requirement, needs):
        if need.marker is not None and not need.marker.evaluate():
            continue
        installed = _version_of(need.name)
        if installed is None or not need.specifier.contains(installed, prereleases=True):
            lacking.append(f"{need} ({installed})" if installed else str(need))
    return tuple(lacking)


def _version_of(package: str) -> str | None:
    """Return the installed version of a Python package; None if it is not installed. The package is not imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


_CHILD = """
import json
facts = {}
try:
    import torch
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
             "sees_card": torch.cuda.is_available(), "flash": torch.backends.cuda.is_flash_attention_available()}
    if facts["sees_card"]:
        facts["arches"] = torch.cuda.get_arch_list()
    else:
        facts["arches"] = torch._C._cuda_getArchFlags().split() if facts["cuda"] else []
except Exception as e:  # a broken library raises what it likes, and what it said is the finding
    facts["error"] = (str(e) or type(e).__name__)[:300]
else:
    try:
        from bitsandbytes.cextension import lib  # without its library for CUDA an object that raises when it is called
        if facts["sees_card"] and not lib.compiled_with_cuda:
            reason = vars(lib).get("error_msg") or "only its library for the CPU was loaded"
            facts["bitsandbytes_on_cpu"] = str(reason)[:300]
    except Exception as e:  # likewise
        facts["bitsandbytes_error"] = (str(e) or type(e).__name__)[:300]
print("\\n" + json.dumps(facts))
"""


def torch_facts(program: str = _CHILD, timeout_s: float = TORCH_S) -> Torch:
    """Return torch's facts, or its error, from a child process (program: its code), so that a torch that crashes or
    hangs is a finding and does not end this one."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
        return Torch.model_validate(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Torch(error=f"no answer within {timeout_s:.0f} s")
    except (OSError, ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return Torch(error=f"exit status {done.returncode} {last}".strip()[:300])


def _has_amd_card() -> bool:
    """Return whether Linux lists an AMD device with a compute node. True for the graphics inside a Ryzen too."""
    if not Path("/dev/kfd").exists():
        return False
    vendors = Path("/sys/class/drm").glob("card*/device/vendor")
    return any(path.read_text().strip() == "0x1002" for path in vendors if path.is_file())
