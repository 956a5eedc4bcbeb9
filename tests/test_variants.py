"""The variants people ask for: each is what its name says, on the starter, and leaves the base the base."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file

from core import adapter, atomic, base_model, budget, device, fused_lora, memory, neftune, optimizer, pissa, plan, worker
from core.batches import Batch, collate, collate_packed
from core.checkpoint import read
from core.errors import ModelError, PauseRequested, RecipeError
from core.launcher import Launcher
from core.loss import summed_loss
from core.memory import Setup
from core.plan import Grounds
from core.recipe import Adapter, Recipe
from core.reporter import Reporter
from core.run_folder import RunFolder
from core.runs import Runs
from core.schedule import split
from core.shapes import ModelShape
from core.states import State
from core.text import LANGUAGES, text
from core.tokenizer import Encoded
from core.trainer import Trainer, TrainingData
from core.workspace import Workspace
from tests.test_pause import Pausing, adapter_of, rows, tiny_base

FP32 = device.Compute(torch.device("cpu"), torch.float32, text("device.cpu_fp32"))
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


# ---- on the starter, by the real worker ---------------------------------------------------------------------------------


def ran(space: Workspace, **sections: Any) -> RunFolder:
    """Three short steps of the worker, in this process."""
    train = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-3,
        "save_steps": 2,
    }
    value = {
        "data": {"source": "sample:pirate_answers", "eval_fraction": 0.04} | sections.get("data", {}),
        "adapter": {"r": 4, "target_modules": "q_proj,v_proj,down_proj"} | sections.get("adapter", {}),
        "train": train | {"eval_steps": 3} | sections.get("train", {}),
    }
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "pirates", has_card=False), "command", {})
    with run.lock().acquire(timeout=10), Reporter(run, Launcher(run, space)) as reporter:
        worker.carry_out(run, space, reporter)
    assert run.status().state == State.COMPLETED, f"{run.status()}\n{run.log_tail()}"
    train_loss = [line["loss"] for line in run.all_metrics() if line["kind"] == "train"]
    assert train_loss[2] < train_loss[0]
    return run


def lines(run: RunFolder, name: str, kind: str = "train") -> list[float]:
    return [line[name] for line in run.all_metrics() if line["kind"] == kind]


def decisions(run: RunFolder) -> set[str]:
    return {event["message"]["key"] for event in run.events() if event["kind"] == "decision"}


def test_rslora_with_a_warm_up_in_steps_and_a_linear_course(make_workspace: Callable[[], Workspace]) -> None:
    run = ran(make_workspace(), adapter={"use_rslora": True}, train={"warmup_steps": 1, "lr_scheduler_type": "linear"})
    assert atomic.read_json(run.adapter / CONFIG)["use_rslora"] is True
    assert lines(run, "learning_rate") == pytest.approx([0.5e-3, 1e-3, 0.5e-3])
    assert "fused_lora.left" not in decisions(run)


def test_dora_with_a_constant_rate_keeps_pefts_product_and_is_answered_in_turn(make_workspace: Callable[[], Workspace]) -> None:
    from core.duel import Duel
    from core.tokenizer import Tokenizer

    space = make_workspace()
    run = ran(space, adapter={"use_dora": True}, train={"lr_scheduler_type": "constant"})
    names = load_file(run.adapter / WEIGHTS)
    assert sum(name.endswith("lora_magnitude_vector") for name in names) == len(names) // 3
    assert lines(run, "learning_rate") == pytest.approx([1e-3] * 3)
    assert "fused_lora.left" in decisions(run)
    folder = Path(run.facts()["model_folder"])
    tuned = adapter.attach(base_model.load(folder, FP32, four_bit=False), run.adapter)
    assert not Duel(tuned, Tokenizer(folder)).mixed


def test_lora_plus_on_prompts_too(make_workspace: Callable[[], Workspace]) -> None:
    space = make_workspace()
    run = ran(space, data={"train_on": "everything"}, train={"loraplus_lr_ratio": 16.0})
    states = torch.load(run.checkpoints()[-1] / "trainer.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["lr"] for group in states] == pytest.approx([lines(run, "learning_rate")[-1] * ratio for ratio in (1, 16)])
    answers = ran(space, data={"packing": False})
    # Every token but a row's first is learned; the speed is counted in learned tokens, so it tells.
    assert lines(run, "loss")[0] != pytest.approx(lines(answers, "loss")[0], rel=0.01)
    whole = worker.Tokenizer(Path(run.facts()["model_folder"])).encode_example(
        worker.read_examples(run.recipe(), space, Silent())[0], 512, "everything"
    )
    assert all(whole.learned)


class Silent:
    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None


def test_neftune_changes_what_is_trained_and_not_what_is_measured(make_workspace: Callable[[], Workspace]) -> None:
    space = make_workspace()
    noisy, plain = ran(space, train={"neftune_noise_alpha": 5.0}), ran(space)
    assert lines(noisy, "eval_loss", "eval")[0] == lines(plain, "eval_loss", "eval")[0], "before the first step"
    assert lines(noisy, "loss")[0] != lines(plain, "loss")[0]
    assert lines(noisy, "loss")[0] == pytest.approx(lines(plain, "loss")[0], rel=0.05)


def test_int8_trains_measures_and_is_opened_as_it_was_trained(make_workspace: Callable[[], Workspace]) -> None:
    from core.duel import Duel
    from core.questions import target_of
    from core.tokenizer import Tokenizer

    run = ran(make_workspace(), adapter={"load_in_8bit": True})
    assert "fused_lora.left" not in decisions(run)
    assert target_of(run).eight_bit and not target_of(run, four_bit=False).eight_bit
    folder = Path(run.facts()["model_folder"])
    base = base_model.load(folder, device.choose(), four_bit=False, eight_bit=True)
    assert base.model.layers[0].mlp.down_proj.weight.dtype == torch.int8
    assert Duel(adapter.attach(base, run.adapter), Tokenizer(folder)).mixed


def test_a_pissa_run_with_a_warm_up_share_leaves_a_plain_lora_for_the_untouched_base(
    make_workspace: Callable[[], Workspace],
) -> None:
    space = make_workspace()
    settings = {"init_lora_weights": "pissa_niter_16"}
    run = ran(space, adapter=settings, train={"warmup_ratio": 0.3, "lr_scheduler_type": "cosine"})
    assert lines(run, "learning_rate") == pytest.approx([0.5e-3, 1e-3, 0.5e-3])
    config = atomic.read_json(run.adapter / CONFIG)
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)
    last = run.checkpoints()[-1] / "adapter"
    assert (last / WEIGHTS).read_bytes() == (run.adapter / WEIGHTS).read_bytes()
    # What the run measured last on its own base, measured again by plain peft on the base as it is.
    recipe, compute = run.recipe(), device.choose(run.facts()["dtype"])
    model = base_model.load(Path(run.facts()["model_folder"]), compute, four_bit=False)
    tuned = PeftModel.from_pretrained(model, run.adapter).eval()
    tokenizer = worker.Tokenizer(Path(run.facts()["model_folder"]))
    examples = worker.read_examples(recipe, space, Silent())
    kept = [tokenizer.encode_example(examples[i], 512) for i in split(len(examples), 0.04, 42)[1]]
    batch = collate(kept, tokenizer.pad_token_id, compute.device)
    with torch.no_grad():
        measured = float(summed_loss(tuned, batch)) / batch.targets.numel()
    assert measured == pytest.approx(lines(run, "eval_loss", "eval")[-1], rel=0.02)


# ---- what cannot be together ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"method": "qlora", "load_in_8bit": True}, "two_bases"),
        ({"method": "qlora", "init_lora_weights": "pissa"}, "pissa_quantised"),
        ({"load_in_8bit": True, "init_lora_weights": "pissa_niter_16"}, "pissa_quantised"),
        ({"use_dora": True, "init_lora_weights": "pissa"}, "pissa_dora"),
        ({"r": 200, "init_lora_weights": "pissa"}, "pissa_rank"),
    ],
)
def test_what_cannot_be_together_is_said_before_anything_is_loaded(settings: dict, key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({"data": {"source": "x"}, "adapter": settings})
    assert [problem["key"] for problem in caught.value.text.params["problems"]] == [f"recipe.{key}"]
    assert all("{" not in caught.value.text.render(language) for language in LANGUAGES)


@pytest.mark.parametrize("written", [True, "true"])
def test_init_lora_weights_is_written_as_peft_writes_it(written: object) -> None:
    assert not Adapter(init_lora_weights=written).is_pissa


@pytest.mark.parametrize("settings", [{"load_in_8bit": True}, {"init_lora_weights": "pissa"}])
def test_what_only_lora_can_do_is_planned_as_lora(settings: dict) -> None:
    small = budget.planned(8, "Linux")  # where a 7B would be QLoRA
    made = plan.make(Recipe.parse({"data": {"source": "x"}, "adapter": settings}), Grounds(small, ModelShape.of_size("7B")))
    (reason,) = [reason for reason in made.advice.reasons if reason.field == "method"]
    assert made.recipe.adapter.method == "lora" and reason.text.key.startswith("plan.lora_")
    Recipe.parse(made.recipe.model_dump(mode="json"))


# ---- memory ---------------------------------------------------------------------------------------------------------------


def test_int8_is_between_16_and_4_bit_and_costs_what_its_bytes_are() -> None:
    shape = ModelShape.of_size("7B")
    of = {name: memory.estimate(shape, Setup(**how)) for name, how in
          {"lora": {}, "int8": {"load_in_8bit": True}, "qlora": {"method": "qlora"}}.items()}  # fmt: skip
    assert of["qlora"].on_card_gib < of["int8"].on_card_gib < of["lora"].on_card_gib
    # Llama 2 7B: 6,476,005,376 parameters in linear layers at 1 byte, 1,359,872 outputs with an fp32 scale, the rest at 2 bytes.
    outputs = 32 * (4 * 4096 + 2 * 11008 + 4096)
    assert of["int8"].terms["weights"] * 2**30 == 6_476_005_376 + 4 * outputs + 2 * (shape.params - 6_476_005_376)
    assert memory.estimate(shape, Setup(method="qlora", load_in_8bit=True)) == of["qlora"]


def test_the_bytes_of_an_int8_base_are_those_of_the_loaded_starter(starter_folder: Path) -> None:
    from core.presets import models

    loaded = base_model.load(starter_folder, FP32, four_bit=False, eight_bit=True)
    kept = sum(p.nbytes for p in loaded.parameters()) + sum(
        module.weight.SCB.nbytes for module in loaded.modules() if type(module).__name__ == "Linear8bitLt"
    )
    counted = memory.weights(models()[0].shape, Setup(load_in_8bit=True, base_bytes=4))
    assert counted == pytest.approx(kept, rel=1e-3)


@pytest.mark.parametrize(("name", "key"), [("use_dora", "advise.dora_costs"), ("load_in_8bit", "advise.int8_saves")])
def test_a_plan_says_what_a_variant_costs_here(name: str, key: str) -> None:
    recipe = Recipe.parse({"data": {"source": "x"}, "adapter": {"method": "lora", name: True}})
    made = plan.make(recipe, Grounds(budget.planned(24, "Linux"), ModelShape.of_size("3B")))
    (reason,) = [reason for reason in made.advice.reasons if reason.field == name]
    numbers = reason.text.params
    assert reason.text.key == key and (numbers["needed"] > numbers["without"]) == (name == "use_dora")
    assert made.advice.estimate.on_card_gib == pytest.approx(numbers["needed"])
    assert all("{" not in reason.text.render(language) for language in LANGUAGES)


# ---- on a model of two layers ---------------------------------------------------------------------------------------------

RECIPE = {
    "data": {"source": "x", "max_length": 16},
    "train": {
        "max_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
        "eval_steps": 2, "save_steps": 2,
    },
}  # fmt: skip


def trainer_of(folder: Path, pause_at: int | None = None, **sections: Any) -> Trainer:
    """As the worker puts it together, in folder, which an earlier attempt may have left."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder)
    recipe = Recipe.parse({name: RECIPE.get(name, {}) | sections.get(name, {}) for name in ("data", "adapter", "train")})
    recipe = plan.resolve(recipe, "x", has_card=False)
    torch.manual_seed(1)
    tuned = adapter.add(tiny_base(), recipe.adapter, "tiny", None, will_restore=bool(run.checkpoints()))

    def save(target: Path) -> None:
        adapter.save(tuned, target, folder, "", "")

    return Trainer(tuned, recipe, TrainingData(rows(12), rows(4), 0), FP32, Pausing(run, pause_at), save)


