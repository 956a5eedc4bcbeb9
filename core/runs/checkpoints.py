"""Retention of a run's checkpoints: always the newest good one and the best one, others within a budget. No torch.

Handles only folders; the contents of a checkpoint are those of core/training/checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from core import files

MARGIN = 32 << 20  # bytes needed besides a save: events, metrics, the log
PARTS = ("trainer.pt", "position.json", "adapter/adapter_model.safetensors")


def sizes(folder: Path) -> str:
    """Return the contents of the marker COMPLETE: every file of folder with its size, as JSON."""
    size_of = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }
    return json.dumps({name: size for name, size in size_of.items() if name != "COMPLETE"})


def is_good(folder: Path) -> bool:
    """Return whether every file exists with the size that the marker COMPLETE names (older markers hold no sizes: every
    part exists and is not empty); False without a readable marker."""
    try:
        marker = json.loads((folder / "COMPLETE").read_text("utf-8"))
        expected = marker if isinstance(marker, dict) else dict.fromkeys(PARTS)
        actual = {name: (folder / name).stat().st_size for name in expected}
    except (OSError, ValueError):
        return False
    return all(size in (None, actual[name]) and actual[name] > 0 for name, size in expected.items())


def select_kept(complete: Sequence[Path], keep: int, most_bytes: float, best: str | None) -> list[Path]:
    """Return the checkpoints to keep, in order of value. complete: all of them, oldest first.

    Always the newest good one and the best one, because the run may need either; then the rest of the newest `keep`,
    within the budget. If none is good, all are kept: one that only looks damaged may be the only one.
    """
    good = [folder for folder in complete if is_good(folder)]
    if not good:
        return list(complete)
    stay = [good[-1]] + [folder for folder in good[:-1] if folder.name == best]
    used = sum(map(files.bytes_in, stay))
    for folder in reversed(good[-keep:]):
        size = files.bytes_in(folder)
        if folder not in stay and used + size <= most_bytes:
            stay.append(folder)
            used += size
    return stay


def drop(folders: Iterable[Path]) -> None:
    """Delete folders; files in use stay for the next time. Each marker goes first: a partial deletion must not look
    like a checkpoint."""
    for folder in folders:
        with suppress(OSError):  # in use: deleted next time
            (folder / "COMPLETE").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def make_room(complete: Sequence[Path], needed: int, best: str | None) -> tuple[int, list[str]]:
    """Delete old checkpoints, except the best and the newest good one, until needed bytes are free (or none is left).

    Returns the bytes that are then free, and the names of deleted checkpoints. complete: oldest first, at least one.
    """
    place = complete[-1].parent
    newest = next((folder for folder in reversed(complete) if is_good(folder)), complete[-1])
    others = [folder for folder in complete if folder != newest and folder.name != best]
    dropped: list[str] = []
    while (free := shutil.disk_usage(place).free) < needed and others:
        oldest = others.pop(0)
        drop([oldest])
        dropped.append(oldest.name)
    return free, dropped
