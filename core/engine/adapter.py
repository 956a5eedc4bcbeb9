"""LoRA on a base, and adapters as folders in PEFT's own format. Imports torch and peft inside functions only."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core import files
from core.errors import ModelError, reason_of
from core.files import is_out_of_memory
from core.models.adapters import PREFIX, TOKENIZER_FILES, check_complete, describe, layer_of, rename_layers, renamed
from core.models.shapes.matrices import WITHOUT_ADAPTER
from core.models.weights import backend
from core.recipe import Adapter

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"  # peft's name of the only adapter


def add(
    model: PreTrainedModel, settings: Adapter, base_name: str, revision: str | None, will_restore: bool = False
) -> PeftModel:
    """Add a new float32 adapter named ADAPTER to a frozen base and return the peft model; before training it changes no
    output. `all-linear` means `parts.linear_layers`, other target_modules are names separated by commas. lora_alpha
    defaults to 2 r. Raises ModelError for targets that the base lacks or cannot train, for experts that it lacks, and
    for PiSSA on a quantized base. will_restore: `restore` or `start_from` follows, so the initialization need not be
    computed (PiSSA)."""
    from peft import LoraConfig, get_peft_model

    from core.engine.families import parts

    names = settings.target_modules.strip()
    targets = parts.linear_layers(model)
    if names != "all-linear":
        # Refused by name: peft would take some for experts, and on the others an adapter would have no effect.
        requested, kind = [name.strip() for name in names.split(",") if name.strip()], model.config.model_type
        if excluded := sorted({name for name in requested if name.rpartition(".")[2] in WITHOUT_ADAPTER.get(kind, ())}):
            raise ModelError("shape.targets_left_out", found=excluded, model_type=kind)
        targets = named(targets, requested)
    experts = parts.expert_parameters(model) if settings.trains_experts else []
    if settings.trains_experts and not experts:
        raise ModelError("shape.no_experts", model_type=model.config.model_type)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha or 2 * settings.r,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        # By the ends of their names, so that the text-only class and the published class can load the same adapter.
        target_parameters=sorted({".".join(name.split(".")[-3:]) for name in experts}) or None,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights=settings.init_lora_weights if settings.is_pissa and not will_restore else True,
    )
    try:
        tuned = get_peft_model(model, config)
    except TypeError as error:
        if not settings.is_pissa:
            raise
        # A quantized repository: PiSSA needs the original weights.
        raise ModelError("adapter.pissa_quantised", reason=reason_of(error)) from error
    except ValueError as error:
        raise ModelError("model.bad_targets", targets=names, reason=str(error)[:200]) from error
    # The base that a saved adapter names must load on this PC without a network.
    tuned.peft_config[ADAPTER].base_model_name_or_path = base_name
    tuned.peft_config[ADAPTER].revision = revision
    # layers of a tower may have the same names
    tuned.peft_config[ADAPTER].exclude_modules = parts.absent(model) or None
    if settings.is_pissa:
        from core.engine.variants import pissa

        tuned.pissa = pissa.Pissa()
        if not will_restore:
            pissa.note_start(tuned, settings.r)
    return tuned


def named(layers: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the layers whose dotted names end in one of names: "q_proj" or "self_attn.q_proj", but not "proj", matches
    layers.0.self_attn.q_proj. Names that match no layer are appended, for peft to find or refuse."""
    matches = [layer for layer in layers if any(f".{layer}".endswith(f".{name}") for name in names)]
    return [*matches, *(name for name in names if not any(f".{layer}".endswith(f".{name}") for layer in layers))]


def save(tuned: PeftModel, folder: Path, model_folder: Path, card: str, template: str) -> None:
    """Write adapter (as plain LoRA, also with PiSSA), tokenizer files copied from model_folder, chat template and model
    card to folder, all or nothing, in place of an earlier one."""
    with files.folder_aside(folder) as aside:
        # peft would write a model card (half the time of a small checkpoint), which ours replaces.
        tuned.create_or_update_model_card = lambda folder: None
        # "auto", peft's default, would query the Hub about the base at every save.
        tuned.save_pretrained(aside, safe_serialization=True, save_embedding_layers=False)
        if pissa_state := getattr(tuned, "pissa", None):
            from core.engine.variants import pissa

            pissa.convert(aside, pissa_state.start)
        for name in TOKENIZER_FILES:
            if (model_folder / name).exists():
                shutil.copyfile(model_folder / name, aside / name)
        (aside / "chat_template.jinja").write_text(template, "utf-8", newline="\n")
        (aside / "README.md").write_text(card, "utf-8", newline="\n")


