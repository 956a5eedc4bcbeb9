"""The doctor's checks around the program: folders and what the system does with them, memory, sleep.

`gather` inspects once, `examine` judges and is a pure function, as in `checkup`, which calls both. Unknown values give
no finding.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from huggingface_hub import constants

from core import files
from core.messages import Message, msg
from core.presets import PROJECT
from core.system import awake, windows
from core.values import Frozen

GB = 1e9
# The starter model takes 0.4 GB while it is made; a 7B model in 16 bit is 15 GB, its run and merged export as much
# again.
MIN_FREE_GB = 5.0
MIN_TEMPORARY_GB = 3.5  # torch with CUDA is a wheel of 3 GB at most, which pip puts there first
# Windows commits memory only up to RAM plus page file. A base of 8B in 16 bit is mapped as a whole, 15 GiB; the rest is
# torch with CUDA, a browser and Windows.
MIN_COMMIT_GIB = 32


class CheckResult(Frozen):
    """The result of one check. message: the state; fix: the one thing to do, None if nothing is wrong."""

    name: str
    ok: bool
    message: Message
    fix: Message | None = None


def result(name: str, state: Message, fix: Message | None = None) -> CheckResult:
    """Return the result of a check, which is good if there is no fix."""
    return CheckResult(name=name, ok=fix is None, message=state, fix=fix)


class Surroundings(Frozen):
    """The input of these checks. None if unknown, or if this system has no such thing."""

    program: str
    workspace: str
    log: str
    port: int
    port_free: bool
    other_port: int = 8080  # a free port
    writable_error: str | None = None
    free_bytes: int | None = None
    temporary: str | None = None  # where it lies on another drive than the program
    temporary_free_bytes: int | None = None
    models: str | None = None  # the hub's cache, where it lies on another drive than the workspace
    models_free_bytes: int | None = None
    synced: tuple[str, ...] = ()  # folders that OneDrive synchronizes
    long_paths: bool | None = None
    runtime: tuple[int, ...] | None = None  # of Visual C++; () where it is missing
    runtime_url: str = windows.RUNTIME_URL_X64
    page_file: windows.PageFile | None = None
    ram_bytes: int | None = None
    keeps_awake: bool = True  # as the person chose
    cannot_keep_awake: Message | None = None
    battery_percent: int | None = None
    battery_plugged: bool | None = None


# ---- judging -------------------------------------------------------------------------------------


def examine_windows(around: Surroundings) -> Iterator[CheckResult]:
    """Yield the checks of what must be right before torch loads, as far as it is known: the C++ runtime and the length
    of paths; none on other systems."""
    if around.runtime is not None:
        version = ".".join(map(str, around.runtime))
        needed = "{}.{}".format(*windows.MIN_RUNTIME)
        fix = msg("doctor.runtime_fix", url=around.runtime_url)
        if around.runtime >= windows.MIN_RUNTIME:
            yield result("runtime", msg("doctor.runtime", version=version))
        elif around.runtime:
            yield result("runtime", msg("doctor.runtime_old", version=version, needed=needed), fix)
        else:
            yield result("runtime", msg("doctor.runtime_missing", needed=needed), fix)
    if around.long_paths:
        yield result("path", msg("doctor.path_any"))
    elif around.long_paths is False:
        yield from _paths(around)


def _paths(around: Surroundings) -> Iterator[CheckResult]:
    """Yield one check, that the paths of the program and of the workspace leave room for the longest names in them: its
    first problem, or a good result."""
    lengths = len(around.program), len(around.workspace)
    if lengths[0] > windows.MAX_ROOT:
        values = {"folder": around.program, "found": lengths[0], "most": windows.MAX_ROOT}
        yield result("path", msg("doctor.path_long", **values), msg("doctor.path_fix"))
    elif lengths[1] > windows.MAX_WORKSPACE:
        values = {"folder": around.workspace, "found": lengths[1], "most": windows.MAX_WORKSPACE}
        yield result("path", msg("doctor.path_long", **values), msg("doctor.workspace_path_fix"))
    else:
        yield result("path", msg("doctor.path_short", found=max(lengths)))


def examine(around: Surroundings) -> Iterator[CheckResult]:
    """Yield the checks of workspace, log, disks, synchronized folders, page file, sleep and port."""
    if around.writable_error:
        problem = msg("doctor.not_writable", folder=around.workspace, reason=around.writable_error)
        yield result("workspace", problem, msg("doctor.workspace_fix"))
    else:
        yield result("workspace", msg("doctor.writable", folder=around.workspace))
    yield result("log", msg("doctor.log", file=around.log))
    yield from _disks(around)
    yield from _synced(around)
    yield from _page_file(around)
    yield from _sleep(around)
    port = str(around.port)
    if around.port_free:
        yield result("port", msg("doctor.port", port=port))
    else:
        yield result(
            "port", msg("doctor.port_taken", port=port), msg("doctor.port_fix", port=port, other=str(around.other_port))
        )


def _disks(around: Surroundings) -> Iterator[CheckResult]:
    """Yield the check of the free space for the workspace (a good result if that is unknown), and those of the models'
    and the temporary folder if they are on another drive and their space is known."""
    if around.free_bytes is None:
        yield result("disk", msg("doctor.disk_unknown", folder=around.workspace))
    else:
        free = around.free_bytes / GB
        fix = msg("doctor.disk_fix", needed=MIN_FREE_GB) if free < MIN_FREE_GB else None
        yield result("disk", msg("doctor.disk", free=free, folder=around.workspace), fix)
    if around.models is not None and around.models_free_bytes is not None:
        free = around.models_free_bytes / GB
        fix = msg("doctor.models_disk_fix", needed=MIN_FREE_GB) if free < MIN_FREE_GB else None
        yield result("models", msg("doctor.models_disk", free=free, folder=around.models), fix)
    if around.temporary is not None and around.temporary_free_bytes is not None:
        free = around.temporary_free_bytes / GB
        fix = msg("doctor.temporary_fix", needed=MIN_TEMPORARY_GB) if free < MIN_TEMPORARY_GB else None
        yield result("temporary", msg("doctor.temporary", free=free, folder=around.temporary), fix)


def _synced(around: Surroundings) -> Iterator[CheckResult]:
    """Yield a problem if program or workspace lies in a folder that OneDrive synchronizes, else a good result; none
    without OneDrive."""
    for folder, fix in (
        (around.program, "doctor.synced_program_fix"),
        (around.workspace, "doctor.synced_workspace_fix"),
    ):
        if any(_is_in(folder, synced) for synced in around.synced):
            return (yield result("onedrive", msg("doctor.synced", folder=folder), msg(fix)))
    if around.synced:
        yield result("onedrive", msg("doctor.not_synced"))


def _is_in(folder: str, other: str) -> bool:
    """Return whether folder is other or inside it, ignoring case as Windows does."""
    parts = [part.rstrip("\\/").replace("/", "\\").lower() for part in (folder, other)]
    return parts[0] == parts[1] or parts[0].startswith(parts[1] + "\\")


def _page_file(around: Surroundings) -> Iterator[CheckResult]:
    """Yield the check that RAM and page file together allow MIN_COMMIT_GIB; none where it is not known."""
    if around.page_file is None or around.ram_bytes is None:
        return
    most_mb = around.page_file.most_mb
    if most_mb is None:
        yield result("page_file", msg("doctor.page_file"))
        return
    values = {"ram": around.ram_bytes / 2**30, "page": most_mb / 1024, "needed": MIN_COMMIT_GIB}
    enough = around.ram_bytes / 2**30 + most_mb / 1024 >= MIN_COMMIT_GIB
    yield result(
        "page_file", msg("doctor.page_file_limited", **values), None if enough else msg("doctor.page_file_fix")
    )


def _sleep(around: Surroundings) -> Iterator[CheckResult]:
    """Yield two checks, as far as they are known. Sleep, never a problem: why runs cannot keep this PC awake, or that
    they do; nothing if they could and the person chose not to. Battery, only if there is one: its charge, a problem
    while the PC runs on it."""
    if around.cannot_keep_awake is not None:
        yield result("sleep", around.cannot_keep_awake)
    elif around.keeps_awake:
        yield result("sleep", msg("doctor.sleep_kept"))
    if around.battery_percent is not None:
        key = "doctor.battery_runs_down" if around.battery_plugged is False else "doctor.battery"
        fix = msg("doctor.battery_fix") if around.battery_plugged is False else None
        yield result("battery", msg(key, percent=around.battery_percent), fix)


# ---- looking -------------------------------------------------------------------------------------


def gather(workspace_root: Path, log: Path, port: int, keeps_awake: bool) -> Surroundings:
    """Return the facts about the PC around the program. Changes nothing except for a file that is created in the
    workspace and removed at once."""
    battery = awake.battery()
    temporary = _on_another_drive(Path(tempfile.gettempdir()), PROJECT)
    models = _on_another_drive(Path(constants.HF_HUB_CACHE).expanduser(), workspace_root)
    return Surroundings(
        program=str(PROJECT),
        workspace=str(workspace_root),
        log=str(log),
        port=port,
        port_free=port_is_free(port),
        other_port=next(filter(port_is_free, range(port + 1, min(port + 100, 65536))), 8080),
        writable_error=files.unwritable_reason(_existing(workspace_root)),
        free_bytes=free_bytes(workspace_root),
        temporary=temporary and str(temporary),
        temporary_free_bytes=free_bytes(temporary) if temporary else None,
        models=models and str(models),
        models_free_bytes=free_bytes(models) if models else None,
        keeps_awake=keeps_awake,
        cannot_keep_awake=_cannot_keep_awake(),
        battery_percent=battery and battery.percent,
        battery_plugged=battery and battery.plugged,
        **(_windows() if platform.system() == "Windows" else {}),
    )


def _cannot_keep_awake() -> Message | None:
    """Keep the PC awake for a moment and return why that is impossible, or None: an installed program may not work, as
    in a container without systemd."""
    held = awake.hold()
    if isinstance(held, Message):
        return held
    held()
    return None


def _windows() -> dict[str, object]:
    """Return what only Windows has, as fields of Surroundings."""
    return {
        "synced": synced_folders(os.environ),
        "long_paths": windows.long_paths(),
        "runtime": windows.runtime_version(),
        "runtime_url": windows.runtime_url(platform.machine()),
        "page_file": windows.page_file(),
        "ram_bytes": psutil.virtual_memory().total,
    }


def synced_folders(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return OneDrive's folders, which the environment names; Documents and Desktop often lie in them."""
    folders = (environment.get(name) for name in ("OneDrive", "OneDriveConsumer", "OneDriveCommercial"))
    return tuple(dict.fromkeys(filter(None, folders)))


def _on_another_drive(folder: Path, than: Path) -> Path | None:
    """Return folder if it is on another drive than `than`, else None, also if that is unknown."""
    try:
        return folder if _drive(folder) != _drive(than) else None
    except OSError:
        return None


def _drive(folder: Path) -> int:
    """Return the device number of the drive on which folder is, or would be created. Raises OSError if it cannot be
    read."""
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    """Return folder, or its nearest existing parent: a workspace exists only after the first start."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def free_bytes(folder: Path) -> int | None:
    """Return the free bytes on the drive of a folder, which need not exist yet; None if unknown."""
    try:
        return shutil.disk_usage(_existing(folder)).free
    except OSError:
        return None


def port_is_free(port: int) -> bool:
    """Return whether this PC's port can be bound at 127.0.0.1 now."""
    with socket.socket() as probe:
        if os.name != "nt":  # there the option means the opposite: sharing a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
