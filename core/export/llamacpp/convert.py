"""Converts a merged Hugging Face folder, or an adapter, to GGUF with llama.cpp's own converter, in a separate process
without network, which `child.ask` starts.

The folder was made for this and may be changed. Where upstream's script is wrong about such folders it is corrected
here and in `hub_config`, with a comment in each place; what it does not know is refused with its own reason.
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
from typing import TYPE_CHECKING, NoReturn

from core import files
from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.export.llamacpp.hub_config import to_hub_config
from core.files import JsonObject

if TYPE_CHECKING:
    import torch
    from conversion import ModelBase
    from transformers import PreTrainedTokenizerBase


# Metadata key for the pre-tokenizer's name that was derived from its structure, because llama.cpp did not know it.
NAMED = "lora_garage.pre_tokenizer"
KINDS = {"f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}


def work(request: JsonObject) -> JsonObject:
    """Convert and return {}, or for an adapter the number of its tensors.

    request: converter, runtime (folders), model, out, kind, name, stop (the token that ends a turn), pre (or None),
    tower (convert the vision or audio part instead of the text), tuned; for an adapter: its folder, model, out.
    """
    _offline()
    sys.path[:0] = [request["converter"], str(Path(request["converter"]) / "gguf-py"), request["runtime"]]
    folder = Path(request["model"])
    _refuse_code(folder)
    _restore_hub_config(folder)
    if request.get("adapter"):
        return _convert_adapter(folder, request)
    _convert(folder, request)
    return {}


def _offline() -> None:
    """Block the network: the converter reads a folder, and any connection is an error."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("no network while converting")

    socket.socket.connect = refuse  # type: ignore[method-assign]


def _refuse_code(folder: Path) -> None:
    """Refuse a folder with Python code, and remove `auto_map` from its JSON files.

    The converter loads the tokenizer with trust_remote_code. Families that transformers has adopted (Phi-4-mini) still
    name their original code, which is absent here and would be downloaded.
    """
    code = [file.name for file in sorted(folder.rglob("*.py"))]
    for file in folder.glob("*.json"):
        if file.stat().st_size < 10**6 and '"auto_map"' in file.read_text("utf-8"):
            config = files.read_object(file)
            config.pop("auto_map", None)
            files.replace_json(file, config)
            code += [file.name] if '"auto_map"' in file.read_text("utf-8") else []
    if code:
        raise Refused("own_code", found=code[:3])


def _restore_hub_config(folder: Path) -> None:
    """Rewrite config.json in the hub's notation, and patch the converter, which reads it through transformers or, for
    Granite, directly."""
    from conversion import ModelBase  # llama.cpp's, from the tools

    file = folder / "config.json"
    files.replace_json(file, to_hub_config(files.read_object(file)))
    upstream = ModelBase.load_hparams

    def load_hparams(*arguments: object, **more: object) -> JsonObject:
        return to_hub_config(upstream(*arguments, **more))

    ModelBase.load_hparams = staticmethod(load_hparams)


def _convert(folder: Path, request: JsonObject) -> None:
    """Convert a model folder to a GGUF file with llama.cpp's converter. Raises Refused with a key."""
    import gguf
    import torch
    from conversion import TextModel  # llama.cpp's, from the tools

    _name_pre_tokenizer(TextModel, request["pre"])
    model_class = _class_of(folder, request.get("tower", False))
    kind = gguf.LlamaFileType[KINDS[request["kind"]]]
    # With "phi3" in its name llama.cpp computes the model like another one.
    name = re.sub(r"phi[-_ ]?3", "phi three", request["name"], flags=re.IGNORECASE)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        override = Path(scratch) / "metadata.json"
        metadata = {"general.name": name, "general.basename": name} | (
            {"general.finetune": "LoRA"} if request.get("tuned", True) else {}
        )
        override.write_text(json.dumps(metadata), "utf-8", newline="\n")
        model = model_class(folder, kind, Path(request["out"]), metadata_override=override, model_name=name)
        if not request.get("tower"):
            _write_end_of_turn(model, request["stop"])
        try:
            model.write()
        except NotImplementedError as error:
            key = "pre_tokenizer" if "pre-tokenizer" in str(error) else "not_implemented"
            raise Refused(key, reason=str(error)[:200]) from error
        except FileNotFoundError as error:
            # tokenizer.model, which some families need and transformers 5 does not save
            raise Refused("tokenizer_lacks", reason=re.sub(r"\S*[/\\\\]", "", str(error))[:200]) from error