def copy(source: Path, folder: Path, card: str) -> None:
    """Copy a saved adapter byte for byte, with a new model card; all or nothing, in place of an earlier folder."""
    with files.folder_aside(folder) as aside:
        shutil.copytree(source, aside)
        (aside / "README.md").write_text(card, "utf-8", newline="\n")


def start_from(tuned: PeftModel, folder: Path) -> None:
    """Load the weights saved in folder into tuned's new adapter, bit for bit. Raises ModelError if they cannot be read
    or do not match it."""
    weights = _read(folder)
    # `restore` checks the same, but its message is for a run that is resumed.
    if misfits := _misfits(tuned, weights):
        raise ModelError("adapter.other_base", folder=folder.name, count=len(misfits), first=misfits[0])
    restore(tuned, weights)


def _misfits(tuned: PeftModel, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Return names of weights that tuned's adapter lacks or has in another shape, and of its own weights missing from
    weights; PiSSA's weights are compared by their trained half."""
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    saved = renamed(weights, {layer_of(name) for name in own})
    if hasattr(tuned, "pissa"):
        from core.engine.variants import pissa

        # The file also holds the start, so its rank is twice as high.
        saved = pissa.halves(saved)[0]
    misfits = sorted(name for name in {*own, *saved} if name not in own or name not in saved)
    return misfits + [name for name in own if name in saved and own[name].shape != saved[name].shape]


def _read(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of adapter_model.safetensors in folder. Raises ModelError if the file cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / "adapter_model.safetensors", backend=backend())
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError("adapter.damaged", folder=folder.name, reason=reason_of(error)) from error


def restore(tuned: PeftModel, weights: dict[str, torch.Tensor]) -> None:
    """Restore tuned's adapter, and with PiSSA its base, to the state in which weights were saved; bit for bit. Raises
    ModelError if weights belong to other layers."""
    from peft import set_peft_model_state_dict

    if misfits := _misfits(tuned, weights):
        raise ModelError("adapter.other_layers", count=len(misfits), first=misfits[0].removeprefix(PREFIX))
    weights = renamed(weights, {name for name, _ in tuned.get_base_model().named_modules()})
    if hasattr(tuned, "pissa"):
        from core.engine.variants import pissa

        pissa.resume(tuned, weights)
    else:
        set_peft_model_state_dict(tuned, weights)


def attach(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Load a saved adapter onto a loaded base and return the peft model in eval mode; weights for towers that were
    removed are skipped. Raises ModelError if any of its weights, or of the adapter's layers, has no counterpart; the
    base is then as before. Out-of-memory errors are raised as they are."""
    from peft import PeftConfig, PeftModelForCausalLM, set_peft_model_state_dict

    from core.engine.families import parts

    describe(folder)
    check_complete(folder)
    config = PeftConfig.from_pretrained(folder, local_files_only=True)
    config.inference_mode, removed = True, parts.absent(model)
    # peft warns of an exclusion that matches no module, and the towers that this one names were removed.
    config.exclude_modules = None if config.exclude_modules == removed else config.exclude_modules
    layers = {name for name, _ in model.named_modules()}
    rename_layers(config, layers)
    # Adapters that others trained on a tower do not affect text.
    weights = {
        key: tensor
        for key, tensor in renamed(_read(folder), layers).items()
        if not re.fullmatch(removed, key.removeprefix(PREFIX))
    }
    try:
        tuned = PeftModelForCausalLM(model, config, adapter_name=ADAPTER)
        placed = set_peft_model_state_dict(tuned, weights, adapter_name=ADAPTER)
        # missing_keys also lists every weight of the base, none of which is in an adapter's file.
        own = (name for name in placed.missing_keys if f".{ADAPTER}." in name and ".lora_" in name)
        misfits = [*placed.unexpected_keys, *own]
    except (ValueError, RuntimeError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        _take_off(model)
        # torch reports one line per shape mismatch; peft one line for all missing layers.
        misfits = [line.strip() for line in str(error).splitlines() if "size mismatch" in line] or [
            reason_of(error)[:200]
        ]
    if misfits:
        _take_off(model)
        raise ModelError("adapter.other_base", folder=folder.name, count=len(misfits), first=misfits[0])
    return tuned.eval()


def _take_off(model: PreTrainedModel) -> None:
    """Put back the original layers that peft has wrapped, and forget the peft configuration."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and ".base_layer" not in name:
            place, _, child = name.rpartition(".")
            # peft nests a wrapper for each adapted parameter of a module; get_base_layer goes through all of them.
            setattr(model.get_submodule(place), child, module.get_base_layer())
    vars(model).pop("peft_config", None)
