"""Checks that a catalogue entry is consistent: its billions, the parameters in its files, and its shape. No torch.

Allowed differences: billions within 1 % of the shape (pages round to three digits). Parameters in files within 0.15 %
of the shape (biases and the norms inside attention are not counted there, and buffers are counted by the hub), or more
by the parts that `beside` names: a head as large as the embeddings, within the same 0.15 %; towers of 10 million to 2
billion (the largest known is 1.3, of a model with multi-token prediction). Billions from 0.8 to 1.7 times the size in a
name ("27B", not "A3B", which is the active part): small models are often named after their size without embeddings.
"""

from __future__ import annotations

import re

from core.models.known import KnownModel

COUNT, ROUNDED = 0.0015, 0.01
NAMED = (0.8, 1.7)
SMALLEST_TOWER, LARGEST_TOWERS = 10e6, 2e9
EFFECTIVE = "Gemma 4 E"  # parameters without the embeddings of each layer
_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([BM])(?![\w.])", re.IGNORECASE)


def disagreements(model: KnownModel) -> list[str]:
    """Return the inconsistencies, for the person who keeps the catalogue; empty if there are none."""
    params, disagreeing = model.shape.params, []
    if abs(params / 1e9 / model.billions - 1) > ROUNDED:
        disagreeing.append(f"billions {model.billions}, shape {params / 1e9:.4g}")
    if model.in_files is not None:
        more = model.in_files - params
        head = model.shape.vocab_size * model.shape.hidden_size
        holds = {
            None: abs(more) <= COUNT * params,
            "head": model.shape.tie_word_embeddings and abs(more - head) <= COUNT * params,
            "towers": SMALLEST_TOWER <= more <= LARGEST_TOWERS,
        }[model.beside]
        if not holds:
            disagreeing.append(f"in_files {model.in_files:,}, shape {params:,}, beside {model.beside}: {more:+,}")
    elif model.beside:
        disagreeing.append(f"beside {model.beside} without in_files")
    named = _size_in(model)
    if named and not NAMED[0] <= model.billions / named <= NAMED[1]:
        disagreeing.append(f"{model.title} by its name {named:g}, billions {model.billions}")
    return disagreeing


def _size_in(model: KnownModel) -> float | None:
    """Return the billions in the model's name; None if it has none, or counts otherwise."""
    sizes = [
        float(size) / (1 if unit.upper() == "B" else 1000)
        for size, unit in _IN_NAME.findall(model.title.replace("-", " "))
    ]
    return sizes[0] if sizes and not model.title.replace("-", " ").startswith(EFFECTIVE) else None
