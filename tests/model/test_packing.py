"""Examples in one row do not see each other, and packing changes nothing of what is learned."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.data.labels import Encoded
from core.data.row_order import Schedule, best_fit
from core.engine import attention, base_model, device
from core.engine.batches import collate, collate_packed
from core.engine.loss import summed_loss
from core.engine.variants import blockwise
from core.messages import msg
from tests.kit import families
from tests.kit.adapters import adapted
from tests.kit.trainer import gradients

CPU = torch.device("cpu")
FP32 = device.Compute(CPU, torch.float32, msg("device.cpu_fp32"))


# ---- which examples lie together -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_every_example_lies_in_one_bin_and_no_bin_is_too_full(seed: int) -> None:
    chance = random.Random(seed)
    longest, batch_size = chance.randint(8, 64), chance.randint(1, 8)
    lengths = [chance.randint(1, longest) for _ in range(batch_size * chance.randint(1, 12))]
    bins = best_fit(lengths, batch_size * longest)
    assert sorted(i for chosen in bins for i in chosen) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in chosen) <= batch_size * longest for chosen in bins)
    assert len(bins) <= -(-len(lengths) // batch_size), "never more micro-batches than padding would need"


def test_best_fit_is_best_fit() -> None:
    # By hand: 7 opens a bin (3 left), 6 opens one (4 left), 4 fits the second exactly, 3 the first exactly.
    assert best_fit([3, 7, 4, 6], 10) == [[1, 0], [3, 2]]


def test_packing_changes_neither_how_many_steps_there_are_nor_what_an_epoch_reads() -> None:
    lengths = tuple(random.Random(0).randint(5, 60) for _ in range(50))
    packed = Schedule(lengths, 4, 2, 3, -1, seed=7, capacity=4 * 60)
    padded = Schedule(lengths, 4, 2, 3, -1, seed=7)
    assert packed.total_steps == padded.total_steps == 21
    steps = list(packed.steps())
    epoch = [i for step in steps[:7] for micro in step for i in micro]
    assert sorted(epoch) == list(range(50)), "each example once an epoch"
    read = [sorted(i for step in schedule.steps() for micro in step for i in micro) for schedule in (packed, padded)]
    assert read[0] == read[1] and [sum(map(len, step)) for step in steps] == [8, 8, 8, 8, 8, 8, 2] * 3
    assert list(packed.steps(done=9)) == steps[9:], "a resumed run goes on where it was"


# ---- attention -----------------------------------------------------------------------------------


def tiny(name: str, **more: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = AutoConfig.for_model(name, vocab_size=97, use_cache=False, pad_token_id=0, **{**sizes, **more})
    return AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()


def rows(count: int = 6, offset: int = 0) -> list[Encoded]:
    chance = torch.Generator().manual_seed(1 + offset)
    lengths = [5 + 3 * i for i in range(count)]
    ids = [torch.randint(3, 97, (length,), generator=chance).tolist() for length in lengths]
    return [Encoded(row, [False] * 3 + [True] * (len(row) - 3)) for row in ids]


def hidden(model: Any, examples: list[Encoded]) -> list[torch.Tensor]:
    batch = collate_packed(examples, CPU)
    return list(model.get_decoder()(**batch.inputs()).last_hidden_state[0].split(batch.lengths))


FAMILIES = {
    "llama": {}, "mistral": {"sliding_window": 6}, "qwen2": {}, "qwen3": {"head_dim": 8}, "gemma": {"head_dim": 8},
    "cohere": {},
    "granite": {}, "olmo2": {}, "smollm3": {}, "phi3": {"rms_norm_eps": 1e-6}, "starcoder2": {}, "gpt_neox": {},
    "gemma3_text": {"head_dim": 8, "sliding_window": 6},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_changing_one_example_changes_no_other_in_its_row(family: str) -> None:
    model = tiny(family, **FAMILIES[family])
    assert attention.enable(model)
    examples = rows()
    with torch.no_grad():
        before, alone = hidden(model, examples), [hidden(model, [row])[0] for row in examples]
        changed = [
            Encoded([(token + 1) % 97 for token in row.input_ids], row.learned) if i == 2 else row
            for i, row in enumerate(examples)
        ]
        after = hidden(model, changed)
    for i, (was, now, single) in enumerate(zip(before, after, alone, strict=True)):
        assert torch.equal(was, now) == (i != 2), i
        torch.testing.assert_close(was, single)


def test_attention_within_a_window_equals_that_of_transformers() -> None:
    model = tiny("mistral", sliding_window=6)
    [row] = [Encoded(list(range(3, 40)), [True] * 37)]
    with torch.no_grad():
        expected = model.get_decoder()(input_ids=torch.tensor([row.input_ids])).last_hidden_state[0]
        assert attention.enable(model)
        torch.testing.assert_close(hidden(model, [row])[0], expected)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 7, 64, 300])
def test_attention_on_a_processor_equals_pytorchs(kv_heads: int, window: int | None) -> None:
    """Also where an example has several blocks, one token, or exactly a block; gradients of them all."""
    lengths = (2 * blockwise.BLOCK + 40, 33, 1, blockwise.BLOCK)
    chance = torch.Generator().manual_seed(4)

    def heads(count: int) -> torch.Tensor:  # as a model hands them: heads inside, tokens outside
        return (
            torch.randn(1, sum(lengths), count, 8, dtype=torch.float64, generator=chance)
            .transpose(1, 2)
            .requires_grad_()
        )

    states = heads(4), heads(kv_heads), heads(kv_heads)
    ours = blockwise.attend(*states, lengths, 0.3, window)
    theirs, _ = attention.packed_sdpa(None, *states, None, 0.3, 0.0, lengths, window)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    incoming = torch.randn(ours.shape, dtype=torch.float64, generator=chance)
    actual, expected = (torch.autograd.grad(output, states, incoming) for output in (ours, theirs))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)  # scores and keys' gradients are fp32


def test_attention_in_16_bit_is_as_near_the_truth_as_pytorchs() -> None:
    lengths = (300, 90, 160)
    chance = torch.Generator().manual_seed(5)
    wide = [3 * torch.randn(1, count, sum(lengths), 64, generator=chance) for count in (9, 3, 3)]
    incoming = torch.randn(1, sum(lengths), 9, 64, generator=chance)

    def result(dtype: torch.dtype, ours: bool) -> torch.Tensor:
        states = [state.to(dtype).requires_grad_() for state in wide]
        if ours:
            output = blockwise.attend(*states, lengths, 0.125, None)
        else:
            rows = zip(*(state.split(lengths, 2) for state in states), strict=True)
            parts = [
                torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
                for q, k, v in rows
            ]
            output = torch.cat(parts, 2).transpose(1, 2)
        gradients = torch.autograd.grad(output, states, incoming.to(dtype))
        return torch.cat([output.flatten(), *(gradient.flatten() for gradient in gradients)]).double()

    truth = result(torch.float64, False)
    ours, theirs = ((result(torch.bfloat16, own) - truth).norm() / truth.norm() for own in (True, False))
    assert ours <= 1.1 * theirs and theirs > 1e-4


@pytest.mark.parametrize(("family", "more"), [
    ("gemma2", {"head_dim": 8, "attn_logit_softcapping": 5.0}), ("bloom", {"n_head": 4, "n_layer": 2}),
    ("mamba", {"state_size": 4}), ("stablelm", {}),  # the last does not hand `lengths` down to its attention
])  # fmt: skip
def test_a_family_that_cannot_be_isolated_is_left_as_it_was(family: str, more: dict) -> None:
    model = tiny(family, **more)
    before = model.config._attn_implementation
    assert not attention.enable(model)
    assert model.config._attn_implementation == before


def test_a_window_that_only_the_mask_knows_is_not_lost() -> None:
    """Some families put their window into the mask alone, which packed rows do not have."""
    model = tiny("llama")
    model.config.sliding_window = 4
    assert not attention.enable(model)
    del model.config.sliding_window
    assert attention.enable(model)


def test_a_family_without_sdpa_loads_and_is_padded(tmp_path: Path) -> None:
    """Gemma 2, whose scores are soft-capped: transformers refuses sdpa for it, and it could not be loaded at all."""
    tiny("gemma2", head_dim=8, attn_logit_softcapping=5.0).save_pretrained(tmp_path)
    model = base_model.load(tmp_path, FP32, four_bit=False)
    assert model.config._attn_implementation == "eager" and not attention.enable(model)


def test_the_proof_notices_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    isolating = attention.packed_sdpa

    def leaking(*states: Any, lengths: Any = None, **kwargs: Any) -> Any:
        return isolating(*states, **kwargs)

    monkeypatch.setattr(attention, "packed_sdpa", leaking)
    assert not attention.enable(tiny("llama"))
    monkeypatch.undo()
    assert attention.enable(tiny("llama"))


def test_a_kernel_that_adds_in_another_order_at_each_call_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's product may do so; rows were then padded, because an example's numbers changed with its neighbour's
    tokens."""
    plain, chance = attention._hidden, torch.Generator().manual_seed(0)

    def noisy(*given: Any) -> torch.Tensor:
        output = plain(*given)
        return output * (1 + 0.002 * torch.randn(output.shape, generator=chance))

    monkeypatch.setattr(attention, "_hidden", noisy)
    assert attention.enable(tiny("llama").to(torch.bfloat16))
    isolating = attention.packed_sdpa
    monkeypatch.setattr(attention, "packed_sdpa", lambda *states, lengths=None, **kwargs: isolating(*states, **kwargs))
    assert not attention.enable(tiny("llama").to(torch.bfloat16)), "a leak is larger than that"


