"""Real llama.cpp makes a file smaller, in a process of its own that `child.ask` starts: names in the current folder."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.export.llamacpp.library import Library, LlamaError

FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")  # llama.cpp's log at this build


def work(request: dict[str, Any]) -> dict[str, Any]:
    os.chdir(request["folder"])
    try:
        return quantise(Library(Path(request["runtime"])), request)
    except LlamaError as error:
        raise Refused("llama_error", reason=str(error)[:300]) from error


def quantise(library: Library, request: dict[str, Any]) -> dict[str, Any]:
    """source, target, kind, threads. Returns larger, tensors: how many became a larger type than was asked for, of how many."""
    library.quantise(request["source"], request["target"], request["kind"], request["threads"])
    found = FALLBACK.search("".join(library.said))
    return {"larger": int(found[1]) if found else 0, "tensors": int(found[2]) if found else 0}


if __name__ == "__main__":
    sys.exit(child.answer(work))
