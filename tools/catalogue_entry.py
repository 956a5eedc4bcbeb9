"""Adds a model to the catalogue, or updates its entry, from a hub or a local folder. No torch.

    python -m tools.catalogue_entry OWNER/NAME           prints its entry; HF_ENDPOINT, HF_TOKEN count as everywhere
    python -m tools.catalogue_entry FOLDER --hub OWNER/NAME
    python -m tools.catalogue_entry OWNER/NAME --write --en "Why one would take it." --zh "为什么选它。"

It reads config.json, the headers of the weights, the hub's facts and the chat template. Fields that a person decides
(id, title, family, languages of a list, thinking, tools, the sentence) are kept from an existing entry. Only that one
entry's text is written (entry_text), and only if it is consistent (entry_checks). A new entry is appended: its place in
the order is a person's to choose. Exit: 0 printed or written, 1 refused.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core import files
from core.errors import GarageError, ModelError
from core.hub import peek
from core.messages import terminal_language
from core.models import headers, hub_shapes, known
from core.models.known import KnownModel
from core.models.shapes.shape import ModelShape
from core.presets import PRESETS, load
from core.workspace.folder import expand
from tools import entry_checks, entry_text, hub_facts
from tools.entry_text import EntryError
from tools.hub_facts import HubFacts

CATALOGUE = PRESETS / "models.yaml"
_CODE = re.compile(r"[a-z]{2}")
_SIZE_IN_NAME = re.compile(r"[-_ ](?:[A-Z]?\d+(?:\.\d+)?[BM](?:-A\d+(?:\.\d+)?B)?)(?![\w.]).*", re.IGNORECASE)
_NO_SIZE = ("_token_id", "_token_index", "use_cache", "quantization_config")  # keys of a config.json, or their ends
_WIDTHS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size",
    "vocab_size", "tie_word_embeddings", "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """The facts read of one model. in_files: parameters in all its weight files; template: of its chat, None if there
    is none."""

    hub: str
    config: Mapping[str, Any]
    shape: ModelShape
    in_files: int | None
    template: str | None
    page: HubFacts
    source: str


def on_hub(hub: str) -> ModelFacts:
    """Read a model on the hub. Raises ModelError as `hub_facts.facts`, `hub_shapes.fetch_shape`."""
    page = hub_facts.facts(hub)
    config = peek.fetch_config(hub, page.commit)
    shape = hub_shapes.fetch_shape(hub, page.commit)
    source = f"config.json and headers of the weights at {(page.commit or 'main')[:12]}"
    in_files = page.params or (shape.held.params + shape.held.beside if shape.held else None)
    return ModelFacts(hub, config, shape, in_files, _template_on_hub(hub, page.commit), page, source)


def in_folder(folder: Path, hub: str) -> ModelFacts:
    """Read a model in a folder. Raises ModelError if config.json is missing or the weights do not belong to it."""
    config = files.read_object(folder / "config.json")
    if not config:
        raise ModelError("model.no_config", model=hub, folder=folder.name)
    shape, tensors = ModelShape.from_config(config), headers.of_folder(folder)
    headers.refuse_contradiction(tensors, config, shape)
    texts = [file.read_text("utf-8") for file in (folder / "chat_template.jinja",) if file.is_file()]
    template = texts[0] if texts else files.read_object(folder / "tokenizer_config.json").get("chat_template")
    counted = sum(tensor.count for tensor in tensors) or None
    source = "config.json and headers of the weights of a local copy"
    return ModelFacts(
        hub,
        config,
        shape.with_held(headers.count_weights(tensors, config, shape)),
        counted,
        _joined(template),
        HubFacts(hub),
        source,
    )


def entry_of(facts: ModelFacts, kept: Mapping[str, Any] | None, note: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry of presets/models.yaml. kept: the existing entry. Raises EntryError for a quantized model, or
    one with too few known facts."""
    if facts.shape.quantized:
        raise EntryError(
            f"{facts.hub} is quantized ({facts.shape.quantized}): its files do not show the shape of the original "
            "model. Name the original repository."
        )
    kept = kept or {}
    name = facts.hub.rsplit("/", 1)[-1]
    licence = _licence(facts.page.licence) or kept.get("licence")
    missing = [
        field
        for field, value in {
            "released": kept.get("released") or facts.page.created,
            "licence": licence,
            "note": note or kept.get("note"),
        }.items()
        if not value
    ]
    if missing:
        raise EntryError(
            f"Missing for {facts.hub}: {', '.join(missing)}. Give the reason to choose it with --en and --zh; month "
            "and licence come from the Hub, or from the existing entry."
        )
    beside = _beside(facts.shape, facts.in_files)
    return {
        "id": kept.get("id") or name.lower(),
        "hub": facts.hub,
        "title": kept.get("title") or name,
        "family": kept.get("family") or _SIZE_IN_NAME.sub("", name).replace("-", " "),
        "billions": _billions(facts.shape, kept.get("billions")),
        "in_files": facts.in_files,
        "beside": beside,
        "released": kept.get("released") or facts.page.created,
        "licence": licence,
        # As for the other models of this licence; limited for one that nobody has read yet.
        "commercial": kept.get("commercial")
        if licence == kept.get("licence")
        else next((model.commercial for model in known.known_models() if model.licence == str(licence)), "limited"),
        "gated": facts.page.gated if facts.page.commit else kept.get("gated", False),
        "languages": _languages(facts, kept.get("languages")),
        "thinking": kept.get("thinking") or _thinking(facts.template),
        "tools": kept["tools"] if "tools" in kept else facts.template and bool(re.search(r"\btools\b", facts.template)),
        "flags": _flags(facts.template, kept),
        "note": dict(note) or kept["note"],
        **_shape(facts),
        "source": facts.source,
    }


