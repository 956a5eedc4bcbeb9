"""Adapters made by other programs (PEFT, TRL, LLaMA-Factory and others), brought in as finished runs. No torch.

What the app keeps: the weights as they are, a chat template, and a config of its own with the settings that change what
the adapter computes (KEPT). Target modules are written as the names of the layers in the weights, since a pattern from
another's file could take forever to match. The rest of the run is what a recipe says: rank, alpha, layers, base. It has
no data, curve or validation set. A run is made completely or not at all.
"""

from __future__ import annotations

import filecmp
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core import files
from core.data.tokenizer import Tokenizer, template_source
from core.errors import ModelError, TemplateError
from core.files import JsonObject
from core.hub import download
from core.hub.download import Check, Report
from core.hub.listing import ADAPTER_FILES
from core.messages import Message, msg
from core.models import adapters, headers
from core.models.headers import Tensor
from core.models.library import Models
from core.recipe import NO_DATA, Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.run_json import Combination, RunFacts
from core.runs.states import State
from core.workspace import names
from core.workspace.folder import Workspace

CONFIG, WEIGHTS, TEMPLATE = "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"
# Settings of PEFT's that change what a finished adapter computes, and that chat and export support.
KEPT = (
    "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out",
    "lora_bias", "trainable_token_indices", "target_parameters",
)  # fmt: skip
# Those of them with which training here cannot continue.
NOT_TRAINED = (
    "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias", "trainable_token_indices",
)  # fmt: skip
# Those that do not, or that are written anew. All others are refused if they are set.
SETTLED = {
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "target_modules", "task_type",
}  # fmt: skip
MAX_NAMED = 5  # settings, or models, in a sentence


def from_folder(
    workspace: Workspace, folder: Path, base: str = "", source: str = "", combined: Combination | None = None
) -> RunFolder:
    """Make a finished run of an adapter folder, or of a GGUF file, and return it; its notes are events of the run.
    base: the base model, "" for the one that the adapter names. source: what the run says that it comes from, "" for
    the folder's name. combined: how it was made of other runs' adapters.

    Raises ModelError for anything but a LoRA adapter in safetensors whose base is on this PC and has layers of its
    shapes, or one that was brought in before; RecipeError, RunError, TemplateError.
    """
    if file := _gguf_in(folder):
        return _from_gguf(workspace, file, base)
    _check_files(folder)
    config, models = _config_in(folder), Models(workspace)
    adapters.check_complete(folder)
    tensors = headers.of_file(folder / WEIGHTS)
    layers = sorted({adapters.layer_of(tensor.name) for tensor in tensors if ".lora_" in tensor.name})
    # Of layers whose parameters are adapted (experts), no module is.
    inside = tuple(f".{str(name).rpartition('.')[0]}" for name in config.get("target_parameters") or ["-.-"])
    model_id, base_folder = _base(models, folder, base, tensors)
    of_base = headers.of_folder(base_folder)
    if wrong := _misfit_messages(tensors, of_base):
        raise ModelError("foreign.misfit", base=model_id, count=len(wrong), first=wrong[0])
    name = folder.name if combined else source.rpartition("/")[2] or folder.name
    recipe = _recipe(config, layers, model_id, names.display_name(name, 60) or "adapter")
    runs, source = Runs(workspace), source or folder.name
    _refuse_twice(runs, folder / WEIGHTS)
    base_name = model_id if "/" in model_id else str(base_folder)
    kept = {key: config[key] for key in KEPT if config.get(key)} | {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "bias": "none",
        "revision": recipe.model.revision,
        "target_modules": [layer for layer in layers if not f".{layer}".endswith(inside)],
        "init_lora_weights": True, "inference_mode": True,
    }  # fmt: skip
    own, usual = _template_in(folder), Tokenizer(base_folder).template
    template = usual if own is None else type(usual)(own)
    untrained = [key for key in NOT_TRAINED if config.get(key)]
    untrained += ["target_modules"] if _leaves_layers(layers, of_base) else []
    notes = [msg("foreign.other_template")] if template.source.strip() != usual.source.strip() else []
    notes += [msg("foreign.not_further", found=untrained)] if untrained else []

    def fill(run: RunFolder) -> Status:
        """Write the adapter, its template and tokenizer, log the notes, and return the run's state, completed."""
        run.adapter.mkdir()
        shutil.copyfile(folder / WEIGHTS, run.adapter / WEIGHTS)
        adapters.check_complete(run.adapter)  # it may have been written to meanwhile
        files.replace_json(run.adapter / CONFIG, kept)
        for file in adapters.TOKENIZER_FILES:
            if (base_folder / file).is_file():
                shutil.copyfile(base_folder / file, run.adapter / file)
        files.replace(run.adapter / TEMPLATE, template.source)
        for note in notes:
            run.log_event("warning", message=note)
        shown = base_folder.name if model_id == "starter" else model_id
        key = "merge.ended" if combined else "foreign.ended"
        ended = msg(key, source=source, base=shown, layers=len(layers))
        return Status(state=State.COMPLETED, since=time.time(), stage="done", message=ended, has_adapter=True)

    facts = RunFacts(
        brought_from=source, combined=combined, not_further=untrained, model_folder=str(base_folder),
        template=template.fingerprint,
    )  # fmt: skip
    return runs.create(recipe, "command", facts, fill)


