"""The variants people ask for: each is what its name says, and leaves the base the base. On a tiny model; with --full on the starter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file

from core import files
from core.advice import plan
from core.advice.plan import Grounds
from core.chat.client import ChatState, ChatTarget
from core.chat.duel import Duel
from core.chat.questions import target_of
from core.data.labels import Encoded
from core.data.many.kept_apart import split
from core.data.tokenizer import Tokenizer
from core.engine import adapter, attention, base_model, device, optimizer
from core.engine.batches import Batch, collate, collate_packed
from core.engine.loss import summed_loss
from core.engine.variants import fused_lora, neftune, pissa
from core.errors import ModelError, PauseRequested, RecipeError
from core.memory import arithmetic, budget
from core.memory.setup import Setup
from core.messages import LANGUAGES, msg
from core.models.known import known_models, shape_of_size
from core.recipe import Adapter, Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.process import Launcher
from core.runs.reporter import Reporter
from core.runs.states import State
from core.training import worker
from core.training.checkpoint import read
from core.training.trainer import Ahead, Trainer, TrainingData
from core.workspace.folder import Workspace
from tests.kit.trainer import Pausing, adapter_of, rows, tiny_base
from webui.form.fields import FormAnswers
from webui.form.planner import Form, recipe_of
from webui.kit.wording import Wording
from webui.pages.chat import ChatPage

FP32 = device.Compute(torch.device("cpu"), torch.float32, msg("device.cpu_fp32"))
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Silent:
    """Stands where the reporter stands."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None


# ---- by the real worker -------------------------------------------------------------------------------------------------

RATE = 5e-3
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "rslora, lora+, prompts too": {
        "data": {"train_on": "everything"}, "adapter": {"use_rslora": True},
        "train": {"loraplus_lr_ratio": 16.0, "warmup_steps": 1, "lr_scheduler_type": "linear"},
    },
    "dora": {"adapter": {"use_dora": True}, "train": {"lr_scheduler_type": "constant"}},
    "pissa": {
        "adapter": {"init_lora_weights": "pissa_niter_16"}, "train": {"warmup_ratio": 0.3, "lr_scheduler_type": "cosine"},
    },
    "plain": {},
    "qlora": {"adapter": {"method": "qlora"}},
    "neftune": {"train": {"neftune_noise_alpha": 5.0}},
    "int8": {"adapter": {"load_in_8bit": True}},
}  # fmt: skip


class Ran:
    """Three short steps of the worker, in this process, for each of RUNS that a test asks for."""

    def __init__(self, space: Workspace, model: str):
        self.space, self.model = space, model
        self._done: dict[str, RunFolder] = {}

    def __call__(self, name: str) -> RunFolder:
        if name not in self._done:
            self._done[name] = self._run(RUNS[name])
        return self._done[name]

    def _run(self, sections: dict[str, dict[str, Any]]) -> RunFolder:
        train = {"max_steps": 3, "per_device_train_batch_size": 1, "learning_rate": RATE, "sample_seconds": 0}
        value = {
            "model": {"id": self.model},
            "data": {"source": "sample:pirate_answers", "eval_fraction": 0.04} | sections.get("data", {}),
            "adapter": {"r": 4, "target_modules": "q_proj,v_proj,down_proj"} | sections.get("adapter", {}),
            "train": train | {"eval_steps": 3, "save_steps": 3} | sections.get("train", {}),
        }
        run = Runs(self.space).create(plan.resolve(Recipe.parse(value), "pirates", has_card=False), "command")
        with run.lock().acquire(timeout=10), Reporter(run, Launcher(run, self.space)) as reporter:
            worker.carry_out(run, self.space, reporter)
        assert run.status().state == State.COMPLETED, f"{run.status()}\n{run.log_tail()}"
        return run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, starter_folder: Path, full: bool) -> Ran:
    root, model = tmp_path_factory.mktemp("variants"), starter_folder if full else tiny_model
    (root / "settings.yaml").write_text(json.dumps({"library_folders": [str(model.parent)]}), "utf-8")
    return Ran(Workspace.open(root), f"library:{model.name}")


