"""Unpacks a GGUF file to a 16-bit folder, in a separate process that `child.ask` starts. transformers' reader
dequantizes it; what that reader drops is restored or refused; then a few texts are run for the comparison with
llama.cpp.

transformers 5.24 drops the table by which Llama 3.1 and later scale positions (`rope_freqs.weight`), any other scaled
positions, and smollm's splitting of digits. Other errors show in the comparison (core.export.llamacpp.base).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedConfig

from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.export.llamacpp.judgement import AWKWARD, KeptProbabilities
from core.export.verification import QUESTIONS, ProofPrompt
from core.files import JsonObject
from core.models.starter import gguf_parsed_once, split_digits

POSITIONS = 16  # of each question, at which all probabilities are compared
# transformers' `llama3` RoPE parameters except the factor; Llama 3.1, 3.2 and 3.3 all have these.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
CLOSE = 1e-3  # relative tolerance of a factor stored in float32


def work(request: JsonObject) -> JsonObject:
    """Unpack and return the request for `questions.ask`, and has_template. Raises Refused for one part of a split file.

    request: file, out (a folder to make), logs (a file), exact (whether memory suffices for float32).
    """
    file, out = Path(request["file"]), Path(request["out"])
    with gguf_parsed_once():
        reader = gguf.GGUFReader(str(file))  # as transformers names it
        parts = reader.fields.get("split.count")
        if parts is not None and parts.contents() > 1:
            raise Refused("base_split", file=file.name)
        unpack(file, reader, out)
    return reference_answers(out, Path(request["logs"]), bool(request["exact"]))


def unpack(file: Path, reader: gguf.GGUFReader, out: Path) -> None:
    """Write the model of a GGUF file to out as a 16-bit folder of transformers. Raises Refused."""
    architecture = str(reader.fields["general.architecture"].contents())
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        if scaled := positions(reader, architecture, config):
            config.rope_parameters = dict(config.rope_parameters) | scaled
        # Without GgufConfig(dequantize=True) the model calls itself quantized: neither saving nor training is allowed.
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            config=config,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, KeyError, NotImplementedError, AttributeError, TypeError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:200].rstrip(".")
        raise Refused("base_unreadable", architecture=architecture, reason=reason) from error
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    pre = reader.fields.get("tokenizer.ggml.pre")
    if pre is not None and pre.contents() == "smollm":
        split_digits(out / "tokenizer.json")


def positions(reader: gguf.GGUFReader, architecture: str, config: PreTrainedConfig) -> JsonObject:
    """RoPE parameters that transformers' reader drops; {} if it drops none. Refuses scaling that cannot be restored."""
    kind = reader.fields.get(f"{architecture}.rope.scaling.type")
    scaling = kind.contents() if kind else "none"
    is_longrope = any(tensor.name.startswith("rope_factors_") for tensor in reader.tensors)
    if (scaling != "none" and architecture != "gpt-oss") or is_longrope:
        raise Refused("base_positions", kind="longrope" if is_longrope else scaling)
    table = next((tensor for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    if table is None:
        return {}
    factors = [float(value) for value in table.data.reshape(-1)]
    theta, factor = float(config.rope_parameters["rope_theta"]), max(factors)
    expected = [llama3_factor(theta ** (i / len(factors)), factor) for i in range(len(factors))]
    if not all(math.isclose(a, b, rel_tol=CLOSE) for a, b in zip(factors, expected, strict=True)):
        raise Refused("base_positions", kind="rope_freqs")
    return LLAMA3 | {"rope_type": "llama3", "factor": factor}


def llama3_factor(period: float, factor: float) -> float:
    """The divisor of a RoPE frequency. period: theta^(2i/d), in radians a token.

    As in transformers' _compute_llama3_parameters: long waves are divided by factor, short ones by 1, with a smooth
    transition.
    """
    wave, context = 2 * math.pi * period, LLAMA3["original_max_position_embeddings"]
    low, high = context / LLAMA3["low_freq_factor"], context / LLAMA3["high_freq_factor"]
    if wave < high:
        return 1.0
    if wave > low:
        return factor
    smooth = (context / wave - LLAMA3["low_freq_factor"]) / (LLAMA3["high_freq_factor"] - LLAMA3["low_freq_factor"])
    return 1 / ((1 - smooth) / factor + smooth)


@torch.no_grad()
def reference_answers(folder: Path, logs: Path, exact: bool) -> JsonObject:
    """Token ids and probabilities of the written folder on the test texts, with transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if exact else torch.bfloat16).eval()
    kept = KeptProbabilities(logs, POSITIONS)
    for question in QUESTIONS:
        ids = tokenizer(question).input_ids
        probe = ProofPrompt(({"role": "user", "content": question},), ids, [False] * len(ids), len(ids))
        kept(probe, model(torch.tensor([ids])).logits[0].float())
    texts = [*QUESTIONS, *AWKWARD]
    plain = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    return {
        "texts": texts,
        "prompts": plain,
        "rows": kept.rows,
        "words": kept.words,
        "has_template": bool(tokenizer.chat_template),
    }


if __name__ == "__main__":
    sys.exit(child.answer(work))