def _from_gguf(workspace: Workspace, file: Path, base: str) -> RunFolder:
    """Make a finished run of an adapter in GGUF format. Raises as `from_folder`."""
    from core.models import gguf_adapter

    adapter, models = gguf_adapter.read(file), Models(workspace)
    if not (base := base or adapter.base):
        raise ModelError("foreign.gguf_base", file=file.name)
    model_id, base_folder = _base(models, file, base, ())
    with tempfile.TemporaryDirectory(dir=workspace.cache) as work:
        folder = Path(work) / file.stem
        gguf_adapter.write(adapter, model_id, base_folder, folder)
        return from_folder(workspace, folder, model_id)


def from_hub(
    workspace: Workspace, repo: str, revision: str | None, base: str, report: Report, check: Check
) -> RunFolder:
    """Download an adapter and make a finished run of it; the downloaded files are deleted. Its base is looked for
    before the weights are downloaded. Raises as `from_folder` and core.hub.download.fetch, and what check raises."""
    place = workspace.root / "downloads" / f"adapter-{names.slug(repo)}"

    def refuse_unknown_base(folder: Path) -> None:
        """Raise ModelError if the base of the adapter in folder is unknown or not on this PC; called once its config is
        downloaded, before the weights."""
        _base(Models(workspace), folder, base, ())

    try:
        folder = download.fetch_adapter(repo, revision, place, report, check, refuse_unknown_base)
        # copied without the cache's links
        return from_folder(workspace, Path(shutil.copytree(folder, place / "adapter")), base, repo)
    finally:
        files.remove_tree(place, files.MOMENT_S)


def notes_of(run: RunFolder) -> list[Message]:
    """Return what to say of a run that was just brought in: where it is from, and what differs or is not supported."""
    warnings = [Message.model_validate(event["message"]) for event in run.events() if event.get("kind") == "warning"]
    return [message for message in (run.status().message, *warnings) if message]


# ---- the folder ----------------------------------------------------------------------------------------
def _gguf_in(source: Path) -> Path | None:
    """Return source if it is a file, or the only GGUF file in a folder without PEFT's config; else None. Raises
    ModelError for several, for a link, and for one that is too large. The file's content is not read."""
    ggufs = [source] if source.is_file() else [] if (source / CONFIG).exists() else sorted(source.glob("*.gguf"))
    if len(ggufs) > 1:
        raise ModelError("foreign.gguf_several", folder=source.name, found=[file.name for file in ggufs[:MAX_NAMED]])
    for file in ggufs:
        _check_file(file, ADAPTER_FILES[WEIGHTS])
    return ggufs[0] if ggufs else None


def _check_files(folder: Path) -> None:
    """Raise ModelError unless folder holds an adapter's files, none a link or too large."""
    if not folder.is_dir():
        raise ModelError("foreign.no_folder", found=str(folder)[:200])
    for name, most in ADAPTER_FILES.items():
        _check_file(folder / name, most)
    adapters.describe(folder)


def _check_file(file: Path, most: int) -> None:
    """Raise ModelError for a link, and for a file of more than most bytes."""
    if file.is_symlink():
        raise ModelError("foreign.link", file=file.name)
    if file.is_file() and (size := file.stat().st_size) > most:
        raise ModelError("foreign.too_large", file=file.name, megabytes=size / 1e6, most=most / 1e6)


def _config_in(folder: Path) -> JsonObject:
    """Return the adapter's config. Raises ModelError for settings that this app cannot use, by name."""
    config = files.read_object(folder / CONFIG)
    unknown = sorted(key for key, value in config.items() if value and key not in KEPT and key not in SETTLED)
    unknown += [f"task_type: {config['task_type']}"] if config.get("task_type") not in (None, "CAUSAL_LM") else []
    unknown += [changed] if (changed := adapters.changes_base(config)) else []
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(name) or {}
        # PEFT matches them as regular expressions: of several repetitions some never end.
        if not isinstance(pattern, dict) or any(
            sum(map(key.count, "*+{?")) > 1 or not isinstance(value, int | float) for key, value in pattern.items()
        ):
            unknown.append(name)
    if unknown:
        raise ModelError("foreign.settings", folder=folder.name, found=[key[:80] for key in unknown[:MAX_NAMED]])
    return config


def _template_in(folder: Path) -> str | None:
    """Return the chat template in an adapter's folder; None without one. Raises TemplateError if it is no text."""
    config = files.read_object(folder / "tokenizer_config.json")
    if not (folder / TEMPLATE).is_file() and not config.get("chat_template"):
        return None
    try:
        return template_source(folder, config)
    except (OSError, ValueError) as error:
        raise TemplateError("foreign.template", reason=type(error).__name__) from None


