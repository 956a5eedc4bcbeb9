"""What is wrong with this PC for LoRA Garage, each problem with its one fix.

`gather` looks at the machine once, `examine` judges what was found and is a pure function; `run` does both. torch and
bitsandbytes are imported only in a child process with a time limit, which is most of the 3 to 5 seconds it takes.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from core import files
from core.messages import Message, msg
from core.presets import PROJECT
from core.system import gpu
from core.values import Frozen

GB = 1e9
# The starter model takes 0.4 GB while it is made; a 7B model in 16 bit is 15 GB, its run and merged export as much again.
LEAST_FREE_GB = 5.0
# Oldest NVIDIA driver for a major version of CUDA, by minor version compatibility (docs.nvidia.com/deploy/
# cuda-compatibility; 12.x on Windows from 528.33). A test holds launch.py's table against it.
OLDEST_DRIVER = {11: (450,), 12: (525,), 13: (580,)}


class CheckResult(Frozen):
    """One thing that was looked at. found: what is there; fix: the one thing to do, None where nothing is wrong."""

    name: str
    ok: bool
    found: Message
    fix: Message | None = None


class Torch(Frozen):
    """What a child process says of torch. cuda, hip: versions it was built for. arches: like ("sm_75", "sm_86")."""

    version: str | None = None
    cuda: str | None = None
    hip: str | None = None
    sees_card: bool = False
    arches: tuple[str, ...] = ()
    error: str | None = None
    bitsandbytes_error: str | None = None


class Facts(Frozen):
    """All that the checks judge. None where it could not be found out."""

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
    workspace: str
    log: str
    writable_error: str | None
    free_bytes: int | None
    port: int
    port_free: bool


def run(workspace_root: Path, log: Path, port: int) -> list[CheckResult]:
    """Look and judge; the findings in the order in which their fixes should be done. log: where the app writes its own."""
    return examine(gather(workspace_root, log, port))


# ---- judging ----------------------------------------------------------------------------------------------------------


def examine(facts: Facts) -> list[CheckResult]:
    """Every finding, the good ones too."""
    return [*_of_the_program(facts), *_of_the_card(facts), *_of_the_place(facts)]


def _result(name: str, found: Message, fix: Message | None = None) -> CheckResult:
    return CheckResult(name=name, ok=fix is None, found=found, fix=fix)


def _of_the_program(facts: Facts) -> Iterator[CheckResult]:
    python = msg("doctor.python", version=".".join(map(str, facts.python)), path=facts.executable)
    yield _result("python", python, None if (3, 11) <= facts.python[:2] <= (3, 13) else msg("doctor.python_fix"))
    if not facts.in_own_environment:
        yield _result("environment", msg("doctor.environment_other", path=facts.executable))
    elif facts.install_finished:
        yield _result("environment", msg("doctor.environment"))
    else:
        yield _result("environment", msg("doctor.unfinished"), msg("doctor.start_fix"))
    if facts.missing:
        yield _result("packages", msg("doctor.packages_missing", packages=list(facts.missing)), msg("doctor.repair_fix"))
    else:
        yield _result("packages", msg("doctor.packages"))


def _of_the_card(facts: Facts) -> Iterator[CheckResult]:
    """The cards, torch against them (at most one problem, the first that stands in the way), and what else computes."""
    torch, nvidia = facts.torch, facts.nvidia
    yield from map(_card, nvidia.cards)
    if torch.error is not None:
        yield _result("torch", msg("doctor.torch_error", reason=torch.error), msg("doctor.repair_fix"))
    elif nvidia.driver is None:
        key = "doctor.torch_cuda_no_driver" if torch.cuda else "doctor.torch_rocm" if torch.hip else "doctor.torch_cpu"
        yield _result("torch", msg(key, version=torch.version, cuda=torch.cuda, hip=torch.hip))
    elif not nvidia.cards:
        yield _result("gpu", msg("doctor.no_cards", driver=nvidia.driver), msg("doctor.no_cards_fix"))
    else:
        yield _torch_beside_driver(torch, nvidia)
        strangers = _without_kernels(torch, nvidia)
        for card in strangers if len(strangers) < len(nvidia.cards) else ():  # the others are used
            capability = "{}.{}".format(*(card.capability or (0, 0)))
            yield _result("gpu", msg("doctor.card_left_out", version=torch.version, card=card.name, capability=capability))
    if facts.system == "Darwin":
        yield _result("machine", msg("doctor.mac"))
    elif facts.amd and nvidia.driver is None:
        yield _result("machine", msg("doctor.amd_rocm" if torch.hip else "doctor.amd"))
    if facts.bitsandbytes is None:
        yield _result("bitsandbytes", msg("doctor.no_bitsandbytes"), msg("doctor.repair_fix"))
    elif torch.bitsandbytes_error:
        found = msg("doctor.bitsandbytes_error", version=facts.bitsandbytes, reason=torch.bitsandbytes_error)
        yield _result("bitsandbytes", found, msg("doctor.repair_fix"))
    else:
        yield _result("bitsandbytes", msg("doctor.bitsandbytes", version=facts.bitsandbytes))


def _card(card: gpu.Card) -> CheckResult:
    unknown = msg("doctor.unknown")
    found = msg(
        "doctor.gpu",
        index=card.index,
        name=card.name or unknown,
        total=unknown if card.total_bytes is None else f"{card.total_bytes / 2**30:.1f}",
        free=unknown if card.free_bytes is None else f"{card.free_bytes / 2**30:.1f}",
        capability=unknown if card.capability is None else "{}.{}".format(*card.capability),
    )
    return _result("gpu", found)


def _torch_beside_driver(torch: Torch, nvidia: gpu.Nvidia) -> CheckResult:
    values = {"version": torch.version, "cuda": torch.cuda, "driver": nvidia.driver}

    def problem(key: str, fix: str, **more: object) -> CheckResult:
        return _result("torch", msg(key, **values, **more), msg(fix, **values, **more))

    driver = version_numbers(nvidia.driver or "")
    if torch.cuda is None:
        too_old = bool(driver) and driver < OLDEST_DRIVER[12]
        return problem("doctor.torch_cpu_beside_card", "doctor.driver_and_repair_fix" if too_old else "doctor.repair_fix")
    oldest = OLDEST_DRIVER.get(version_numbers(torch.cuda)[0]) if version_numbers(torch.cuda) else None
    if oldest and driver and driver < oldest:
        return problem("doctor.driver_too_old", "doctor.driver_fix", oldest=str(oldest[0]))
    if (strangers := _without_kernels(torch, nvidia)) and len(strangers) == len(nvidia.cards):
        capability = "{}.{}".format(*(strangers[0].capability or (0, 0)))
        return problem("doctor.no_kernels", "doctor.repair_fix", card=strangers[0].name, capability=capability)
    if not torch.sees_card:
        return problem("doctor.torch_blind", "doctor.torch_blind_fix")
    return _result("torch", msg("doctor.torch_cuda", **values))


def _without_kernels(torch: Torch, nvidia: gpu.Nvidia) -> list[gpu.Card]:
    known = [card for card in nvidia.cards if card.capability and torch.arches]
    return [card for card in known if not has_kernels(torch.arches, card.capability or (0, 0))]


def has_kernels(arches: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Machine code runs on its own major version from its minor on ("sm_86" on 8.9); "compute_" is compiled upwards."""
    for arch in arches:
        if not (named := re.match(r"(sm|compute)_(\d+)(\d)", arch)):
            continue
        major, minor = int(named[2]), int(named[3])
        if (major, minor) <= capability and (named[1] == "compute" or major == capability[0]):
            return True
    return False


