"""The Modelfile beside a GGUF file: TEMPLATE, stops, and the settings of the app's own chat. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf

from core.export.ollama.deriving import Derived
from core.messages import Message, msg
from core.presets import load

# Where a file does not say whether a text begins with its BOS token, llama.cpp goes by its kind of vocabulary:
# src/llama-vocab.cpp.
_BEGUN = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"}


def begins(file: Path) -> bool:
    """Whether llama.cpp puts the BOS token before a prompt by itself, so that TEMPLATE must not write it a second
    time."""
    fields = gguf.GGUFReader(file).fields
    said = fields.get("tokenizer.ggml.add_bos_token")
    if said is not None:
        return bool(said.contents())
    kind, split = (
        fields[name].contents() if name in fields else "" for name in ("tokenizer.ggml.model", "tokenizer.ggml.pre")
    )
    return kind == "llama" or split in _BEGUN


def write(gguf_name: str, derived: Derived, stops: Sequence[str], run_name: str, least: str | None = None) -> str:
    """Its lines, which end in LF everywhere: Ollama keeps a CR inside TEMPLATE as a part of the prompt.

    gguf_name: of a file beside it, without spaces and quotes. stops: what ends an answer, as the training template
    writes it.
    least: the Ollama from which on the family is known.
    """
    lines = [f"# {' '.join(run_name.split())}, made with LoRA Garage", f"FROM ./{gguf_name}"]
    if derived.template is not None:
        lines.append(f'TEMPLATE """{derived.template}"""')
    if least or derived.template is None:
        # Ollama since 0.30 renders the template in the file itself; earlier ones take the nearest that they know.
        lines.append(f"REQUIRES {least or '0.30.0'}")
    quotes = {stop: '"""' if '"' in stop else '"' for stop in stops if stop and "\n" not in stop}
    lines += [f"PARAMETER stop {quote}{stop}{quote}" for stop, quote in quotes.items()]
    lines += [
        "# As in the app's chat: the likeliest token each time, and no penalty for a style that repeats itself.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"


def notes(derived: Derived, model_type: str) -> tuple[Message, ...]:
    """What Ollama will not do as the training did. model_type: of the base's config.json."""
    family = model_type.removesuffix("_text")
    own = [msg("export.ollama_own_template", family=family)] if family in load("ollama")["own_templates"] else []
    return (*derived.notes, *own)
