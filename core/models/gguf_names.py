"""The catalogue model that a GGUF file on this PC was made from, by the name that its program gives it. Opens no file.

Metadata would not help: `general.base_model` names the model that this one was tuned from (Qwen3-4B-Base for a
Qwen3-4B), not the one that was converted.
"""

from __future__ import annotations

import re
from functools import lru_cache

from core.models.known import known_models

_GGUF = re.compile(r"[-_.]gguf$", re.IGNORECASE)
_QUANT = re.compile(r"[-_.:](?:i?q\d(?:_\w+)?|f16|bf16|f32|fp16|mxfp4)$", re.IGNORECASE)
_OWNER = re.compile(r"^[A-Za-z][\w.-]*?_(?=[A-Za-z])")  # bartowski/Qwen_Qwen3-4B-GGUF
_MEANT = ("", "instruct", "it", "chat")  # Ollama's "llama3.2:3b" is the instruct model


def made_from(name: str) -> str | None:
    """Return the hub id of the model that `name` stands for, without quantization, owner and ending; None if no model
    of the catalogue has that name.

    name: without its owner, as in LM Studio (Qwen3-4B-GGUF), Ollama (qwen3:4b) or a file (qwen3-4b-q4_k_m.gguf).
    """
    while (shorter := _QUANT.sub("", _GGUF.sub("", name))) != name:
        name = shorter
    for candidate in (name, _OWNER.sub("", name)):
        for ending in _MEANT:
            if (hub_id := _known().get(_plain(candidate) + ending)) is not None:
                return hub_id
    return None


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    """Map plain names to hub ids. Of two models with one name the more popular one counts."""
    return {
        _plain(name): model.hub
        for model in reversed(known_models())
        for name in (model.title, model.hub.rpartition("/")[2])
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_.: ]", "", name).lower()
