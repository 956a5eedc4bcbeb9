"""LoRA adapters in llama.cpp's GGUF format, written as PEFT's for the base that they belong to. No torch.

llama.cpp has names of its own for the layers, and in some families its converter reorders the rows of the queries and
keys; both are undone. Families whose weights it changes otherwise are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import gguf
import numpy as np
from safetensors.numpy import save_file

from core import files
from core.errors import ModelError
from core.hub.cached import REPO_ID
from core.messages import msg
from core.models import headers
from core.models.adapters import PREFIX, matching_layer
from core.models.shapes.shape import ModelShape

# llama.cpp's name of each family whose matrices its converter writes as they are, but for REORDERED.
ARCHITECTURES = {
    "gemma2": "gemma2", "gemma3_text": "gemma3", "granite": "granite", "llama": "llama", "mistral": "llama",
    "olmo2": "olmo2", "olmo3": "olmo2", "phi3": "phi3", "qwen2": "qwen2", "qwen3": "qwen3", "smollm3": "smollm3",
}  # fmt: skip
REORDERED = {"granite", "llama", "smollm3"}  # rows of q and k: the halves of each head take turns
MAX_METADATA = 1 << 20  # bytes before the weights; an adapter has no vocabulary


class _Reader(gguf.GGUFReader):
    """gguf's reader, which makes an object of each value of a list, on no more than MAX_METADATA bytes of them."""

    def _get(self, offset, dtype, count=1, override_order=None):  # type: ignore[no-untyped-def]
        """Read values; raises ValueError if the metadata goes beyond MAX_METADATA bytes."""
        if not hasattr(self, "data_offset") and offset + int(count) > MAX_METADATA:
            raise ValueError(f"metadata of more than {MAX_METADATA} bytes")
        return super()._get(offset, dtype, count, override_order)


@dataclass(frozen=True)
class GgufAdapter:
    """An adapter as its file has it. base: its base on the Hub, "" if unknown. weights: by llama.cpp's names."""

    file: str
    architecture: str
    base: str
    alpha: float
    weights: dict[str, np.ndarray]


def read(file: Path) -> GgufAdapter:
    """Read an adapter. Raises ModelError for a damaged file, and for one that is no LoRA."""
    try:
        reader = _Reader(file)
        texts = {
            name: str(field.contents()) for name, field in reader.fields.items()
            if field.types == [gguf.GGUFValueType.STRING]
        }  # fmt: skip
        kinds = [texts.get("general.type", "-"), texts.get("adapter.type", "-")]
        kinds += [name for name in reader.fields if name.startswith("adapter.alora")]
        if kinds != ["adapter", "lora"]:
            raise ModelError("foreign.gguf_kind", file=file.name, found=[kind[:40] for kind in kinds])
        alpha = reader.get_field(gguf.Keys.Adapter.LORA_ALPHA)
        # copied, so that the file is not held open
        weights = {
            one.name: np.array(gguf.quants.dequantize(one.data, one.tensor_type), np.float32) for one in reader.tensors
        }
        return GgufAdapter(
            file=file.name, architecture=texts.get("general.architecture", "-")[:40],
            base=_hub_id(texts.get("general.base_model.0.repo_url", "")), alpha=float(alpha.contents() if alpha else 0),
            weights=weights,
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, NotImplementedError) as error:
        raise ModelError("foreign.gguf_damaged", file=file.name, reason=str(error)[:100] or "-") from None


def _hub_id(url: str) -> str:
    """Return owner/name of a model's address on the Hub, "" for any other address; of a base in a folder the converter
    writes the folder's path as one."""
    path = urlsplit(url).path.strip("/")
    return path if url.startswith("https://huggingface.co/") and REPO_ID.fullmatch(path) else ""


def write(adapter: GgufAdapter, base: str, base_folder: Path, folder: Path) -> None:
    """Write an adapter in PEFT's format to the new folder. base: the base model's id. Raises ModelError for a base of
    another family, or without its layers."""
    shape = ModelShape.from_config(files.read_object(base_folder / "config.json"))
    if (expected := ARCHITECTURES.get(shape.model_type)) != adapter.architecture:
        raise ModelError(
            "foreign.gguf_other", file=adapter.file, found=adapter.architecture, base=base,
            expected=expected or shape.model_type, known=sorted(set(ARCHITECTURES.values())),
        )  # fmt: skip
    layers = _layers(adapter.architecture, shape.num_hidden_layers, headers.of_folder(base_folder))
    heads = {"attn_q": shape.num_attention_heads, "attn_k": shape.num_key_value_heads}
    made, ranks = dict[str, np.ndarray](), dict[str, int]()
    for name, weight in adapter.weights.items():
        gguf_layer, _, factor = name.rpartition(".weight.lora_")
        if gguf_layer not in layers or factor not in ("a", "b") or weight.ndim != 2:
            layer = msg("foreign.no_layer", layer=name[:80])
            raise ModelError("foreign.misfit", base=base, count=1, first=layer)
        if factor == "b":
            ranks[layers[gguf_layer]] = weight.shape[1]
            count = heads.get(gguf_layer.rpartition(".")[2]) if adapter.architecture in REORDERED else None
            weight = _in_order(weight, count) if count else weight
        made[f"{PREFIX}{layers[gguf_layer]}.lora_{factor.upper()}.weight"] = np.ascontiguousarray(weight)
    if not ranks:
        raise ModelError("foreign.gguf_damaged", file=adapter.file, reason="no lora_b")
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {layer: one for layer, one in ranks.items() if one != rank}
    # llama.cpp scales by alpha / rank, and by 1 without alpha.
    alpha = int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha
    folder.mkdir()
    save_file(made, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    files.replace_json(folder / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank,
        "lora_alpha": alpha or rank, "rank_pattern": others, "alpha_pattern": {} if alpha else others,
        "target_modules": sorted(ranks),
    })  # fmt: skip


def _layers(architecture: str, blocks: int, of_base: Collection[headers.Tensor]) -> dict[str, str]:
    """Return the base's name of each layer by llama.cpp's; embeddings are left out, whose factors are transposed."""
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = {tensor.name.removesuffix(".weight") for tensor in of_base}
    known = gguf.get_tensor_name_map(number, blocks).mapping.items()
    return {
        theirs: layer
        for key, (_, theirs) in known
        if theirs != "token_embd" and (layer := matching_layer(names, key)) in names
    }


def _in_order(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return q's or k's rows in PEFT's order, undoing llama.cpp's, where they are whole heads; else as they are."""
    if rows.shape[0] % (2 * heads):
        return rows
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
