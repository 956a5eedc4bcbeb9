"""The model families that the installed transformers supports, and those among them that generate text: read from its
source files, without importing it. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from core import files
from core.errors import ModelError
from core.messages import Message, msg

_LISTS = ("auto_mappings.py", "configuration_auto.py")
_ENTRY = re.compile(r"^\s*\(?\"([\w.-]+)\"[,:]", re.MULTILINE)
USUAL = "AutoModelForCausalLM"
_TEXT_LISTS = {
    kind: re.compile(rf"^MODEL_FOR_{its}_MAPPING_NAMES = (.*?)^\)", re.MULTILINE | re.DOTALL)
    for kind, its in (
        (USUAL, "CAUSAL_LM"), ("AutoModelForImageTextToText", "IMAGE_TEXT_TO_TEXT"), ("AutoModelForMultimodalLM",
            "MULTIMODAL_LM"),
    )
}  # fmt: skip
_CLASS_ENTRY = re.compile(r"\(\s*\"([\w.-]+)\",\s*\"(\w+)\"")
# In those lists, but not usable alone: several models in one without a forward; drafters for another model.
_NOT_BY_ITSELF = {"qwen2_5_omni", "qwen3_omni_moe", "gemma4_assistant", "gemma4_unified_assistant"}
_OF_ANOTHER_USE = re.compile(
    r"\w+For(MaskedLM|\w*Classification|QuestionAnswering|MultipleChoice)"
)  # a class whose files have no language model head


@lru_cache(maxsize=1)
def known() -> frozenset[str]:
    """Return the values of model_type in config.json for which the installed transformers has a family, whatever its
    purpose; empty if a later transformers keeps its list elsewhere."""
    return frozenset(entry for text in _texts(*_LISTS) for entry in _ENTRY.findall(text))


@lru_cache(maxsize=1)
def text_generating() -> frozenset[str]:
    """Return the model types with a class for causal language models, or for models that also see or hear; empty as in
    `known`."""
    return frozenset(model_type for classes in _text_classes().values() for model_type in classes) - _NOT_BY_ITSELF


def auto_class(folder: Path | None) -> str:
    """Return the transformers class that loads the model in folder as published.

    It is the one that core.engine.families.parts chooses; for a model that is not here, that of causal language models.
    """
    config = files.read_object(folder / "config.json") if folder else {}
    classes = {
        kind: of_type[config["model_type"]]
        for kind, of_type in _text_classes().items()
        if config.get("model_type") in of_type
    }
    as_shipped = [kind for kind, name in classes.items() if name in (config.get("architectures") or ())]
    return next(iter((*as_shipped, *classes)), USUAL)


@lru_cache(maxsize=1)
def _text_classes() -> dict[str, dict[str, str]]:
    """Return for each auto class that loads text generators: model_type -> class name."""
    texts = _texts("modeling_auto.py")
    return {
        kind: {
            model_type: name
            for text in texts
            for one in pattern.findall(text)
            for model_type, name in _CLASS_ENTRY.findall(one)
        }
        for kind, pattern in _TEXT_LISTS.items()
    }


def _texts(*names: str) -> list[str]:
    """Return the texts of those of the named files that transformers has in models/auto; [] without transformers."""
    package = find_spec("transformers")
    folders = (
        [Path(place) / "models" / "auto" for place in (package.submodule_search_locations or ())] if package else []
    )
    return [file.read_text("utf-8") for folder in folders for name in names if (file := folder / name).is_file()]


def refuse(model_id: str, folder: Path) -> None:
    """Raise ModelError if the config.json in folder is unreadable, or of a model that cannot be loaded or trained."""
    config = files.read_object(folder / "config.json")
    if not config:
        raise ModelError("hub.bad_config", file=folder / "config.json")
    if why := refusal(model_id, config):
        raise ModelError(why)


def refusal(model_id: str, config: Mapping[str, object]) -> Message | None:
    """Return why a model with this config.json cannot be trained here; None if nothing speaks against it.

    Reasons: a family that transformers does not know (with its own code or without), an encoder-decoder, a class that
    generates no text. Own code of a known family is no reason. None also without a model_type, or if transformers'
    families cannot be read.
    """
    model_type, saved = config.get("model_type"), config.get("transformers_version")
    if not known() or not isinstance(model_type, str):
        return None
    facts = {
        "model": model_id,
        "model_type": model_type[:60],
        "installed": version("transformers"),
        "saved": str(saved)[:20],
    }
    if model_type not in known():
        if config.get("auto_map"):
            return msg("model.own_code", model=model_id)
        return msg("model.unknown_family" if isinstance(saved, str) else "model.unknown_family_unsaid", **facts)
    if config.get("is_encoder_decoder") is True:
        return msg("model.encoder_decoder", **facts)
    classes = config.get("architectures")
    is_other = (
        isinstance(classes, list) and bool(classes) and all(_OF_ANOTHER_USE.fullmatch(str(name)) for name in classes)
    )
    return (
        msg("model.no_text", **facts)
        if is_other or (text_generating() and model_type not in text_generating())
        else None
    )