def test_16_bit_models_are_isolated_too_and_a_cache_is_refused() -> None:
    model = tiny("llama").to(torch.bfloat16)
    assert attention.enable(model)
    examples = rows()
    with torch.no_grad():
        together, alone = hidden(model, examples), [hidden(model, [row])[0] for row in examples]
        assert all(torch.allclose(a, b, atol=0.05) for a, b in zip(together, alone, strict=True))
        with pytest.raises(NotImplementedError, match="cache"):
            model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, use_cache=True)


# ---- the same mathematics ------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_loss_and_gradients_equal_padded_ones(checkpointing: bool) -> None:
    tuned = adapted(tiny("llama")).train()
    if checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        tuned.enable_input_require_grads()
    expected = summed_loss(tuned, collate(rows(), 0, CPU))
    expected.backward()
    expected_gradients = gradients(tuned)
    assert attention.enable(tuned.get_base_model())
    packed = summed_loss(tuned, collate_packed(rows(), CPU))
    packed.backward()
    torch.testing.assert_close(packed, expected)
    torch.testing.assert_close(gradients(tuned), expected_gradients)
    parts = sum(summed_loss(tuned, collate_packed(part, CPU)) for part in (rows()[:2], rows()[2:]))
    torch.testing.assert_close(parts, expected)