def _convert_adapter(folder: Path, request: JsonObject) -> JsonObject:
    """Convert an adapter by upstream's own script, which is run as a program with arguments. Raises Refused."""
    import conversion  # llama.cpp's
    import gguf

    model_class = _class_of(folder, tower=False)
    # Ministral's class is a wrapper that delegates the base's weights: with it the script writes those of the base.
    config = conversion.ModelBase.load_hparams(folder, False)
    kind = (config.get("text_config") or config).get("model_type")
    model_class = getattr(model_class, "Mistral4Model" if kind == "mistral4" else "Ministral3Model", model_class)
    conversion.get_model_class = lambda *_, **__: model_class
    _reorder_columns_of_a()
    script = Path(request["converter"]) / "convert_lora_to_gguf.py"
    sys.argv = [script.name, request["adapter"], "--base", str(folder), "--outfile", request["out"], "--outtype", "f16"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except (NotImplementedError, ValueError, SystemExit) as error:
        raise Refused("not_implemented", reason=str(error)[:200] or type(error).__name__) from error
    return {"tensors": len(gguf.GGUFReader(request["out"]).tensors)}


def _reorder_columns_of_a() -> None:
    """Patch Qwen3.5's converter, which reorders the columns of out_proj: for B A these are A's, which upstream's script
    cannot do."""
    from conversion import qwen

    family = getattr(qwen, "_LinearAttentionVReorderBase", None)
    if family is None:  # a checkout of another version
        return
    upstream = family._reorder_v_heads

    def reorder(tensor: torch.Tensor, dim: int, *heads: int) -> torch.Tensor:
        if dim == 1 and hasattr(tensor, "get_lora_A_B"):
            a, b = tensor.get_lora_A_B()
            return type(tensor)(upstream(a, 1, *heads), b)
        return upstream(tensor, dim, *heads)

    family._reorder_v_heads = staticmethod(reorder)


def _name_pre_tokenizer(text_model: type[ModelBase], pre: str | None) -> None:
    """Use the name pre if upstream does not know the tokenizer's hash, as with a changed vocabulary.

    Whether the name is right is verified later with token ids.
    """
    upstream = text_model.get_vocab_base_pre

    def known_or_named(self: ModelBase, tokenizer: PreTrainedTokenizerBase) -> str:
        try:
            return str(upstream(self, tokenizer))
        except NotImplementedError:
            if pre is None:
                raise
            self.gguf_writer.add_string(NAMED, pre)
            return pre

    text_model.get_vocab_base_pre = known_or_named


def _class_of(folder: Path, tower: bool) -> type[ModelBase]:
    """Return llama.cpp's class that converts this architecture, or its tower. Raises Refused for an unknown one."""
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # llama.cpp's

    family = get_model_architecture(
        ModelBase.load_hparams(folder, False), ModelType.MMPROJ if tower else ModelType.TEXT
    )
    try:
        model_class = get_model_class(family, mmproj=tower)
    except NotImplementedError as error:
        raise Refused("other_family", family=family) from error
    if tower:
        _filter_tower_tensors(model_class, family)
    if model_class.supports_mtp_export:
        model_class.no_mtp = True  # draft heads are not tuned, and a folder that lacks them would not convert
    return model_class


def _filter_tower_tensors(model_class: type[ModelBase], family: str) -> None:
    """Correct which tensors belong to a vision or audio tower.

    An untied output head, which upstream counts to some towers, does not. Gemma 3's names get back the part that
    transformers 5 drops, and its unused pooling head is left out.
    """
    upstream = model_class.filter_tensors

    def filter_tensors(item: tuple[str, torch.Tensor]) -> tuple[str, torch.Tensor] | None:
        name, tensor = item
        if family == "Gemma3ForConditionalGeneration":
            name = re.sub(r"vision_tower\.(?=embeddings|encoder|post_layernorm)", "vision_tower.vision_model.", name)
        if family == "Mistral3ForConditionalGeneration" and name.endswith("embed_tokens.weight"):
            return name, tensor  # one row of them is needed, and upstream drops all of the text's tensors
        return None if name.startswith("lm_head.") or "vision_tower.head." in name else upstream((name, tensor))

    model_class.filter_tensors = staticmethod(filter_tensors)


def _write_end_of_turn(model: ModelBase, stop: str) -> None:
    """Write the template's stop as eot_token_id, which upstream does not do for every family."""
    upstream = model.prepare_metadata

    def prepare_metadata(*arguments: object, **more: object) -> None:
        upstream(*arguments, **more)
        written = {key for values in model.gguf_writer.kv_data for key in values}
        tokens = files.read_json(model.dir_model / "tokenizer.json") or {}
        vocabulary = (tokens.get("model") or {}).get("vocab")
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
        ids |= {token["content"]: token["id"] for token in tokens.get("added_tokens") or ()}
        if "tokenizer.ggml.eot_token_id" not in written and stop in ids:
            model.gguf_writer.add_eot_token_id(ids[stop])

    model.prepare_metadata = prepare_metadata


if __name__ == "__main__":
    sys.exit(child.answer(work))
