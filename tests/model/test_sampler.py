"""Answers drawn for training by rewards: the model's own probabilities, the same answers however they are decoded."""

from __future__ import annotations

import pytest
import torch

from core.engine.decoding.decoder import for_decoding
from core.engine.decoding.sampler import DrawnAnswer, Sampler, chances
from core.engine.variants import prepacked
from core.errors import StopRequested
from core.memory.arithmetic import CACHE_ROOM
from tests.kit.trainer import tiny_base

PROMPTS = [[5, 6, 7], [11, 12, 13, 14, 15, 16], [21]]
STOP = frozenset({3, 4, 8, 9})
COPIES, LENGTH = 4, 12


def sampler_of(temperature: float = 1.0, model: torch.nn.Module | None = None) -> Sampler:
    return Sampler(model or tiny_base(), 0, STOP, LENGTH, temperature)


def ids(answers: list[DrawnAnswer]) -> list[list[int]]:
    return [answer.ids for answer in answers]


def test_answers_are_the_same_however_many_are_decoded_together_and_others_with_another_seed() -> None:
    sampler, table = sampler_of(), chances(len(PROMPTS) * COPIES, LENGTH, 1)
    together = sampler.draw(PROMPTS, COPIES, table)
    one_by_one = [
        sampler.draw([prompt], 1, table[row : row + 1])[0]
        for row, prompt in enumerate(prompt for prompt in PROMPTS for _ in range(COPIES))
    ]
    assert ids(together) == ids(one_by_one) == ids(sampler.draw(PROMPTS, COPIES, table))
    assert ids(together) != ids(sampler.draw(PROMPTS, COPIES, chances(len(table), LENGTH, 2)))
    assert [answer.prompt for answer in together[::COPIES]] == PROMPTS
    assert {answer.has_ended for answer in together} == {True, False}
    for answer in together:
        assert answer.has_ended == (answer.ids[-1] in STOP) and not STOP & {*answer.ids[:-1]}
        assert answer.has_ended or len(answer.ids) == LENGTH


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_tokens_are_drawn_with_the_models_probabilities_which_are_reported(temperature: float) -> None:
    model, rows = tiny_base(), 4000
    drawn = Sampler(model, 0, STOP, 1, temperature).draw(PROMPTS[:1], rows, chances(rows, 1, 5))
    with torch.no_grad():
        logps = torch.log_softmax(model(torch.tensor(PROMPTS[:1])).logits[0, -1] / temperature, -1)
    counts = torch.bincount(torch.tensor([answer.ids[0] for answer in drawn]), minlength=len(logps))
    expected = rows * logps.exp()
    assert ((counts - expected).abs() < 4.5 * expected.sqrt() + 1).all()
    for answer in drawn[:50]:
        assert answer.logps[0] == pytest.approx(float(logps[answer.ids[0]]), abs=1e-5)


@pytest.mark.parametrize("length", [LENGTH, 2 * CACHE_ROOM + LENGTH])
def test_reported_log_probabilities_are_those_of_the_whole_text_read_at_once(length: int) -> None:
    """Rows that end before, between and after the cache grows, and rows that never do."""
    model = tiny_base()
    drawn = Sampler(model, 0, frozenset({3}), length).draw(PROMPTS, 20, chances(60, length, 3))
    assert len({len(answer.ids) // CACHE_ROOM for answer in drawn}) == length // CACHE_ROOM + 1
    for answer in drawn:
        with torch.no_grad():
            logits = model(torch.tensor([answer.prompt + answer.ids])).logits[0, len(answer.prompt) - 1 : -1]
        logps = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        assert answer.logps == pytest.approx(logps.tolist(), abs=1e-5)


def test_without_temperature_answers_are_those_of_generate() -> None:
    model = tiny_base()
    for prompt, answer in zip(PROMPTS, sampler_of(0.0, model).draw(PROMPTS, 1, chances(3, LENGTH, 1)), strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False, max_new_tokens=LENGTH, eos_token_id=sorted(STOP), pad_token_id=0, use_cache=True,
        )  # fmt: skip
        assert answer.ids == expected[0, len(prompt) :].tolist()


@pytest.mark.skipif(not prepacked.has_kernel(), reason="needs oneDNN's bfloat16 kernels")
def test_reordered_weights_change_no_number_and_do_not_outlive_the_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny_base().to(torch.bfloat16), torch.tensor(PROMPTS[1:2])
    with torch.no_grad():
        expected = model(ids).logits
        with pytest.raises(StopRequested), for_decoding(model):
            assert "forward" in vars(model.lm_head) and torch.equal(model(ids).logits, expected)
            model.lm_head.weight.zero_()  # of the copy nothing changes
            assert torch.equal(model(ids).logits, expected)
            raise StopRequested
        assert not model(ids).logits.any()
    monkeypatch.setattr(prepacked, "MAX_PREPACKED_BYTES", 100)
    with for_decoding(model):
        assert "forward" not in vars(model.lm_head)


def test_a_prompt_is_read_once_for_all_its_answers_and_ended_rows_are_not_computed() -> None:
    sampler, sizes = sampler_of(), []
    forward = sampler._decoder.forward
    sampler._decoder.forward = lambda ids, mask, cache: sizes.append(tuple(ids.shape)) or forward(ids, mask, cache)  # type: ignore[method-assign]
    drawn = sampler.draw(PROMPTS, COPIES, chances(12, LENGTH, 1))
    assert sizes[0] == (3, 6)
    assert [rows for rows, _ in sizes[1:]] == [
        sum(len(answer.ids) > place for answer in drawn) for place in range(1, max(len(answer.ids) for answer in drawn))
    ]


def test_a_stop_takes_effect_between_two_tokens() -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StopRequested

    with pytest.raises(StopRequested):
        sampler_of().draw(PROMPTS, COPIES, chances(12, LENGTH, 1), check)
