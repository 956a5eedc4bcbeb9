"""What an export takes, told before: sizes by arithmetic, seconds from an earlier one or none; time left by phases."""

from __future__ import annotations

import time

import pytest

from core.export import estimate
from core.export.records import ExportCheck, ExportResult, ExportStatus
from core.models.shapes.shape import ModelShape

CHECK = ExportCheck(prompts_read_alike=1, prompts=1, own_prompts=True, passed=True)
# Qwen3-8B as its config.json says: 8.19 billion parameters.
EIGHT = ModelShape(
    model_type="qwen3", hidden_size=4096, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128,
    intermediate_size=12288, vocab_size=151936, tie_word_embeddings=False,
)  # fmt: skip


def made(
    base: str = "a/b", kind: str = "gguf", quant: str | None = "q4_k_m", size: int = 5_000_000_000, **more: object
) -> ExportResult:
    return ExportResult(
        name="x", run="x", run_name="x", kind=kind, quant=quant, base=base, dtype="bfloat16", files={"a": size},
        check=CHECK,
        created=0.0, seconds=600.0, **more,
    )  # fmt: skip


def test_eight_billion_parameters_are_told_in_gigabytes_and_fit_a_pc_with_sixteen_of_memory() -> None:
    estimated = estimate.for_model("gguf", "q4_k_m", "a/b", EIGHT, [])
    assert 5.0e9 < estimated.size < 5.2e9 and 32e9 < estimated.disk < 34e9  # merged and 16-bit beside each other
    assert estimated.memory < 10e9 and estimated.seconds is None  # layer by layer
    assert estimate.for_model("merged", None, "a/b", EIGHT, []).size == 2 * EIGHT.params
    assert estimate.for_adapter(7, [made()]) == estimate.ExportEstimate(7, 7, 0, None)


@pytest.mark.parametrize(
    ("quant", "size"), [("q4_k_m", 105_454_048), ("q5_k_m", 112_103_392), ("q6_k", 138_382_816), ("q8_0", 144_810_976)]
)
def test_a_small_file_with_rows_that_fill_no_block_is_told_as_large_as_llamacpp_makes_it(quant: str, size: int) -> None:
    """Of the starter 83 MB were told before, and 105 MB came. Sizes: llama.cpp b11739's own, of
    SmolLM2-135M-Instruct."""
    starter = ModelShape(
        model_type="llama", hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        head_dim=64,
        intermediate_size=1536, vocab_size=49152, tie_word_embeddings=True,
    )  # fmt: skip
    assert estimate.for_model("gguf", quant, "a/b", starter, []).size == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(
    ("earlier", "seconds"),
    [
        ([made()], 600),
        ([made(quant="q8_0", size=8_000_000_000)], 600),  # of the same base: as long, however it is quantised
        ([made(base="c/d", size=2_500_000_000)], 1219),  # half as large: twice as long
        ([made(base="c/d", size=80_000_000)], None),  # the starter says nothing of 8B
        ([made(kind="merged", quant=None, size=16_000_000_000)], None),
    ],
)
def test_how_long_it_takes_is_an_earlier_ones_time_or_not_said(
    earlier: list[ExportResult], seconds: float | None
) -> None:
    seconds_expected = estimate.for_model("gguf", "q4_k_m", "a/b", EIGHT, earlier).seconds
    assert seconds_expected == (None if seconds is None else pytest.approx(seconds, rel=0.02))


def test_time_left_is_the_phases_own_pace_and_the_rest_of_an_earlier_one() -> None:
    phases = (("starting", 5.0), ("merging", 20.0), ("converting_gguf", 30.0))
    at_work = ExportStatus(state="running", stage="merging", phase=1, phase_since=time.time() - 10, fraction=0.25)
    of_phase, of_all = estimate.seconds_left(at_work, phases)
    assert of_phase == pytest.approx(30, abs=1) and of_all == pytest.approx(60, abs=1)
    assert estimate.seconds_left(at_work, ())[1] is None, "nothing like it was made"
    assert estimate.seconds_left(at_work.model_copy(update={"stage": "copying"}), phases)[1] is None
    unknown = at_work.model_copy(update={"fraction": None})
    assert estimate.seconds_left(unknown, phases, 2.0)[1] == pytest.approx(90, abs=1)  # twice as long, 10 s of it gone
