"""Writes a base of a catalogue model's shape, with random weights and the starter's tokenizer: enough to measure a
step, and nothing is fetched. Imports torch; `python -m benchmarks.random_base SHAPE KNOWN FOLDER [LAYERS]` writes one
in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from benchmarks.export_memory import written
from core.models.adapters import TOKENIZER_FILES
from core.models.known import known_models


def make(name: str, known: Path, folder: Path, layers: int | None) -> None:
    """Write the base. name: of the catalogue. known: a model's folder whose tokenizer it gets; ids beyond that stay
    unused. layers: None for all."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = next(model.shape for model in known_models() if model.id == name)
    folder.mkdir()
    for file in TOKENIZER_FILES:
        if (known / file).exists():
            shutil.copyfile(known / file, folder / file)
    ends = json.loads((known / "config.json").read_text("utf-8"))
    config = AutoConfig.for_model(
        shape.model_type, hidden_size=shape.hidden_size, num_hidden_layers=layers or shape.num_hidden_layers,
        head_dim=shape.head_dim,
        num_attention_heads=shape.num_attention_heads, num_key_value_heads=shape.num_key_value_heads,
        intermediate_size=shape.intermediate_size, vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tie_word_embeddings,
        bos_token_id=ends["bos_token_id"], eos_token_id=ends["eos_token_id"], dtype="bfloat16",
    )  # fmt: skip
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    written("BF16", {key: tuple(p.shape) for key, p in model.named_parameters()}, folder / "model.safetensors")


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