def test_packed_equals_padded_on_a_base_in_4_bit(in_4_bit: Callable[[Any], Any]) -> None:
    tuned = adapted(in_4_bit(FP32)).train()
    tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.enable_input_require_grads()
    examples = rows(4)
    expected = summed_loss(tuned, collate(examples, 0, CPU))
    expected.backward()
    expected_gradients = gradients(tuned)
    assert attention.enable(tuned.get_base_model())
    with torch.no_grad():  # where the trap of the CPU's 4-bit weights would close (core/engine/base_model)
        summed_loss(tuned.eval(), collate_packed(examples, CPU))
    tuned.train()
    packed = summed_loss(tuned, collate_packed(examples, CPU))
    packed.backward()
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-3)
    actual = gradients(tuned)
    assert torch.nn.functional.cosine_similarity(actual, expected_gradients, 0) > 0.9999
    torch.testing.assert_close(actual.norm(), expected_gradients.norm(), rtol=1e-3, atol=0)


def test_a_tower_that_is_not_there_is_not_warned_of(
    tmp_path: Path, starter_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run's log began with "could not check ... You may encounter undefined behavior", of a tower that gives its
    memory back."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    base = base_model.load(families.make("gemma3", tmp_path / "base", starter_folder), FP32, four_bit=False)
    assert attention.enable(base)
    with attention.set_aside(base):
        pass
    assert not [record for record in caplog.records if "vision_config" in record.getMessage()]
