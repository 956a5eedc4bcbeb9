"""Tiny random models of the families that people tune, made when asked for, as their makers ship them: config, class,
names of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from core.data.labels import Encoded
from core.engine.families import mended
from core.models.weights import weight_files
from tests.kit import tiny
from tests.kit.adapters import adapted

VOCABULARY = tiny.FEW_WORDS  # of the starter's; all of them were most of what such a model costs
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}  # fmt: skip
GRANITE = {
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.0625,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2, "mamba_d_state": 16, "mamba_n_groups": 1}
WINDOWS = ["sliding_attention"] * 3 + ["full_attention"]
PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 16,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
QWEN_EYE = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
    "deepstack_visual_indexes": [],
}  # fmt: skip
GEMMA_EYE = {
    "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "num_key_value_heads": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """kind: the model_type of config.json. sees: of a model with a tower, its config; kind is then the whole's, text
    the text part's, and around what the whole's config says besides."""

    kind: str
    more: dict[str, Any] = field(default_factory=dict)
    sees: dict[str, Any] | None = None
    text: str = ""
    around: dict[str, Any] = field(default_factory=dict)


# What is tuned most in autumn 2026 first.
FAMILIES = {
    "qwen3_5": Family("qwen3_5", {"head_dim": 32, **LINEAR}, QWEN_EYE, "qwen3_5_text"),
    "qwen3_5_moe": Family(
        "qwen3_5_moe", {"head_dim": 32, **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 32}, QWEN_EYE,
        "qwen3_5_moe_text"
    ),
    "gemma4": Family(
        "gemma4",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": 16, "layer_types": WINDOWS,
            "num_global_key_value_heads": 1,
         "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "attention_k_eq_v": True},
        GEMMA_EYE,
        "gemma4_text",
    ),
    "gemma4_e": Family(
        "gemma4",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": 16, "layer_types": ["sliding_attention",
            "full_attention"] * 3,
         "num_hidden_layers": 6, "num_global_key_value_heads": 1, "vocab_size_per_layer_input": VOCABULARY,
         "hidden_size_per_layer_input": 16, "num_kv_shared_layers": 2},
        GEMMA_EYE,
        "gemma4_text",
    ),
    "gemma3": Family(
        "gemma3", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6}, SIGLIP,
        "gemma3_text"
    ),
    "gemma3_text": Family("gemma3_text", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16,
        "num_hidden_layers": 6}),
    "gemma2": Family(
        "gemma2", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2}
    ),
    "lfm2": Family(
        "lfm2", {"layer_types": ["conv", "conv", "full_attention", "conv"], "block_ff_dim": 96,
            "block_auto_adjust_ff_dim": False}
    ),
    "lfm3": Family(
        "lfm3",
        {"head_dim": 16, "sliding_window": 16, "conv_L_cache": 7,
         "layer_types": ["conv", "full_attention", "conv", "sliding_attention"]},
    ),
    "lfm2_moe": Family(
        "lfm2_moe",
        {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 32, "num_dense_layers": 1},
    ),
    "ministral3": Family("mistral3", {"head_dim": 16}, PIXTRAL, "ministral3"),
    "mistral_small3": Family("mistral3", {"head_dim": 16, "sliding_window": None}, PIXTRAL, "mistral"),
    "granite": Family("granite", GRANITE),
    "granitemoehybrid": Family(
        "granitemoehybrid",
        {"layer_types": ["mamba", "mamba", "attention", "mamba"], "num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 32, "position_embedding_type": "nope", **MAMBA, **GRANITE},
    ),
    "granite4_dense": Family(
        "granitemoehybrid",
        {"layer_types": ["mamba", "mamba", "attention", "mamba"], "num_local_experts": 0, "num_experts_per_tok": 0,
         "shared_intermediate_size": 96, "position_embedding_type": "nope", **MAMBA, **GRANITE},
    ),
    "llama": Family("llama"),
    "gpt_oss": Family(
        "gpt_oss",
        {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16,
         "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "qwen3": Family("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3_moe": Family("qwen3_moe", {"head_dim": 16, **EXPERTS}),
    "qwen3_next": Family(
        "qwen3_next",
        {"head_dim": 32, **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1,
            "mlp_only_layers": []},
    ),
    "qwen2": Family("qwen2"),
    "qwen2_5_vl": Family(
        "qwen2_5_vl",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
        {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [0]},
        "qwen2_5_vl_text",
    ),
    "qwen3_vl": Family(
        "qwen3_vl",
        {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
        QWEN_EYE,
        "qwen3_vl_text",
    ),
    "olmo2": Family("olmo2"),
    "olmo3": Family("olmo3", {"sliding_window": 16, "layer_types": WINDOWS}),
    "phi3": Family("phi3", {"sliding_window": None}),
    "smollm3": Family("smollm3", {"no_rope_layers": [1, 1, 1, 0], "layer_types": ["full_attention"] * 4,
        "use_sliding_window": False}),
    "glm4": Family("glm4", {"head_dim": 16, "partial_rotary_factor": 0.5}),
    "glm4_moe_lite": Family(
        "glm4_moe_lite",
        {**LATENT, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
         "first_k_dense_replace": 1, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "n_group": 1,
         "topk_group": 1},
    ),
    "falcon_h1": Family(
        "falcon_h1", {"head_dim": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16,
            "mamba_n_groups": 1}
    ),
    "hunyuan": Family("hunyuan_v1_dense", {"head_dim": 16}),
    "exaone4": Family("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 4, "head_dim": 16}),
    "apertus": Family("apertus"),
    "ernie4_5": Family("ernie4_5", {"head_dim": 16}),
    "seed_oss": Family("seed_oss", {"head_dim": 16, "attention_dropout": 0.0, "residual_dropout": 0.0}),
    "cohere2": Family("cohere2", {"sliding_window": 16, "layer_types": WINDOWS, "logit_scale": 0.25}),
    "mixtral": Family("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma4_moe": Family(
        "gemma4",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": 16, "layer_types": WINDOWS,
            "num_global_key_value_heads": 1,
         "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "attention_k_eq_v": True,
         "enable_moe_block": True,
         "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
        GEMMA_EYE,
        "gemma4_text",
    ),
    "gemma4_unified": Family(
        "gemma4_unified",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": 16, "layer_types": WINDOWS,
            "num_global_key_value_heads": 1,
         "attention_k_eq_v": True},
        {"model_type": "gemma4_unified_vision", "mm_embed_dim": 32, "mm_posemb_size": 16, "output_proj_dims": 32},
        "gemma4_unified_text",
        {"audio_config": {"model_type": "gemma4_unified_audio", "audio_embed_dim": 32}},
    ),
    "gemma3n": Family(
        "gemma3n",
        {"head_dim": 16, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_hidden_layers": 6,
         "intermediate_size": [96] * 6, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16,
         "num_kv_shared_layers": 2, "laurel_rank": 8, "altup_num_inputs": 2,
         "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0]},
        {"model_type": "gemma3n_vision", "hidden_size": 32, "vocab_size": 8, "vocab_offset": VOCABULARY},
        "gemma3n_text",
        {"audio_config": {"model_type": "gemma3n_audio", "hidden_size": 32, "vocab_size": 8,
            "vocab_offset": VOCABULARY + 8,
                          "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1, "sscp_conv_channel_size": [8,
                              4]}},
    ),
    "llama4": Family(
        "llama4",
        {"head_dim": 16, "intermediate_size": 32, "intermediate_size_mlp": 96, "num_local_experts": 4,
            "num_experts_per_tok": 1,
         "interleave_moe_layer_step": 2, "attention_chunk_size": 16},
        {"model_type": "llama4_vision_model", "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1,
         "num_attention_heads": 2, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
         "image_size": 28},
        "llama4_text",
    ),
    "phimoe": Family(  # without its noise on the router, by which no two trainings are the same
        "phimoe",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True,
            "router_jitter_noise": 0.0},
    ),
    "jamba": Family(
        "jamba",
        {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 4, "attn_layer_offset": 2},
    ),
    "nemotron_h": Family(
        "nemotron_h",
        {"head_dim": 16, "layers_block_type": ["mamba", "moe", "attention", "mlp"], "ssm_state_size": 16,
            "mamba_num_heads": 8,
         "mamba_head_dim": 16, "n_groups": 1, "n_routed_experts": 4, "moe_intermediate_size": 32,
         "moe_shared_expert_intermediate_size": 32},
    ),
    "youtu": Family("youtu", LATENT),
    "muse_glimmer": Family(
        "muse_glimmer",
        {"head_dim": 16, "sliding_window": 16},
        {"model_type": "muse_glimmer_vision", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 2},
        "muse_glimmer_text",
        {"out_hidden_size": 32, "projector_hidden_size": 32},
    ),
    "mistral": Family("mistral", {"sliding_window": None}),
}  # fmt: skip


def config(name: str, sees: dict[str, Any] | None = None, **other: Any) -> Any:
    """Return the family's config. sees, other: settings of the tower and of the text part, in place of the family's."""
    family = FAMILIES[name]
    values = COMMON | family.more | other
    if family.sees is None:
        return AutoConfig.for_model(family.kind, **values)
    tied = values.get("tie_word_embeddings", False)
    text = values | {"model_type": family.text}
    return AutoConfig.for_model(
        family.kind,
        text_config=text,
        vision_config=family.sees | (sees or {}),
        tie_word_embeddings=tied,
        **family.around,
    )


class Eyes(PreTrainedModel):
    """Imitates Gemma 3n's tower, which transformers makes with timm, so that a shipped model has weights there."""

    config_class = transformers.Gemma3nVisionConfig

    def __init__(self, config: Any):
        super().__init__(config)
        self.patch = torch.nn.Linear(3, config.hidden_size)
        self.post_init()


