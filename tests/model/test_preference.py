"""Preference training is TRL's: loss, gradients and numbers of each objective equal its trainers', and a run of it is
as whole as any other."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.data.labels import Encoded
from core.engine import base_model
from core.engine.batches import collate, collate_packed
from core.engine.variants.preference import PAIR_METRICS, SUMS, Preference
from core.errors import RunError
from core.recipe import Recipe
from core.training.preference.reference import Referenced, log_probabilities_of
from tests.kit import trainer as kit
from tests.kit.trainer import FP32, assert_same, gradients, pairs, run_paused, stirred, trainer_of


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit's trainers get pairs for rows."""
    monkeypatch.setattr(kit, "rows", pairs)


# ---- equal to TRL --------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"objective": "dpo"},
    "dpo, by the mean of a token": {"objective": "dpo", "loss_type": "sigmoid_norm", "beta": 2.0},
    "dpo, robust": {"objective": "dpo", "loss_type": "robust", "label_smoothing": 0.1},
    "dpo with sft": {"objective": "dpo", "sft_weight": 0.5},
    "simpo": {"objective": "simpo", "simpo_gamma": 1.0},
    "simpo, smoothed, with sft": {"objective": "simpo", "label_smoothing": 0.2, "sft_weight": 0.3},
    "orpo": {"objective": "orpo", "beta": 0.25},
    "kto": {"objective": "kto", "desirable_weight": 0.7, "undesirable_weight": 1.3},
}  # fmt: skip


IN_THE_GATE = ("dpo with sft", "simpo, smoothed, with sft", "orpo", "kto")


def sides_of(rows: list[Encoded]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What DPOTrainer's collator is given, and what CPOTrainer's and ORPOTrainer's is."""
    ours = [tuple(example.input_ids for example in row.examples) for row in rows]
    dpo = [{"prompt_ids": better[:2], "chosen_ids": better[2:], "rejected_ids": worse[2:]} for better, worse in ours]
    cpo = []
    for better, worse in ours:
        trl_row: dict[str, Any] = {"prompt": "", "chosen": "", "rejected": ""}
        for name, ids in (("chosen", better), ("rejected", worse)):
            labels = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100, -100, *ids[2:]]}
            trl_row |= {f"{name}_{key}": value for key, value in labels.items()}
        cpo.append(trl_row)
    return dpo, cpo


def theirs(kind: Preference, tuned: Any, tokenizer: Any, folder: Path) -> Any:
    """TRL's trainer of this objective, as it stands: what the adapter is now is the reference."""
    from datasets import Dataset

    dummy = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    common = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "gradient_checkpointing": False,
        "beta": kind.beta,
    }
    if kind.objective == "dpo":
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        types = [kind.loss_type] + ["sft"] * (kind.sft_weight > 0)
        args = DPOConfig(
            **common,
            loss_type=types,
            loss_weights=[1.0, kind.sft_weight][: len(types)],
            label_smoothing=kind.label_smoothing,
        )
        return DPOTrainer(tuned, args=args, train_dataset=dummy, processing_class=tokenizer)
    if kind.objective == "kto":
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import KTOTrainer

        weights = {"desirable_weight": kind.desirable_weight, "undesirable_weight": kind.undesirable_weight}
        ktos = KTOConfig(**common, **weights, train_sampling_strategy="sequential", per_device_train_batch_size=2)
        rated = Dataset.from_list([{"prompt": "a", "completion": "b", "label": i > 0} for i in range(2)])
        return KTOTrainer(tuned, args=ktos, train_dataset=rated, processing_class=tokenizer)
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    if kind.objective == "orpo":
        return ORPOTrainer(tuned, args=ORPOConfig(**common), train_dataset=dummy, processing_class=tokenizer)
    args = CPOConfig(
        **common,
        loss_type="simpo",
        cpo_alpha=kind.sft_weight,
        simpo_gamma=kind.simpo_gamma,
        label_smoothing=kind.label_smoothing,
    )
    return CPOTrainer(tuned, args=args, train_dataset=dummy, processing_class=tokenizer)