def version_numbers(version: str) -> tuple[int, ...]:
    """ "580.65.06" -> (580, 65, 6); () for what starts with no number."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def _of_the_place(facts: Facts) -> Iterator[CheckResult]:
    """Where files are written, and where the page is served."""
    if facts.writable_error:
        found = msg("doctor.not_writable", folder=facts.workspace, reason=facts.writable_error)
        yield _result("workspace", found, msg("doctor.workspace_fix"))
    else:
        yield _result("workspace", msg("doctor.writable", folder=facts.workspace))
    yield _result("log", msg("doctor.log", file=facts.log))
    if facts.free_bytes is None:
        yield _result("disk", msg("doctor.disk_unknown", folder=facts.workspace))
    else:
        free = facts.free_bytes / GB
        fix = msg("doctor.disk_fix", needed=f"{LEAST_FREE_GB:.0f}") if free < LEAST_FREE_GB else None
        yield _result("disk", msg("doctor.disk", free=f"{free:.1f}", folder=facts.workspace), fix)
    port = str(facts.port)
    if facts.port_free:
        yield _result("port", msg("doctor.port", port=port))
    else:
        yield _result("port", msg("doctor.port_taken", port=port), msg("doctor.port_fix", port=port, other=str(facts.port + 1)))


# ---- looking ----------------------------------------------------------------------------------------------------------


def gather(workspace_root: Path, log: Path, port: int) -> Facts:
    """Look at this machine. Nothing is changed but for a file that is made in the workspace and removed at once."""
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        python=sys.version_info[:3],
        executable=sys.executable,
        in_own_environment=Path(sys.prefix).resolve() == (PROJECT / ".venv").resolve(),
        install_finished=(PROJECT / ".venv" / ".lora-garage.json").exists() and not os.environ.get("LORA_GARAGE_NOT_READY"),
        missing=missing_requirements(),
        bitsandbytes=_version_of("bitsandbytes"),
        torch=ask_torch(),
        nvidia=gpu.probe(),
        amd=_amd_seen(),
        workspace=str(workspace_root),
        log=str(log),
        writable_error=files.reason_against(workspace_root),
        free_bytes=_free_bytes(workspace_root),
        port=port,
        port_free=_port_is_free(port),
    )


def missing_requirements() -> tuple[str, ...]:
    """Requirements of pyproject.toml that this interpreter lacks, or has in a version that is not admitted."""
    from packaging.requirements import Requirement

    needs = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    lacking = []
    for need in map(Requirement, needs):
        if need.marker is not None and not need.marker.evaluate():
            continue
        found = _version_of(need.name)
        if found is None or not need.specifier.contains(found, prereleases=True):
            lacking.append(f"{need} ({found})" if found else str(need))
    return tuple(lacking)


def _version_of(package: str) -> str | None:
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
             "sees_card": torch.cuda.is_available()}
    facts["arches"] = torch.cuda.get_arch_list() if facts["sees_card"] else torch._C._cuda_getArchFlags().split() if facts["cuda"] else []
except Exception as e:  # a broken library raises what it likes, and what it said is the finding
    facts["error"] = (str(e) or type(e).__name__)[:300]
else:
    try:
        import bitsandbytes
    except Exception as e:  # likewise
        facts["bitsandbytes_error"] = (str(e) or type(e).__name__)[:300]
print("\\n" + json.dumps(facts))
"""


def ask_torch(program: str = _CHILD, timeout_s: float = 120.0) -> Torch:
    """torch's facts from a child process, so that a torch that crashes or hangs is a finding and not our end."""
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


def _amd_seen() -> bool:
    """On Linux: an AMD device with a compute node. True for the graphics inside a Ryzen too."""
    if not Path("/dev/kfd").exists():
        return False
    vendors = Path("/sys/class/drm").glob("card*/device/vendor")
    return any(path.read_text().strip() == "0x1002" for path in vendors if path.is_file())


def _free_bytes(folder: Path) -> int | None:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return shutil.disk_usage(existing).free if existing else None


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":  # there the option means the opposite: sharing a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
