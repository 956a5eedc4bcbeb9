"""Repositories that are already quantized: which can be trained, and which model they were made from. No torch.

Those of bitsandbytes can: they hold what QLoRA itself makes of a base. FP8 and MXFP4 are unpacked to 16 bit on loading,
need that memory, and are less exact than their original. For the others (GPTQ, AWQ, compressed-tensors, ...)
transformers has kernels without gradients, or needs libraries that are not installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from core import files
from core.errors import ModelError
from core.hub import cached, peek
from core.hub.card import front_matter
from core.messages import Message, msg
from core.models import headers
from core.models.shapes.shape import UNPACKED

CARD = "README.md"
LONGEST_CARD = 64 << 10  # bytes; its settings stand at its beginning
# Suffixes that makers add to a name, also several: Qwen2.5-7B-Instruct-GPTQ-Int4, Llama-3.1-8B-quantized.w4a16
_ENDING = re.compile(
    r"[-_.](?:gptq|awq|fp8|mxfp\d|nvfp4|hqq|aqlm|auto-?round|autoround|int\d|w\d+a\d+|\d-?bits?|quantized|dynamic"
    r"|marlin|a?sym|g\d+)$",
    re.IGNORECASE,
)


def can_train(method: str | None) -> bool:
    """Return whether a model that is stored with this quantization method can be trained: True for None (not
    quantized), for bitsandbytes, and for the methods that are unpacked to 16 bit on loading (UNPACKED)."""
    return method is None or method.startswith("bitsandbytes") or method in UNPACKED


def refuse(model_id: str, folder: Path) -> None:
    """Raise ModelError if the config.json in folder names weights that cannot be trained."""
    if why := refusal(model_id, files.read_object(folder / "config.json"), folder):
        raise ModelError(why)


def refusal(
    model_id: str, config: Mapping[str, object], folder: Path | None = None, revision: str | None = None
) -> Message | None:
    """Return why a quantized model cannot be trained, with its unquantized original if card or config name it;
    None if its quantization can be trained, or it has none.

    folder: of the model; a missing card is read from the hub, which takes seconds.
    """
    method = headers.quantization(config)
    if can_train(method):
        return None
    base = original_of(model_id, config, _card_of(model_id, folder, revision))
    if base is None:
        return msg("model.quantised", model=model_id, method=method)
    return msg("model.quantised_of", model=model_id, method=method, base=base)


def original_of(model_id: str, config: Mapping[str, object], card: str) -> str | None:
    """Return the hub id of the model that was quantized, as card or config name it; None if they do not."""
    settings = front_matter(card)
    named = settings.get("base_model")
    if settings.get("base_model_relation", "quantized") != "quantized":
        named = None  # it was tuned or merged from that model, not quantized
    names = [*(named if isinstance(named, list) else [named]), config.get("_name_or_path")]
    return next(
        (
            name
            for name in names
            if isinstance(name, str)
            and name != model_id
            and cached.REPO_ID.fullmatch(name)
            and not _ENDING.search(name)
        ),
        None,
    )


def _card_of(model_id: str, folder: Path | None, revision: str | None) -> str:
    """Return the start of the model's card, from folder or from the hub; empty if unavailable."""
    with suppress(OSError, ModelError):
        if folder and (folder / CARD).is_file():
            return (folder / CARD).read_bytes()[:LONGEST_CARD].decode("utf-8", "replace")
        if cached.REPO_ID.fullmatch(model_id):
            return peek.fetch_start(model_id, CARD, revision, first=LONGEST_CARD).decode("utf-8", "replace")
    return ""
