"""Each family that people tune, as a tiny random model with an adapter, through llama.cpp's converter, quantiser and
runtime: the table of docs/export.md. Long forms; what a tiny model shows is the plumbing (names, shapes, norms, ropes,
windows), not the loss of quantising."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto import modeling_auto as auto

from core.data.tokenizer import Tokenizer
from core.engine import adapter, base_model
from core.errors import ExportError
from core.export import merge, stored, verification
from core.export.llamacpp import export_support, hub_config, judgement, make
from core.export.llamacpp.tools import Tools
from core.export.verification import Method, Work
from core.models.families import text_generating
from core.presets import PROJECT
from tests.kit import families, gguf_tokenizers
from tests.kit.trainer import FP32

QUANTIZED = ("q8_0", "q4_k_m")
IN_EVERY_GATE = {  # a llama leaves in test_llamacpp
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "qwen3_5",
    "gemma3_text",
    "gemma4",
    "mistral",
    "phi3",
    "gpt_oss",
    "lfm2",
    "granite",
}
# A tiny random model says every word with about the same probability, so that the bound for real ones would let much
# pass. Qwen3.5: 3e-7; its q4_k_m 3e-4.
MAX_TINY_DIVERGENCE = 2e-5
# Measured, 2026-11-28, llama.cpp b11739: embeddings in each layer (Gemma 3n, 4) 6e-5 and 4e-5, Gemma 4 with experts
# 5e-5; latent attention (in another order, so that other sums are rounded) 8e-5. Gemma 4 itself had 2.7e-5 with another
# adapter on 2026-11-30. Their quantised files keep the usual bounds.
LOOSER = {"gemma3n": 2e-4, "gemma4": 2e-4, "gemma4_e": 2e-4, "gemma4_moe": 2e-4, "gemma4_unified": 2e-4, "youtu": 2e-4}


BY_SENTENCEPIECE = {
    "gemma2",
    "gemma3n",
    "gemma4",
    "gemma4_unified",
    "ernie4_5",
    "mixtral",
    "mistral",
    "phimoe",
    "jamba",
}
WITH_PREFIX = {"ernie4_5", "mixtral", "mistral", "phimoe", "jamba"}  # a space before the first word, as Llama 2
# What a file has no room for (llama.cpp's own numbers are those of the models that were published) and other tests have
# otherwise.
OTHERWISE: dict[str, dict[str, Any]] = {
    # Whose embedding is zeros in a model just made: llama.cpp computes no number of them here.
    "qwen2_5_vl": {"pad_token_id": None, "sees": {"depth": 3}},
    # Names of what joins the tower to the text are looked for by the number of the tower's layers.
    "ministral3": {"sees": {"num_hidden_layers": 3}},
    "mistral_small3": {"sees": {"num_hidden_layers": 3}},
    "phimoe": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "original_max_position_embeddings": 512}},
    "llama4": {"attention_chunk_size": 8192},
    "gemma3n": {
        "altup_num_inputs": 4,
        "hidden_size_per_layer_input": 256,
        "laurel_rank": 64,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.95] * 6,
    },
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "moe"]},
}
PICTURES = {
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 3136, "longest_edge": 50176},
    "min_pixels": 3136,
    "max_pixels": 50176, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip


def outcome(folder: Path, tools: Tools, work: Path, quants: Sequence[str], probes: int) -> list[str]:
    """Of bf16 and of quants: "proven", or why not."""
    base, tokenizer, merged = stored.read_base(folder), Tokenizer(folder), work / "merged"
    adapter.save(
        families.tuned(base_model.load(folder, FP32, four_bit=False)),
        work / "adapter",
        folder,
        "card",
        tokenizer.template.source,
    )
    merge.merge(base, work / "adapter", merged, lambda fraction: None, lambda: None)
    order = make.MakeOrder(
        tools=tools, quant="bf16", name=folder.parent.name, base=base, adapter=work / "adapter", merged=merged,
        target=work / "out" / "x-bf16.gguf",
        work=work, log=work / "log", rows=[], method=Method(FP32), stage=lambda *_: None, check=lambda: None,
    )  # fmt: skip
    asks = verification.prompts_of([], tokenizer, probes)[0][:probes]
    kept = judgement.KeptProbabilities(work / "adapter.logs", 40)
    work_before = Work(order.method, tokenizer, asks, False, order.stage, order.check, kept)
    verdicts: list[str] = []
    try:
        sixteen = make.convert(order, tokenizer.template)
        work_before, _, compared = verification.expect(base, order.adapter, work_before, merged, rounded=True)
        assert compared is None or not compared.off
        asking = judgement.LlamaPrompts(tools, work, order.log, order.check, work_before, kept)
        verdicts.append(said(asking.ask(sixteen, "adapter.logs", "sixteen.logs"), "bf16", probes, order.name))
        for quant in quants:
            file, _ = make.quantize(replace(order, quant=quant), sixteen)
            verdicts.append(said(asking.ask(file, "sixteen.logs", None), quant, probes, order.name))
    except ExportError as error:
        print(error)
        verdicts += [f"refused: {error.message.key.removeprefix('gguf.')}"] * (1 + len(quants) - len(verdicts))
    return verdicts


def dress(name: str, folder: Path, tools: Tools) -> None:
    """The tokenizer that its makers' has in common with what llama.cpp asks for, and how pictures are made ready."""
    kind = families.FAMILIES[name].kind
    if name.startswith("glm"):
        gguf_tokenizers.name_tokens(folder, "glm")
    elif kind == "mistral3":
        gguf_tokenizers.name_tokens(folder, kind)
    elif kind in BY_SENTENCEPIECE:
        gguf_tokenizers.by_sentencepiece(folder, tools, kind in WITH_PREFIX, families.VOCABULARY)
    elif name == "phi3":  # as Phi-4 is on the hub, which has a byte-level tokenizer too
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"tokenizer_class": "GPT2Tokenizer"}), "utf-8")
    if families.FAMILIES[name].sees:
        (folder / "preprocessor_config.json").write_text(json.dumps(PICTURES), "utf-8")


