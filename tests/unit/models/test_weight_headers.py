"""Shapes out of weight files' headers: safetensors of many kinds, on this PC and on the hub, and GGUF."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.hub import cached
from core.memory.arithmetic import estimate
from core.memory.setup import Setup
from core.models import headers, hub_shapes
from core.models.known import known_models
from core.models.library import Models, config_of, shape_of
from core.models.shapes.shape import ModelShape
from core.workspace.folder import Workspace
from tests.kit.hub import FakeHub
from tests.kit.shapes import GEMMA_3_4B, LLAMA, MIXTRAL

REPO = "owner/model"
Entries = dict[str, tuple[str, list[int]]]
SMALL = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 1000, "tie_word_embeddings": False,
}  # fmt: skip


def safetensors(entries: Entries) -> bytes:
    """A header with these tensors; their bytes are left out, as nobody reads them."""
    header = json.dumps(
        {"__metadata__": {"format": "pt"}}
        | {n: {"dtype": d, "shape": s, "data_offsets": [0, 0]} for n, (d, s) in entries.items()}
    )
    return struct.pack("<Q", len(header)) + header.encode()


def llama(config: dict[str, Any], dtype: str = "BF16", layers: range | None = None) -> Entries:
    """The tensors of a Llama of these widths; layers: only these, without what lies outside."""
    shape = ModelShape.from_config(config)
    entries: Entries = {}
    for layer in layers if layers is not None else range(shape.num_hidden_layers):
        for matrix in shape.matrices:
            part = "self_attn" if matrix in shape.attention_matrices else "mlp"
            entries[f"model.layers.{layer}.{part}.{matrix.name}.weight"] = (dtype, [matrix.d_out, matrix.d_in])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            entries[f"model.layers.{layer}.{norm}.weight"] = (dtype, [shape.hidden_size])
    if layers is None:
        entries |= {
            "model.embed_tokens.weight": (dtype, [shape.vocab_size, shape.hidden_size]),
            "model.norm.weight": (dtype, [shape.hidden_size]),
        }
        if not shape.tie_word_embeddings:
            entries["lm_head.weight"] = (dtype, [shape.vocab_size, shape.hidden_size])
    return entries


def read(config: dict[str, Any], entries: Entries) -> ModelShape:
    shape = ModelShape.from_config(config)
    tensors = headers.parse(safetensors(entries)[8:])
    return shape.with_held(headers.count_weights(tensors, config, shape))


def test_the_headers_count_what_config_json_counts() -> None:
    shape = read(SMALL, llama(SMALL))
    counted = ModelShape.from_config(SMALL)
    assert (shape.params, shape.four_bit_params) == (counted.params, counted.linear_params)
    assert shape.source == "headers" and counted.source == "config"


def test_the_starters_files_hold_its_parameters(starter_folder: Path) -> None:
    config = json.loads((starter_folder / "config.json").read_text("utf-8"))
    shape = ModelShape.from_config(config)
    held = headers.count_weights(headers.of_folder(starter_folder), config, shape)
    assert held and held.params == 134_515_008 and held.four_bit == shape.linear_params and held.stored_bytes is None


def test_a_tied_head_in_the_files_counts_once() -> None:
    tied = SMALL | {"tie_word_embeddings": True}
    both = llama(SMALL)
    assert read(tied, both).params == read(tied, llama(tied)).params == read(SMALL, both).params - 64_000


def test_fp32_files_are_loaded_in_16_bit() -> None:
    assert read(SMALL, llama(SMALL, "F32")).params == read(SMALL, llama(SMALL)).params
    assert (
        estimate(read(SMALL, llama(SMALL, "F32")), Setup()).terms["weights"]
        == estimate(read(SMALL, llama(SMALL)), Setup()).terms["weights"]
    )


def test_what_bitsandbytes_leaves_alone_is_priced_in_16_bit() -> None:
    """Router and experts (3-D once loaded, one by one in the file); the tower that sees gives its memory back, and is
    not priced."""
    mixture = SMALL | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    attention = {name: entry for name, entry in llama(SMALL).items() if ".mlp." not in name}
    experts: Entries = {f"model.layers.{layer}.block_sparse_moe.gate.weight": ("BF16", [4, 64]) for layer in range(2)}
    for layer in range(2):
        for expert in range(4):
            for name, size in (("w1", [128, 64]), ("w2", [64, 128]), ("w3", [128, 64])):
                experts[f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}.weight"] = ("BF16", size)
    shape = read(mixture, attention | experts)
    assert shape.params == ModelShape.from_config(mixture).params
    assert shape.four_bit_params == sum(matrix.params for matrix in shape.attention_matrices)
    assert estimate(shape, Setup(method="qlora")).margin == 0.25 and "shape.experts" in {
        doubt.key for doubt in shape.low_confidence
    }
    stacked = {"model.layers.0.mlp.experts.gate_up_proj": ("BF16", [4, 256, 64])}
    assert read(mixture, attention | stacked).four_bit_params == shape.four_bit_params
    tower = {"vision_tower.encoder.layers.0.self_attn.q_proj.weight": ("BF16", [64, 64])}
    seeing = read(SMALL | {"vision_config": {}}, llama(SMALL) | tower)
    text = read(SMALL, llama(SMALL))
    assert (seeing.params, seeing.four_bit_params, seeing.in_files) == (
        text.params,
        text.four_bit_params,
        text.params + 4096,
    )


def test_a_mixture_of_experts_fits_only_as_its_16_bit_experts_allow() -> None:
    shape = ModelShape.from_config(MIXTRAL)
    assert estimate(shape, Setup(method="qlora")).terms["weights"] > 84


def test_heads_that_guess_further_ahead_are_not_loaded() -> None:
    more: Entries = {
        "model.mtp_layers.0.mlp.up_proj.weight": ("BF16", [128, 64]),
        "model.layers.2.mlp.up_proj.weight": ("BF16", [128, 64]),
    }
    assert read(SMALL, llama(SMALL) | more).params == read(SMALL, llama(SMALL)).params


def test_quantised_repositories_are_as_large_as_their_files() -> None:
    plain, one = ModelShape.from_config(SMALL), 64 * 64
    bnb = llama(SMALL)
    gptq = llama(SMALL, "F16")
    for name in [name for name in bnb if "_proj" in name]:
        count = bnb[name][1][0] * bnb[name][1][1]
        bnb |= {name: ("U8", [count // 2, 1]), f"{name}.absmax": ("U8", [count // 64]), f"{name}.quant_map": ("F32",
            [16]),
                f"{name}.nested_absmax": ("F32", [count // (64 * 256) or 1]),
                f"{name}.quant_state.bitsandbytes__nf4": ("U8", [90])}  # fmt: skip
        stem = name.removesuffix(".weight")
        del gptq[name]
        gptq |= {f"{stem}.qweight": ("I32", [count // 8]), f"{stem}.scales": ("F16", [count // 128]),
            f"{stem}.qzeros": ("I32", [count // 1024]),
                 f"{stem}.g_idx": ("I32", [64])}  # fmt: skip
    for entries, settings in (
        (bnb, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        (gptq, {"quant_method": "gptq", "bits": 4}),
    ):
        shape = read(SMALL | {"quantization_config": settings}, entries)
        assert shape.params == plain.params and shape.four_bit_params == plain.linear_params, settings
        size = sum(tensor.stored_bytes for tensor in headers.parse(safetensors(entries)[8:]))
        for method in ("lora", "qlora"):
            assert estimate(shape, Setup(method=method)).terms["weights"] * 2**30 == pytest.approx(size)
        assert not shape.low_confidence, "nothing is doubtful about weights that were read"
    assert one and size < plain.params * 2


BROKEN = {"empty": b"", "short": b"\x02", "huge": struct.pack("<Q", 2**60) + b"{}", "no json": struct.pack("<Q",
    4) + b"oops",
          "a list": struct.pack("<Q", 2) + b"[]", "no shape": struct.pack("<Q", 13) + b'{"a": {"b":1}'}  # fmt: skip


@pytest.mark.parametrize("case", [case for case in BROKEN if case != "empty"])
def test_a_broken_header_is_one_sentence(case: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BROKEN[case])
    with pytest.raises(ModelError) as caught:
        headers.of_folder(tmp_path)
    assert caught.value.message.key == "shape.bad_header" and "model.safetensors" in str(caught.value)


def test_a_folder_and_a_library_model_are_read_from_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SMALL), "utf-8")
    for layer in range(2):
        part = safetensors(llama(SMALL, layers=range(layer, layer + 1)))
        (folder / f"model-{layer}.safetensors").write_bytes(part + bytes(1 << 17))
    door = Models(Workspace(tmp_path / "ws", (tmp_path / "lib",)))
    assert shape_of(door, str(folder)) == door.shape("library:mine")
    assert door.shape("library:mine").params == ModelShape.from_config(SMALL).linear_params + 4 * 64
    assert shape_of(door, str(folder / "config.json")).source == "config", "a bare config.json says nothing of files"


def test_a_gguf_file_is_refused_as_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF")
    for read in (shape_of, config_of):
        with pytest.raises(ModelError) as caught:
            read(Models(Workspace(tmp_path / "ws")), str(file))
        assert caught.value.message.key == "model.gguf"


# ---- the hub -------------------------------------------------------------------------------------


def sharded(config: dict[str, Any], shards: int, weights: int = 300_000) -> dict[str, bytes]:
    """A repository of so many files, as save_pretrained splits one: whole layers in order, the rest in the first
    file."""
    shape = ModelShape.from_config(config)
    entries = llama(config)
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    parts: list[Entries] = [{} for _ in names]
    for name, entry in entries.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        parts[layer * shards // shape.num_hidden_layers][name] = entry
    weight_map = {name: file for file, part in zip(names, parts, strict=True) for name in part}
    total = 2 * ModelShape.from_config(config).params
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    files = {file: safetensors(part) + bytes(weights) for file, part in zip(names, parts, strict=True)}
    return {"config.json": json.dumps(config).encode(), cached.INDEX: json.dumps(index).encode(), **files}


def test_a_hub_model_of_8b_is_read_in_less_than_a_megabyte() -> None:
    with FakeHub({REPO: sharded(LLAMA, 4)}) as server:
        started = time.monotonic()
        shape = hub_shapes.fetch_shape(REPO, endpoint=server.url)
        seconds = time.monotonic() - started
        assert shape.params == ModelShape.from_config(LLAMA).params == 8_030_261_248 and shape.source == "headers"
        assert shape.four_bit_params == ModelShape.from_config(LLAMA).linear_params
        assert server.bytes_sent < 1 << 20, f"{server.bytes_sent:,} bytes"
        print(f"{server.bytes_sent:,} bytes, {len(server.requests)} requests, {seconds:.2f} s")
        assert len(server.requests) == 6, server.requests
        assert sum(" bytes=0-" in asked for asked in server.requests) == 4


def test_of_a_model_in_many_files_the_index_and_one_header_serve() -> None:
    large = LLAMA | {
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "num_attention_heads": 64,
        "intermediate_size": 28672,
    }
    with FakeHub({REPO: sharded(large, 30)}) as server:
        shape = hub_shapes.fetch_shape(REPO, endpoint=server.url)
        assert shape.params == pytest.approx(ModelShape.from_config(large).params, rel=1e-6)
        assert shape.four_bit_params == ModelShape.from_config(large).linear_params
        assert len(server.requests) == 3 and server.bytes_sent < 1 << 20


def test_a_single_file_with_a_long_header_takes_one_request_more() -> None:
    wide = LLAMA | {"num_hidden_layers": 126}
    files = {"config.json": json.dumps(wide).encode(), cached.SINGLE: safetensors(llama(wide)) + bytes(10**6)}
    with FakeHub({REPO: files}) as server:
        assert hub_shapes.fetch_shape(REPO, endpoint=server.url).params == ModelShape.from_config(wide).params
        assert len(server.file_requests(".safetensors")) == 2 and server.bytes_sent < 300_000


def test_a_server_without_ranges_does_not_send_the_weights() -> None:
    files = {"config.json": json.dumps(SMALL).encode(), cached.SINGLE: safetensors(llama(SMALL)) + bytes(12 << 20)}
    with FakeHub({REPO: files}) as server:
        server.ignores_ranges = True
        assert hub_shapes.fetch_shape(REPO, endpoint=server.url).source == "headers"
        assert server.bytes_sent < 8 << 20, "what lay in the sockets when the connection was closed"


def test_files_that_tell_nothing_leave_the_count_from_config_json(tmp_path: Path) -> None:
    for weights in (b"oops, no header at all", safetensors({}), b""):
        with FakeHub({REPO: {"config.json": json.dumps(SMALL).encode(), cached.SINGLE: weights}}) as server:
            shape = hub_shapes.fetch_shape(REPO, endpoint=server.url)
        assert shape == ModelShape.from_config(SMALL) and shape.source == "config"
    with FakeHub({REPO: {"config.json": json.dumps(GEMMA_3_4B).encode(), "pytorch_model.bin": b"pickle"}}) as server:
        assert hub_shapes.fetch_shape(REPO, endpoint=server.url).source == "config"


def test_a_shard_name_that_leaves_the_repository_is_not_asked_for() -> None:
    index = {"metadata": {"total_size": 10}, "weight_map": {"a": "../../etc/passwd.safetensors"}}
    with FakeHub(
        {REPO: {"config.json": json.dumps(SMALL).encode(), cached.INDEX: json.dumps(index).encode()}}
    ) as server:
        assert hub_shapes.fetch_shape(REPO, endpoint=server.url).source == "config"
        assert not [asked for asked in server.requests if "passwd" in asked]


def test_a_gated_model_is_the_sentence_of_a_download() -> None:
    with FakeHub({REPO: sharded(LLAMA, 1)}) as server:
        server.gated = True
        with pytest.raises(ModelError) as caught:
            hub_shapes.fetch_shape(REPO, endpoint=server.url)
    assert caught.value.message.key == "hub.gated"


def test_without_network_a_known_model_is_answered_and_an_unknown_one_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub({}) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    door = Models(Workspace(tmp_path / "ws"))
    for known in known_models()[1:]:
        assert shape_of(door, known.id) == shape_of(door, known.hub) == known.shape
    with pytest.raises(ModelError) as caught:
        shape_of(door, "some/unknown")
    assert caught.value.message.key == "shape.no_network"
    assert all(word in str(caught.value) for word in ("some/unknown", "config.json", "8B"))