def checked_entry(entry: Mapping[str, Any]) -> KnownModel:
    """Return entry as the app will read it. Raises EntryError with everything that is wrong or inconsistent."""
    try:
        model = known.model_of(entry_text.read(entry_text.text_of(entry)), load("models")["spoken"])
    except ValidationError as error:
        errors = [f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors()]
        raise EntryError(
            f"Nothing was written, because {entry['hub']} would not be a valid entry: {'; '.join(errors)}."
        ) from None
    errors = entry_checks.disagreements(model)
    if errors:
        raise EntryError(f"Nothing was written, because the numbers of {model.hub} do not agree: {'; '.join(errors)}.")
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        folder = expand(options.model)
        is_folder = (folder / "config.json").is_file()
        if is_folder and not options.hub:
            raise EntryError(f"{folder.name} is a folder: name the Hub model it is a copy of with --hub OWNER/NAME.")
        text, entries = entry_text.entries(options.catalogue)
        facts = in_folder(folder, options.hub) if is_folder else on_hub(options.model)
        kept = entries.get(facts.hub)
        note = {language: reason for language, reason in (("en", options.en), ("zh", options.zh)) if reason}
        if len(note) == 1:
            raise EntryError("The reason to choose it must be given in both languages: --en and --zh.")
        entry = entry_of(facts, kept, note)
        checked_entry(entry)
    except EntryError as error:
        print(error, file=sys.stderr)
        return 1
    except GarageError as error:
        print(error.message.render(terminal_language()), file=sys.stderr)
        return 1
    print(entry_text.text_of(entry), end="")
    if options.write:
        files.replace(options.catalogue, entry_text.put(text, entry))
        done = (
            "was updated; its description and manual decisions are kept" if kept else "was added after the last entry"
        )
        print(f"{options.catalogue.name}: {facts.hub} {done}.", file=sys.stderr)
    if "held" in entry:
        command = "python launch.py test --full tests/model/test_catalogue.py"
        print(
            f"Its size cannot be derived from widths alone. Confirm it with its model class: {command}", file=sys.stderr
        )
    if not kept:
        guessed = {name: entry[name] or "?" for name in ("family", "thinking", "commercial")}
        print(f"Check what was guessed: {guessed}", file=sys.stderr)
    return 0