def said(answer: dict, quant: str, probes: int, family: str) -> str:
    most = judgement.MAX_DIVERGENCE[quant]
    if quant == "bf16":
        most, answer = LOOSER.get(family, MAX_TINY_DIVERGENCE), answer | {"closest_divergence": answer["divergence"]}
    verdict = judgement.judge(answer, most, probes + len(judgement.AWKWARD), None)
    print(quant, verdict.divergence, [reason.render("en") for reason in verdict.reasons])
    keys = [reason.key.removeprefix("gguf.reason_") for reason in verdict.reasons]
    return ", ".join(keys).replace("quantised", "divergence" if quant == "bf16" else "quantised") or "proven"


def classes_of(converter: Path) -> set[str]:
    """Classes of text models that llama.cpp's converter lists; its file is parsed, not run."""
    code = ast.parse((converter / "conversion" / "__init__.py").read_text("utf-8"))
    (value,) = (
        line.value
        for line in code.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id == "TEXT_MODEL_MAP"
    )
    return set(ast.literal_eval(value))


def test_the_families_that_are_said_to_leave_are_those_that_the_converter_knows(tools: Tools) -> None:
    listed, data = classes_of(tools.converter), export_support.load_data()
    names: dict[str, set[str]] = {}
    for kinds in (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    ):
        for kind, name in kinds.items():
            names.setdefault(kind, set()).add(hub_config.CLASSES.get(name, name))
    known = {kind for kind in text_generating() if names.get(kind, set()) & listed}
    assert data["families"] == known


@pytest.mark.gate
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_EVERY_GATE else pytest.mark.full) for name in families.FAMILIES]
)
def test_the_table_of_the_docs_says_how_a_family_leaves(
    name: str, tools: Tools, starter_folder: Path, tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long form compares the whole line, the gate its usual type; what should stand there is in the failure."""
    monkeypatch.setattr(
        "psutil.cpu_count", lambda logical=True: 1
    )  # two of llama.cpp's wait for each other where a PC is busy
    folder = families.make(name, tmp_path / name / "base", starter_folder, **OTHERWISE.get(name, {}))
    dress(name, folder, tools)
    (tmp_path / "out").mkdir()
    quants = QUANTIZED if full else QUANTIZED[-1:]
    outcomes = outcome(folder, tools, tmp_path, quants, probes=3 if full else 1)
    rows = (line.strip("| ").split(" | ") for line in (PROJECT / "docs" / "export.md").read_text("utf-8").splitlines())
    (line,) = (row for row in rows if len(row) == 4 and name in row[3].split(", "))
    compared = [line[0], *(line[1 + QUANTIZED.index(quant)] for quant in quants)]
    assert compared == outcomes, f"docs/export.md should say of {name}: | {' | '.join(outcomes)} |"
