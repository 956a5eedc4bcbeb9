"""Makes a GGUF file from a merged folder with llama.cpp's own tools and verifies it on the way: converted to 16 bit,
compared with the adapter, quantized, compared with the 16-bit file. Intermediate files are deleted as soon as they are
no longer needed. Workers only (torch).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import files
from core.data.template import ChatTemplate
from core.errors import ExportError
from core.export import proof
from core.export.llamacpp import child, judgement, pre_tokenizers, tower
from core.export.llamacpp.judgement import Asking
from core.export.llamacpp.tools import Tools
from core.export.merge import Check
from core.export.ollama import modelfile
from core.export.proof import Method, PromptResult
from core.export.records import ExportCheck
from core.export.room import BYTES_A_PARAMETER, MOST_POSITIONS
from core.export.stored import Base
from core.export.tensors import Comparison
from core.messages import Message, msg

SIXTEEN = ("f16", "bf16")


@dataclass(frozen=True)
class MakeOrder:
    """What is to be made. merged: a folder of ours, deleted once it is converted. target: the file. work: a folder
    beside it."""

    tools: Tools
    quant: str
    name: str
    base: Base
    adapter: Path
    merged: Path
    target: Path
    work: Path
    log: Path
    rows: Sequence[Any]
    method: Method
    stage: Callable[[str, float | None], None]
    check: Check


def make(order: MakeOrder) -> tuple[ExportCheck, tuple[Message, ...]]:
    """The proven file in order.target, and notes. A check that has not passed says why; the file is then the person's
    to keep or not.

    Raises ExportError where llama.cpp knows the family, the tokenizer or the file not.
    """
    asking = begin(order)
    sixteen = convert(order, asking.work.tokenizer.template)
    seeing, notes = tower.convert(order)
    asking, expected, compared = expect(order, asking, order.merged)
    files.remove_tree(order.merged)

    is_final = order.quant in SIXTEEN
    keep, answers = (None, judgement.ANSWERS_SHOWN) if is_final else ("sixteen.logs", 0)
    of_file = of_sixteen = judgement.judge_sixteen(asking, sixteen, expected, keep, answers)
    made, notes = sixteen, notes + of_sixteen.notes
    (order.work / "adapter.logs").unlink()
    if not is_final:
        made, larger = quantise(order, sixteen)
        sixteen.unlink()
        of_file, notes = judgement.judge_other(asking, made, judgement.MOST_DIVERGENCE[order.quant]), larger + notes
    notes += tower.place(order, seeing, made)
    files.rename(made, order.target)
    return judgement.found_of(order.quant, asking, expected, compared, of_sixteen, of_file), notes


def begin(order: MakeOrder) -> Asking:
    """The questions, and the file that keeps the adapter's probabilities."""
    order.work.mkdir(parents=True, exist_ok=True)
    work = proof.begin(order.adapter, order.rows, order.method, order.stage, order.check, judgement.PROMPTS)
    kept = judgement.KeptProbabilities(order.work / "adapter.logs", max(1, MOST_POSITIONS // len(work.probes)))
    return Asking(order.tools, order.work, order.log, order.check, replace(work, keep=kept), kept)


def expect(
    order: MakeOrder, asking: Asking, merged: Path | None
) -> tuple[Asking, list[PromptResult], Comparison | None]:
    """Results of the adapter. merged: a folder whose numbers were rounded; None: the adapter stays one."""
    work, expected, compared = proof.expect(order.base, order.adapter, asking.work, merged, rounded=merged is not None)
    return replace(asking, work=work), expected, compared


def convert(order: MakeOrder, template: ChatTemplate | None, is_tuned: bool = True) -> Path:
    """The 16-bit file of order.merged, which is the tuned model or its base. template: None leaves its own. Raises
    ExportError with the reason that llama.cpp's converter gives."""
    quant = order.quant if order.quant in SIXTEEN else {"float16": "f16"}.get(order.base.dtype_name, "bf16")
    target = order.work / f"{quant}.gguf"
    complete_tokenizer(order.base.folder, order.merged)
    if template:
        (order.merged / "chat_template.jinja").write_text(modelfile.file_template(template), "utf-8", newline="\n")
    request = {
        "converter": str(order.tools.converter), "runtime": str(order.tools.runtime), "model": str(order.merged),
        "out": str(target), "kind": quant, "name": order.name, "stop": template.stop if template else "",
        "pre": pre_tokenizers.name_of(order.base.folder), "tower": False, "tuned": is_tuned,
    }  # fmt: skip
    expected = sum(file.stat().st_size for file in order.merged.glob("*.safetensors"))
    look = growing(order, "converting_gguf", target, expected)
    child.ask("core.export.llamacpp.convert", request, order.work, order.log, look, target.name)
    if not target.is_file():
        raise ExportError("gguf.no_file")
    return target


def quantise(order: MakeOrder, sixteen: Path) -> tuple[Path, tuple[Message, ...]]:
    target = order.work / f"{order.quant}.gguf"
    request = {
        "do": "quantise", "folder": str(order.work), **order.tools.runs_in, "source": sixteen.name,
        "target": target.name,
        # as llama.cpp's own program: all that the system has, not a thread a core
        "kind": order.quant, "threads": os.cpu_count() or 2,
    }  # fmt: skip
    look = growing(order, "quantising", target, BYTES_A_PARAMETER[order.quant] * sixteen.stat().st_size / 2)
    answer = child.ask("core.export.llamacpp.library", request, order.work, order.log, look, target.name)
    if not target.is_file():
        raise ExportError("gguf.no_file")
    if not answer["larger"]:
        return target, ()
    return target, (
        msg("gguf.larger_types", larger=answer["larger"], tensors=answer["tensors"], quant=order.quant.upper()),
    )


def growing(order: MakeOrder, stage: str, file: Path, expected: float) -> Callable[[], None]:
    """A check that also tells how far the stage is, by how large the file is by now."""

    def look() -> None:
        order.check()
        try:
            size = file.stat().st_size
        except OSError:  # not begun
            size = 0
        order.stage(stage, min(1.0, size / expected))

    return look


def complete_tokenizer(base: Path, merged: Path) -> None:
    """What the hub has of the base's tokenizer and an adapter's folder has not: the converter of Gemma 2, Phi-3 and
    Llama 2 reads tokenizer.model, and transformers 5 writes another tokenizer_class than the hub's."""
    for model in base.glob("tokenizer.model"):
        if not (merged / model.name).exists():
            (merged / model.name).write_bytes(model.read_bytes())
    theirs, ours = (files.read_object(folder / "tokenizer_config.json") for folder in (base, merged))
    if theirs.get("tokenizer_class") and theirs["tokenizer_class"] != ours.get("tokenizer_class"):
        words = json.dumps(ours | {"tokenizer_class": theirs["tokenizer_class"]}, ensure_ascii=False, indent=1)
        (merged / "tokenizer_config.json").write_text(words, "utf-8", newline="\n")
