"""Files that appear complete or not at all, and lines that are appended whole.

A crash between the two steps of `replace` leaves a `.<name>.tmp-*` file beside the old, still complete one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any


def replace(path: Path, data: str | bytes) -> None:
    """Write data beside path and rename it over path. Raises OSError (disk full, read-only) with path untouched."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(aside, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        _rename(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _rename(aside: Path, path: Path) -> None:
    # On Windows a reader that has the file open at this instant makes the rename fail; it is over in milliseconds.
    for attempt in range(20):
        try:
            os.replace(aside, path)
            return
        except PermissionError:
            if os.name != "nt" or attempt == 19:
                raise
            time.sleep(0.01)


def replace_json(path: Path, value: Any) -> None:
    replace(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any | None:
    """The parsed file, or None where it is missing or not JSON (a file of ours is never half written)."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def append_line(path: Path, value: dict[str, Any]) -> None:
    """One JSON object as one line in one write, so that a reader sees all of it or an unfinished last line."""
    line = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
    with open(path, "ab") as file:
        file.write(line.encode("ascii"))
