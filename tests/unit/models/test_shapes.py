"""The shapes of models: counted from config.json, known by id, or typical for a size; and every way to name one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError, RecipeError
from core.hub import download, peek
from core.models.known import known_models, shape_of_size, typical_shapes
from core.models.library import Models, shape_of
from core.models.shapes.shape import ModelShape
from core.workspace.folder import Workspace
from tests.kit.fetching import fetch_here
from tests.kit.hub import FakeHub, tiny_model
from tests.kit.shapes import FALCON_7B, GEMMA_2_9B, GEMMA_3_4B, GPT_2, LLAMA, MIXTRAL, PHI_2, QWEN_30B

REPO = "owner/model"
# Billions, from the model cards and from the sizes of the safetensors files on the hub.
COUNTS = [
    (LLAMA, 8.030), (GEMMA_2_9B, 9.242), (MIXTRAL, 46.70), (PHI_2, 2.780), (GPT_2, 0.1244), (FALCON_7B, 6.922),
    (GEMMA_3_4B, 3.880), (QWEN_30B, 30.53),
]  # fmt: skip


@pytest.mark.parametrize(("config", "billion"), COUNTS, ids=[config["model_type"] for config, _ in COUNTS])
def test_a_config_counts_to_the_parameters_of_the_real_model(config: dict[str, Any], billion: float) -> None:
    assert ModelShape.from_config(config).params_billion == pytest.approx(billion, rel=0.002)


def test_the_starter_counts_to_its_135_million(starter_folder: Path) -> None:
    shape = ModelShape.from_config(json.loads((starter_folder / "config.json").read_text("utf-8")))
    assert shape.params == 134_515_008  # sum over its safetensors file
    assert shape.lora_params(8, "all-linear") == 2_442_240  # peft's own count (docs/memory.md, measured here)
    catalogue = known_models()[0]
    assert catalogue.id == catalogue.hub == "starter" and catalogue.shape.params == shape.params


# Million parameters a unit of rank: all linear layers, attention, query and value. docs/memory.md, section 1.2.
RANKS = {
    "1B": (0.705, 0.213, 0.106), "3B": (1.520, 0.573, 0.287), "4B": (2.064, 0.737, 0.369), "7B": (2.499, 1.049, 0.524),
    "8B": (2.621, 0.852, 0.426), "13B": (3.912, 1.638, 0.819), "24B": (5.775, 1.229, 0.614), "33B": (7.619, 3.195,
        1.597),
    "70B": (12.943, 4.096, 2.048),
}  # fmt: skip


@pytest.mark.parametrize("size", RANKS)
def test_an_adapter_has_the_published_number_of_parameters(size: str) -> None:
    shape = shape_of_size(size)
    targets = ("all-linear", "q_proj,k_proj,v_proj,o_proj", "q_proj, v_proj")
    assert [shape.lora_params(1, names) / 1e6 for names in targets] == pytest.approx(RANKS[size], abs=0.0006)
    assert shape.lora_params(16, "all-linear") == 16 * shape.lora_params(1, "all-linear")


def test_the_head_gets_an_adapter_only_by_name() -> None:
    shape = ModelShape.from_config(LLAMA)
    assert shape.lora_params(2, "lm_head") == 2 * (4096 + 128256)
    assert "lm_head" not in {matrix.name for matrix in shape.targets("all-linear")}


def test_all_linear_reaches_the_experts_as_peft_does() -> None:
    assert ModelShape.from_config(MIXTRAL).lora_params(1, "all-linear") == 851_968  # experts have none
    assert ModelShape.from_config(MIXTRAL).lora_params(1, "q_proj,k_proj,v_proj,o_proj") == 851_968


@pytest.mark.parametrize(("config", "name"), [(GPT_2, "c_attn"), (PHI_2, "fc1"), (FALCON_7B, "query_key_value")])
def test_layers_have_the_names_of_their_family(config: dict[str, Any], name: str) -> None:
    shape = ModelShape.from_config(config)
    assert shape.mlp == "plain" and 0 < shape.lora_params(1, name) < shape.lora_params(1, "all-linear")
    with pytest.raises(RecipeError) as caught:
        shape.lora_params(8, f"{name},gate_proj")
    assert "gate_proj" in str(caught.value) and name in str(caught.value)


LFM2 = {
    "model_type": "lfm2", "hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 65536,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "width"),
    [
        ({"intermediate_size": 6656}, 4608),
        ({"block_ff_dim": 12288, "intermediate_size": 1}, 8192),
        ({"intermediate_size": 4608, "block_auto_adjust_ff_dim": False}, 4608),
        ({"intermediate_size": 6656, "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 512}, 6144),
        ({"intermediate_size": 6656, "block_ffn_dim_multiplier": float("inf")}, 4437),
    ],
)
def test_the_mlp_of_lfm2_is_as_wide_as_its_class_makes_it(given: dict[str, Any], width: int) -> None:
    assert ModelShape.from_config(LFM2 | given).intermediate_size == width


SIZES = {
    "7B": 6.738,
    "13b": 13.016,
    "33B": 32.53,
    "1.5B": 1.5,
    "500M": 0.5,
    "9B": 9.0,
    "20 b": 20.0,
    "36B": 36.0,
    "72B": 72.0,
}


@pytest.mark.parametrize("size", SIZES)
def test_a_bare_size_is_a_model_of_that_size(size: str) -> None:
    shape = shape_of_size(size)
    assert shape.params_billion == pytest.approx(SIZES[size], rel=0.02) and shape.source == "size"


def test_7b_is_llama_2_and_every_typical_size_is_near_its_name() -> None:
    assert shape_of_size("7B").intermediate_size == 11008
    for size, shape in typical_shapes().items():
        assert shape.params_billion == pytest.approx(float(size[:-1]) / (1000 if size[-1] == "M" else 1), rel=0.25)


@pytest.mark.parametrize("size", ["", "B", "7", "0B", "7T", "-7B", "1e3B", "9999B", "1M", "٧B", "7B; rm"])
def test_what_is_no_size_is_refused_by_name(size: str) -> None:
    with pytest.raises(ModelError) as caught:
        shape_of_size(size)
    assert caught.value.message.key == "shape.bad_size"


DOUBTS = {
    "experts": MIXTRAL,
    "latent_attention": LLAMA | {"model_type": "deepseek_v3", "kv_lora_rank": 512},
    "hybrid": LLAMA | {"layer_types": ["linear_attention", "full_attention"]},
    "per_layer_embeddings": LLAMA | {"hidden_size_per_layer_input": 256},
    "other_senses": GEMMA_3_4B,
    "uneven": LLAMA | {"intermediate_size": [8192, 14336, 14336]},
    "quantised": LLAMA | {"quantization_config": {"quant_method": "gptq"}},
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_what_the_arithmetic_does_not_model_is_said(doubt: str) -> None:
    assert [found.key for found in ModelShape.from_config(DOUBTS[doubt]).low_confidence] == [f"shape.{doubt}"]


def test_a_hybrid_of_attention_alone_is_none() -> None:
    """Granite 4.0 Micro says how wide a scan would be, and has no layer with one."""
    scans = {"mamba_n_heads": 64, "mamba_d_head": 64, "mamba_d_state": 128}
    plain = ModelShape.from_config(LLAMA | scans | {"layer_types": ["attention"] * LLAMA["num_hidden_layers"]})
    assert not plain.low_confidence and not plain.scan_layers
    everywhere = ModelShape.from_config(LLAMA | scans)  # Falcon-H1, which lists no kinds
    assert everywhere.low_confidence and everywhere.scan_layers == LLAMA["num_hidden_layers"]


def test_ordinary_models_leave_no_doubt() -> None:
    sliding = GEMMA_2_9B | {"layer_types": ["sliding_attention", "full_attention"] * 21, "eos_token_id": [1, 106, 107]}
    assert not any(ModelShape.from_config(config).low_confidence for config in (LLAMA, sliding, GPT_2, FALCON_7B))


BAD_CONFIGS = {
    "a list": ([], "shape.no_config"),
    "no type": ({"hidden_size": 1}, "shape.no_config"),
    "no layers": ({"model_type": "mamba", "hidden_size": 768, "vocab_size": 50280}, "shape.missing"),
    "a word": (LLAMA | {"hidden_size": "4096"}, "shape.bad_value"),
    "true": (LLAMA | {"num_hidden_layers": True}, "shape.bad_value"),
    "negative": (LLAMA | {"vocab_size": -1}, "shape.bad_value"),
    "two numbers for all layers": (LLAMA | {"intermediate_size": [11008, 11008]}, "shape.bad_value"),
    "a million layers": (LLAMA | {"num_hidden_layers": 10**6}, "shape.bad_value"),
    "endless": (LLAMA | {"hidden_size": 10**400}, "shape.bad_value"),
    "more heads than values": (LLAMA | {"hidden_size": 16}, "shape.bad_value"),
    "no heads": (LLAMA | {"num_attention_heads": 0}, "shape.bad_value"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_config_that_cannot_be_is_one_sentence(case: str) -> None:
    config, key = BAD_CONFIGS[case]
    with pytest.raises(ModelError) as caught:
        ModelShape.from_config(config)
    assert caught.value.message.key == key and "{" not in str(caught.value)


# ---- every way to name a model -------------------------------------------------------------------
@pytest.fixture
def door(tmp_path: Path) -> Models:
    (tmp_path / "lib" / "mine").mkdir(parents=True)
    (tmp_path / "lib" / "mine" / "config.json").write_text(json.dumps(MIXTRAL), "utf-8")
    (tmp_path / "lib" / "mine" / "model.safetensors").touch()
    return Models(Workspace(tmp_path / "ws", (tmp_path / "lib",)))


def test_a_model_is_named_by_id_folder_file_or_size(
    door: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peek, "fetch_config", None)  # none of these may ask the network
    folder = tmp_path / "lib" / "mine"
    for name in ("library:mine", str(folder), str(folder / "config.json")):
        assert shape_of(door, name).num_experts == 8, name
    assert shape_of(door, "7b").source == "size"
    assert shape_of(door, "starter").hidden_size == 576  # not made yet: from the catalogue
    assert shape_of(door, "qwen3-4b") == shape_of(door, "Qwen/Qwen3-4B") == door.shape("qwen3-4b")
    assert (door.hub_id("qwen3-4b"), door.hub_id("a/b")) == ("Qwen/Qwen3-4B", "a/b")


@pytest.mark.parametrize("name", ["", "gpt5", "library:none", "../nothing", "/etc", "http://x/y"])
def test_what_names_no_model_is_one_sentence(door: Models, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        shape_of(door, name)
    assert caught.value.message.key in ("shape.unknown_model", "model.not_in_library")


# ---- config.json from the hub --------------------------------------------------------------------
def files(config: bytes | None = None) -> dict[str, bytes]:
    return tiny_model() | {"config.json": config or json.dumps(LLAMA).encode()}


def test_a_config_is_fetched_alone_and_kept_nowhere(tmp_path: Path) -> None:
    with FakeHub({REPO: files()}) as server:
        assert peek.fetch_config(REPO, endpoint=server.url, cache_dir=tmp_path / "cache") == LLAMA
        assert server.requests == [f"GET /{REPO}/resolve/main/config.json"]
    assert not (tmp_path / "cache").exists()


def test_a_model_that_is_here_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_here(monkeypatch)
    with FakeHub({REPO: files()}) as server:
        download.fetch(REPO, None, lambda progress: None, lambda: None, server.url, tmp_path)
        before = len(server.requests)
        assert peek.fetch_config(REPO, endpoint=server.url, cache_dir=tmp_path) == LLAMA
        assert len(server.requests) == before


def test_a_stale_token_does_not_close_an_open_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    with FakeHub({REPO: files()}) as server:
        server.bad_tokens = True
        assert peek.fetch_config(REPO, endpoint=server.url, cache_dir=tmp_path) == LLAMA
        assert server.tokens == ["Bearer hf_stale", None]


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "gated": ({"gated": True}, "hub.gated"),
    "missing": ({"status": 401, "headers": {"X-Error-Code": "RepoNotFound"}}, "hub.missing"),
    "no config": ({"repos": {REPO: {"model.safetensors": b""}}}, "hub.no_config"),
    "trouble": ({"status": 503}, "hub.server_trouble"),
    "too many": ({"status": 429}, "hub.rate_limit"),
    "sign-in page": ({"body": b"<html>"}, "hub.not_a_hub"),
    "a list": ({"body": b"[1]"}, "hub.not_a_hub"),
    "too deep": ({"body": b"[" * 200_000}, "hub.not_a_hub"),
    "too large": ({"body": b" " * (peek.SMALL_FILE + 1)}, "hub.not_a_hub"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_the_sentence_of_a_download(case: str, tmp_path: Path) -> None:
    knobs, key = REFUSALS[case]
    with FakeHub({REPO: files()}) as server:
        for name, value in knobs.items():
            setattr(server, name, value)
        with pytest.raises(ModelError) as caught:
            peek.fetch_config(REPO, endpoint=server.url, cache_dir=tmp_path)
    assert caught.value.message.key == key and "{" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_or_asked_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub({}) as server:
        url = server.url
    for repo, revision, key in [
        (REPO, None, "hub.no_network"),
        ("../x", None, "hub.bad_id"),
        (REPO, "../x", "hub.bad_revision"),
    ]:
        with pytest.raises(ModelError) as caught:
            peek.fetch_config(repo, revision, endpoint=url, cache_dir=tmp_path)
        assert caught.value.message.key == key
