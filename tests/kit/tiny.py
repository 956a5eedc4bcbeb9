"""The tiny model: a llama of 2 layers and 32 wide that knows nothing, with the first words of the starter's tokenizer,
or all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from core.models import starter
from core.workspace.folder import Workspace
from tests.kit.files import link_or_copy

ALL_WORDS = 49152
# all take a tenth of a second to be read, seconds to be written into a GGUF file, and most of each step
FEW_WORDS = 4096
ANEW = shutil.ignore_patterns("starter.json")  # the others are links


def make(
    folder: Path, of_starter: Path, words: int = FEW_WORDS, layers: int = 2, spread: float = 0.02, width: int = 32
) -> Path:
    """Write a tiny model into folder. spread: of the random weights; with the usual one a model repeats a word, with
    0.2 each of its tokens is another. width: of its hidden states; bitsandbytes' library for CPUs reads a 4-bit matrix
    wrongly whose rows are no multiple of 64 long."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        initializer_range=spread, max_position_embeddings=8192,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder, of_starter, words)
    return folder


def in_place_of_the_starter(workspace: Workspace, model: Path) -> Workspace:
    """Make `starter` name model in workspace, and return workspace: a tiny model, for tests in which its answers do not
    matter."""
    folder = starter.folder(workspace.models)
    shutil.copytree(model, folder, copy_function=link_or_copy, ignore=ANEW, dirs_exist_ok=True)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / "starter.json").write_text(json.dumps({"conversion": starter.CONVERSION, "files": sizes}), "utf-8")
    return workspace


def of_layers(layers: int, folder: Path) -> Path:
    """Write a llama of so many layers, 64 wide, without a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, of_starter: Path, words: int) -> None:
    """Write the starter's tokenizer, cut to its first words. They are numbered in the order of their merges, after the
    special ones and the letters, so every text can still be written."""
    whole = json.loads((of_starter / "tokenizer.json").read_text("utf-8"))
    model = whole["model"]
    merged = len(model["vocab"]) - len(model["merges"])
    model["vocab"] = {word: number for word, number in model["vocab"].items() if number < words}
    model["merges"] = model["merges"][: words - merged]
    (folder / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(of_starter / name, folder / name)
