"""Converts a merged Hugging Face folder to GGUF with llama.cpp's own converter, in a separate process
without network, which `child.ask` starts.

The folder was made for this and may be changed. Where upstream's script is wrong about such folders it is corrected
here and in `hub_config`, with a comment in each place; what it does not know is refused with its own reason.
"""

from __future__ import annotations

import json
import os
import re
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
    from conversion import ModelBase
    from transformers import PreTrainedTokenizerBase


# Metadata key for the pre-tokenizer's name that was derived from its structure, because llama.cpp did not know it.
NAMED = "lora_garage.pre_tokenizer"
KINDS = {"f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}


def work(request: JsonObject) -> JsonObject:
    """Convert a folder to a GGUF file and return {}, with the network blocked and the converter's folders on sys.path.

    request: converter, runtime (folders), model, out, kind, name, stop (the token that ends a turn), pre (or None).
    """
    _offline()
    sys.path[:0] = [request["converter"], str(Path(request["converter"]) / "gguf-py"), request["runtime"]]
    folder = Path(request["model"])
    _refuse_code(folder)
    _restore_hub_config(folder)
    _convert(folder, request)
    return {}


def _offline() -> None:
    """Make any connection of this process an OSError and set the hub's libraries offline: the converter reads a
    folder."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

    def refuse_connection(*_: object, **__: object) -> NoReturn:
        """Raise OSError: this takes the place of every connection of a socket in the process."""
        raise OSError("no network while converting")

    socket.socket.connect = refuse_connection  # type: ignore[method-assign]


def _refuse_code(folder: Path) -> None:
    """Remove `auto_map` from the folder's JSON files; raise Refused if it still names own code or has Python files.

    The converter loads the tokenizer with trust_remote_code. Families that transformers has adopted (Phi-4-mini) still
    name their original code, which is absent here and would be downloaded.
    """
    code = [file.name for file in sorted(folder.rglob("*.py"))]
    for file in folder.glob("*.json"):
        # Larger ones, such as tokenizer.json, name no code.
        if file.stat().st_size < 10**6 and '"auto_map"' in file.read_text("utf-8"):
            config = files.read_object(file)
            config.pop("auto_map", None)
            files.replace_json(file, config)
            code += [file.name] if '"auto_map"' in file.read_text("utf-8") else []
    if code:
        raise Refused("own_code", found=code[:3])


def _restore_hub_config(folder: Path) -> None:
    """Rewrite config.json in the hub's notation, and let the converter's load_hparams return that notation too, which
    reads it through transformers or, for Granite, directly."""
    from conversion import ModelBase  # llama.cpp's, from the tools

    file = folder / "config.json"
    files.replace_json(file, to_hub_config(files.read_object(file)))
    upstream = ModelBase.load_hparams

    def hub_hparams(*arguments: object, **more: object) -> JsonObject:
        """Return what the converter's own load_hparams returns for these arguments, changed to the hub's notation
        (`to_hub_config`)."""
        return to_hub_config(upstream(*arguments, **more))

    ModelBase.load_hparams = staticmethod(hub_hparams)


def _convert(folder: Path, request: JsonObject) -> None:
    """Convert a model folder to a GGUF file with llama.cpp's converter. The text part alone, with request's name and
    the stop token. Raises Refused for an unknown pre-tokenizer, a family's unsupported part, or a missing tokenizer
    file."""
    import gguf
    import torch
    from conversion import TextModel  # llama.cpp's, from the tools

    _name_pre_tokenizer(TextModel, request["pre"])
    model_class = _class_of(folder)
    kind = gguf.LlamaFileType[KINDS[request["kind"]]]
    # With "phi3" in its name llama.cpp computes the model like another one.
    name = re.sub(r"phi[-_ ]?3", "phi three", request["name"], flags=re.IGNORECASE)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        override = Path(scratch) / "metadata.json"
        metadata = {"general.name": name, "general.basename": name, "general.finetune": "LoRA"}
        override.write_text(json.dumps(metadata), "utf-8", newline="\n")
        model = model_class(folder, kind, Path(request["out"]), metadata_override=override, model_name=name)
        _write_end_of_turn(model, request["stop"])
        try:
            model.write()
        except NotImplementedError as error:
            key = "pre_tokenizer" if "pre-tokenizer" in str(error) else "not_implemented"
            raise Refused(key, reason=str(error)[:200]) from error
        except FileNotFoundError as error:
            # tokenizer.model, which some families need and transformers 5 does not save
            raise Refused("tokenizer_lacks", reason=re.sub(r"\S*[/\\\\]", "", str(error))[:200]) from error


def _name_pre_tokenizer(text_model: type[ModelBase], pre: str | None) -> None:
    """Patch the converter to use the name pre, if not None, where upstream does not know the tokenizer's hash, as with
    a changed vocabulary; the file then notes that under NAMED.

    Whether the name is right is verified later with token ids.
    """
    upstream = text_model.get_vocab_base_pre

    def known_or_added_name(self: ModelBase, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the converter's own name for the tokenizer, or pre if it knows none, and then note pre in the GGUF
        file under NAMED. Raises NotImplementedError if pre is None too."""
        try:
            return str(upstream(self, tokenizer))
        except NotImplementedError:
            if pre is None:
                raise
            self.gguf_writer.add_string(NAMED, pre)
            return pre

    text_model.get_vocab_base_pre = known_or_added_name


def _class_of(folder: Path) -> type[ModelBase]:
    """Return llama.cpp's class that converts the text part of this architecture, without multi-token prediction heads.
    Raises Refused for an unknown one."""
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # llama.cpp's

    family = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
    try:
        model_class = get_model_class(family)
    except NotImplementedError as error:
        raise Refused("other_family", family=family) from error
    if model_class.supports_mtp_export:
        model_class.no_mtp = True  # draft heads are not tuned, and a folder that lacks them would not convert
    return model_class


def _write_end_of_turn(model: ModelBase, stop: str) -> None:
    """Patch model to write the template's stop as eot_token_id if it is in the vocabulary and upstream has not written
    one, which it does not do for every family."""
    upstream = model.prepare_metadata

    def prepare_with_end_of_turn(*arguments: object, **more: object) -> None:
        """Prepare the metadata, and add the id of the stop token as the end of a turn if there is none."""
        upstream(*arguments, **more)
        written = {key for values in model.gguf_writer.kv_data for key in values}
        tokens = files.read_json(model.dir_model / "tokenizer.json") or {}
        vocabulary = (tokens.get("model") or {}).get("vocab")
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
        # The stop is mostly an added token.
        ids |= {token["content"]: token["id"] for token in tokens.get("added_tokens") or ()}
        if "tokenizer.ggml.eot_token_id" not in written and stop in ids:
            model.gguf_writer.add_eot_token_id(ids[stop])

    model.prepare_metadata = prepare_with_end_of_turn


if __name__ == "__main__":
    sys.exit(child.answer(work))
