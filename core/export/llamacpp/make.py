"""Makes a GGUF file from a merged folder with llama.cpp's own tools and verifies it on the way: converted to 16 bit,
compared with the adapter, quantized, compared with the 16-bit file. Intermediate files are deleted as soon as they are
no longer needed. Workers only (torch)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core import files
from core.data.template import ChatTemplate
from core.errors import ExportError
from core.export import verification
from core.export.estimate import BYTES_A_PARAMETER, MAX_POSITIONS
from core.export.llamacpp import child, judgement, pre_tokenizers
from core.export.llamacpp.judgement import LlamaPrompts
from core.export.llamacpp.tools import Tools
from core.export.merge import Check
from core.export.ollama import modelfile
from core.export.records import ExportCheck
from core.export.stored import Base
from core.export.tensors import Comparison
from core.export.verification import Method, PromptResult
from core.files import JsonObject
from core.messages import Message, msg

SIXTEEN = ("f16", "bf16")
SENSES = ("vision_config", "audio_config")


@dataclass(frozen=True)
class MakeOrder:
    """An order for a GGUF file. merged: a folder made for this, deleted once it is converted. target: the file. work: a
    scratch folder."""

    tools: Tools
    quant: str
    name: str
    base: Base
    adapter: Path
    merged: Path
    target: Path
    work: Path
    log: Path
    rows: Sequence[JsonObject]
    method: Method
    stage: Callable[[str, float | None], None]
    check: Check


def make(order: MakeOrder) -> tuple[ExportCheck, tuple[Message, ...]]:
    """Make and verify the file order.target; return the check and notes. order.merged is deleted as soon as it was
    compared. A check that has not passed contains the reasons.

    Raises ExportError if llama.cpp does not know the family or the tokenizer, or cannot read the file.
    """
    prompts = begin(order)
    sixteen = convert(order, prompts.work.tokenizer.template)
    prompts, expected, compared = expect(order, prompts, order.merged)
    # Before the next files are written: at no time do more than two forms of the model lie on the disk.
    files.remove_tree(order.merged)

    is_final = order.quant in SIXTEEN
    # Probabilities are kept to judge the quantized file; answers are those of the file that is delivered.
    keep, answers = (None, judgement.ANSWERS_SHOWN) if is_final else ("sixteen.logs", 0)
    file_verdict = sixteen_verdict = judgement.judge_sixteen(prompts, sixteen, expected, keep, answers)
    config = files.read_object(order.base.folder / "config.json")
    text_alone = [msg("gguf.text_alone")] if any(config.get(sense) for sense in SENSES) else []
    file, notes = sixteen, (*text_alone, *sixteen_verdict.notes)
    # Only the 16-bit file is compared with the adapter; a quantized one is compared with that.
    (order.work / "adapter.logs").unlink()
    if not is_final:
        file, larger = quantize(order, sixteen)
        sixteen.unlink()
        file_verdict, notes = (
            judgement.judge_other(prompts, file, judgement.MAX_DIVERGENCE[order.quant]),
            larger + notes,
        )
    files.rename(file, order.target)
    return judgement.check_record(order.quant, prompts, expected, compared, sixteen_verdict, file_verdict), notes


def begin(order: MakeOrder) -> LlamaPrompts:
    """Choose the prompts, and create the file that keeps the adapter's probabilities."""
    order.work.mkdir(parents=True, exist_ok=True)
    work = verification.begin(order.adapter, order.rows, order.method, order.stage, order.check, judgement.PROMPTS)
    kept = judgement.KeptProbabilities(order.work / "adapter.logs", max(1, MAX_POSITIONS // len(work.probes)))
    return LlamaPrompts(order.tools, order.work, order.log, order.check, replace(work, keep=kept), kept)


def expect(
    order: MakeOrder, prompts: LlamaPrompts, merged: Path
) -> tuple[LlamaPrompts, list[PromptResult], Comparison | None]:
    """Compute the adapter's results and compare merged's tensors, as `verification.expect` with rounded sums; the
    prompts are returned with its answers."""
    work, expected, compared = verification.expect(order.base, order.adapter, prompts.work, merged, rounded=True)
    return replace(prompts, work=work), expected, compared


def convert(order: MakeOrder, template: ChatTemplate) -> Path:
    """Convert order.merged to a 16-bit file with this template and return its path, after completing its tokenizer
    files.

    Raises ExportError with the reason of llama.cpp's converter.
    """
    # Of the base's own 16-bit type, so that the conversion rounds nothing.
    quant = order.quant if order.quant in SIXTEEN else {"float16": "f16"}.get(order.base.dtype_name, "bf16")
    target = order.work / f"{quant}.gguf"
    complete_tokenizer(order.base.folder, order.merged)
    (order.merged / "chat_template.jinja").write_text(modelfile.file_template(template), "utf-8", newline="\n")
    request = {
        "converter": str(order.tools.converter), "runtime": str(order.tools.runtime), "model": str(order.merged),
        "out": str(target), "kind": quant, "name": order.name, "stop": template.stop,
        "pre": pre_tokenizers.name_of(order.base.folder),
    }  # fmt: skip
    expected = sum(file.stat().st_size for file in order.merged.glob("*.safetensors"))
    check_and_report = check_by_size(order, "converting_gguf", target, expected)
    child.ask("core.export.llamacpp.convert", request, order.work, order.log, check_and_report, target.name)
    if not target.is_file():
        raise ExportError("gguf.no_file")
    return target


def quantize(order: MakeOrder, sixteen: Path) -> tuple[Path, tuple[Message, ...]]:
    """Quantize the 16-bit GGUF file; return the new file, and a note if some tensors kept a larger type. Raises
    ExportError."""
    target = order.work / f"{order.quant}.gguf"
    request = {
        "folder": str(order.work), "runtime": str(order.tools.runtime), "source": sixteen.name,
        "target": target.name,
        # all logical cores, as in llama.cpp's own program
        "kind": order.quant, "threads": os.cpu_count() or 2,
    }  # fmt: skip
    check_and_report = check_by_size(
        order, "quantising", target, BYTES_A_PARAMETER[order.quant] * sixteen.stat().st_size / 2
    )
    answer = child.ask("core.export.llamacpp.library", request, order.work, order.log, check_and_report, target.name)
    if not target.is_file():
        raise ExportError("gguf.no_file")
    if not answer["larger"]:
        return target, ()
    return target, (
        msg("gguf.larger_types", larger=answer["larger"], tensors=answer["tensors"], quant=order.quant.upper()),
    )


def check_by_size(order: MakeOrder, stage: str, file: Path, expected: float) -> Callable[[], None]:
    """Return a function to call while another process writes file: it raises what order.check raises, and reports the
    file's size divided by expected, at most 1, as the progress of stage. expected: bytes."""

    def check_and_report_size() -> None:
        """Raise what order.check raises, and report the file's present size, as a share of the expected one, as
        progress."""
        order.check()
        try:
            size = file.stat().st_size
        except OSError:  # not begun
            size = 0
        order.stage(stage, min(1.0, size / expected))

    return check_and_report_size


def complete_tokenizer(base: Path, merged: Path) -> None:
    """Copy the hub base's tokenizer.model to merged if it lacks one, and take over the base's tokenizer_class. The
    converter of Gemma 2, Phi-3 and Llama 2 reads tokenizer.model, and transformers 5 writes another tokenizer_class
    than the hub's."""
    for model in base.glob("tokenizer.model"):
        if not (merged / model.name).exists():
            (merged / model.name).write_bytes(model.read_bytes())
    base_config, merged_config = (files.read_object(folder / "tokenizer_config.json") for folder in (base, merged))
    if base_config.get("tokenizer_class") and base_config["tokenizer_class"] != merged_config.get("tokenizer_class"):
        text = json.dumps(
            merged_config | {"tokenizer_class": base_config["tokenizer_class"]}, ensure_ascii=False, indent=1
        )
        (merged / "tokenizer_config.json").write_text(text, "utf-8", newline="\n")
