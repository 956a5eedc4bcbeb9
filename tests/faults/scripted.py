"""In place of llama.cpp in an export that faults are injected into: it writes what it is to write, in this process, and
agrees to everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf

from core.errors import ExportError


def file(path: Path) -> None:
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_name("scripted")
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def ask(
    module: str, request: dict[str, Any], work: Path, log: Path, check: Callable[[], None], what: str
) -> dict[str, Any]:
    """As core.export.llamacpp.child.ask."""
    check()
    if module.endswith(".convert"):
        file(Path(request["out"]))
        return {}
    if module.endswith(".library"):
        file(work / request["target"])
        return {"larger": 0, "tensors": 1}
    if not (work / request["file"]).is_file():
        raise ExportError("gguf.no_file")
    if request["keep"]:
        (work / request["keep"]).write_bytes(bytes(64))
    said = {
        "first_log": -1.0,
        "expected_log": -1.0,
        "answer_loss": 1.0,
        "answer_tokens": 1,
        "text_loss": 1.0,
        "text_tokens": 1,
    }
    return {
        "alike": [True] * len(request["texts"]), "named": False, "ends": [True], "divergence": 0.0,
        "closest_divergence": 0.0,
        "rows": [said | {"first": row["first"]} for row in request["rows"]], "greedy": [[1]] * request["answers"],
    }  # fmt: skip


def install() -> None:
    from core.export import verification
    from core.export.llamacpp import child, judgement, tools

    tools.obtain = lambda *_: tools.Tools(Path(), Path())
    child.ask = ask
    judgement.PROMPTS, verification.ANSWER_TOKENS, verification.MAX_TEXT_LOSS_GAP = 1, 2, math.inf