def _refuse_twice(runs: Runs, weights: Path) -> None:
    """Raise ModelError if a run was brought in with the same weights."""
    for run in runs.folders():
        if run.facts().brought_from and run.has_adapter() and filecmp.cmp(weights, run.adapter / WEIGHTS, False):
            raise ModelError("foreign.twice", name=run.name)


# ---- the weights and the base --------------------------------------------------------------------------
def _leaves_layers(layers: Iterable[str], of_base: Iterable[Tensor]) -> bool:
    """Return whether the base has layers of the same kinds that the adapter leaves as they are. A recipe cannot name
    some layers of a kind."""
    text = {one.name.removesuffix(".weight") for one in of_base if not headers.OTHER_SENSES.search(one.name)}
    adapted = {adapters.matching_layer(text, layer) for layer in layers}
    kinds = {layer.rpartition(".")[2] for layer in layers}
    return any(name.rpartition(".")[2] in kinds for name in text - adapted)


def _base(models: Models, folder: Path, base: str, tensors: Iterable[Tensor]) -> tuple[str, Path]:
    """Return id and folder of the adapter's base. Raises ModelError if it is not on this PC; if it has no name that can
    be downloaded, naming the models here that have layers of the same shapes."""
    try:
        model_id = models.hub_id(base) if base else models.base_of(folder)
    except ModelError as error:
        if error.message.key != "adapter.base_unknown":
            raise
        fitting = [id for id in models.choices() if tensors and _fits(models, id, tensors)]
        named = error.message.params["base"]
        raise ModelError("foreign.base_unknown", base=named, fitting=fitting[:MAX_NAMED] or ["-"]) from None
    if (base_folder := models.local_folder(model_id)) is None:
        raise ModelError("foreign.base_missing", base=model_id)
    return model_id, base_folder


def _fits(models: Models, model_id: str, tensors: Iterable[Tensor]) -> bool:
    """Return whether a model is on this PC and its layers have the shapes of the adapter's; False also if it cannot be
    read."""
    try:
        folder = models.local_folder(model_id)
        return folder is not None and not _misfit_messages(tensors, headers.of_folder(folder))
    except ModelError:
        return False


def _misfit_messages(tensors: Iterable[Tensor], of_base: Iterable[Tensor]) -> list[Message]:
    """Return a message for each layer whose factors do not fit the base: B and A are (out, r) and (r, in) for a matrix
    (out, in). Layers that transformers names otherwise than the files, and quantized ones, are left to PEFT, as long as
    some layer is found."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    plain = {one.name.removesuffix(".weight"): one for one in of_base if one.name.endswith(".weight")}
    ends, matched, wrong = {name.rpartition(".")[2] for name in plain}, 0, list[Message]()
    for key, a in shapes.items():
        layer = adapters.layer_of(key)
        if key.endswith(".lora_B.weight") and key.replace(".lora_B.", ".lora_A.") not in shapes:
            wrong.append(msg("foreign.half", layer=layer, a="-", b=str(a)))
        if not key.endswith(".lora_A.weight") or layer.endswith(".experts"):
            continue
        b, matrix = shapes.get(key.replace(".lora_A.", ".lora_B.")), plain.get(adapters.matching_layer(plain, layer))
        if b is None or len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            wrong.append(msg("foreign.half", layer=layer, a=str(a), b=str(b)))
        elif matrix is None and layer.rpartition(".")[2] in ends:
            wrong.append(msg("foreign.no_layer", layer=layer))
        elif matrix is not None and matrix.dtype not in ("U8", "I8", "I32"):
            matched += 1
            if sorted(matrix.shape) != sorted((b[0], a[1])):
                wrong.append(msg("foreign.shape", layer=layer, found=str((b[0], a[1])), expected=str(matrix.shape)))
        else:
            matched += matrix is not None
    if not matched and not wrong:
        wrong += [msg("foreign.no_layer", layer=adapters.layer_of(key)) for key in list(shapes)[:1]]
    return wrong


def _recipe(config: Mapping[str, Any], layers: Iterable[str], model_id: str, name: str) -> Recipe:
    """Return the recipe that an adapter's config amounts to. Raises RecipeError for a rank or alpha beyond its
    limits."""
    value = {
        "name": name,
        "model": {"id": model_id, "revision": config.get("revision") or None},
        "data": {"source": NO_DATA},
        "adapter": {
            "r": config["r"],
            "lora_alpha": config["lora_alpha"],
            "target_modules": ",".join(sorted({layer.rpartition(".")[2] for layer in layers})),
            "use_rslora": bool(config.get("use_rslora")),
            "use_dora": bool(config.get("use_dora")),
            "target_parameters": "experts" if config.get("target_parameters") else "none",
        },
    }
    return Recipe.parse(value, where=CONFIG)
