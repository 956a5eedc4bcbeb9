"""Which model families the installed transformers supports, and which of them it can train to generate text: read from
its own lists, without importing it. No torch."""

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
USUAL = "AutoModelForCausalLM"
_WRITING = {
    kind: re.compile(rf"^MODEL_FOR_{its}_MAPPING_NAMES = (.*?)^\)", re.MULTILINE | re.DOTALL)
    for kind, its in (
        (USUAL, "CAUSAL_LM"), ("AutoModelForImageTextToText", "IMAGE_TEXT_TO_TEXT"), ("AutoModelForMultimodalLM",
            "MULTIMODAL_LM"),
    )
}  # fmt: skip
_MADE = re.compile(r"\(\s*\"([\w.-]+)\",\s*\"(\w+)\"")
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
    return frozenset(model_type for made in _made().values() for model_type in made) - _NOT_BY_ITSELF


def auto_class(folder: Path | None) -> str:
    """The class of transformers by which the model in folder is loaded as its makers ship it, as
    core.engine.families.parts chooses it; that of causal language models where it is not here."""
    config = files.read_object(folder / "config.json") if folder else {}
    there = {kind: made[config["model_type"]] for kind, made in _made().items() if config.get("model_type") in made}
    as_shipped = [kind for kind, name in there.items() if name in (config.get("architectures") or ())]
    return next(iter((*as_shipped, *there)), USUAL)


@lru_cache(maxsize=1)
def _made() -> dict[str, dict[str, str]]:
    """By the classes that load what writes a text: model_type -> its own class."""
    texts = _texts("modeling_auto.py")
    return {
        kind: {
            model_type: name for text in texts for one in its.findall(text) for model_type, name in _MADE.findall(one)
        }
        for kind, its in _WRITING.items()
    }


def _texts(*names: str) -> list[str]:
    package = find_spec("transformers")
    folders = (
        [Path(place) / "models" / "auto" for place in (package.submodule_search_locations or ())] if package else []
    )
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
    said = {
        "model": model_id,
        "model_type": model_type[:60],
        "installed": version("transformers"),
        "saved": str(saved)[:20],
    }
    if model_type not in known():
        return msg("model.unknown_family" if isinstance(saved, str) else "model.unknown_family_unsaid", **said)
    if config.get("is_encoder_decoder") is True:
        return msg("model.encoder_decoder", **said)
    classes = config.get("architectures")
    is_other = (
        isinstance(classes, list) and bool(classes) and all(_OF_ANOTHER_USE.fullmatch(str(name)) for name in classes)
    )
    return msg("model.no_text", **said) if is_other or (that_write() and model_type not in that_write()) else None
