"""The vision or audio part of a model as an mmproj file beside its text part: training leaves it unchanged. Workers
only.

It is written by llama.cpp's converter from the merged folder and loaded by llama.cpp beside the text, where it computes
a picture once; what it sees in one is not compared with transformers. Where it cannot be had the text leaves alone, and
that is said with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import files
from core.errors import ExportError
from core.export.llamacpp import child
from core.export.llamacpp.ways_out import way_out
from core.export.records import MMPROJ
from core.messages import Message, msg

KIND = "f16"  # as those that are published for download; a tower is small beside its text
SENSES = ("vision_config", "audio_config")


def convert(order: Any) -> tuple[Path | None, tuple[Message, ...]]:
    """order: a make.Order whose merged folder is still there. None and nothing said for a model of text alone."""
    config = files.read_object(order.merged / "config.json")
    if not any(config.get(sense) for sense in SENSES):
        return None, ()
    own = order.tools.converter if order.tools.own else None
    if not way_out(config, own).tower:
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
    """The tower beside order.target, once llama.cpp has loaded it beside text; else removed, and why."""
    if tower is None:
        return ()
    request = {
        "do": "see", "folder": str(order.work), **order.tools.runs_in, "file": text.name, "tower": tower.name,
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
