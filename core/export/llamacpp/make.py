"""Makes a GGUF file from a merged folder with llama.cpp's own tools and verifies it on the way: converted to 16 bit,
compared with the adapter, quantized, compared with the 16-bit file. Intermediate files are deleted as soon as they are
no longer needed. Workers only (torch).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core import files
from core.errors import ExportError
from core.export.llamacpp import child, pre_tokenizers, proof, tower
from core.export.llamacpp.tools import Tools
from core.export.merge import Check
from core.export.proof import Method, Work
from core.export.records import ExportCheck
from core.export.room import BYTES_A_PARAMETER, MOST_POSITIONS
from core.export.stored import Base
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
    work, kept = begin(order)
    sixteen = convert(order, work.tokenizer.template.stop)
    seeing, of_tower = tower.convert(order)
    work, expected, compared = proof.expect(order.base, order.adapter, order.merged, work, kept)
    files.remove_tree(order.merged)
    asking = proof.Asking(order.tools, order.work, order.log, order.check, work, kept)
    texts = len(work.probes) + len(proof.AWKWARD)

    order.stage("asking_llamacpp", None)
    is_final = order.quant in SIXTEEN
    answer = asking.ask(
        sixteen, "adapter.logs", None if is_final else "sixteen.logs", proof.ANSWERS_SHOWN if is_final else 0
    )
    adapter_loss = sum(e.text_loss_sum for e in expected) / sum(e.text_tokens for e in expected)
    of_sixteen = proof.judge(
        answer, most_of(order, sixteen), texts, (adapter_loss, proof.mean(answer["rows"], "text") or 0.0)
    )
    proof.refuse_other_ids(of_sixteen)
    of_tower += of_sixteen.notes
    (order.work / "adapter.logs").unlink()
    if is_final:
        of_tower += tower.place(order, seeing, sixteen)
        files.rename(sixteen, order.target)
        return proof.found_of(order.quant, work, kept, expected, compared, of_sixteen, of_sixteen), of_tower

    quantised, notes = quantise(order, sixteen)
    sixteen.unlink()
    order.stage("asking_llamacpp", None)
    of_file = proof.judge(
        asking.ask(quantised, "sixteen.logs", None, proof.ANSWERS_SHOWN),
        proof.MOST_DIVERGENCE[order.quant],
        texts,
        None,
    )
    of_tower += tower.place(order, seeing, quantised)
    files.rename(quantised, order.target)
    return proof.found_of(order.quant, work, kept, expected, compared, of_sixteen, of_file), (*notes, *of_tower)


def begin(order: MakeOrder) -> tuple[Work, proof.KeptProbabilities]:
    """What is asked, and where what the adapter says is kept."""
    from core.data.tokenizer import Tokenizer

    order.work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(order.adapter)
    probes, own = proof.probes_of(order.rows, tokenizer, order.method.by_layer)
    kept = proof.KeptProbabilities(order.work / "adapter.logs", max(1, MOST_POSITIONS // len(probes)))
    return Work(order.method, tokenizer, probes, own, order.stage, order.check), kept


def most_of(order: MakeOrder, sixteen: Path) -> float:
    """Divergence that the 16-bit file may have from the adapter on its base."""
    is_exact = order.method.by_layer or order.method.compute.dtype == torch.float32
    return proof.MOST_DIVERGENCE[sixteen.stem] if is_exact else proof.MOST_DIVERGENCE_IN_16_BIT


def convert(order: MakeOrder, stop: str | None, is_tuned: bool = True) -> Path:
    """The 16-bit file of order.merged, which is the tuned model or its base. Raises ExportError with the reason that
    llama.cpp's converter gives."""
    quant = order.quant if order.quant in SIXTEEN else {"float16": "f16"}.get(order.base.dtype_name, "bf16")
    target = order.work / f"{quant}.gguf"
    complete_tokenizer(order.base.folder, order.merged)
    request = {
        "converter": str(order.tools.converter), "runtime": str(order.tools.runtime), "model": str(order.merged),
        "out": str(target),
        "kind": quant, "name": order.name, "stop": stop or "", "pre": pre_tokenizers.name_of(order.base.folder),
        "tower": False,
        "tuned": is_tuned,
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
