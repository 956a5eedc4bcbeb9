"""Exports an adapter as its own GGUF file, converted by llama.cpp and verified with its base in real llama.cpp. Workers
only (torch).

Scales are folded into B: the file's own alpha / rank knows no rsLoRA and no pattern, which upstream's script ignores
silently. Factors are named after the tensors of the base's files, so that they are converted as the base's own matrices
are.

1. The 16-bit base with the adapter is compared with PEFT on the same base, at scale 1; at scale 0 its answers must
change.
2. A smaller base that was requested, or one of the user's own, is compared with the 16-bit one, both with the adapter.
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

MAX_OWN_DIVERGENCE = 0.25  # allowed divergence of a user's own base from the 16-bit file: somewhat more than q4_k_m


@dataclass(frozen=True)
class CompanionBase:
    """The base file that the adapter goes with. made: a file to make here, in the order's quant; own: the user's; None:
    neither."""

    made: Path | None = None
    own: Path | None = None


def make_lora(order: MakeOrder, companion: CompanionBase) -> tuple[ExportCheck, tuple[Message, ...]]:
    """Make and verify the file order.target; return the check and notes. order.merged: where the base's weights are
    during conversion.

    Raises ExportError before any work if the adapter is more than two matrices per layer, and if llama.cpp cannot
    convert it.
    """
    factors = pairs.lora_pairs(order.base, order.adapter)
    if not factors or any(pair.magnitude or pair.experts for pair in factors.values()):
        raise ExportError("gguf.lora_cannot", reason=msg("gguf.lora_variant", found="adapter_model.safetensors"))
    order.work.mkdir(parents=True, exist_ok=True)
    order.stage("copying_base", 0)
    merge.copy(order.base, order.adapter, order.merged, lambda done: order.stage("copying_base", done), order.check)
    lora, prompts = convert(order, factors), make.begin(order)
    sixteen = make.convert(order, prompts.work.tokenizer.template, is_tuned=False)
    files.remove_tree(order.merged)
    prompts, expected, _ = make.expect(order, prompts, None)

    sixteen_verdict = judgement.judge_sixteen(
        prompts, sixteen, expected, "sixteen.logs", judgement.ANSWERS_SHOWN, lora.name
    )
    if (
        not sixteen_verdict.answer["moved"] > sixteen_verdict.divergence
    ):  # they are equal if llama.cpp ignores the adapter
        sixteen_verdict = replace(sixteen_verdict, reasons=(*sixteen_verdict.reasons, msg("gguf.reason_scale")))
    notes: tuple[Message, ...] = ()
    file_verdict, base, quant = sixteen_verdict, sixteen, sixteen.stem
    if companion.made and order.quant not in SIXTEEN:
        base, notes = make.quantize(order, sixteen)
        quant = order.quant
    elif companion.own:
        base, quant = companion.own, "q4_k_m"  # for the size of a near tie
    if base is not sixteen:
        limit = MAX_OWN_DIVERGENCE if companion.own else judgement.MAX_DIVERGENCE[quant]
        file_verdict = judgement.judge_other(prompts, base, limit, lora.name)
    files.rename(lora, order.target)
    if companion.made:
        files.rename(base, companion.made)
    check = judgement.check_record(quant, prompts, expected, None, sixteen_verdict, file_verdict)
    return check.model_copy(update={"quant": "lora"}), notes


def convert(order: MakeOrder, factors: dict[str, Pair]) -> Path:
    """Convert the adapter and return the file. Raises ExportError if the converter fails or leaves a matrix out."""
    folded, target = order.work / "folded", order.work / "lora.gguf"
    fold(order.adapter, factors, folded)
    request = {
        "converter": str(order.tools.converter), "runtime": str(order.tools.runtime), "model": str(order.merged),
        "out": str(target),
        "adapter": str(folded),
    }  # fmt: skip
    order.stage("converting_gguf", None)
    answer = child.ask("core.export.llamacpp.convert", request, order.work, order.log, order.check, target.name)
    if not target.is_file():
        raise ExportError("gguf.no_file")
    if answer["tensors"] < 2 * len(factors):
        raise ExportError("gguf.lora_left_out", written=answer["tensors"] // 2, matrices=len(factors))
    return target


def fold(adapter: Path, pairs_by_name: dict[str, Pair], target: Path) -> None:
    """Make the folder target: a PEFT adapter of the same base, factors named after the base's tensors, scales
    multiplied into B."""
    target.mkdir()
    factors = {}
    with open_tensors(adapter / "adapter_model.safetensors") as lora:
        for name, pair in pairs_by_name.items():
            module = PREFIX + name.removesuffix(".weight")
            factors[f"{module}.lora_A.weight"] = lora.get_tensor(pair.a).float()
            factors[f"{module}.lora_B.weight"] = lora.get_tensor(pair.b).float() * pair.scale
    save_file(factors, target / "adapter_model.safetensors", {"format": "pt"})
    # alpha 0: llama.cpp multiplies B A only by the scale that its user passes
    (target / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 0}), "utf-8", newline="\n"
    )
