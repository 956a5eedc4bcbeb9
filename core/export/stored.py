"""A base model's weights as they lie on disk, read from the headers of their files alone, and their names in the model. Workers only (torch)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from core import files
from core.engine import parts
from core.errors import ExportError
from core.models import headers
from core.models.weights import open_tensors

INDEX = "model.safetensors.index.json"
SIXTEEN_BIT = {"BF16": torch.bfloat16, "F16": torch.float16}
FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True)
class Stored:
    """One tensor of a base: its file, shape and safetensors type ("BF16", "I64", ...)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Base:
    """A base model's weights as they lie on disk, read from the files' headers alone."""

    folder: Path
    tensors: dict[str, Stored]

    @cached_property
    def stored_names(self) -> dict[str, str]:
        """The model's parameters and buffers, by their names in it -> their names in the files, where one tensor there is one here.
        transformers renames many while it reads; experts that lie one by one become one parameter, and have none."""
        model = empty(self.folder)
        conversions, there = get_model_conversion_mapping(model), model.state_dict()
        renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
        converters = [each for each in conversions if isinstance(each, WeightConverter)]
        names = {}
        for name in self.tensors:
            found, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, there)
            if converter is None and found in there:
                names[found] = name
        return names

    @property
    def parameters(self) -> int:
        return sum(math.prod(t.shape) for t in self.tensors.values() if t.dtype in FLOATS)

    @property
    def dtype(self) -> torch.dtype:
        """The base's own 16-bit type where most of it has one, else bfloat16."""
        return SIXTEEN_BIT.get(self._most, torch.bfloat16)

    @cached_property
    def _most(self) -> str:
        sizes = dict.fromkeys(FLOATS, 0)
        for t in self.tensors.values():
            if t.dtype in FLOATS:
                sizes[t.dtype] += math.prod(t.shape)
        return max(sizes, key=lambda name: sizes[name])

    def written_as(self, name: str) -> torch.dtype:
        """The type of a number in a merged model: its own where most of the base is in 16 bit (biases of routers are in 32 on purpose),
        else the 16-bit one."""
        return FLOATS[self.tensors[name].dtype] if self._most in SIXTEEN_BIT else self.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def read_base(folder: Path) -> Base:
    """Raises ExportError for a base that exists only in quantised form."""
    method = headers.quantisation(files.read_object(folder / "config.json"))
    if method:
        raise ExportError("export.quantised_base", method=method)
    tensors = {}
    for file in weight_files(folder):
        with open_tensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                part = opened.get_slice(name)
                tensors[name] = Stored(file, tuple(part.get_shape()), part.get_dtype())
    return Base(folder, tensors)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load; a hub folder may hold a second copy under other names."""
    index = files.read_json(folder / INDEX)
    if isinstance(index, dict) and index.get("weight_map"):
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    one = folder / "model.safetensors"
    return [one] if one.exists() else sorted(folder.glob("*.safetensors"))


def empty(folder: Path, **where: str) -> PreTrainedModel:
    """The model that a folder describes, all of its weights on the meta device. where: gguf_file, to ask a file in it."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **where)
    config.use_cache = False

    def attempt(attention: str) -> Any:
        with init_empty_weights():
            return parts.auto_class(config).from_config(config, dtype=torch.float32, attn_implementation=attention)

    try:
        model = attempt("sdpa")
    except ValueError as error:
        if "attn_implementation" not in str(error):
            raise
        model = attempt("eager")  # as core.engine.base_model
    model.requires_grad_(False)
    return model.eval()
