"""Which checkpoints of a run are kept: the newest good one and the best one always, others within a budget. No torch.

Handles only folders; the contents of a checkpoint: core/training/checkpoint.
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
    """The contents of the marker COMPLETE: every file of folder with its size, as JSON."""
    found = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }
    return json.dumps({name: size for name, size in found.items() if name != "COMPLETE"})


def is_good(folder: Path) -> bool:
    """Whether every file exists with the size in the marker (older markers have none)."""
    try:
        told = json.loads((folder / "COMPLETE").read_text("utf-8"))
        wanted = told if isinstance(told, dict) else dict.fromkeys(PARTS)
        found = {name: (folder / name).stat().st_size for name in wanted}
    except (OSError, ValueError):
        return False
    return all(size in (None, found[name]) and found[name] > 0 for name, size in wanted.items())


def kept(complete: Sequence[Path], keep: int, most_bytes: float, best: str | None) -> list[Path]:
    """Which of complete (oldest first) are kept, in order of value.

    Always the newest good one and the best one, because the run may need either; then the rest of the newest `keep`,
    within the budget.
    If none is good, all are kept: one that only looks damaged may be the only one.
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
    """Delete the marker first: a partial deletion must not look like a checkpoint."""
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
