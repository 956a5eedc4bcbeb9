"""Converts a merged Hugging Face folder, or an adapter, to GGUF with llama.cpp's own converter, in a separate process
without network, which `child.ask` starts.

The folder is ours, made for this: its files may be reworded. What upstream's script gets wrong with such folders is
mended here and in `hub_words`, each where it says so; what it does not know is refused with the reason that it gives.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from core import files
from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.export.llamacpp.hub_words import of_the_hub

# In a file whose tokenizer llama.cpp did not know: what it was taken for, by its structure.
NAMED = "lora_garage.pre_tokenizer"
KINDS = {"f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}


def work(request: dict[str, Any]) -> dict[str, Any]:
    """request: converter, runtime (folders), model, out, kind, name, stop (the token that ends a turn), pre (or None),
    tower (what it sees or hears by, in place of its text), tuned; or, for an adapter, its folder, model, out. Returns
    {}, or how many tensors an adapter became."""
    _offline()
    sys.path[:0] = [request["converter"], str(Path(request["converter"]) / "gguf-py"), request["runtime"]]
    folder = Path(request["model"])
    _refuse_code(folder)
    _words_of_the_hub(folder)
    if request.get("adapter"):
        return _convert_adapter(folder, request)
    _convert(folder, request)
    return {}


def _offline() -> None:
    """The converter reads a folder; whatever in it reaches for a network is a fault."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("no network while converting")

    socket.socket.connect = refuse  # type: ignore[method-assign]


def _refuse_code(folder: Path) -> None:
    """The converter asks transformers for the tokenizer with trust_remote_code. Families that transformers has made its
    own (Phi-4-mini) still name the code that they once came with, which is not here, and would be looked for."""
    code = [file.name for file in sorted(folder.rglob("*.py"))]
    for file in folder.glob("*.json"):
        if file.stat().st_size < 10**6 and '"auto_map"' in file.read_text("utf-8"):
            said = files.read_object(file)
            said.pop("auto_map", None)
            files.replace_json(file, said)
            code += [file.name] if '"auto_map"' in file.read_text("utf-8") else []
    if code:
        raise Refused("own_code", found=code[:3])


def _words_of_the_hub(folder: Path) -> None:
    """Upstream reads config.json by transformers, and of some families (Granite's) as it is."""
    from conversion import ModelBase  # llama.cpp's, from the tools

    file = folder / "config.json"
    files.replace_json(file, of_the_hub(files.read_object(file)))
    theirs = ModelBase.load_hparams

    def load_hparams(*arguments: Any, **more: Any) -> dict[str, Any]:
        return of_the_hub(theirs(*arguments, **more))

    ModelBase.load_hparams = staticmethod(load_hparams)


def _convert(folder: Path, request: dict[str, Any]) -> None:
    import gguf
    import torch
    from conversion import TextModel  # llama.cpp's, from the tools

    _name_the_pre_tokenizer(TextModel, request["pre"])
    model_class = _class_of(folder, request.get("tower", False))
    kind = gguf.LlamaFileType[KINDS[request["kind"]]]
    name = _plain_name(request["name"])
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        override = Path(scratch) / "metadata.json"
        said = {"general.name": name, "general.basename": name} | (
            {"general.finetune": "LoRA"} if request.get("tuned", True) else {}
        )
        override.write_text(json.dumps(said), "utf-8", newline="\n")
        model = model_class(folder, kind, Path(request["out"]), metadata_override=override, model_name=name)
        if not request.get("tower"):
            _mark_the_end_of_a_turn(model, request["stop"])
        try:
            model.write()
        except NotImplementedError as error:
            key = "pre_tokenizer" if "pre-tokenizer" in str(error) else "not_implemented"
            raise Refused(key, reason=str(error)[:200]) from error
        except FileNotFoundError as error:
            # tokenizer.model, which transformers 5 does not save and some families are read by
            raise Refused("tokenizer_lacks", reason=re.sub(r"\S*[/\\\\]", "", str(error))[:200]) from error