@pytest.fixture(scope="module")
def int8_base(starter_folder: Path) -> Any:
    return base_model.load(starter_folder, FP32, four_bit=False, eight_bit=True)


def lines(run: RunFolder, name: str, kind: str = "train") -> list[float]:
    return [line[name] for line in run.all_metrics() if line["kind"] == kind]


def decisions(run: RunFolder) -> set[str]:
    return {event["message"]["key"] for event in run.events() if event["kind"] == "decision"}


@pytest.mark.parametrize("name", RUNS)
def test_every_variant_learns(name: str, ran: Ran, full: bool) -> None:
    measured = lines(ran(name), "eval_loss", "eval")
    assert measured[-1] < measured[0] - (0.02 if full else 1e-4)  # 5e-4 to 8e-3 in three steps of the tiny one
    assert ("fused_lora.left" in decisions(ran(name))) == (name == "dora"), "PEFT's own product, which is said"


def test_rates_rise_fall_and_stay_as_their_names_say(ran: Ran) -> None:
    rates = {name: lines(ran(name), "learning_rate") for name in RUNS}
    assert rates["rslora, lora+, prompts too"] == pytest.approx([0.5 * RATE, RATE, 0.5 * RATE]), "a warm-up in steps, linear"
    assert rates["pissa"] == pytest.approx([0.5 * RATE, RATE, 0.5 * RATE]), "a warm-up as a share, cosine"
    assert rates["dora"] == pytest.approx([RATE] * 3), "constant"


def test_rslora_is_in_the_file_lora_plus_in_the_optimizer_and_prompts_in_what_is_learned(ran: Ran) -> None:
    run = ran("rslora, lora+, prompts too")
    assert files.read_json(run.adapter / CONFIG)["use_rslora"] is True
    groups = torch.load(run.checkpoints()[-1] / "trainer.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.5 * RATE, 16 * 0.5 * RATE])
    measured = run.facts().memory
    assert measured.learned == measured.tokens - measured.rows, "every token but the first of each row"


def test_dora_has_its_magnitudes_and_is_answered_in_turn(ran: Ran) -> None:
    run = ran("dora")
    names = load_file(run.adapter / WEIGHTS)
    assert sum(name.endswith("lora_magnitude_vector") for name in names) == len(names) // 3
    folder = Path(run.facts().model_folder)
    tuned = adapter.attach(base_model.load(folder, device.choose(), four_bit=False), run.adapter)
    assert not Duel(tuned, Tokenizer(folder)).mixed


def test_neftune_changes_what_is_trained_and_not_what_is_measured(ran: Ran) -> None:
    noisy, plain = ran("neftune"), ran("plain")
    assert lines(noisy, "eval_loss", "eval")[0] == pytest.approx(lines(plain, "eval_loss", "eval")[0], rel=1e-6)
    difference = abs(lines(noisy, "loss")[0] / lines(plain, "loss")[0] - 1)
    assert 2e-3 < difference < 0.1


def test_int8_is_opened_as_it_was_trained(ran: Ran) -> None:
    run = ran("int8")
    folder = Path(run.facts().model_folder)
    assert target_of(run).eight_bit and not target_of(run, four_bit=False).eight_bit
    base = base_model.load(folder, FP32, four_bit=False, eight_bit=True)
    assert base.model.layers[0].mlp.down_proj.weight.dtype == torch.int8
    assert Duel(adapter.attach(base, run.adapter), Tokenizer(folder)).mixed


def test_a_pissa_run_leaves_a_plain_lora_for_the_untouched_base(ran: Ran) -> None:
    run = ran("pissa")
    config = files.read_json(run.adapter / CONFIG)
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)
    assert (run.checkpoints()[-1] / "adapter" / WEIGHTS).read_bytes() == (run.adapter / WEIGHTS).read_bytes()
    # What the run measured last on its own base, measured again by plain peft on the base as it is.
    folder, compute = Path(run.facts().model_folder), device.choose(run.facts().dtype)
    tuned = PeftModel.from_pretrained(base_model.load(folder, compute, four_bit=False), run.adapter).eval()
    silent = Silent()
    silent.run = run
    tokenizer, examples = Tokenizer(folder), worker.read_examples(run.recipe(), ran.space, silent)
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
    assert [problem["key"] for problem in caught.value.message.params["problems"]] == [f"recipe.{key}"]
    assert all("{" not in caught.value.message.render(language) for language in LANGUAGES)


