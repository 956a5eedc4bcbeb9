"""A merged Hugging Face folder as one GGUF file, for the llama family, with the `gguf` package alone (no compiler).

Matrices as bf16 or q8_0, vectors as float32, written one tensor at a time. What cannot be written faithfully (another
family, rope scaling, a tokenizer that llama.cpp would split otherwise than the training did) is refused before any
work, never guessed. The merged folder remains a way out for those: llama.cpp's own converter reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from core import files
from core.data.tokenizer import Tokenizer
from core.errors import ExportError
from core.export.merge import Check, Progress
from core.export.stored import Base
from core.models.weights import open_tensors

FAMILY = "LlamaForCausalLM"
TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "bf16": gguf.GGMLQuantizationType.BF16}
FILE_TYPES = {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "bf16": gguf.LlamaFileType.MOSTLY_BF16}
BLOCK = 32  # of q8_0
BYTES_A_PARAMETER = {"q8_0": 34 / 32, "bf16": 2.0}  # q8_0: blocks of 32 int8 and one float16 scale

_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp's name of a pre-tokenizer -> the Hugging Face definition that splits text in the same way
# (llama.cpp src/llama-vocab.cpp). Named only when a tokenizer.json holds exactly this.
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [{"type": "ByteLevel", "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "use_regex": False},
    ],
}


@dataclass(frozen=True)
class ModelFiles:
    """What a folder's JSON files say, once it is sure that all of it can be written."""

    config: dict[str, Any]
    tokenizer: dict[str, Any]
    pre: str

    @property
    def heads(self) -> int:
        return int(self.config["num_attention_heads"])

    @property
    def kv_heads(self) -> int:
        return int(self.config.get("num_key_value_heads") or self.heads)

    @property
    def head_dim(self) -> int:
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads)

    def heads_of(self, name: str) -> int | None:
        """How many heads lie one below the other in this tensor, whose rows llama.cpp wants in another order; else None."""
        return {"q_proj": self.heads, "k_proj": self.kv_heads}.get(name.split(".")[-2])


def examine(folder: Path) -> ModelFiles:
    """folder: a base or a merged model. Raises ExportError with the one thing that stands in the way."""
    config = files.read_json(folder / "config.json") or {}
    family = (config.get("architectures") or [config.get("model_type", "?")])[0]
    if family != FAMILY:
        raise ExportError("export.other_family", family=family, known=FAMILY)
    scaling = rope_scaling(config)
    if scaling != "default":
        raise ExportError("export.rope_scaling", found=scaling)
    if config.get("hidden_act", "silu") != "silu":
        raise ExportError("export.other_activation", found=config["hidden_act"])
    tokenizer = files.read_json(folder / "tokenizer.json")
    if not isinstance(tokenizer, dict):
        raise ExportError("export.no_tokenizer_json")
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback") or (tokenizer.get("decoder") or {}).get("type") != "ByteLevel":
        raise ExportError("export.other_tokenizer", found=f"{model.get('type')}/{(tokenizer.get('decoder') or {}).get('type')}")
    ids = [*model["vocab"].values(), *(token["id"] for token in tokenizer.get("added_tokens", []))]
    if max(ids) >= config["vocab_size"]:
        raise ExportError("export.vocabulary", tokens=max(ids) + 1, rows=config["vocab_size"])
    return ModelFiles(config, tokenizer, pre_tokenizer(tokenizer, is_starter=(folder / "starter.json").exists()))