def _convert_adapter(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """By upstream's own script, which is a program and takes its wishes as one."""
    import conversion  # llama.cpp's
    import gguf

    model_class = _class_of(folder, tower=False)
    # Ministral's class is a wrapper that hands a base's weights to another one: with it the script writes the base's
    # own.
    config = conversion.ModelBase.load_hparams(folder, False)
    kind = (config.get("text_config") or config).get("model_type")
    model_class = getattr(model_class, "Mistral4Model" if kind == "mistral4" else "Ministral3Model", model_class)
    conversion.get_model_class = lambda *_, **__: model_class
    _turn_columns_in_a()
    script = Path(request["converter"]) / "convert_lora_to_gguf.py"
    sys.argv = [script.name, request["adapter"], "--base", str(folder), "--outfile", request["out"], "--outtype", "f16"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except (NotImplementedError, ValueError, SystemExit) as error:
        raise Refused("not_implemented", reason=str(error)[:200] or type(error).__name__) from error
    return {"tensors": len(gguf.GGUFReader(request["out"]).tensors)}


def _turn_columns_in_a() -> None:
    """Qwen3.5's converter puts the columns of out_proj into another order; those of B A are A's, and upstream's script
    cannot do that."""
    from conversion import qwen

    family = getattr(qwen, "_LinearAttentionVReorderBase", None)
    if family is None:  # another checkout's
        return
    theirs = family._reorder_v_heads

    def reorder(tensor: Any, dim: int, *heads: int) -> Any:
        if dim == 1 and hasattr(tensor, "get_lora_A_B"):
            a, b = tensor.get_lora_A_B()
            return type(tensor)(theirs(a, 1, *heads), b)
        return theirs(tensor, dim, *heads)

    family._reorder_v_heads = staticmethod(reorder)


def _name_the_pre_tokenizer(text_model: Any, pre: str | None) -> None:
    """pre: where upstream does not know the tokenizer's hash, as of a vocabulary that was changed. Whether it is right,
    ids show."""
    theirs = text_model.get_vocab_base_pre

    def known_or_named(self: Any, tokenizer: Any) -> str:
        try:
            return str(theirs(self, tokenizer))
        except NotImplementedError:
            if pre is None:
                raise
            self.gguf_writer.add_string(NAMED, pre)
            return pre

    text_model.get_vocab_base_pre = known_or_named


def _class_of(folder: Path, tower: bool) -> Any:
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # llama.cpp's

    family = get_model_architecture(
        ModelBase.load_hparams(folder, False), ModelType.MMPROJ if tower else ModelType.TEXT
    )
    try:
        found = get_model_class(family, mmproj=tower)
    except NotImplementedError as error:
        raise Refused("other_family", family=family) from error
    if tower:
        _tensors_of_the_tower(found, family)
    if found.supports_mtp_export:
        found.no_mtp = True  # draft heads are not tuned, and a folder that lacks them would not convert
    return found


def _tensors_of_the_tower(its_class: Any, family: str) -> None:
    """A head that is no longer tied, which upstream takes for a part of some towers, is none. Of Gemma 3's the names
    are as the hub has them, of which transformers 5 leaves a part out, and what gathers a picture in one vector is not
    used."""
    theirs = its_class.filter_tensors

    def filter_tensors(item: tuple[str, Any]) -> Any:
        name, tensor = item
        if family == "Gemma3ForConditionalGeneration":
            name = re.sub(r"vision_tower\.(?=embeddings|encoder|post_layernorm)", "vision_tower.vision_model.", name)
        if family == "Mistral3ForConditionalGeneration" and name.endswith("embed_tokens.weight"):
            return name, tensor  # it takes one row of them, and upstream leaves out all of the text's before
        return None if name.startswith("lm_head.") or "vision_tower.head." in name else theirs((name, tensor))

    its_class.filter_tensors = staticmethod(filter_tensors)


def _plain_name(name: str) -> str:
    """A name with "phi3" in it makes llama.cpp compute another model's way."""
    return re.sub(r"phi[-_ ]?3", "phi three", name, flags=re.IGNORECASE)


def _mark_the_end_of_a_turn(model: Any, stop: str) -> None:
    """Upstream does not write the template's stop as eot_token_id for every family."""
    theirs = model.prepare_metadata

    def prepare_metadata(*arguments: Any, **more: Any) -> None:
        theirs(*arguments, **more)
        there = {key for values in model.gguf_writer.kv_data for key in values}
        tokens = files.read_json(model.dir_model / "tokenizer.json") or {}
        words = (tokens.get("model") or {}).get("vocab")
        ids = dict(words) if isinstance(words, dict) else {}
        ids |= {token["content"]: token["id"] for token in tokens.get("added_tokens") or ()}
        if "tokenizer.ggml.eot_token_id" not in there and stop in ids:
            model.gguf_writer.add_eot_token_id(ids[stop])

    model.prepare_metadata = prepare_metadata


if __name__ == "__main__":
    sys.exit(child.answer(work))
