"""A forward pass through a model that does not fit into memory: each layer is read from disk, used and released.

transformers builds the model without weights, and accelerate's hooks request the weights of a layer just before it
runs. Memory holds one layer, or the embedding, and the activations; all rows go through together, so that every weight
is read once. Computes in float32, on the GPU if there is one. Workers only (torch).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from accelerate.hooks import attach_align_device_hook
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from core.engine.adapter import ADAPTER
from core.export.stored import Base
from core.models.adapters import PREFIX, rename_layers, renamed

Read = Callable[[str], torch.Tensor]  # a tensor by its name in the base's files

# Tokens of all rows together, padding included: an 8B model takes 16 TFLOP for them, half a minute on a fast processor.
MAX_TOKENS = 1024
SPARE_BYTES = 1 << 30  # libraries, and what flows between two layers
_WRAPPED = re.compile(r"(?:\.base_layer)+\.")  # peft's names of wrapped weights have it, those in the files do not
OF_A_LAYER = re.compile(r"^(.*?\.\d+)\.")  # a layer's name ends with the first number


def need_bytes(base: Base, adapter: Path) -> int:
    """Return the bytes of memory that a forward pass by layer needs: its largest part as stored and in float32, the
    adapter's file, the logits and their logarithms, and SPARE_BYTES."""
    parts: dict[str, int] = defaultdict(int)
    for name, stored in base.tensors.items():
        layer = OF_A_LAYER.match(name)
        # As it lies in the file and, beside it, in float32 for the computation.
        parts[layer[1] if layer else name] += math.prod(stored.shape) * (4 + (4 if stored.dtype == "F32" else 2))
    embedding = max((t.shape for t in base.tensors.values() if len(t.shape) > 1), key=lambda shape: shape[0])
    held = (adapter / "adapter_model.safetensors").stat().st_size
    return max(parts.values()) + 12 * MAX_TOKENS * embedding[0] + held + SPARE_BYTES


def missing(model: PreTrainedModel, base: Base) -> list[str]:
    """Return the names of the model's weights that the base's files do not hold as one tensor: absent ones, those under
    a name that transformers does not know, and experts that are stored one by one. One that transformers renames as it
    reads, or that shares a stored weight, is not missing."""
    tied = _tied(model)
    return [name for name, _ in model.named_parameters() if not {name, tied.get(name)} & base.stored_names.keys()]


def read_by_layer(
    model: PreTrainedModel, read: Read, stored: Collection[str], device: torch.device, extra: Mapping[str, torch.Tensor]
) -> PreTrainedModel:
    """Hook model so that each block's weights are read for its part of a forward pass on device and released after;
    return it. Stored buffers are read at once.

    read: returns a weight by its name in `stored`. extra: the adapter's tensors by their names in the model.
    """
    for name, buffer in model.named_buffers():
        if name in stored:  # few families keep any; most compute them
            buffer.copy_(read(name))
    # Blocks are loaded as a whole: some use a weight of a layer without calling the layer, whose hook then never runs.
    blocks = sorted(model._no_split_modules or ())
    weights = _Weights(model, read, stored, device, extra)
    attach_align_device_hook(model, device, offload=True, weights_map=weights, preload_module_classes=blocks)
    return model


def add_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put PEFT's LoRA layers, without weights, into model at the places that the adapter in folder has."""
    config = LoraConfig.from_pretrained(folder)
    rename_layers(config, {name for name, _ in model.named_modules()})
    get_peft_model(model, config, adapter_name=ADAPTER, low_cpu_mem_usage=True).eval()


def adapter_tensors(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter's file by the names of the layers that `add_adapter` put into model."""
    by_layer = {}
    for key, tensor in renamed(tensors, {name for name, _ in model.named_modules()}).items():
        module, name = key.removeprefix(PREFIX).removesuffix(".weight").rsplit(".", 1)
        by_layer[f"{module}.{name}.{ADAPTER}.weight"] = tensor
    return by_layer


@torch.inference_mode()
def logits(model: PreTrainedModel, rows: Sequence[Sequence[int]], device: torch.device) -> list[torch.Tensor]:
    """Return the logits of each row, (T, vocabulary), on device, from one forward of all. Rows are padded on the right,
    which changes nothing under causal attention."""
    width = max(map(len, rows))
    # The padding's id does not matter: it comes after the row and is masked.
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    out = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return [each[: len(row)] for each, row in zip(out, rows, strict=True)]


def _tied(model: PreTrainedModel) -> dict[str, str]:
    """Map each tied weight's name to the name of the weight that it shares."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


class _Weights(Mapping[str, torch.Tensor]):
    """Weights for accelerate's hooks, by their names in the model with or without adapter, read when requested."""

    def __init__(
        self,
        model: PreTrainedModel,
        read: Read,
        stored: Collection[str],
        device: torch.device,
        extra: Mapping[str, torch.Tensor],
    ):
        """Note the model's names and tied weights; read: returns a weight by its name in `stored`. extra: tensors that
        are at hand."""
        self._names = [name for name, _ in model.named_parameters()]
        self._tied, self._read, self._stored, self._device, self._extra = _tied(model), read, stored, device, extra

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return the weight in float32 on the device, its tied one's if it has none of its own."""
        tensor = self._extra.get(name)
        if tensor is None:
            name = _WRAPPED.sub(".", name)
            tensor = self._read(name if name in self._stored else self._tied[name])
        return tensor.to(self._device).float()  # it travels to a card in 16 bit

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