@pytest.mark.parametrize("written", [True, "true"])
def test_init_lora_weights_is_written_as_peft_writes_it(written: object) -> None:
    assert not Adapter(init_lora_weights=written).is_pissa


@pytest.mark.parametrize("settings", [{"load_in_8bit": True}, {"init_lora_weights": "pissa"}])
def test_what_only_lora_can_do_is_planned_as_lora(settings: dict) -> None:
    small = budget.planned(8, "Linux")  # where a 7B would be QLoRA
    made = plan.make(Recipe.parse({"data": {"source": "x"}, "adapter": settings}), Grounds(small, shape_of_size("7B")))
    (reason,) = [reason for reason in made.advice.reasons if reason.field == "method"]
    assert made.recipe.adapter.method == "lora" and reason.text.key.startswith("plan.lora_")
    Recipe.parse(made.recipe.model_dump(mode="json"))


def test_a_form_says_what_cannot_be_together_and_takes_a_share() -> None:
    """lora_dropout, below 1, was refused above 0: its limit was read as that of a whole number."""
    given = {
        "adapter.lora_dropout": 0.1,
        "train.warmup_ratio": 0.03,
        "train.neftune_noise_alpha": "5",
        "adapter.load_in_8bit": True,
    }
    sections = FormAnswers(given).sections()
    assert sections["adapter"] == {"lora_dropout": 0.1, "load_in_8bit": True}
    assert sections["train"] == {"warmup_ratio": 0.03, "neftune_noise_alpha": 5.0}
    form = Form(None, "starter", "sample:pirate_answers", "here", "", FormAnswers(given | {"adapter.method": "qlora"}))
    with pytest.raises(RecipeError, match="an 8-bit one .load_in_8bit"):
        recipe_of(form)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("use_dora", "mixed", "said"), [(True, False, "DoRA"), (False, False, ""), (False, True, None)])
def test_the_chat_page_says_that_answers_come_in_turn_and_why(language: str, use_dora: bool, mixed: bool, said: str | None) -> None:
    page = ChatPage(None, Wording(language))
    state = ChatState("ready", ChatTarget("starter", label="my run"), dtype="bfloat16", mixed=mixed, adapter={"use_dora": use_dora})
    shown = str(page._status(state))
    in_turn = {"en": "one after the other", "zh": "先后", "de": "nacheinander"}[language]
    assert (in_turn in shown) == (said is not None) and (said or "") in shown


# ---- memory ---------------------------------------------------------------------------------------------------------------


def test_int8_is_between_16_and_4_bit_and_costs_what_its_bytes_are() -> None:
    shape = shape_of_size("7B")
    of = {name: arithmetic.estimate(shape, Setup(**how)) for name, how in
          {"lora": {}, "int8": {"load_in_8bit": True}, "qlora": {"method": "qlora"}}.items()}  # fmt: skip
    assert of["qlora"].on_card_gib < of["int8"].on_card_gib < of["lora"].on_card_gib
    # Llama 2 7B: 6,476,005,376 parameters in linear layers at 1 byte, 1,359,872 outputs with an fp32 scale, the rest at 2 bytes.
    outputs = 32 * (4 * 4096 + 2 * 11008 + 4096)
    assert of["int8"].terms["weights"] * 2**30 == 6_476_005_376 + 4 * outputs + 2 * (shape.params - 6_476_005_376)
    assert arithmetic.estimate(shape, Setup(method="qlora", load_in_8bit=True)) == of["qlora"]