CASES = {
    "pissa": {"adapter": {"r": 4, "init_lora_weights": "pissa"}},
    "pissa, quickly, with rslora": {"adapter": {"r": 4, "init_lora_weights": "pissa_niter_16", "use_rslora": True}},
    "dora": {"adapter": {"r": 4, "use_dora": True}},
    "lora+ in 8 bit": {"adapter": {"r": 4}, "train": RECIPE["train"] | {"loraplus_lr_ratio": 8.0, "optim": "adamw_8bit"}},
    "neftune": {"adapter": {"r": 4}, "train": RECIPE["train"] | {"neftune_noise_alpha": 5.0}},
    "neftune, padded": {"data": {"packing": False}, "adapter": {"r": 4}, "train": RECIPE["train"] | {"neftune_noise_alpha": 5.0}},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_paused_is_the_run_that_never_was(name: str, tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole", **CASES[name])
    whole.run()
    numbers, folder = {}, tmp_path / "paused"
    for pause in (33, None):  # inside an accumulation of the third step
        trainer = trainer_of(folder, pause, **CASES[name])
        if saved := RunFolder(folder).checkpoints():
            trainer.restore(read(saved[-1]))
        try:
            trainer.run()
        except PauseRequested:
            trainer.checkpoint()
        numbers |= trainer.reporter.numbers
    assert 0 < read(saved[-1]).position.step < 5
    assert numbers == whole.reporter.numbers and torch.equal(adapter_of(trainer), adapter_of(whole))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(5, 45).reshape(2, 20)).logits


@pytest.mark.parametrize("name", ["pissa", "pissa, quickly, with rslora"])
def test_plain_peft_on_the_untouched_base_gives_the_trained_models_logits(name: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **CASES[name])
    untouched = logits(tiny_base())
    torch.testing.assert_close(logits(trainer.tuned), untouched, rtol=1e-4, atol=1e-5, msg="it begins as the base")
    trainer.run()
    trained = logits(trainer.tuned)
    with trainer.tuned.disable_adapter():
        assert (logits(trainer.tuned) - untouched).abs().max() > 1e-3, "meanwhile the base is not the base (facts 15)"
    assert (trained - untouched).abs().max() > 1e-2
    plain = PeftModel.from_pretrained(tiny_base(), RunFolder(tmp_path).checkpoints()[-1] / "adapter")
    torch.testing.assert_close(logits(plain), trained, rtol=1e-4, atol=1e-5)
    with plain.disable_adapter():
        assert torch.equal(logits(plain), untouched)


@pytest.mark.filterwarnings("ignore")  # peft's, of what it does itself
@pytest.mark.parametrize("use_rslora", [False, True])
def test_it_is_converted_as_peft_converts_it(use_rslora: bool, tmp_path: Path) -> None:
    tuned = adapter.add(
        tiny_base(), Adapter(r=4, init_lora_weights="pissa", use_rslora=use_rslora), "", None
    )  # a name: peft would ask the hub
    tuned.peft_config["default"].init_lora_weights = True  # as peft wants it of the initial adapter
    tuned.save_pretrained(tmp_path / "initial")
    tuned.peft_config["default"].init_lora_weights = "pissa"
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01
    adapter.save(tuned, tmp_path / "ours", tmp_path, "", "")
    tuned.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    ours, theirs = load_file(tmp_path / "ours" / WEIGHTS), load_file(tmp_path / "theirs" / WEIGHTS)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    configs = [atomic.read_json(tmp_path / who / CONFIG) for who in ("ours", "theirs")]
    assert all(configs[0][name] == configs[1][name] for name in ("r", "lora_alpha", "init_lora_weights", "use_rslora"))


def test_a_child_of_a_pissa_run_begins_where_it_ended(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **CASES["pissa"])
    trainer.run()
    trainer.checkpoints.save_adapter(tmp_path / "adapter")
    child = adapter.add(tiny_base(), trainer.recipe.adapter, "tiny", None, will_restore=True)
    adapter.start_from(child, tmp_path / "adapter")
    assert torch.equal(logits(child), logits(trainer.tuned))
    own = get_peft_model_state_dict(child, save_embedding_layers=False)
    with pytest.raises(ModelError):
        other = adapter.add(tiny_base(), Adapter(r=2, init_lora_weights="pissa"), "tiny", None, will_restore=True)
        adapter.start_from(other, tmp_path / "adapter")
    assert all(
        torch.equal(own[name], weight) for name, weight in pissa.halves(load_file(tmp_path / "adapter" / WEIGHTS))[0].items()
    )


def test_a_rank_that_a_layer_has_not_is_refused() -> None:
    with pytest.raises(ModelError, match="only 16"):  # k_proj and v_proj have 2 heads of 8
        adapter.add(tiny_base(), Adapter(r=20, init_lora_weights="pissa"), "tiny", None)


@pytest.mark.parametrize("use_dora", [False, True])
def test_lora_plus_has_the_groups_of_pefts_own_optimizer(use_dora: bool) -> None:
    tuned = adapter.add(tiny_base(), Adapter(r=4, use_dora=use_dora), "tiny", None)
    value = {"data": {"source": "x"}, "train": {"loraplus_lr_ratio": 16.0, "learning_rate": 1e-4}}
    ours = optimizer.make(tuned, Recipe.parse(value))
    optimizer.set_learning_rate(ours, 1e-4)
    theirs = create_loraplus_optimizer(tuned, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16.0)

    def rates(made: torch.optim.Optimizer) -> dict[int, float]:
        return {id(p): group["lr"] for group in made.param_groups for p in group["params"]}

    assert rates(ours) == pytest.approx(rates(theirs))


# ---- NEFTune --------------------------------------------------------------------------------------------------------------


def embedded(tuned: Any, batch: Batch, alpha: float | None) -> torch.Tensor:
    """What the first layer is given."""
    seen = []
    layer = tuned.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args or tuple(kwargs.values()))[0]), with_kwargs=True
    )
    with neftune.noise(tuned, alpha), torch.no_grad():
        tuned.get_base_model().get_decoder()(**batch.inputs())
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("packed", [True, False])
def test_noise_is_as_loud_as_each_examples_own_length_says(packed: bool) -> None:
    from core import packed_attention

    tuned = adapter.add(tiny_base(), Adapter(r=4), "tiny", None)
    assert packed_attention.enable(tuned.get_base_model())
    several = [Encoded(list(range(3, 3 + n)), [True] * n) for n in (2, 30)]
    batch = collate_packed(several, FP32.device) if packed else collate(several, 0, FP32.device)
    plain = embedded(tuned.eval(), batch, 5.0)
    torch.testing.assert_close(plain, embedded(tuned.eval(), batch, None))
    torch.manual_seed(0)
    difference = (embedded(tuned.train(), batch, 5.0) - plain).abs()
    short, long = (difference[0, :2], difference[0, 2:]) if packed else (difference[0, :2], difference[1])
    for part, length in ((short, 2), (long, 30)):
        most = 5 / math.sqrt(length * 32)
        assert 0.9 * most < part.max() <= most * 1.001, "width 32"
    assert not [m for m in tuned.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_the_rehearsal_hears_the_noise_and_takes_nothing_of_it(tmp_path: Path) -> None:
    heard = []

    def listen(trainer: Trainer) -> None:
        hook = trainer.tuned.get_input_embeddings().register_forward_hook(lambda module, args, output: heard.append(output))
        before = torch.get_rng_state()
        for _ in range(2):
            trainer.rehearse(trainer.longest())
        hook.remove()
        assert torch.equal(torch.get_rng_state(), before)

    noisy, alone = trainer_of(tmp_path / "a", **CASES["neftune"]), trainer_of(tmp_path / "b", **CASES["neftune"])
    noisy.run(listen)
    alone.run()
    plain = noisy.tuned.get_base_model().get_input_embeddings().weight
    assert torch.equal(heard[0], heard[1]), "the same random numbers each time"
    assert not (heard[0][0, :, None] == plain).all(-1).any(), "no token's embedding as it is"
    assert noisy.reporter.numbers == alone.reporter.numbers


# ---- int8 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_int8_gradients_equal_those_of_peft_on_the_dequantised_base(starter_folder: Path, checkpointing: bool) -> None:
    """On a processor bitsandbytes trains on the dequantised weights; on a card it also rounds what flows through."""
    settings = Adapter(r=4, target_modules="q_proj,k_proj,v_proj,down_proj")
    ids = torch.arange(100, 148).reshape(2, 24).tolist()
    batch = collate([Encoded(row, [True] * 24) for row in ids], 0, FP32.device)

    def gradient(fuse: bool) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(2)
        tuned = adapter.add(base_model.load(starter_folder, FP32, four_bit=False, eight_bit=True), settings, "x", None).train()
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        if checkpointing:
            tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            tuned.enable_input_require_grads()
        if fuse:
            assert fused_lora.fuse(tuned).reason is None
        loss = summed_loss(tuned, batch)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])

    (ours, mine), (theirs, reference) = gradient(True), gradient(False)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert torch.nn.functional.cosine_similarity(mine, reference, 0) > 0.99999
