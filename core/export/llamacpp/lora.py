"""An adapter as its own GGUF file, converted by llama.cpp and verified with its base in real llama.cpp. Workers only
(torch).

Scales are folded into B: the file's own alpha / rank knows no rsLoRA and no pattern, and upstream's script says nothing
of that. Factors go by the names that the base's files have, so that they take the way of the base's own matrices.

1. The base as a 16-bit file with the adapter is compared with PEFT on the same base, at scale 1; at scale 0 it must be
another.
2. A smaller base that was asked for, or one of the person's own, is compared with the 16-bit one, both with the
adapter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file

from core import files
from core.errors import ExportError
from core.export import merge, pairs
from core.export.llamacpp import child, judgement, make
from core.export.llamacpp.make import SIXTEEN, MakeOrder
from core.export.pairs import Pair
from core.export.records import ExportCheck
from core.messages import Message, msg
from core.models.adapters import PREFIX
from core.models.weights import open_tensors

MOST_OF_OWN = 0.25  # divergence of the 16-bit file that a base of the person's own may have: somewhat more than q4_k_m


@dataclass(frozen=True)
class Beside:
    """The base that the adapter goes with. made: a file to be made here, in the order's quant; own: one of the
    person's; none: neither."""

    made: Path | None = None
    own: Path | None = None


def make_lora(order: MakeOrder, beside: Beside) -> tuple[ExportCheck, tuple[Message, ...]]:
    """The proven file in order.target, and notes. order.merged: where the base's weights lie for as long as they are
    converted.

    Raises ExportError for what the adapter has beyond two matrices, before any work, and where llama.cpp cannot.
    """
    found = pairs.lora_pairs(order.base, order.adapter)
    if not found or any(pair.magnitude or pair.experts for pair in found.values()):
        raise ExportError("gguf.lora_cannot", reason=msg("gguf.lora_variant", found="adapter_model.safetensors"))
    order.work.mkdir(parents=True, exist_ok=True)
    order.stage("copying_base", 0)
    merge.copy(order.base, order.adapter, order.merged, lambda done: order.stage("copying_base", done), order.check)
    lora, asking = convert(order, found), make.begin(order)
    sixteen = make.convert(order, asking.work.tokenizer.template, is_tuned=False)
    files.remove_tree(order.merged)
    asking, expected, _ = make.expect(order, asking, None)

    of_sixteen = judgement.judge_sixteen(asking, sixteen, expected, "sixteen.logs", judgement.ANSWERS_SHOWN, lora.name)
    if not of_sixteen.answer["moved"] > of_sixteen.divergence:  # exactly the same where llama.cpp leaves it out
        of_sixteen = replace(of_sixteen, reasons=(*of_sixteen.reasons, msg("gguf.reason_scale")))
    notes: tuple[Message, ...] = ()
    of_file, base, quant = of_sixteen, sixteen, sixteen.stem
    if beside.made and order.quant not in SIXTEEN:
        base, notes = make.quantise(order, sixteen)
        quant = order.quant
    elif beside.own:
        base, quant = beside.own, "q4_k_m"  # how near a tie is
    if base is not sixteen:
        most = MOST_OF_OWN if beside.own else judgement.MOST_DIVERGENCE[quant]
        of_file = judgement.judge_other(asking, base, most, lora.name)
    files.rename(lora, order.target)
    if beside.made:
        files.rename(base, beside.made)
    check = judgement.found_of(quant, asking, expected, None, of_sixteen, of_file)
    return check.model_copy(update={"quant": "lora"}), notes


def convert(order: MakeOrder, found: dict[str, Pair]) -> Path:
    """The file. Raises ExportError where the converter leaves a matrix out, or cannot."""
    folded, target = order.work / "folded", order.work / "lora.gguf"
    fold(order.adapter, found, folded)
    request = {
        "converter": str(order.tools.converter), "runtime": str(order.tools.runtime), "model": str(order.merged),
        "out": str(target),
        "adapter": str(folded),
    }  # fmt: skip
    order.stage("converting_gguf", None)
    answer = child.ask("core.export.llamacpp.convert", request, order.work, order.log, order.check, target.name)
    if not target.is_file():
        raise ExportError("gguf.no_file")
    if answer["tensors"] < 2 * len(found):
        raise ExportError("gguf.lora_left_out", written=answer["tensors"] // 2, matrices=len(found))
    return target


def fold(adapter: Path, found: dict[str, Pair], target: Path) -> None:
    """target, made new: a PEFT folder for the same base, its factors by the names of the base's files and its scales in
    B."""
    target.mkdir()
    factors = {}
    with open_tensors(adapter / "adapter_model.safetensors") as lora:
        for name, pair in found.items():
            module = PREFIX + name.removesuffix(".weight")
            factors[f"{module}.lora_A.weight"] = lora.get_tensor(pair.a).float()
            factors[f"{module}.lora_B.weight"] = lora.get_tensor(pair.b).float() * pair.scale
    save_file(factors, target / "adapter_model.safetensors", {"format": "pt"})
    # alpha 0: llama.cpp multiplies B A by the person's own scale alone
    (target / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 0}), "utf-8", newline="\n"
    )
