"""The vision or audio part of a model as an mmproj file beside its text part; training leaves it unchanged. Workers
only.

llama.cpp's converter makes it from the merged folder, and llama.cpp loads it with the text part and computes one
picture; the result is not compared with transformers. If it cannot be made the text part is exported alone, with a
note.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import files
from core.errors import ExportError
from core.export.llamacpp import child
from core.export.llamacpp.export_support import export_support
from core.export.records import MMPROJ
from core.messages import Message, msg

KIND = "f16"  # as published mmproj files; a tower is small compared with its text part
SENSES = ("vision_config", "audio_config")


def convert(order: Any) -> tuple[Path | None, tuple[Message, ...]]:
    """Convert the tower of a make.MakeOrder's merged folder; return the file or None, and notes. A text model has
    neither."""
    config = files.read_object(order.merged / "config.json")
    if not any(config.get(sense) for sense in SENSES):
        return None, ()
    if not export_support(config).tower:
        return None, (msg("gguf.text_alone", reason=msg("gguf.tower_unknown")),)
    target = order.work / f"{MMPROJ}{KIND}.gguf"
    request = {
        "converter": str(order.tools.converter), "runtime": str(order.tools.runtime), "model": str(order.merged),
        "out": str(target),
        "kind": KIND, "name": order.name, "stop": "", "pre": None, "tower": True,
    }  # fmt: skip
    try:
        child.ask("core.export.llamacpp.convert", request, order.work, order.log, order.check, target.name)
    except ExportError as error:
        target.unlink(missing_ok=True)
        return None, (msg("gguf.text_alone", reason=error.message),)
    return target, ()


def place(order: Any, tower: Path | None, text: Path) -> tuple[Message, ...]:
    """Move the tower beside order.target if llama.cpp can load it with the text part; else delete it. Returns notes."""
    if tower is None:
        return ()
    request = {
        "do": "see", "folder": str(order.work), "runtime": str(order.tools.runtime), "file": text.name, "tower": tower.name,
        "threads": 1,
    }  # fmt: skip
    try:
        child.ask("core.export.llamacpp.questions", request, order.work, order.log, order.check, tower.name)
    except ExportError as error:
        tower.unlink()
        return (msg("gguf.text_alone", reason=error.message),)
    target = order.target.with_name(f"{MMPROJ}{order.target.stem.removesuffix(order.quant)}{KIND}.gguf")
    files.rename(tower, target)
    return (msg("gguf.tower", file=target.name, text=order.target.name),)
