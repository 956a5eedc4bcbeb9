"""A merged Hugging Face folder as GGUF by llama.cpp's own converter, in a process of its own without network: `child.ask` starts it.

The folder is ours, made for this: its config.json may be reworded. What upstream's script gets wrong with such folders is mended
here, each where it says so; what it does not know is refused with the reason that it gives.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from core.export.llamacpp import child
from core.export.llamacpp.child import Refused

KINDS = {"f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}
# transformers 5 renames kinds of layers when it writes a config; the converter compares with the hub's words.
LAYER_WORDS = {"granitemoehybrid": {"linear_attention": "mamba", "full_attention": "attention"}}


def work(request: dict[str, Any]) -> dict[str, Any]:
    """request: converter, runtime (folders), model, out, kind, name, stop (the token that ends a turn), pre (or None). Returns {}."""
    _offline()
    sys.path[:0] = [request["converter"], str(Path(request["converter"]) / "gguf-py"), request["runtime"]]
    folder = Path(request["model"])
    _refuse_code(folder)
    _words_of_the_hub(folder)
    return _convert(folder, request)


def _offline() -> None:
    """The converter reads a folder; whatever in it reaches for a network is a fault."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("no network while converting")

    socket.socket.connect = refuse  # type: ignore[method-assign]


def _refuse_code(folder: Path) -> None:
    """The converter asks transformers for the tokenizer with trust_remote_code."""
    code = [file.name for file in sorted(folder.rglob("*.py"))]
    code += [file.name for file in folder.glob("*.json") if file.stat().st_size < 10**6 and '"auto_map"' in file.read_text("utf-8")]
    if code:
        raise Refused("own_code", found=code[:3])


def _words_of_the_hub(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    inner = config.get("text_config") or config
    words = LAYER_WORDS.get(inner.get("model_type"), {})
    if any(kind in words for kind in inner.get("layer_types") or ()):
        inner["layer_types"] = [words.get(kind, kind) for kind in inner["layer_types"]]
        file.write_text(json.dumps(config, indent=1), "utf-8", newline="\n")


def _convert(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    import gguf
    import torch
    from conversion import TextModel  # llama.cpp's, from the tools

    _name_the_pre_tokenizer(TextModel, request["pre"])
    model_class = _class_of(folder)
    kind = gguf.LlamaFileType[KINDS[request["kind"]]]
    name = _plain_name(request["name"])
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        override = Path(scratch) / "metadata.json"
        override.write_text(
            json.dumps({"general.name": name, "general.basename": name, "general.finetune": "LoRA"}), "utf-8", newline="\n"
        )
        model = model_class(folder, kind, Path(request["out"]), metadata_override=override, model_name=name)
        _mark_the_end_of_a_turn(model, request["stop"])
        try:
            model.write()
        except NotImplementedError as error:
            key = "pre_tokenizer" if "pre-tokenizer" in str(error) else "not_implemented"
            raise Refused(key, reason=str(error)[:200]) from error
    return {"pre": request["pre"]}


def _name_the_pre_tokenizer(text_model: Any, pre: str | None) -> None:
    """pre: where upstream does not know the tokenizer's hash, as of a vocabulary that was changed. Whether it is right, ids show."""
    theirs = text_model.get_vocab_base_pre

    def known_or_named(self: Any, tokenizer: Any) -> str:
        try:
            return str(theirs(self, tokenizer))
        except NotImplementedError:
            if pre is None:
                raise
            return pre

    text_model.get_vocab_base_pre = known_or_named


def _class_of(folder: Path) -> Any:
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # llama.cpp's

    family = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
    try:
        found = get_model_class(family)
    except NotImplementedError as error:
        raise Refused("other_family", family=family) from error
    if found.supports_mtp_export:
        found.no_mtp = True  # draft heads are not tuned, and a folder that lacks them would not convert
    return found


def _plain_name(name: str) -> str:
    """A name with "phi3" in it makes llama.cpp compute another model's way."""
    return re.sub(r"phi[-_ ]?3", "phi three", name, flags=re.IGNORECASE)


def _mark_the_end_of_a_turn(model: Any, stop: str) -> None:
    """Upstream does not write the template's stop as eot_token_id for every family."""
    theirs = model.prepare_metadata

    def prepare_metadata(*arguments: Any, **more: Any) -> None:
        theirs(*arguments, **more)
        there = {key for values in model.gguf_writer.kv_data for key in values}
        tokens = (
            json.loads((model.dir_model / "tokenizer.json").read_text("utf-8"))
            if (model.dir_model / "tokenizer.json").exists()
            else {}
        )
        ids = (
            dict((tokens.get("model") or {}).get("vocab") or {})
            if isinstance((tokens.get("model") or {}).get("vocab"), dict)
            else {}
        )
        ids |= {token["content"]: token["id"] for token in tokens.get("added_tokens") or ()}
        if "tokenizer.ggml.eot_token_id" not in there and stop in ids:
            model.gguf_writer.add_eot_token_id(ids[stop])

    model.prepare_metadata = prepare_metadata


if __name__ == "__main__":
    sys.exit(child.answer(work))
