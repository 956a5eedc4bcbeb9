"""LoRA on a base, and adapters as folders in PEFT's own format. Imports torch and peft inside functions only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import files
from core.errors import ModelError, reason_of
from core.models.adapters import TOKENIZER_FILES, check_whole, describe
from core.models.weights import backend, open_tensors
from core.recipe import Adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"  # the name under which peft holds the one adapter


def add(model: PreTrainedModel, settings: Adapter, base_name: str, revision: str | None, will_restore: bool = False) -> PeftModel:
    """A fresh adapter in float32 on a frozen base; the first answers are the base's.

    will_restore: `restore` or `start_from` follows, so that nothing needs to be computed to begin with (PiSSA).
    """
    from peft import LoraConfig, get_peft_model

    names = settings.target_modules.strip()
    targets: str | list[str] = "all-linear"
    if names != "all-linear":
        targets = [name.strip() for name in names.split(",") if name.strip()]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha or 2 * settings.r,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights=settings.init_lora_weights if settings.is_pissa and not will_restore else True,
    )
    try:
        tuned = get_peft_model(model, config)
    except TypeError as error:
        if not settings.is_pissa:
            raise
        # A repository that is quantised already: what PiSSA takes out of the weights must be there as it is.
        raise ModelError("adapter.pissa_quantised", reason=reason_of(error)) from error
    except ValueError as error:
        raise ModelError("model.bad_targets", targets=names, reason=str(error)[:200]) from error
    # What a finished adapter names as its base must load on this machine without a network.
    tuned.peft_config[ADAPTER].base_model_name_or_path = base_name
    tuned.peft_config[ADAPTER].revision = revision
    if settings.is_pissa:
        from core.engine import pissa

        tuned.pissa = pissa.Pissa()
        if not will_restore:
            pissa.note_start(tuned, settings.r)
    return tuned


def save(tuned: PeftModel, folder: Path, model_folder: Path, card: str, template: str) -> None:
    """Adapter, tokenizer, chat template and model card, complete or not at all: written aside, then renamed."""
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        # peft would draw a model card, half the time of a small checkpoint, which ours replaces.
        tuned.create_or_update_model_card = lambda folder: None
        # "auto", peft's default, would ask the hub about the base at every save.
        tuned.save_pretrained(aside, safe_serialization=True, save_embedding_layers=False)
        if begun := getattr(tuned, "pissa", None):
            from core.engine import pissa

            pissa.convert(aside, begun.start)
        for name in TOKENIZER_FILES:
            if (model_folder / name).exists():
                shutil.copyfile(model_folder / name, aside / name)
        (aside / "chat_template.jinja").write_text(template, "utf-8", newline="\n")
        (aside / "README.md").write_text(card, "utf-8", newline="\n")
        files.sync_tree(aside)
    except BaseException:  # a stop and Ctrl-C too; all of them go on
        shutil.rmtree(aside, ignore_errors=True)  # a full disk must not stay full of halves
        raise
    _put(aside, folder)


def copy(source: Path, folder: Path, card: str) -> None:
    """A saved adapter once more, byte for byte, with a model card of its own; complete or not at all."""
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(source, aside)
        (aside / "README.md").write_text(card, "utf-8", newline="\n")
        files.sync_tree(aside)
    except BaseException:  # as in save
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _put(aside, folder)


def _put(aside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        files.rename(folder, old)
    files.rename(aside, folder)
    files.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def start_from(tuned: PeftModel, folder: Path) -> None:
    """Give the fresh adapter of tuned the weights saved in folder, bit for bit. Raises ModelError where they are not its own."""
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / "adapter_model.safetensors", backend=backend())
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError("adapter.damaged", folder=folder.name, reason=reason_of(error)) from error
    own, given = get_peft_model_state_dict(tuned, save_embedding_layers=False), weights
    if hasattr(tuned, "pissa"):
        from core.engine import pissa

        given = pissa.halves(weights)[0]
    misfits = sorted(name for name in {*own, *given} if name not in own or name not in given)
    misfits += [name for name in own if name in given and own[name].shape != given[name].shape]
    if misfits:
        raise ModelError("adapter.other_base", folder=folder.name, count=len(misfits), first=misfits[0])
    restore(tuned, weights)


def restore(tuned: PeftModel, weights: dict[str, Any]) -> None:
    """The adapter of tuned, and with PiSSA its base, as they were when weights were saved; bit for bit."""
    from peft import set_peft_model_state_dict

    if hasattr(tuned, "pissa"):
        from core.engine import pissa

        pissa.go_on(tuned, weights)
    else:
        set_peft_model_state_dict(tuned, weights)


def begin_anew(tuned: PeftModel, start: dict[str, Any]) -> None:
    """start: what the adapter of tuned began with, by peft's names; the base stays as it is."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(tuned, start)


def attach(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A saved adapter on a loaded base. Raises ModelError naming every shape that does not fit."""
    from peft import PeftModel

    describe(folder)
    check_whole(folder)
    modules = dict(model.named_modules())
    misfits = []
    with open_tensors(folder / "adapter_model.safetensors") as file:
        for key in file.keys():  # noqa: SIM118 - it is no mapping
            for kind, axis, field in ((".lora_A.weight", 1, "in_features"), (".lora_B.weight", 0, "out_features")):
                if key.endswith(kind):
                    name = key.removesuffix(kind).removeprefix("base_model.model.")
                    expected = getattr(modules.get(name), field, None)
                    found = file.get_slice(key).get_shape()[axis]
                    if found != expected:
                        misfits.append(f"{name} {field} {found} != {expected}")
    if misfits:
        raise ModelError("adapter.other_base", folder=folder.name, count=len(misfits), first=misfits[0])
    tuned = PeftModel.from_pretrained(model, folder, adapter_name=ADAPTER, is_trainable=False)
    return tuned.eval()
