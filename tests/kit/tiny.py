"""The starter's tokenizer with its first words alone: what is plain stays plain, and every text can still be written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

WORDS = 4096  # the whole has 49,152, which take a tenth of a second to read, and seconds to be written into a GGUF file


def few_words(starter: Path, folder: Path, words: int = WORDS) -> None:
    """Into folder. The starter's words are numbered in the order of their merges, after the special ones and the letters."""
    whole = json.loads((starter / "tokenizer.json").read_text("utf-8"))
    model = whole["model"]
    merged = len(model["vocab"]) - len(model["merges"])
    model["vocab"] = {word: number for word, number in model["vocab"].items() if number < words}
    model["merges"] = model["merges"][: words - merged]
    (folder / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(starter / name, folder / name)
