"""Which families of models the installed transformers knows, and which of them it can train to write a text on: read from its own
lists, without importing it. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core import files
from core.errors import ModelError
from core.messages import Message, msg

_LISTS = ("auto_mappings.py", "configuration_auto.py")
_ENTRY = re.compile(r"^\s*\(?\"([\w.-]+)\"[,:]", re.MULTILINE)
_WRITING = re.compile(
    r"^MODEL_FOR_(?:CAUSAL_LM|IMAGE_TEXT_TO_TEXT|MULTIMODAL_LM)_MAPPING_NAMES = (.*?)^\)", re.MULTILINE | re.DOTALL
)
# In those lists, and yet: several models in one, whose class has no forward; a drafter of another model's tokens.
_NOT_BY_ITSELF = {"qwen2_5_omni", "qwen3_omni_moe", "gemma4_assistant", "gemma4_unified_assistant"}
_OF_ANOTHER_USE = re.compile(
    r"\w+For(MaskedLM|\w*Classification|QuestionAnswering|MultipleChoice)"
)  # a class: its files have no head


@lru_cache(maxsize=1)
def known() -> frozenset[str]:
    """Values of model_type; empty where transformers keeps its list elsewhere, as a later version may."""
    return frozenset(entry for text in _texts(*_LISTS) for entry in _ENTRY.findall(text))


@lru_cache(maxsize=1)
def that_write() -> frozenset[str]:
    """Those with a class of causal language models, or of models that also see or hear; empty as above."""
    lists = (found for text in _texts("modeling_auto.py") for found in _WRITING.findall(text))
    return frozenset(entry for one in lists for entry in _ENTRY.findall(one)) - _NOT_BY_ITSELF


def _texts(*names: str) -> list[str]:
    package = find_spec("transformers")
    folders = [Path(place) / "models" / "auto" for place in (package.submodule_search_locations or ())] if package else []
    return [file.read_text("utf-8") for folder in folders for name in names if (file := folder / name).is_file()]


def refuse(model_id: str, folder: Path) -> None:
    """Raises ModelError where the config.json in folder is of a model that could not be loaded, or not be trained."""
    if why := refusal(model_id, files.read_object(folder / "config.json")):
        raise ModelError(why)


def refusal(model_id: str, config: Mapping[str, Any]) -> Message | None:
    """Why a model of this config.json is none that is trained here; None where it is one, or brings code of its own."""
    model_type, saved = config.get("model_type"), config.get("transformers_version")
    if not known() or not isinstance(model_type, str) or (config.get("auto_map") and model_type not in known()):
        return None
    said = {"model": model_id, "model_type": model_type[:60], "installed": version("transformers"), "saved": str(saved)[:20]}
    if model_type not in known():
        return msg("model.unknown_family" if isinstance(saved, str) else "model.unknown_family_unsaid", **said)
    if config.get("is_encoder_decoder") is True:
        return msg("model.encoder_decoder", **said)
    classes = config.get("architectures")
    is_other = isinstance(classes, list) and bool(classes) and all(_OF_ANOTHER_USE.fullmatch(str(name)) for name in classes)
    return msg("model.no_text", **said) if is_other or (that_write() and model_type not in that_write()) else None
