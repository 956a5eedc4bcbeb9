"""A run that trains by rewards learns what its judges reward, and pauses, retreats and keeps the best as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.data.conversation import ChatMessage
from core.data.formats import Example
from core.data.labels import Encoded
from core.data.tokenizer import Tokenizer
from core.engine.decoding.sampler import Sampler
from core.errors import RunError
from core.messages import LANGUAGES
from core.training.rewards.drawing import FEWER_DRAWN, Drawing
from core.training.rewards.questions import question_of
from core.training.trainer import Trainer
from tests.kit.rewards import JUDGES
from tests.kit.trainer import adapter_of, assert_same, run_paused, tiny_base, trainer_of

REWARDS = {"judges": JUDGES, "num_generations": 4, "max_completion_length": 6}


def of_rewards(folder: Path, pause_at: int | None = None, rewards: dict[str, Any] | None = None, **how: Any) -> Trainer:
    settings = {"objective": "grpo", "gradient_accumulation_steps": 1} | how
    return trainer_of(folder, pause_at, rewards=REWARDS | (rewards or {}), **settings)


def guards(trainer: Trainer) -> list[str]:
    return [event["message"]["key"] for event in trainer.reporter.run.events() if event["kind"] == "guard"]


def best_answers(trainer: Trainer) -> list[str]:
    lines = (trainer.reporter.run.path / "answers.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["best"]["answer"] for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = of_rewards(tmp_path_factory.mktemp("whole"), rewards={"beta": 0.05})
    trainer.run()
    return trainer


def test_paused_anywhere_it_is_the_run_that_never_was(undisturbed: Trainer, tmp_path: Path, full: bool) -> None:
    """While answers are drawn, inside a step and inside an evaluation; every number of it and the adapter, bit for
    bit."""
    lines = undisturbed.reporter.told
    assert {"reward", "rewards/contains/mean", "frac_reward_zero_std", "kl", "entropy"} <= lines["train", 5].keys()
    assert {"eval_reward", "eval_kl", "eval_entropy"} <= lines["eval", 5].keys() and "loss" not in lines["train", 5]
    checks = undisturbed.reporter.checks
    assert checks > 100
    for at in range(2, checks, checks // (40 if full else 4)):
        paused = run_paused(lambda pause, at=at: of_rewards(tmp_path / str(at), pause, {"beta": 0.05}), [at])
        assert_same(paused, undisturbed, at)


def test_killed_it_draws_the_same_answers_again(
    undisturbed: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its last checkpoint, two steps before."""
    killed = of_rewards(tmp_path, rewards={"beta": 0.05}, save_steps=2)
    compute = killed.step.compute
    monkeypatch.setattr(killed.step, "compute", lambda *a: compute(*a) if killed.position.step < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        killed.run()
    again = of_rewards(tmp_path, rewards={"beta": 0.05}, save_steps=2)
    assert again.position.step == 2
    again.run()
    assert torch.equal(adapter_of(again), adapter_of(undisturbed))
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()]
    assert {line["step"] for line in lines} == {1, 2, 3, 4, 5}
    assert [line for line in lines if line["step"] == 4][0] == [line for line in lines if line["step"] == 4][-1]
    assert all(line["best"]["reward"] >= line["worst"]["reward"] for line in lines)


def test_the_best_and_the_worst_answer_to_a_question_are_kept_with_its_messages(tmp_path: Path) -> None:
    trainer = of_rewards(tmp_path, max_steps=2)
    assert trainer.rewards
    trainer.rewards._turns_of = lambda place: [{"role": "user", "content": f"row {place}"}]
    draws, draw = [], trainer.rewards.draw
    trainer.rewards.draw = lambda *a: draws.append(draw(*a)) or draws[-1]  # type: ignore[method-assign]
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    told = {text: reward for one in draws for text, reward in zip(one.texts, one.rewards, strict=True)}
    assert lines and all(told[line["chosen"]] > told[line["rejected"]] for line in lines)
    assert all(line["messages"][0]["content"].startswith("row ") for line in lines)


def decided() -> Any:
    """A base that has preferences: the head of a random one hardly tells tokens apart, whatever an adapter does."""
    base = tiny_base()
    with torch.no_grad():
        base.lm_head.weight.mul_(20)
    return base