# ---- what follows from what was read -------------------------------------------------------------
def _shape(facts: ModelFacts) -> dict[str, Any]:
    """Return the widths if the model follows from them; otherwise the fields of config.json that its class needs, and
    the sizes in its files."""
    widths = ModelShape.from_config(facts.config)
    doubts = {doubt.key for doubt in widths.low_confidence} - {"shape.other_senses"}
    held = facts.shape.held
    if not doubts and (held is None or abs(held.params - widths.counted_params) <= entry_checks.COUNT * held.params):
        shape = {name: getattr(widths, name) for name in _WIDTHS}
        return {"shape": shape | ({"mlp": "plain"} if widths.mlp == "plain" else {})}
    if held is None or not held.lora_width:
        raise EntryError(
            f"The size of {facts.hub} cannot be derived from its widths alone, and its weight headers cannot be read. "
            "Download it and give its folder."
        )
    return {
        "config": _sizes_of(facts.config),
        "held": {"params": held.params, "four_bit": held.four_bit, "lora_width": held.lora_width},
    }


def _sizes_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config.json that may decide sizes: numbers, switches, lists of them, and the text part."""
    fields: dict[str, Any] = {"model_type": config["model_type"]}
    for name, value in config.items():
        if name in fields or any(name == end or name.endswith(end) for end in _NO_SIZE):
            continue
        plain = isinstance(value, bool | int)
        listed = isinstance(value, list) and bool(value) and all(isinstance(each, int | str) for each in value)
        if plain or (listed and name != "architectures"):
            fields[name] = value
        elif name == "text_config" and isinstance(value, dict):
            fields[name] = _sizes_of({"model_type": config["model_type"]} | value)
    return fields


def _beside(shape: ModelShape, in_files: int | None) -> str | None:
    more = 0 if in_files is None else in_files - shape.params
    if abs(more) <= entry_checks.COUNT * shape.params:
        return None
    head = shape.vocab_size * shape.hidden_size
    return "head" if shape.tie_word_embeddings and abs(more - head) <= entry_checks.COUNT * shape.params else "towers"


def _billions(shape: ModelShape, kept: float | None) -> float:
    billions = shape.params / 1e9
    return kept if kept and abs(billions / kept - 1) <= entry_checks.ROUNDED else float(f"{billions:.4g}")


def _licence(name: str | None) -> str | None:
    if name is None:
        return None
    spdx = {model.licence.lower(): model.licence for model in known.known_models()}
    return known.LICENCES.get(name) or spdx.get(name.lower()) or name


def _languages(facts: ModelFacts, kept: Any) -> Any:
    listed = [code for code in dict.fromkeys(facts.page.languages) if _CODE.fullmatch(code)]
    return kept if isinstance(kept, str) or not listed else listed


def _thinking(template: str | None) -> str | None:
    """Return the kind of thinking in the chat template: "optional" if it has a switch, "always" if it writes <think>
    without one, else "never"; None without a template."""
    if not template:
        return None
    if "enable_thinking" in template or re.search(r"\bthinking\b", template):
        return "optional"
    return "always" if "<think>" in template else "never"


def _flags(template: str | None, kept: Mapping[str, Any]) -> str | None:
    """Return the source of thinking and tools: the existing entry's, and the template for those that it lacks."""
    read = "its chat template" if template and not {"thinking", "tools"} <= kept.keys() else None
    return "; ".join(filter(None, (kept.get("flags"), read))) or None


def _template_on_hub(hub: str, commit: str | None) -> str | None:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        try:
            content = peek.fetch_start(hub, name, commit)
        except ModelError as error:
            if error.message.key not in ("hub.no_config", "hub.not_a_hub"):  # it has none, or one too large to be read
                raise
            continue
        if name.endswith(".jinja"):
            return content.decode("utf-8", "replace")
        try:
            return _joined(json.loads(content)["chat_template"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
    return None


def _joined(template: Any) -> str | None:
    """Return a repository's template; several named ones are joined to one text."""
    if isinstance(template, list):
        template = "\n".join(str(each.get("template")) for each in template if isinstance(each, dict))
    return template if isinstance(template, str) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.catalogue_entry", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="owner/name on the hub, or a folder with config.json")
    parser.add_argument("--hub", help="of a folder: the owner/name that it is a copy of")
    parser.add_argument("--en", help="why one would take it, in English")
    parser.add_argument("--zh", help="the same in Chinese")
    parser.add_argument("--write", action="store_true", help="put it into the catalogue")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE, help="another file of the same form")
    return parser


if __name__ == "__main__":
    sys.exit(main())