def test_the_bytes_of_an_int8_base_are_those_of_the_loaded_starter(int8_base: Any) -> None:
    kept = sum(p.nbytes for p in int8_base.parameters())
    kept += sum(scales.nbytes for module in int8_base.modules() if (scales := scales_of(module)) is not None)
    assert arithmetic.weights(known_models()[0].shape, Setup(load_in_8bit=True, base_bytes=4)) == pytest.approx(kept, rel=1e-3)


def scales_of(layer: Any) -> torch.Tensor | None:
    """They move to the layer's state in its first product."""
    if type(layer).__name__ != "Linear8bitLt":
        return None
    return layer.weight.SCB if layer.state.SCB is None else layer.state.SCB


@pytest.mark.parametrize(("name", "key"), [("use_dora", "advise.dora_costs"), ("load_in_8bit", "advise.int8_saves")])
def test_a_plan_says_what_a_variant_costs_here(name: str, key: str) -> None:
    recipe = Recipe.parse({"data": {"source": "x"}, "adapter": {"method": "lora", name: True}})
    made = plan.make(recipe, Grounds(budget.planned(24, "Linux"), shape_of_size("3B")))
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
    torch.testing.assert_close(logits(trainer.step.tuned), untouched, rtol=1e-4, atol=1e-5, msg="it begins as the base")
    trainer.run()
    trained = logits(trainer.step.tuned)
    with trainer.step.tuned.disable_adapter():
        assert (logits(trainer.step.tuned) - untouched).abs().max() > 1e-3, "meanwhile the base is not the base: PiSSA rewrites it"
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
    configs = [files.read_json(tmp_path / who / CONFIG) for who in ("ours", "theirs")]
    assert all(configs[0][name] == configs[1][name] for name in ("r", "lora_alpha", "init_lora_weights", "use_rslora"))


def test_a_child_of_a_pissa_run_begins_where_it_ended(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **CASES["pissa"])
    trainer.run()
    trainer.checkpoints.save_adapter(tmp_path / "adapter")
    child = adapter.add(tiny_base(), trainer.recipe.adapter, "tiny", None, will_restore=True)
    adapter.start_from(child, tmp_path / "adapter")
    assert torch.equal(logits(child), logits(trainer.step.tuned))
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