def rope_scaling(config: dict[str, Any]) -> str:
    """The kind of rope scaling, "default" for none; transformers 4 and 5 write it under different names."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return str(rope.get("rope_type") or rope.get("type") or "default")


def rope_theta(config: dict[str, Any]) -> float:
    return float((config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta") or 10000.0)


def pre_tokenizer(tokenizer: dict[str, Any], is_starter: bool = False) -> str:
    """llama.cpp's name for how text is split before merging. Raises ExportError where no name is proven."""
    if tokenizer.get("normalizer"):
        raise ExportError("export.pre_tokenizer", found=f"normalizer {tokenizer['normalizer'].get('type')}")
    whole = tokenizer.get("pre_tokenizer") or {}
    steps = whole.get("pretokenizers", [whole])
    merges_whole_words = bool(tokenizer["model"].get("ignore_merges"))
    for name, expected in PRE_TOKENIZERS.items():
        same = len(steps) == len(expected) and all(e.items() <= s.items() for s, e in zip(steps, expected, strict=True))
        plain = not any(step.get("add_prefix_space") for step in steps)
        if same and plain and merges_whole_words == (name == "llama-bpe"):
            # The starter comes from a GGUF that says "smollm" (digits one by one); transformers' reader of GGUF drops
            # that step. The vocabulary has no token of two digits, so only spaces before a digit can differ.
            return "smollm" if is_starter and name == "gpt-2" else name
    raise ExportError("export.pre_tokenizer", found=json.dumps([s.get("type") for s in steps]))


def write(source: ModelFiles, base: Base, target: Path, quant: str, name: str, progress: Progress, check: Check) -> None:
    """target: the GGUF file. base: the merged folder whose tensors become it. Raises ExportError for an unknown tensor."""
    writer = gguf.GGUFWriter(target, "llama")
    try:
        _add_shape(writer, source, quant, name)
        _add_tokenizer(writer, source, Tokenizer(base.folder))
        kinds = _add_tensor_list(writer, source, base, quant)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, array in enumerate(_arrays(source, base, kinds)):
            check()
            writer.write_tensor_data(array)
            progress((done + 1) / len(kinds))
    finally:
        writer.close()


