"""Runs checks of one part and stores each as it ends: `python -m benchmarks.gpu_report.child MODULE TITLE FOLDER
CHECK...`

MODULE has PARTS. A line of results.jsonl: {part, check, how, seconds, said}; `running` writes it for a check whose
process is gone.
"""

from __future__ import annotations

import getpass
import importlib
import json
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_report.hour import Check, Hour, LeftOut, NotWell
from core.presets import PROJECT

WELL, FAILED, LEFT_OUT = "well", "failed", "left out"
BROKEN = 3  # exit status: a check failed, and those after it are to begin in another process


def main() -> int:
    module, title, folder, *names = sys.argv[1:]
    hour = Hour.read(Path(folder))
    part = next(each for each in importlib.import_module(module).PARTS if each.title == title)
    for name in names:
        how, seconds, said = carried_out(hour, part.checks[name])
        keep(hour, title, name, how, seconds, said)
        if how == FAILED:
            return BROKEN
    return 0


def carried_out(hour: Hour, check: Check) -> tuple[str, float, list[str]]:
    started = time.monotonic()
    try:
        came = check(hour)
        how, said = WELL, [came] if isinstance(came, str) else list(came)
    except LeftOut as reason:
        how, said = LEFT_OUT, [str(reason)]
    except NotWell as reason:
        how, said = FAILED, str(reason).splitlines()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is the finding, and the checks after it are worth having
        how, said = FAILED, [*traceback.format_exc().splitlines(), f"{type(error).__name__}: {error}".splitlines()[0]]
    return how, time.monotonic() - started, said


def keep(hour: Hour, part: str, check: str, how: str, seconds: float, said: Sequence[str]) -> None:
    result: dict[str, Any] = {"part": part, "check": check, "how": how, "seconds": seconds}
    with open(hour.folder / "results.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(result | {"said": [anonymous(line, hour.folder) for line in said]}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def anonymous(line: str, folder: Path) -> str:
    """Return line without the folders of this PC, its name and the person's."""
    places = {
        "<folder>": folder, "<program>": PROJECT, "<environment>": Path(sys.prefix), "<home>": Path.home(),
        "<temporary>": Path(tempfile.gettempdir()),
    }  # fmt: skip
    for name, place in sorted(places.items(), key=lambda each: -len(str(each[1]))):
        for path in {str(place), str(place.absolute()), place.as_posix(), str(place).replace("\\", "\\\\")}:
            if len(path) > 1:
                line = re.sub(re.escape(path), name, line, flags=re.IGNORECASE)
    for person in {user(), platform.node()} - {""}:
        line = re.sub(rf"\b{re.escape(person)}\b", "<name>", line, flags=re.IGNORECASE)
    return line


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no entry of this user
        return os.environ.get("USERNAME", "")


if __name__ == "__main__":
    sys.exit(main())
