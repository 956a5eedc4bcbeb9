"""Training by rewards is TRL's: loss and gradients of drawn answers equal its GRPOTrainer's."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine import attention
from core.engine.batches import collate, collate_packed
from core.engine.decoding.sampler import DrawnAnswer
from core.engine.variants.policy import Policy
from core.training.rewards.reference import as_before_training, log_probabilities, mean_divergence, with_reference
from tests.kit.trainer import FP32, adapter_of, gradients, stirred, trainer_of

GROUP, QUESTIONS, LONGEST = 4, 4, 11
JUDGES = [{"kind": "length", "most": 3}]
KINDS: dict[str, dict[str, Any]] = {
    "dapo": {},
    "dapo, held near": {"beta": 0.04},
    "dapo, scaled by the batch, colder": {"scale_rewards": "batch", "temperature": 0.7, "beta": 0.1},
    "dapo, without those cut off": {"mask_truncated_completions": True},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dr_grpo, held near, without those cut off": {
        "loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.04, "mask_truncated_completions": True,
    },
}  # fmt: skip
STOP = 2


def drawn() -> tuple[list[DrawnAnswer], list[float]]:
    """Answers of unequal lengths to prompts of unequal lengths, with rewards; those of one group are all alike, and one
    answer could not be judged."""
    chance = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 97, (count,), generator=chance).tolist()

    prompts = [ids(2 + 2 * number) for number in range(QUESTIONS)]
    lengths = torch.randint(1, LONGEST, (QUESTIONS * GROUP,), generator=chance).tolist()
    answers = [
        DrawnAnswer(prompts[number // GROUP], ids(length) + [STOP] * (number % 3 > 0), has_ended=number % 3 > 0)
        for number, length in enumerate(lengths)
    ]
    rewards = (torch.randint(0, 3, (len(answers),), generator=chance) / 2).tolist()
    rewards[:GROUP], rewards[GROUP + 1] = [1.0] * GROUP, float("nan")
    return answers, rewards


def padded(rows: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    ids = [pad + row if left else row + pad for pad, row in zip(pads, rows, strict=True)]
    ones = [pad + [1] * len(row) if left else [1] * len(row) + pad for pad, row in zip(pads, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(ones)


def of_trl(
    kind: Policy, tuned: Any, tokenizer: Any, advantages: torch.Tensor, answers: list[DrawnAnswer], folder: Path
) -> torch.Tensor:
    """The loss of TRL's trainer, with gradients; the adapter switched off is the reference."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    args = GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        beta=kind.beta, loss_type=kind.loss_type, scale_rewards=kind.scale_rewards, temperature=kind.temperature,
        num_generations=GROUP, per_device_train_batch_size=len(answers), max_completion_length=LONGEST,
    )  # fmt: skip
    trl = GRPOTrainer(
        tuned, reward_funcs=[lambda completions, **_: [0.0] * len(completions)], args=args,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 32), processing_class=tokenizer,
    )  # fmt: skip
    trl.current_gradient_accumulation_steps = 1
    prompts, prompts_mask = padded([answer.prompt for answer in answers], left=True)
    ids, mask = padded([answer.ids for answer in answers], left=False)
    if kind.mask_truncated_completions:  # as _generate_and_score_completions has it
        mask = mask * torch.tensor([[answer.has_ended] for answer in answers]).int()
    inputs = {
        "prompt_ids": prompts, "prompt_mask": prompts_mask, "completion_ids": ids, "completion_mask": mask,
        "advantages": advantages, "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    if kind.beta:
        with torch.no_grad(), trl.model.disable_adapter():
            inputs["ref_per_token_logps"] = trl._get_per_token_logps_and_entropies(
                trl.model, torch.cat([prompts, ids], 1), torch.cat([prompts_mask, mask], 1), ids.shape[1]
            )[0]
    trl.model.train()
    loss = trl._compute_loss(trl.model, inputs)
    loss.backward()
    return loss.detach()


def advantages_of_trl(kind: Policy, rewards: list[float]) -> torch.Tensor:
    """As in TRL 1.16's _generate_and_score_completions (sum_then_normalize)."""
    from trl.trainer.utils import nanstd

    given = torch.tensor(rewards, dtype=torch.float64)
    of_groups = given.view(-1, GROUP)
    centred = given - torch.nanmean(of_groups, dim=1).repeat_interleave(GROUP)
    if kind.scale_rewards == "group":
        centred = centred / (nanstd(of_groups, dim=1).repeat_interleave(GROUP) + 1e-4)
    if kind.scale_rewards == "batch":
        centred = centred / (nanstd(given) + 1e-4)
    return centred.nan_to_num(0.0).float()


@pytest.mark.parametrize("name", KINDS)
def test_loss_and_gradients_equal_those_of_trl(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Packed and padded, as one micro-batch and as several; rows that change nothing are left out of ours."""
    from transformers import AutoTokenizer

    warnings.simplefilter("ignore")  # TRL's own
    settings = {"judges": JUDGES, "num_generations": GROUP, "max_completion_length": LONGEST} | KINDS[name]
    trainer = trainer_of(tmp_path / "ours", None, rewards=settings, objective="grpo")
    step, (answers, rewards) = trainer.step, drawn()
    policy = step.criterion
    assert isinstance(policy, Policy)
    tuned = stirred(step.tuned)
    advantages = advantages_of_trl(policy, rewards)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    theirs = copy.deepcopy(tuned)
    with attention.set_aside(theirs.get_base_model()):  # TRL pads on the left, which needs a mask
        expected = of_trl(policy, theirs, tokenizer, advantages, answers, tmp_path / "theirs")
    expected_gradients = gradients(theirs)
    rows = policy.weighed(answers, rewards, GROUP)
    assert len(rows) < len(answers) or policy.beta
    if policy.beta:
        rows = with_reference(rows, step)
    tuned.train()
    for make in (lambda part: collate(part, 0, FP32.device), lambda part: collate_packed(part, FP32.device)):
        for parts in ([rows], [rows[:3], rows[3:4], rows[4:]]):
            loss = step.backward([make(part) for part in parts])
            actual = gradients(tuned)
            assert float(loss) == pytest.approx(float(expected), abs=1e-6)
            assert (actual - expected_gradients).abs().max() <= 5e-6 * expected_gradients.abs().max()


def test_the_reference_is_the_adapter_before_the_first_step_and_the_present_one_returns(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, None, rewards={"judges": JUDGES, "beta": 0.1}, objective="grpo")
    step = trainer.step
    assert isinstance(step.criterion, Policy)
    rows = step.criterion.weighed(*drawn(), GROUP)
    at_first = log_probabilities(step, rows)
    stirred(step.tuned)
    now = adapter_of(trainer)
    moved = log_probabilities(step, rows)
    with as_before_training(step):
        assert log_probabilities(step, rows) == at_first != moved
    assert torch.equal(adapter_of(trainer), now) and log_probabilities(step, rows) == moved
    assert mean_divergence(moved, moved) == 0 < mean_divergence(moved, at_first)


def test_answers_that_are_all_alike_change_nothing_and_one_row_stays_for_a_step(tmp_path: Path) -> None:
    answers, _ = drawn()
    rows = Policy().weighed(answers, [0.5] * len(answers), GROUP)
    assert len(rows) == 1 and rows[0].advantage == 0
    assert len(Policy(beta=0.1).weighed(answers, [0.5] * len(answers), GROUP)) == len(answers)
    rows = Policy(mask_truncated_completions=True).weighed(answers, drawn()[1], GROUP)
    ended = {tuple(answer.prompt + answer.ids) for answer in answers if answer.has_ended}
    assert rows and all(tuple(row.input_ids) in ended for row in rows)
    assert replace(rows[0], before=()).for_batch() == [(rows[0].advantage, rows[0].share, 0.0)] * rows[0].learned_count