def _add_shape(writer: gguf.GGUFWriter, source: ModelFiles, quant: str, name: str) -> None:
    config = source.config
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(source.heads)
    writer.add_head_count_kv(source.kv_heads)
    writer.add_key_length(source.head_dim)
    writer.add_value_length(source.head_dim)
    writer.add_rope_dimension_count(source.head_dim)
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: gguf.GGUFWriter, source: ModelFiles, tokenizer: Tokenizer) -> None:
    rows = source.config["vocab_size"]
    tokens = [f"[PAD{i}]" for i in range(rows)]  # rows of the embedding that no token uses
    types = [gguf.TokenType.UNUSED] * rows
    for token, i in source.tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = token, gguf.TokenType.NORMAL
    for token in source.tokenizer.get("added_tokens", []):
        tokens[token["id"]] = token["content"]
        types[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(source.pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = source.tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    ids = {token: i for i, token in enumerate(tokens)}
    for key, add in (
        ("bos_token", writer.add_bos_token_id),
        ("eos_token", writer.add_eos_token_id),
        ("unk_token", writer.add_unk_token_id),
        ("pad_token", writer.add_pad_token_id),
    ):
        if (token := tokenizer.special.get(key)) in ids:
            add(ids[token])
    if tokenizer.template.stop in ids:
        writer.add_eot_token_id(ids[tokenizer.template.stop])  # ends a turn; not always the end of the text
    writer.add_add_bos_token(False)  # the template writes it itself where the model wants one
    writer.add_chat_template(tokenizer.template.without_markers)


def _add_tensor_list(writer: gguf.GGUFWriter, source: ModelFiles, base: Base, quant: str) -> dict[str, gguf.GGMLQuantizationType]:
    """Base tensor name -> the type it is written in, in the order of writing."""
    kinds = {}
    for name, gguf_name in names_of(source.config, base).items():
        stored = base.tensors[name]
        kinds[name] = kind = _type(stored.shape, quant)
        shape = stored.shape if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quant_shape_to_byte_shape(stored.shape, kind)
        dtype = np.dtype(np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.uint8)
        writer.add_tensor_info(gguf_name, shape, dtype, int(np.prod(shape)) * dtype.itemsize, raw_dtype=kind)
    return kinds


def names_of(config: dict[str, Any], base: Base) -> dict[str, str]:
    """Base tensor name -> its name in a GGUF file, in the order of writing. Raises ExportError for one that has none."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    found = {}
    for name in base.tensors:
        if name.endswith(".rotary_emb.inv_freq") or (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            continue  # computed by the reader; the embedding once more
        found[name] = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found[name] is None:
            raise ExportError("export.unknown_tensor", tensor=name)
    return found


def _type(shape: tuple[int, ...], quant: str) -> gguf.GGMLQuantizationType:
    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[TYPES[quant]]
    return TYPES[quant] if shape[-1] % block == 0 else gguf.GGMLQuantizationType.BF16


def _arrays(source: ModelFiles, base: Base, kinds: dict[str, gguf.GGMLQuantizationType]) -> Iterator[np.ndarray]:
    for name, kind in kinds.items():
        with open_tensors(base.tensors[name].file) as file:
            array = file.get_tensor(name).to(torch.float32).numpy()
        if heads := source.heads_of(name):
            array = permute(array, heads)
        yield gguf.quants.quantize(np.ascontiguousarray(array), kind)


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from transformers' rope order (halves) to llama.cpp's (pairs). rows: (heads * head_dim, ...)."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


class WrittenGguf:
    """The tensors of a GGUF file that `write` made, under the names of the base and with its order of rows, in float32.

    Nothing of it is held: the file is mapped for reading only, and as many rows are dequantised as are asked for.
    """

    def __init__(self, file: Path, source: ModelFiles, base: Base):
        self._source, self._base = source, base
        self._names = names_of(source.config, base)
        self._tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
        strangers = self._tensors.keys() - set(self._names.values())
        self.names = [name for name, known in self._names.items() if known in self._tensors] + sorted(strangers)
        self.expected = list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in reversed(self._tensors[self._names[name]].shape))

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        tensor = self._tensors[self._names[name]]
        data = tensor.data
        if heads := self._source.heads_of(name):
            data = data[np.argsort(permute(np.arange(len(data)), heads))[start:stop]]
        return _dequantised(np.array(data if self._source.heads_of(name) else data[start:stop]), tensor.tensor_type)

    def whole(self, name: str) -> torch.Tensor:
        return self.rows(name, 0, self.shape(name)[0])

    def rounded(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        exact = rows.to(self._base.written_as(name)).float()  # it is written from the merged model
        match self._tensors[self._names[name]].tensor_type:
            case gguf.GGMLQuantizationType.BF16:
                return exact.to(torch.bfloat16).float()
            case gguf.GGMLQuantizationType.Q8_0:  # ggml: the largest of 32 is 127, halves go away from zero
                blocks = exact.reshape(-1, BLOCK)
                scale = blocks.abs().amax(1, keepdim=True) / 127
                steps = blocks * torch.where(scale > 0, 1 / scale, 0)
                steps = torch.trunc(steps + torch.copysign(torch.tensor(0.5), steps))
                return (steps * scale.half().float()).reshape(exact.shape)
            case _:
                return exact

    def step(self, name: str, rounded: torch.Tensor) -> torch.Tensor:
        step = one_step(rounded, self._base.written_as(name))
        match self._tensors[self._names[name]].tensor_type:
            case gguf.GGMLQuantizationType.BF16:
                return step + one_step(rounded, torch.bfloat16)
            case gguf.GGMLQuantizationType.Q8_0:
                largest = rounded.reshape(-1, BLOCK).abs().amax(1, keepdim=True).expand(-1, BLOCK).reshape(rounded.shape)
                return step + 1.01 * largest / 127 + 127 * 2.0**-24  # the scale is a float16
            case _:
                return step


def _dequantised(data: np.ndarray, kind: gguf.GGMLQuantizationType) -> torch.Tensor:
    """What `write` writes, in float32; twenty times as fast as the `gguf` package, which is made for every kind there is."""
    raw = torch.from_numpy(data)
    match kind:
        case gguf.GGMLQuantizationType.BF16:
            return raw.view(torch.bfloat16).float()
        case gguf.GGMLQuantizationType.Q8_0:
            blocks = raw.reshape(-1, 2 + BLOCK)
            scale = blocks[:, :2].contiguous().view(torch.float16).float()
            return (blocks[:, 2:].view(torch.int8).float() * scale).reshape(len(raw), -1)
        case _:
            return raw


def one_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance between neighbours of dtype at values, at most; float32."""
    limits = torch.finfo(dtype)
    return values.abs() * limits.eps + limits.smallest_normal * limits.eps