def test_it_learns_what_the_judges_reward(tmp_path: Path) -> None:
    trainer = of_rewards(
        tmp_path, rewards={"judges": [{"kind": "length", "most": 2}]}, make=decided, max_steps=24, learning_rate=2e-2,
        per_device_train_batch_size=4, eval_steps=12, lr_scheduler_type="constant", early_stopping_patience=0,
        warmup_steps=0,
    )  # fmt: skip
    trainer.run()
    evaluations = {step: each for (kind, step), each in trainer.reporter.told.items() if kind == "eval"}
    rewards = {step: each["eval_reward"] for step, each in evaluations.items()}
    assert rewards[0] < 0.5 and rewards[24] > 0.9, rewards
    assert evaluations[0]["eval_kl"] < 1e-6 < evaluations[24]["eval_kl"]
    best = trainer.position.best_reward
    assert trainer.position.best_eval_loss is None and best is not None
    assert best == pytest.approx(max(rewards[step] - 0.01 * evaluations[step]["eval_kl"] for step in (12, 24)))
    assert "rewards.far" in guards(trainer), "a reward that rises far from the base is to be read"
    facts = trainer.reporter.run.facts()
    assert facts.best_reward == best and facts.best_checkpoint and facts.best_eval_loss is None


def test_the_best_checkpoint_is_that_of_the_highest_held_out_reward_and_without_better_ones_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the loss is: here evaluations get worse from the second on."""
    trainer, values = of_rewards(tmp_path, max_steps=12, eval_steps=1, early_stopping_patience=3), [0.1, 0.2, 0.5]
    loss = trainer.evaluation.measure

    def falling() -> float | None:
        loss()
        return values.pop(0) if values else 0.4

    monkeypatch.setattr(trainer.evaluation, "measure", falling)
    trainer.run()
    assert trainer.position.step == 5 and trainer.position.best_reward == 0.5
    assert trainer.best_to_keep() == trainer.position.best_checkpoint == "checkpoint-000002"


def test_without_memory_for_all_answers_fewer_are_drawn_together_and_the_answers_are_the_same(
    undisturbed: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, sizes = Sampler.draw, list[int]()

    def scarce(self: Sampler, prompts: list[list[int]], copies: int, *more: Any) -> Any:
        sizes.append(len(prompts) * copies)
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return draw(self, prompts, copies, *more)

    monkeypatch.setattr(Sampler, "draw", scarce)
    trainer = of_rewards(tmp_path, rewards={"beta": 0.05})
    trainer.run()
    assert trainer.step.retreat.reductions == [FEWER_DRAWN] * 2 and max(sizes[2:]) <= 4
    assert guards(trainer).count("rewards.fewer_drawn") == 2
    assert best_answers(trainer) == best_answers(undisturbed)
    assert (adapter_of(trainer) - adapter_of(undisturbed)).abs().max() < 1e-4
    resumed = of_rewards(tmp_path, rewards={"beta": 0.05})
    assert resumed.rewards and resumed.rewards.at_once == 2, "a resumed run draws as few"


def step_in_parts(folder: Path, size: int, optimizer: type[torch.optim.Optimizer], **settings: float) -> torch.Tensor:
    """The adapter after four steps on the same answers, in micro-batches of so many tokens."""
    trainer = of_rewards(folder)
    step = trainer.step
    step.optimizer = optimizer(step.parameters, **settings)  # type: ignore[arg-type]
    policy = step.criterion
    drawing = trainer.rewards
    assert drawing and policy
    chosen = [trainer.data.train[i] for i in range(4)]
    rows: list[Encoded] = [row for part in drawing.micro_batches(1, [chosen]) for row in part]
    step.retreat._planned = size
    parts = [[rows[i] for i in part] for part in step.retreat.planned_parts([len(row.input_ids) for row in rows])]
    assert (len(parts) > 1) == (size < 1000)
    for _ in range(4):
        step.compute(parts, 1e-2)
        step.apply(True)
    return adapter_of(trainer)


def test_in_several_micro_batches_it_is_the_same_step_but_where_adam_divides_rounding_by_itself(tmp_path: Path) -> None:
    """Gradients differ by rounding. Adam's update is the gradient divided by its own size: where that is rounding
    alone, as of parameters that no answer moves, it is a step of full size with a sign of chance. A larger eps, or
    SGD, shows that nothing else differs."""

    def differ(name: str, optimizer: type[torch.optim.Optimizer], **settings: float) -> float:
        one, several = (step_in_parts(tmp_path / f"{name}{size}", size, optimizer, **settings) for size in (1000, 30))
        return float((one - several).abs().max())

    assert differ("sgd", torch.optim.SGD, lr=1e-2) < 1e-7
    adam = {eps: differ(f"adam{eps}", torch.optim.AdamW, lr=1e-2, eps=eps, weight_decay=0.0) for eps in (1e-3, 1e-8)}
    assert adam[1e-3] < 1e-6 and adam[1e-8] > 10 * adam[1e-3]


def test_surprising_answers_send_it_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gibberish: its tokens have hardly any probability. The loss would say nothing of it."""
    trainer = of_rewards(tmp_path, max_steps=12, save_steps=1, early_stopping_patience=0)
    usual = Drawing.newest_surprise.fget
    assert usual
    went = []

    def surprise(drawing: Drawing) -> float:
        is_bad = not went and trainer.position.step >= 2
        return usual(drawing) + 5.0 * is_bad

    monkeypatch.setattr(Drawing, "newest_surprise", property(surprise))
    roll_back = trainer.recovery.roll_back
    monkeypatch.setattr(trainer.recovery, "roll_back", lambda *a: went.append(1) or roll_back(*a))
    trainer.run()
    assert went == [1] and trainer.position.step == 12 and trainer.position.health.back == 1


