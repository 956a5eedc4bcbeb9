"""The contents of safetensors files in a folder or on the hub, from their headers. Reads no weights. No torch.

Such a file begins with its header's length (8 bytes) and a JSON of names, types and shapes. `count_weights` counts the
parameters that QLoRA would hold in 4 bit and those that it leaves, and recognizes repositories that are already
quantized.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from core import files
from core.errors import ModelError
from core.models.shapes.matrices import NAMES_IN_FILES, WITHOUT_ADAPTER
from core.models.shapes.shape import UNPACKED, Held, ModelShape

LONGEST_HEADER = 100 << 20  # bytes; what the format itself allows
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16,
    "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
}  # fmt: skip
_EMBEDDING = re.compile(
    r"(?:^|\.)(embed_tokens|embed_tokens_per_layer|wte|wpe|word_embeddings|embed_in|tok_embeddings|embed_positions"
    r"|embeddings)\."
)
_WORDS = re.compile(r"(?:^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|embeddings)\.weight$")
# config.json then has embeddings of another width than the layers
_OF_ITS_OWN_WIDTH = {"word_embed_proj_dim", "embedding_size"}
_HEAD = re.compile(r"(?:^|\.)(lm_head|embed_out)\.")
OTHER_SENSES = re.compile(
    r"(?:^|\.)(vision|visual|audio|image|mm_projector|multi_modal_projector|vision_tower|embed_vision|embed_audio)"
)
_ROUTER = re.compile(r"\.(gate|router|shared_expert_gate)\.(weight|wg\.weight|layer\.weight|proj\.weight)$")
_EXPERTS = re.compile(r"\.experts(?:\.|_|$)")
_FUSED_EXPERTS = re.compile(r"\.experts\.\w+(?:\.weight)?$|\.block_sparse_moe\.(?:input|output)_linear\.weight$")
_ONE_EXPERT = re.compile(r"\.experts\.\d+\.\w+\.weight$")
_OF_UP = re.compile(
    r"\.(up_proj|w3)\.weight$"
)  # of a single expert: same input as gate_proj or w1, with which it becomes one matrix
_OF_QUANTIZATION = re.compile(
    r"\.(absmax|nested_absmax|quant_map|nested_quant_map|SCB|weight_format|qzeros|scales|g_idx|weight_scale"
    r"|weight_scale_inv|"
    r"input_scale|activation_scale|weight_zero_point|weight_shape)$|_proj_scales$|\.quant_state\."
)
_MORE_TOKENS_AT_ONCE = re.compile(r"(?:^|\.)(mtp|mtp_layers|nextn)(?:\.|_)")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


class Tensor(NamedTuple):
    """One tensor of a file: its shape, and its type as the header names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:  # type: ignore[override]  # as above, no tuple's
        """Return the number of the tensor's values, the product of its shape."""
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes in its file; 16 bits a number if its type is unknown."""
        return self.count * _BITS.get(self.dtype, 16) // 8


def parse(header: bytes) -> list[Tensor]:
    """Return the tensors that a safetensors header describes, in its order and without its metadata entry.

    header: the JSON alone, without the eight bytes of its length. A tensor without a type has the type "None". Raises
    ValueError for what is no such JSON or has an invalid shape, KeyError for a tensor without a shape, RecursionError
    for JSON nested too deeply.
    """
    value = json.loads(header)
    if not isinstance(value, dict):
        raise ValueError("no object")
    tensors = []
    for name, entry in value.items():
        if name == "__metadata__":
            continue
        shape = entry["shape"] if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape):
            raise ValueError(name)
        tensors.append(Tensor(name, str(entry.get("dtype")), tuple(shape)))
    return tensors


def header_length(start: bytes) -> int:
    """Return the length of the JSON after the first eight bytes. Raises ValueError for another kind of file."""
    if len(start) < 8:
        raise ValueError("too short")
    (length,) = struct.unpack("<Q", start[:8])
    if not 2 <= length <= LONGEST_HEADER:
        raise ValueError("no header")
    return length


def of_folder(folder: Path) -> list[Tensor]:
    """Return the tensors of all weight files of a model's folder, or of model.safetensors alone if it is there; empty
    without safetensors. Files of adapters, second copies named consolidated..., and empty files are passed over.

    Raises ModelError for a file that is broken or truncated, and for a missing file that the index names.
    """
    paths = [folder / "model.safetensors"]
    if not paths[0].is_file():
        paths = sorted(
            path for path in folder.glob("*.safetensors") if not path.name.startswith(("adapter_", "consolidated"))
        )
        listed = files.read_object(folder / "model.safetensors.index.json").get("weight_map")
        missing = (
            {str(name) for name in listed.values()} - {path.name for path in paths} if isinstance(listed, dict) else ()
        )
        if paths and missing:
            raise ModelError("shape.missing_file", file=min(missing)[:100])
    tensors: list[Tensor] = []
    for path in paths:
        if not path.is_file() or not path.stat().st_size:
            continue
        tensors += of_file(path)
    return tensors


def of_file(path: Path) -> list[Tensor]:
    """Return the tensors of a file. Raises ModelError if it is broken or truncated."""
    try:
        with path.open("rb") as file:
            in_file = parse(file.read(length := header_length(file.read(8))))
    except (OSError, ValueError, KeyError, RecursionError):
        raise ModelError("shape.bad_header", file=path.name) from None
    size, expected = path.stat().st_size, 8 + length + sum(tensor.stored_bytes for tensor in in_file)
    if size < expected and all(tensor.dtype in _BITS for tensor in in_file):
        raise ModelError("shape.cut_short", file=path.name, size=size, wanted=expected)
    return in_file


def refuse_contradiction(tensors: Iterable[Tensor], config: Mapping[str, object], shape: ModelShape) -> None:
    """Compare the weights of a model with its config.json, and raise ModelError if the layers, vocabulary or width
    differ.

    tensors: all of the model's; images, sound and encoders are passed over. shape: as config.json states it. Layers
    that predict further tokens may come on top. What no tensor shows is not checked, nor vocabulary and width where
    config.json gives the embeddings a width of their own.
    """
    text = [tensor for tensor in tensors if not OTHER_SENSES.search(tensor.name) and "encoder." not in tensor.name]
    layers = 1 + max((int(layer[1]) for tensor in text if (layer := _LAYER.search(tensor.name))), default=-1)
    words = next((tensor.shape for tensor in text if _WORDS.search(tensor.name) and len(tensor.shape) == 2), None)
    actual = {"num_hidden_layers": layers} if layers else {}
    if words and not _OF_ITS_OWN_WIDTH & config.keys():
        actual |= {"vocab_size": words[0], "hidden_size": words[1]}
    for name, value in actual.items():
        configured = getattr(shape, name)
        # layers of heads that predict further tokens
        ahead = config.get("num_nextn_predict_layers") if name == "num_hidden_layers" else 0
        if not configured <= value <= configured + (ahead if isinstance(ahead, int) else 0):
            raise ModelError("shape.untrue", field=name, configured=configured, found=value)


def count_weights(tensors: Iterable[Tensor], config: Mapping[str, object], shape: ModelShape) -> Held | None:
    """Count the parameters of a model's tensors. config: its config.json; shape: derived from that. None without
    tensors.

    A head that is tied to the embeddings counts once. Tensors that transformers does not load (heads that predict
    several tokens ahead) do not count. In a quantized repository packed numbers count as the parameters they stand for.
    """
    quantized = quantization(config)
    holds_packed = quantized not in (None, "fp8", "bitsandbytes")  # each stored number holds 4-bit parameters
    params = four_bit = stored = beside = of_experts = 0
    widths: dict[str, int] = {}
    passed_over = WITHOUT_ADAPTER.get(str(config.get("model_type")), ())
    renamed = NAMES_IN_FILES.get(str(config.get("model_type")), {})
    for tensor in tensors:
        if _is_left_out(tensor.name, shape):
            continue
        if OTHER_SENSES.search(tensor.name):
            beside += tensor.count
            continue
        stored += tensor.stored_bytes
        if _OF_QUANTIZATION.search(tensor.name):
            continue
        count = tensor.count
        is_packed = holds_packed and tensor.dtype in ("U8", "I32")
        if is_packed:
            count = count * _BITS[tensor.dtype] // 4
        params += count
        four_bit += count if is_packed or _is_linear(tensor) else 0
        if _is_linear(tensor) and (name := tensor.name.split(".")[-2]) not in passed_over:
            name = renamed.get(name, name)
            widths[name] = widths.get(name, 0) + sum(tensor.shape)
        of_experts += _expert_width(tensor)
    if not params:
        return None
    if holds_packed:
        widths = {}
    return Held(
        params=params, beside=beside, four_bit=four_bit, lora_width=sum(widths.values()),
        widths=tuple(sorted(widths.items())),
        stored_bytes=stored if quantized else None, quantised=quantized,
        expert_width=None if quantized and not (quantized in UNPACKED and of_experts) else of_experts,
    )  # fmt: skip


def _expert_width(tensor: Tensor) -> int:
    """Return the sum of inputs and outputs of the routed experts in a tensor, 0 for any other, as loaded: gate and up
    are one matrix, and all experts of a layer one parameter."""
    if len(tensor.shape) == 3 and _FUSED_EXPERTS.search(tensor.name):
        return tensor.shape[0] * sum(tensor.shape[1:])
    if len(tensor.shape) == 2 and _ONE_EXPERT.search(tensor.name):
        return tensor.shape[0] if _OF_UP.search(tensor.name) else sum(tensor.shape)
    return 0


def _is_left_out(name: str, shape: ModelShape) -> bool:
    """Return whether transformers does not load a stored tensor of this name: a tied head, a layer beyond the model's,
    or heads for further tokens."""
    if shape.tie_word_embeddings and _HEAD.search(name):
        return True
    layer = _LAYER.search(name)
    beyond = layer is not None and int(layer[1]) >= shape.num_hidden_layers and not OTHER_SENSES.search(name)
    return beyond or bool(_MORE_TOKENS_AT_ONCE.search(name))


def _is_linear(tensor: Tensor) -> bool:
    """Return whether bitsandbytes would hold it in 4 bit: the matrix of a linear layer that is not excluded.

    Experts are 3-D parameters once loaded, even if a file stores each by itself.
    """
    stays = (_EMBEDDING, _HEAD, _ROUTER, _EXPERTS)
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith("weight")
        and not any(kind.search(tensor.name) for kind in stays)
    )


def quantization(config: Mapping[str, object]) -> str | None:
    """Return the quantization method that a config.json names, such as "gptq"; "bitsandbytes-4bit" for bitsandbytes in
    4 bit; "-" for one without a name; None for no quantization."""
    inner = config.get("text_config")
    settings = config.get("quantization_config") or (
        inner.get("quantization_config") if isinstance(inner, dict) else None
    )
    if not isinstance(settings, dict):
        return None
    # as transformers reads it
    unnamed = "bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else "-"
    method = str(settings.get("quant_method") or unnamed)[:30]
    return f"{method}-4bit" if method == "bitsandbytes" and settings.get("load_in_4bit") else method