def with_eyes() -> None:
    """Make transformers build that tower as Eyes, until the program loads a model, which it does without a tower."""
    transformers.AutoModel.register(Eyes.config_class, Eyes, exist_ok=True)


def make(name: str, folder: Path, starter: Path, **other: Any) -> Path:
    """Write a model of the family into folder as its makers would save it, in bfloat16, with the starter's tokenizer
    cut to its first words."""
    with_eyes()
    torch.manual_seed(0)
    found = config(name, **other)
    kind = AutoModelForImageTextToText if FAMILIES[name].sees else AutoModelForCausalLM
    model = kind.from_config(found, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder, starter, VOCABULARY)
    assert json.loads((folder / "config.json").read_text("utf-8"))["architectures"] == [type(model).__name__]
    return folder


def rows() -> list[Encoded]:
    chance = torch.Generator().manual_seed(3)
    ids = [torch.randint(3, VOCABULARY, (length,), generator=chance).tolist() for length in (9, 14, 6)]
    return [Encoded(row, [False] * 2 + [True] * (len(row) - 2)) for row in ids]


def tuned(base: Any, **settings: Any) -> PeftModel:
    """Return base with an adapter that changes its answers."""
    return adapted(base, std=0.1, **settings).eval()


def as_shipped(folder: Path) -> Any:
    """Load the model by the class that config.json names, as other programs do; of Llama 4's, which fails there, with
    the program's own mending."""
    with_eyes()
    config = AutoConfig.from_pretrained(folder)
    return mended.model(
        getattr(transformers, config.architectures[0]).from_pretrained(folder, dtype=torch.float32).eval()
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}