def test_the_first_held_out_reward_is_no_loss_that_steps_are_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raised the surprise from which a run goes back."""
    trainer = of_rewards(tmp_path, max_steps=1)
    monkeypatch.setattr(trainer.evaluation, "measure", lambda loss=trainer.evaluation.measure: 50 + loss())
    trainer.run()
    assert trainer.position.health.started_at == trainer.reporter.told["train", 1]["entropy"] < 50


def test_a_judge_that_cannot_judge_the_rows_own_answers_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    trainer = of_rewards(tmp_path, rewards={"judges": [{"kind": "json"}]})
    with pytest.raises(RunError) as error:
        trainer.run()
    assert error.value.message.key == "rewards.judge_cannot" and trainer.position.step == 0


def test_judges_of_form_alone_are_warned_of_unless_beta_holds_the_model(tmp_path: Path) -> None:
    form = [{"kind": "length", "most": 4}]
    for number, (judges, beta, warned) in enumerate([(form, 0.0, True), (form, 0.1, False), (
        [*form, {"kind": "exact"}], 0.0, False)]):  # fmt: skip
        trainer = of_rewards(tmp_path / str(number), rewards={"judges": judges, "beta": beta}, max_steps=1)
        trainer.run()
        sentences = [message for message in trainer.reporter.warnings if message.key == "rewards.form_only"]
        assert bool(sentences) == warned and (trainer.reporter.run.path / "answers.jsonl").exists()
        assert all("answers.jsonl" in each.render(language) for each in sentences for language in LANGUAGES)


def test_a_run_whose_answers_never_differ_says_so(tmp_path: Path) -> None:
    for name, judges in (
        ("wrong", [{"kind": "contains", "any_of": ["nothing"]}]),
        ("right", [{"kind": "length", "most": 40}]),
    ):
        trainer = of_rewards(tmp_path / name, rewards={"judges": judges}, max_steps=11, eval_steps=11)
        start = adapter_of(trainer)
        trainer.run()
        assert guards(trainer).count(f"rewards.frac_all_{name}") == 1
        assert torch.equal(adapter_of(trainer), start), "nothing was learned"


def test_the_longest_batch_has_the_longest_prompt_with_the_longest_answers(tmp_path: Path) -> None:
    trainer = of_rewards(tmp_path)
    longest = trainer.longest()
    assert {len(row.input_ids) for row in longest.rows} == {11 + 6}
    assert longest.tokens <= trainer.step.retreat.at_once and longest.several
    trainer.step.rehearse(longest)
    for rehearse in trainer.ahead.rehearsals:
        rehearse()


def test_answers_are_drawn_to_the_prompt_of_a_chat_and_the_last_answer_is_expected(starter_folder: Path) -> None:
    tokenizer = Tokenizer(starter_folder)
    one = [{"role": "user", "content": "Compute 2 + 3."}]
    two = [*one, {"role": "assistant", "content": "5"}, {"role": "user", "content": "And 4 + 4?"}]
    for before, answer in ((one, '{"answer": 5}'), (two, "8")):
        turns = [*before, {"role": "assistant", "content": answer}]
        row = tokenizer.encode_example(Example(messages=tuple(ChatMessage(**turn) for turn in turns)), 200)
        question = question_of(row, tokenizer)
        assert question.prompt == tokenizer.prompt(before) and question.expected == answer
    with pytest.raises(RunError) as error:
        question_of(tokenizer.encode_example(Example(text="Only a text."), 200), tokenizer)
    assert error.value.message.key == "rewards.no_question"
