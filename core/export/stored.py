"""A base model's weights on disk, read from the headers of their files alone, with their names in the model. Workers
only (torch)."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from core import files
from core.engine.families import mended, parts
from core.errors import ExportError
from core.models import headers
from core.models.weights import open_tensors, weight_files

_EXPERT = re.compile(r"\.experts\.(\d+)\.")
SIXTEEN_BIT = {"BF16": torch.bfloat16, "F16": torch.float16}
FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True)
class Stored:
    """One tensor of a base: its file, shape and safetensors type ("BF16", "I64", ...)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ExpertPart:
    """A tensor's place in a parameter that holds all experts of a layer: the expert, and its first row there."""

    expert: int
    first_row: int


@dataclass(frozen=True)
class Base:
    """A base model's weights as they lie on disk, read from the files' headers alone."""

    folder: Path
    tensors: dict[str, Stored]

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model that the folder describes, without weights."""
        return empty(self.folder)

    @cached_property
    def stored_names(self) -> dict[str, str]:
        """Map parameters and buffers by their names in the model to their names in the files, for those stored as one
        tensor.

        transformers renames many as it reads; experts that are stored one by one become one parameter: see
        `expert_parts`.
        """
        state = self.model.state_dict()
        return {
            parameter: name
            for name, (parameter, converter) in self._placed.items()
            if converter is None and parameter in state
        }

    @cached_property
    def expert_parts(self) -> dict[str, dict[str, ExpertPart]]:
        """Map parameters whose experts are stored one by one to their tensors' names in the files, with each one's
        place.

        Only parameters that transformers makes by stacking alone; those that it also transposes or cuts are left out.
        """
        by_parameter: dict[str, dict[tuple[int, int], str]] = defaultdict(dict)
        for name, (parameter, converter) in self._placed.items():
            number = _EXPERT.search(name)
            if (
                converter is not None
                and number
                # Its place among an expert's matrices: gate and up, say, become one parameter in the converter's order.
                and (order := _stacking_order(self._converters[converter], converter)) is not None
            ):
                by_parameter[parameter][int(number[1]), order] = name
        return {parameter: self._parts(names) for parameter, names in by_parameter.items()}

    def _parts(self, names: Mapping[tuple[int, int], str]) -> dict[str, ExpertPart]:
        """Return each tensor's expert and first row among the matrices stacked for it. names: keyed by expert and
        position in the stack."""
        parts, first = {}, dict.fromkeys((expert for expert, _ in names), 0)
        for (expert, _), name in sorted(names.items()):
            parts[name] = ExpertPart(expert, first[expert])
            # An expert's matrices lie below each other, such as gate and up.
            first[expert] += self.tensors[name].shape[0]
        return parts

    @cached_property
    def _converters(self) -> dict[str, WeightConverter]:
        """transformers' conversions of the model's weights, by each pattern of a stored name."""
        converters = [each for each in get_model_conversion_mapping(self.model) if isinstance(each, WeightConverter)]
        return {pattern: each for each in converters for pattern in each.source_patterns}

    @cached_property
    def _placed(self) -> dict[str, tuple[str, str | None]]:
        """Map names in the files to (name in the model, pattern of the converter that joins several tensors into it or
        None)."""
        state = self.model.state_dict()
        conversions = get_model_conversion_mapping(self.model)
        renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
        converters = [each for each in conversions if isinstance(each, WeightConverter)]
        prefix = self.model.base_model_prefix
        return {name: rename_source_key(name, renamings, converters, prefix, state) for name in self.tensors}

    @property
    def parameters(self) -> int:
        """The number of weights; tensors of integers do not count."""
        return sum(math.prod(t.shape) for t in self.tensors.values() if t.dtype in FLOATS)

    @property
    def dtype(self) -> torch.dtype:
        """The base's own 16-bit type where most of it has one, else bfloat16."""
        return SIXTEEN_BIT.get(self._main_dtype, torch.bfloat16)

    @cached_property
    def _main_dtype(self) -> str:
        """The type that most of the stored numbers have."""
        # By numbers, not by tensors: norms and biases are many, and often of another type than the rest.
        sizes = dict.fromkeys(FLOATS, 0)
        for t in self.tensors.values():
            if t.dtype in FLOATS:
                sizes[t.dtype] += math.prod(t.shape)
        return max(sizes, key=lambda name: sizes[name])

    def written_as(self, name: str) -> torch.dtype:
        """The dtype of a tensor in a merged model: its own if most of the base is 16-bit (routers' biases stay
        float32), else `dtype`."""
        return FLOATS[self.tensors[name].dtype] if self._main_dtype in SIXTEEN_BIT else self.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def _stacking_order(converter: WeightConverter, pattern: str) -> int | None:
    """Return the index of pattern among the matrices that converter stacks for one expert; None if it does more than
    stack them."""
    steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
    if steps not in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]):
        return None
    return converter.source_patterns.index(pattern)


def read_base(folder: Path) -> Base:
    """Return the base of a model folder from the headers of its files. Raises ExportError for a base that exists only
    in quantized form."""
    method = headers.quantization(files.read_object(folder / "config.json"))
    if method:
        raise ExportError("export.quantised_base", method=method)
    tensors = {}
    for file in weight_files(folder):
        with open_tensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                # Shape and type are in the header: no weight is read.
                part = opened.get_slice(name)
                tensors[name] = Stored(file, tuple(part.get_shape()), part.get_dtype())
    return Base(folder, tensors)


def empty(folder: Path) -> PreTrainedModel:
    """Return the model that a folder describes, in eval mode, all of its weights on the meta device; with sdpa, or
    eager attention where a family lacks it."""
    config = mended.config(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    config.use_cache = False

    def without_weights(attention: str) -> PreTrainedModel:
        """Build the model from its config with this implementation of attention ("sdpa" or "eager"), its weights on the
        meta device."""
        with init_empty_weights():
            return parts.auto_class(config).from_config(config, dtype=torch.float32, attn_implementation=attention)

    try:
        model = without_weights("sdpa")
    except ValueError as error:
        if "attn_implementation" not in str(error):
            raise
        model = without_weights("eager")  # as core.engine.base_model
    model.requires_grad_(False)
    return model.eval()