def test_a_saved_adapter_has_one_card_and_nobody_draws_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: peft drew one from a template at each save, for ours to replace: half the time of a small checkpoint."""
    drawn = []
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda self, folder: drawn.append(folder))
    adapter.save(adapter.add(tiny_base(), Adapter(r=4), "tiny", None), tmp_path / "adapter", tmp_path, "# ours", "")
    assert drawn == [] and (tmp_path / "adapter" / "README.md").read_text("utf-8") == "# ours"


# ---- a paged optimizer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "on_card", "pages"), [("Linux", True, True), ("Windows", True, False), ("WSL", True, False), ("Linux", False, False)]
)
def test_only_a_card_under_linux_itself_pages(system: str, on_card: bool, pages: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "driver_system", lambda: system)
    assert optimizer.can_page(SimpleNamespace(is_cuda=on_card)) is pages


def test_where_nothing_can_be_paged_the_8_bit_one_learns_and_it_is_said(tmp_path: Path) -> None:
    """Seen: bitsandbytes asks CUDA for such memory, which nobody has without a card."""
    trainer = trainer_of(tmp_path, train={"optim": "paged_adamw_8bit"})
    assert not trainer.step.optimizer.is_paged
    assert [warning.key for warning in trainer.reporter.warnings] == ["run.not_paged"]
    assert trainer_of(tmp_path, train={"optim": "adamw_8bit"}).reporter.warnings == []


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
    from core.engine import attention

    tuned = adapter.add(tiny_base(), Adapter(r=4), "tiny", None)
    assert attention.enable(tuned.get_base_model())
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

    def listen(ahead: Ahead) -> None:
        hook = ahead.step.tuned.get_input_embeddings().register_forward_hook(lambda module, args, output: heard.append(output))
        before = torch.get_rng_state()
        for _ in range(2):
            ahead.step.rehearse(ahead.longest())
        hook.remove()
        assert torch.equal(torch.get_rng_state(), before)

    noisy, alone = trainer_of(tmp_path / "a", **CASES["neftune"]), trainer_of(tmp_path / "b", **CASES["neftune"])
    noisy.run(listen)
    alone.run()
    plain = noisy.step.tuned.get_base_model().get_input_embeddings().weight
    assert torch.equal(heard[0], heard[1]), "the same random numbers each time"
    assert not (heard[0][0, :, None] == plain).all(-1).any(), "no token's embedding as it is"
    assert noisy.reporter.numbers == alone.reporter.numbers


# ---- int8 -----------------------------------------------------------------------------------------------------------------


def test_an_int8_base_is_packed_unless_its_attention_leaks(int8_base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: another first example changes which columns are rounded to 8 bit, so that no base with outliers was ever packed."""
    thresholds = [module.state.threshold for module in int8_base.modules() if hasattr(module, "state")]
    packed = attention.packed_sdpa
    try:
        assert attention.enable(int8_base)
        assert thresholds and [module.state.threshold for module in int8_base.modules() if hasattr(module, "state")] == thresholds
        int8_base.set_attn_implementation("sdpa")
        monkeypatch.setattr(attention, "packed_sdpa", lambda *states, lengths=None, **more: packed(*states, **more))
        assert not attention.enable(int8_base)
    finally:
        int8_base.set_attn_implementation("sdpa")


def test_int8_gradients_are_those_of_pefts_own_product(int8_base: Any) -> None:
    """On a processor bitsandbytes trains on the dequantised weights; on a card it also rounds what flows through."""
    tuned = adapter.add(int8_base, Adapter(r=4, target_modules="q_proj,k_proj,v_proj,down_proj"), "x", None).train()
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    ids = torch.arange(100, 132).reshape(2, 16).tolist()
    batch = collate([Encoded(row, [True] * 16) for row in ids], 0, FP32.device)

    def gradient() -> tuple[torch.Tensor, torch.Tensor]:
        tuned.zero_grad()
        loss = summed_loss(tuned, batch)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])

    theirs, reference = gradient()
    fused = fused_lora.fuse(tuned)
    assert fused.reason is None
    ours, mine = gradient()
    fused.release()
    tuned.unload()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert torch.nn.functional.cosine_similarity(mine, reference, 0) > 0.99999


@pytest.mark.parametrize(("saved", "to_train"), [(0, True), (5, False)])
def test_a_run_that_has_trained_goes_on_whatever_a_new_one_of_its_base_is_told(
    monkeypatch: pytest.MonkeyPatch, saved: int, to_train: bool
) -> None:
    """A base that is quantised so that it cannot be trained is refused to new runs: some of them trained before that was so."""
    from core.training import worker

    asked = []

    class Asked(Exception): ...

    def obtain(self: object, *given: object, to_train: bool) -> None:
        asked.append(to_train)
        raise Asked

    monkeypatch.setattr(worker.Models, "obtain", obtain)
    model = SimpleNamespace(id="library:packed", revision=None)
    facts = SimpleNamespace(ranks=None)
    run = SimpleNamespace(recipe=lambda: SimpleNamespace(model=model), facts=lambda: facts, saved_step=lambda: saved)
    with pytest.raises(Asked):
        worker._prepare(run, None, SimpleNamespace(stage=None, check=None))
    assert asked == [to_train]