def loss_of_theirs(trainer: Any, kind: Preference, rows: list[Encoded]) -> tuple[torch.Tensor, dict[str, float]]:
    dpo, cpo = sides_of(rows)
    if kind.objective == "dpo":
        trainer._metrics["train"].clear()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(dpo))
        return loss, {name: trainer._metrics["train"][name][-1] for name in PAIR_METRICS}
    if kind.objective == "kto":
        trainer._metrics["train"].clear()
        given = [
            {"prompt_ids": a[:2], "completion_ids": a[2:], "KL_completion_ids": b[2:], "label": not row.is_bad}
            for row in rows
            for a, b in [[example.input_ids for example in row.examples]]
        ]
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(given))
        return loss, {name: told[-1] for name, told in trainer._metrics["train"].items() if name in SUMS}
    loss, told = trainer.get_batch_loss_metrics(trainer.model, batch := trainer.data_collator(cpo))
    if kind.objective == "orpo":  # whose SFT term counts the prompt in TRL, and the answer in the paper's equation 6
        labels = batch["chosen_labels"]
        logits = trainer.model(batch["chosen_input_ids"], attention_mask=batch["chosen_attention_mask"]).logits
        over_answer = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        all_labels = batch["chosen_input_ids"].masked_fill(batch["chosen_attention_mask"] == 0, -100)
        over_all = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), all_labels[:, 1:].flatten())
        loss = loss - over_all + over_answer
    return loss, {name: float(told[name]) for name in PAIR_METRICS}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_THE_GATE else pytest.mark.full) for name in KINDS]
)
def test_loss_gradients_and_numbers_of_each_row_equal_those_of_trl(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Row by row, and of several rows together, packed and padded, after some steps from an adapter that had learned
    before."""
    from transformers import AutoTokenizer

    warnings.simplefilter("ignore")  # TRL's own
    kind = Preference.from_train(Recipe.parse({"data": {"source": "x"}, "train": KINDS[name]}).train)
    assert kind
    trainer = trainer_of(tmp_path / "ours", None, **KINDS[name])
    tuned = stirred(trainer.step.tuned)
    before = [pair for row in pairs(6) for pair in [log_probabilities_of(trainer.step, [row])]]
    rows = [replace(row, reference=tuple(known)) for row, known in zip(pairs(6), before, strict=True)]
    trl = theirs(kind, copy.deepcopy(tuned), AutoTokenizer.from_pretrained(tiny_model), tmp_path / "theirs")
    stirred(tuned), stirred(trl.model)
    for chosen in [[row] for row in rows] + [rows]:
        expected, trl_values = loss_of_theirs(trl, kind, chosen)
        expected.backward()
        expected_gradients = gradients(trl.model)
        for batch in (collate(chosen, 0, FP32.device), collate_packed(chosen, FP32.device)):
            if batch.lengths and not trainer.step.packed:
                continue
            loss = trainer.step.backward([batch]) / len(chosen)
            torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(gradients(tuned), expected_gradients, rtol=1e-4, atol=1e-6)
            ours = trainer.step.take_pair_metrics()
            if kind.objective == "kto":
                ours.pop("rewards/accuracies")  # which TRL does not tell
            assert ours == pytest.approx(trl_values, rel=1e-4, abs=2e-5)  # differences of sums of some ten nats in fp32


# ---- a run of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["dpo", pytest.param("simpo", marks=pytest.mark.full), "kto"])
def test_paused_anywhere_it_is_the_run_that_never_was(
    objective: str, compared: None, tmp_path: Path, full: bool
) -> None:
    """While the pairs are read beforehand too, which is then done anew; every number of it, and the adapter, bit for
    bit."""
    uninterrupted = trainer_of(tmp_path / "whole", None, objective=objective)
    uninterrupted.run()
    expected = uninterrupted.reporter.told
    assert {"rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"} <= expected["train", 5].keys()
    assert {f"eval_{name}" for name in PAIR_METRICS} <= expected["eval", 5].keys()
    assert (tmp_path / "whole" / "reference.npy").exists() == (objective != "simpo")
    for at in range(2, uninterrupted.reporter.checks, 1 if full else 23):
        paused = run_paused(lambda pause, at=at: trainer_of(tmp_path / str(at), pause, objective=objective), [at])
        assert_same(paused, uninterrupted, at)


@pytest.fixture(scope="module")
def four_bit(tiny_model: Path) -> Callable[[], Any]:
    """Makes copies of a base in NF4."""
    base = base_model.load(tiny_model, FP32, four_bit=True)
    return lambda: copy.deepcopy(base)


def test_on_a_four_bit_base_it_computes_what_it_does_on_that_base_dequantised(
    four_bit: Callable[[], Any], tmp_path: Path
) -> None:
    """Which is what the tests above hold against TRL."""
    results = []
    for name, make in (("nf4", four_bit), ("plain", lambda: four_bit().dequantize())):
        trainer = trainer_of(tmp_path / name, None, make, objective="dpo", sft_weight=0.5)
        trainer.step.fuse()  # as a run is computed
        stirred(trainer.step.tuned)
        known = [log_probabilities_of(trainer.step, [row]) for row in pairs(4)]
        rows = [replace(row, reference=tuple(each)) for row, each in zip(pairs(4), known, strict=True)]
        stirred(trainer.step.tuned)
        loss = trainer.step.backward([trainer.step.batch(rows)])
        results.append((loss, gradients(trainer.step.tuned), trainer.step.take_pair_metrics()))
    (loss, gradient, told), (plain_loss, plain_gradient, plain_told) = results
    assert gradient.abs().max() > 0 and abs(told["rewards/margins"]) > 1e-3
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-5)
    assert told == pytest.approx(plain_told, rel=1e-4, abs=2e-5)


def test_on_a_four_bit_base_a_paused_run_is_the_run_that_never_was(
    compared: None, four_bit: Callable[[], Any], tmp_path: Path, full: bool
) -> None:
    uninterrupted = trainer_of(tmp_path / "whole", None, four_bit, objective="dpo")
    uninterrupted.run()
    for at in range(2, uninterrupted.reporter.checks, 1) if full else [uninterrupted.reporter.checks // 2]:
        paused = run_paused(lambda pause, at=at: trainer_of(tmp_path / str(at), pause, four_bit, objective="dpo"), [at])
        assert_same(paused, uninterrupted, at)


def test_it_learns_what_is_preferred_and_begins_with_a_coin(compared: None, tmp_path: Path) -> None:
    """The adapter is the reference's at first: no answer is ahead, and the loss is log 2."""
    trainer = trainer_of(tmp_path, None, objective="dpo", max_steps=30, learning_rate=2e-2, early_stopping_patience=0)
    trainer.run()
    lines = trainer.reporter.told
    assert (
        lines["train", 1]["loss"] == pytest.approx(0.6931472, abs=1e-5)
        and abs(lines["train", 1]["rewards/margins"]) < 1e-5
    )
    assert lines["train", 30]["loss"] < 0.65 and lines["train", 30]["rewards/accuracies"] == 1.0


def test_it_is_held_against_what_the_adapter_was_not_against_the_base(compared: None, tmp_path: Path) -> None:
    """Of a run that trains another one further."""
    trainer = trainer_of(tmp_path, None, objective="dpo", max_steps=1)
    stirred(trainer.step.tuned)
    expected = log_probabilities_of(trainer.step, [trainer.data.train[0]])
    trainer.run()
    known = trainer.data.train
    assert isinstance(known, Referenced) and known.log_probabilities[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert trainer.reporter.told["train", 1]["loss"] == pytest.approx(0.6931472, abs=1e-5)


def test_without_the_file_of_the_reference_a_run_that_has_learned_does_not_go_on(
    compared: None, tmp_path: Path
) -> None:
    first = trainer_of(tmp_path, None, objective="dpo", max_steps=3)
    first.run()
    (tmp_path / "reference.npy").write_bytes(b"damaged")
    trainer = trainer_of(tmp_path, None, objective="dpo", max_steps=5)
    with pytest.raises(RunError) as refused:
        trainer.run()
    assert refused.value.message.key == "run.no_reference"


def test_in_parts_a_step_learns_the_same(compared: None, tmp_path: Path) -> None:
    """A full card halves the micro-batch: pairs stay together, and each weighs the same; also what is learned as with
    sft."""
    trainer = trainer_of(tmp_path, None, objective="dpo", sft_weight=0.7)
    rows = pairs(6)
    trainer.step.backward([trainer.step.batch(rows)])
    expected = gradients(trainer.step.tuned)
    trainer.step.retreat.reductions.append("halve")
    parts = trainer.step.parts(rows)
    assert len(parts) > 1 and all(row.second for part in parts for row in part)
    trainer.step.backward([trainer.step.batch(part) for part in parts])
    torch.testing.assert_close(gradients(trainer.step.tuned), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_dry_run_of_a_pair_counts_what_its_step_holds(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted as two examples that are learned; what weighs their tokens besides is within 3 % of it."""
    from functools import partial

    from transformers import LlamaConfig

    from core.memory.setup import Setup
    from core.trial import dry_run as counting
    from core.trial.dry_runs import Question

    recipe = Recipe.parse(
        {
            "data": {"source": "x", "max_length": 64},
            "train": {"objective": "dpo", "per_device_train_batch_size": 2},
            "adapter": {"method": method},
        }
    )
    setup = Setup.from_recipe(recipe, "card", supervised_tokens=32)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4
    ).to_dict()
    question, batch = Question(config=config, setup=setup), counting._batch
    planned = counting.dry_run(question).estimate

    def of_pairs(setup: Setup, packed: bool) -> Any:
        count = setup.per_device_train_batch_size
        return replace(
            batch(setup, packed),
            examples=(setup.learned // count,) * count,
            reference=torch.zeros(count, device="meta"),
        )

    monkeypatch.setattr(counting, "_batch", of_pairs)
    monkeypatch.setattr(counting, "Step", partial(counting.Step, criterion=Preference.from_train(recipe.train)))
    compared = counting.dry_run(question).estimate
    moving = [
        sum(found.terms[name] for name in ("gradients", "activations", "logits")) for found in (planned, compared)
    ]
    assert moving[0] > 0 and moving[1] == pytest.approx(moving[0], rel=0.03)


def test_what_would_fit_instead_is_reckoned_with_pairs_of_two_examples(
    compared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: two pairs at once were taken for four, each as long as both its answers and doubled again."""
    from core.advice import remedies
    from core.memory.setup import Setup
    from core.models.shapes.shape import ModelShape
    from core.training.memory.probe import Probe
    from core.workspace.folder import Workspace

    trainer = trainer_of(tmp_path / "run", None, objective="dpo")
    (tmp_path / "run").mkdir(exist_ok=True)
    calls: list[tuple[Recipe, list[int]]] = []
    monkeypatch.setattr(remedies, "ways", lambda case, now, lengths: calls.append((now, lengths)) or [])
    shape = ModelShape.from_config(trainer.step.tuned.get_base_model().config.to_dict())
    Probe(trainer.reporter.run, Workspace.open(tmp_path / "ws"), trainer.recipe, shape).advice_when_full(trainer.ahead)
    (now, lengths) = calls[0]
    longest = max(len(example.input_ids) for row in trainer.data.train for example in row.examples)
    assert max(lengths) == now.data.max_length == longest and len(lengths) == len(trainer.data.train)
    assert now.train.per_device_train_batch_size == 2 and Setup.from_recipe(now, "cpu").tokens == 4 * longest
