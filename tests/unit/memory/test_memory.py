"""The memory arithmetic against published numbers (docs/memory.md), and the rules it must never break."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.memory_stacks import OthersSetup
from core.commands import __main__ as commands
from core.errors import RecipeError
from core.memory.arithmetic import CACHE_ROOM, Estimate, estimate
from core.memory.constants import memory_constants
from core.memory.layers import WIDEST_HEAD, _is_grouped
from core.memory.setup import Setup
from core.messages import core_catalogue
from core.models.known import known_models, shape_of_size
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe
from core.values import GIB
from tests.kit.shapes import GEMMA_2_9B, LLAMA, MIXTRAL

LENGTHS = (512, 1024, 2048, 4096)
# GiB on the card, QLoRA and LoRA at the four lengths, calculated with an older count of the activations
# (docs/memory.md, section 5, has today's).
TABLE = {
    "Llama-3.2-1B": ((1.8, 1.9, 2.2, 2.7), (3.1, 3.2, 3.5, 4.0)),
    "Llama-3.2-3B": ((3.2, 3.4, 3.7, 4.5), (7.0, 7.2, 7.6, 8.4)),
    "Qwen3-4B": ((3.6, 3.8, 4.2, 5.1), (8.6, 8.8, 9.2, 10.0)),
    "Llama-2-7B": ((4.9, 5.2, 5.8, 6.9), (13.8, 14.1, 14.6, 15.8)),
    "Mistral-7B": ((5.2, 5.5, 6.1, 7.3), (14.8, 15.1, 15.7, 16.9)),
    "Llama-3.1-8B": ((6.7, 7.0, 7.6, 8.8), (16.2, 16.5, 17.1, 18.3)),
    "Llama-2-13B": ((8.4, 8.8, 9.6, 11.2), (25.8, 26.2, 27.0, 28.6)),
    "24B Mistral-Small": ((15.5, 16.0, 17.0, 19.0), (45.9,)),
    "33B LLaMA": ((18.8, 19.5, 20.8, 23.3), (63.0, 63.6, 64.9, 67.5)),
    "70B": ((37.8, 38.8, 40.8, 44.8), (132.0,)),
}
MISTRAL_7B = ModelShape.from_config(LLAMA | {"model_type": "mistral", "vocab_size": 32000})
SHAPES = {
    "Llama-3.2-1B": shape_of_size("1B"), "Llama-3.2-3B": shape_of_size("3B"), "Qwen3-4B": shape_of_size("4B"),
    "Llama-2-7B": shape_of_size("7B"), "Mistral-7B": MISTRAL_7B, "Llama-3.1-8B": ModelShape.from_config(LLAMA),
    "Gemma-2-9B": ModelShape.from_config(GEMMA_2_9B), "Llama-2-13B": shape_of_size("13B"),
    "24B Mistral-Small": shape_of_size("24B"), "33B LLaMA": shape_of_size("33B"), "70B": shape_of_size("70B"),
}  # fmt: skip
SEVEN_B = SHAPES["Llama-2-7B"]


def of(shape: ModelShape = SEVEN_B, **settings: Any) -> Estimate:
    return estimate(shape, OthersSetup(**settings) if "stack" in settings else Setup(**settings))


@pytest.mark.parametrize("name", TABLE)
def test_what_fits_where_is_the_published_table(name: str) -> None:
    """The table has transformers' norms and gate: one layer's three hidden widths and one of its MLP more, in 16 bits,
    with the slack on them."""
    shape = SHAPES[name]
    saved = 1.08 * 2 * (3 * shape.hidden_size + shape.active_width) / 2**30
    for method, row in zip(("qlora", "lora"), TABLE[name], strict=True):
        for max_length, gib in zip(LENGTHS, row, strict=False):
            estimated = of(SHAPES[name], method=method, r=16, max_length=max_length, loss="chunked").on_card_gib
            assert estimated == pytest.approx(gib - saved * max_length, rel=0.06), (method, max_length)


def test_gemma_2_pays_for_scores_that_only_eager_attention_can_bend() -> None:
    """The published table counts it as if sdpa could: 9.4 and 20.8 GiB at 4,096 tokens. Its own layers
    (tests/model/test_dry_run.py) keep 16 heads x 4,096 x 4,096 scores, and without checkpointing those of all 42
    layers."""
    long = {"r": 16, "max_length": 4096}
    assert of(SHAPES["Gemma-2-9B"], method="qlora", **long).on_card_gib > 9.4 + 2
    assert of(SHAPES["Gemma-2-9B"], method="lora", **long).on_card_gib > 20.8 + 2
    assert (
        of(SHAPES["Gemma-2-9B"], gradient_checkpointing=False, **long).terms["activations"]
        > 42 * 4 * 16 * 4096**2 * 2 / 2**30
    )


# docs/memory.md, section 1.1: measured by fms-acceleration between steps; torch AdamW, r 16 on the attention.
IDLE = [
    (MISTRAL_7B, "lora", 13.66), (MISTRAL_7B, "qlora", 4.01),
    (SHAPES["Llama-3.1-8B"], "lora", 15.13), (SHAPES["Llama-3.1-8B"], "qlora", 5.48),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "method", "gib"), IDLE)
def test_idle_memory_is_what_was_measured(shape: ModelShape, method: str, gib: float) -> None:
    estimated = of(shape, method=method, r=16, target_modules="q_proj,k_proj,v_proj,o_proj", optim="adamw_torch")
    assert estimated.idle_gib == pytest.approx(gib, rel=0.01)


# docs/memory.md, "What was measured here": peak of fake tensors through the real libraries, 512 tokens, r 8, torch
# AdamW, GiB. The buffer for one unpacked matrix is not in them.
FAKE = [("7B", "lora", 13.09), ("7B", "qlora", 4.17), ("13B", "lora", 25.01)]


@pytest.mark.parametrize(("size", "method", "gib"), FAKE)
def test_the_peak_of_a_step_is_that_of_fake_tensors(size: str, method: str, gib: float) -> None:
    estimated = of(shape_of_size(size), method=method, optim="adamw_torch", stack="hf", accumulates=False)
    assert estimated.allocated_gib - estimated.terms["dequantised"] - estimated.terms["workspace"] == pytest.approx(
        gib, rel=0.005
    )


# docs/memory.md, "What was measured here": peak memory of a CPU process, starter, 4 x 256 tokens, plain loop with all
# logits. MiB.
CPU = [(2, False, 3280), (2, True, 1640), (4, False, 4250), (4, True, 2230)]


@pytest.mark.parametrize(("base_bytes", "checkpointing", "mib"), CPU)
def test_a_cpu_process_needs_about_what_was_measured(base_bytes: int, checkpointing: bool, mib: int) -> None:
    estimated = of(
        known_models()[0].shape, device="cpu", base_bytes=base_bytes, gradient_checkpointing=checkpointing,
        per_device_train_batch_size=4, max_length=256, stack="hf", optim="adamw_torch",
    )  # fmt: skip
    assert -0.10 < estimated.on_card_gib * 1024 / mib - 1 < 0.3


def test_the_documented_order_holds_at_every_size() -> None:
    for name, shape in SHAPES.items():
        qlora, lora, full = (of(shape, method=method).on_card_gib for method in ("qlora", "lora", "full"))
        assert qlora < lora and full > 2 * lora, name  # "QLoRA < LoRA << full"


def test_full_fine_tuning_of_7b_is_the_documented_40_gb() -> None:
    assert of(method="full", loss="chunked").on_card_gib * 1.0737 == pytest.approx(
        41, rel=0.03
    )  # docs/memory.md, section 6: 8-bit Adam
    assert of(method="full").trainable_params == SEVEN_B.params and of(method="full").terms["adapter"] == 0


GROWING = {
    "max_length": [64, 512, 513, 4096],
    "per_device_train_batch_size": [1, 2, 8],
    "r": [1, 4, 8, 16, 64],
    "supervised_tokens": [0, 100, 511, None],
    "base_bytes": [2, 4],
    "loss": ["chunked", "supervised", "full"],
    "gradient_checkpointing": [True, False],
    "optim": ["adamw_8bit", "adamw_torch"],
    "target_modules": ["q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj", "all-linear"],
}


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("setting", GROWING)
def test_more_never_needs_less(setting: str, method: str) -> None:
    values = GROWING[setting]
    # with it the layer computed again hides what the logits need
    plain = {"per_device_train_batch_size": 2, "gradient_checkpointing": False}
    estimated = [of(SHAPES["Llama-3.1-8B"], method=method, **plain | {setting: value}).on_card_gib for value in values]
    assert all(a <= b for a, b in pairwise(estimated)) and estimated[0] < estimated[-1]


@pytest.mark.parametrize(
    ("capability", "packing", "system", "grouped"),
    [
        ((8, 6), True, "linux", True),
        ((7, 5), True, "linux", False),
        (None, True, "linux", False),
        ((8, 6), False, "linux", False),
        ((12, 0), True, "win32", False),
    ],
)
def test_keys_and_values_are_not_repeated_where_one_kernel_takes_packed_rows(
    capability: tuple[int, int] | None, packing: bool, system: str, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.memory.setup.sys", SimpleNamespace(platform=system))
    recipe = Recipe.parse(
        {"data": {"source": "x", "max_length": 2048, "packing": packing}, "train": {"gradient_checkpointing": False}}
    )
    setup = Setup.from_recipe(recipe, "card", capability, per_device_train_batch_size=1)
    assert setup.grouped == grouped
    shape = ModelShape.from_config(LLAMA)
    plain = estimate(shape, setup.model_copy(update={"grouped": False})).terms["activations"]
    spared = (plain - estimate(shape, setup).terms["activations"]) * GIB
    a_layer = 2 * 2048 * (3 * shape.q_width - 2 * shape.kv_width)  # two repeated, and the copy that the output reads
    assert spared == pytest.approx(shape.num_hidden_layers * a_layer if grouped else 0, abs=a_layer)
    heads = [ModelShape.from_config(LLAMA | {"head_dim": width}) for width in (WIDEST_HEAD, WIDEST_HEAD + 1)]
    assert [_is_grouped(each, setup) for each in heads] == [grouped, False]


def test_rows_side_by_side_have_a_mask_and_packed_ones_none() -> None:
    shape = ModelShape.from_config(LLAMA)
    packed, padded = (
        estimate(shape, Setup(per_device_train_batch_size=4, max_length=4096, packed=packs)) for packs in (True, False)
    )
    assert (padded.allocated_gib - packed.allocated_gib) * GIB == pytest.approx(3 * 4 * 4096**2)
    assert estimate(shape, Setup(packed=False)) == estimate(shape, Setup())  # one row has nothing to fill up


def test_supervised_tokens_beyond_the_row_are_the_row() -> None:
    assert of(max_length=64, supervised_tokens=10_000) == of(max_length=64)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_terms_add_up(method: str) -> None:
    for device in ("card", "cpu"):
        estimated = of(method=method, device=device)
        assert sum(estimated.terms.values()) == pytest.approx(estimated.on_card_gib)
        assert estimated.idle_gib < estimated.allocated_gib < estimated.on_card_gib < estimated.needed_gib
        assert estimated.needed_gib == pytest.approx(estimated.on_card_gib * (1.07 if device == "card" else 1.10))
        assert {f"memory.{name}" for name in estimated.terms} <= core_catalogue().keys("en")


def test_experts_stay_in_16_bit_and_lower_the_confidence() -> None:
    estimated = of(ModelShape.from_config(MIXTRAL), method="qlora")
    assert estimated.terms["weights"] > 45.1e9 * 2 / 2**30  # 8 experts of 32 layers alone: 45.1 billion
    assert estimated.margin == 0.25 and estimated.low_confidence


def test_logits_are_never_more_than_a_chunk() -> None:
    """core/engine/loss.py on a card: a chunk of 128 MiB in fp32, 8 bytes where that has 4; beyond it only hidden states
    grow."""
    shape = SHAPES["Gemma-2-9B"]
    checkpointed = of(shape, per_device_train_batch_size=8, max_length=4096)
    assert checkpointed.terms["logits"] == 0, "the layer that is computed again is larger"
    alone = [
        of(shape, max_length=8192, supervised_tokens=n, gradient_checkpointing=False).terms["logits"]
        for n in (1024, 8192)
    ]
    assert max(alone) < 0.27 and alone[1] - alone[0] < 7168 * shape.hidden_size * 4 / 2**30
    assert of(shape, max_length=8192, loss="full", gradient_checkpointing=False).terms["logits"] > 20


def test_drawing_answers_needs_memory_only_beyond_what_a_step_needs() -> None:
    """Keys and values of all answers drawn together; they are freed before the step."""
    step = of(max_length=1024)
    assert of(max_length=1024, drawn=1).terms["drawing"] == 0
    assert of(max_length=1024, drawn=1).on_card_gib == step.on_card_gib
    many, more = (of(max_length=1024, drawn=rows) for rows in (64, 128))
    assert more.on_card_gib > many.on_card_gib > step.on_card_gib
    a_token = 2 * SEVEN_B.num_key_value_heads * SEVEN_B.head_dim * 2 * (SEVEN_B.num_hidden_layers + 1)
    grown = (more.terms["drawing"] - many.terms["drawing"]) * GIB
    assert grown == pytest.approx(64 * ((1024 + CACHE_ROOM) * a_token + 28 * SEVEN_B.vocab_size), rel=1e-6)


def test_a_target_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(RecipeError, match="nonsense"):
        of(target_modules="nonsense")


def test_the_constants_say_which_stack_they_describe() -> None:
    assert memory_constants().version == 3 and "bitsandbytes" in memory_constants().stack


# ---- the command ---------------------------------------------------------------------------------


def test_estimate_answers_in_json_alone(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["estimate", "--model", "7B", "--method", "qlora", "--r", "16", "--loss", "chunked", "--json"]
    assert commands.main([*arguments, "--workspace", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["on_card_gib"] == pytest.approx(4.9, rel=0.03) and answer["trainable_params"] == 16 * 2_498_560
    assert sum(answer["terms"].values()) == pytest.approx(answer["on_card_gib"])


def test_estimate_is_a_table_in_both_languages(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for language, words in {"en": "on the GPU", "zh": "显卡上合计"}.items():
        monkeypatch.setenv("LORA_GARAGE_LANG", language)
        assert commands.main(["estimate", "--model", "qwen3-4b", "--workspace", str(tmp_path)]) == 0
        output = capsys.readouterr().out
        assert words in output and "{" not in output and len(output.splitlines()) == 16


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        ([], "--model"),
        (["--model", "7X"], "7X"),
        (["--model", "7B", "--method", "magic"], "magic"),
        (["--model", "7B", "--r", "0"], "--r"),
        (["--model", "7B", "--target-modules", "heart"], "heart"),
        (["--model", "7B", "--optim", "sgd"], "sgd"),
    ],
)
def test_a_bad_argument_of_estimate_is_one_sentence(
    arguments: list[str], mention: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["estimate", *arguments, "--workspace", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and mention in output.err and output.err.strip().count("\n") == 0


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_embedding_in_every_layer_is_in_ram_where_there_is_a_card(method: str) -> None:
    """Gemma 4 E4B: 262,144 x 42 x 256 numbers, which would be more than half of what QLoRA needs on the card."""
    [shape] = [model.shape for model in known_models() if model.id == "gemma-4-e4b"]
    embedding = 262_144 * 42 * 256
    assert shape.per_layer_params == embedding
    on_card, on_processor = (of(shape, method=method, device=device).terms["weights"] for device in ("card", "cpu"))
    assert (on_processor - on_card) * 2**30 == pytest.approx(2 * embedding)
    [doubt] = [doubt for doubt in shape.low_confidence if doubt.key == "shape.per_layer_embeddings"]
    assert "5.2 GiB" in doubt.render("en") and "5.2 GiB" in doubt.render("zh")


def test_int8_is_between_16_and_4_bit_and_costs_what_its_bytes_are() -> None:
    shape = shape_of_size("7B")
    of = {name: estimate(shape, Setup(**how)) for name, how in
          {"lora": {}, "int8": {"load_in_8bit": True}, "qlora": {"method": "qlora"}}.items()}  # fmt: skip
    assert of["qlora"].on_card_gib < of["int8"].on_card_gib < of["lora"].on_card_gib
    # Llama 2 7B: 6,476,005,376 parameters in linear layers at 1 byte, 1,359,872 outputs with an fp32 scale, the rest at
    # 2 bytes.
    outputs = 32 * (4 * 4096 + 2 * 11008 + 4096)
    assert of["int8"].terms["weights"] * 2**30 == 6_476_005_376 + 4 * outputs + 2 * (shape.params - 6_476_005_376)
    assert estimate(shape, Setup(method="qlora", load_in_8bit=True)) == of["qlora"]


def test_a_recipe_that_offloads_activations_is_estimated_with_them_in_ram() -> None:
    """The dry run counted it so, and the estimate beside it did not."""
    shape, plain = ModelShape.from_config(LLAMA), Recipe.parse({"data": {"source": "x"}})
    offloads = plain.model_copy(update={"train": plain.train.model_copy(update={"activation_offload": True})})
    kept, moved = (
        estimate(shape, Setup.from_recipe(recipe, "card")).terms["activations"] for recipe in (plain, offloads)
    )
    assert moved < kept
    assert Setup.from_recipe(offloads, "cpu") == Setup.from_recipe(plain, "cpu"), "there is nothing to offload to"
