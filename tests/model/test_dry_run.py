"""The training step counted without weights and card: against the arithmetic, against itself, and as the page asks for
it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.api.planning import counted_dry_run
from core.commands import __main__ as commands
from core.errors import ModelError
from core.hub import peek
from core.memory.arithmetic import Estimate, estimate
from core.memory.setup import Setup
from core.messages import msg
from core.models.known import known_models
from core.models.library import Models
from core.models.shapes.shape import ModelShape
from core.runs.run_json import RunFacts
from core.system.lines import Child
from core.trial.dry_runs import DryRun, DryRuns, DryRunState, Question, obstacle, takes_processor
from core.workspace.folder import Workspace
from tests.kit.waits import wait_until
from webui.form import plan_view
from webui.form.fields import FormAnswers
from webui.form.planner import Form, Planner
from webui.kit.wording import Wording
from webui.state.services import Services

WITHIN = 0.05
PATIENT_S = 900.0  # on a PC that does ten other things; time decides no test
EN, ZH = Wording("en"), Wording("zh")
METHODS, LENGTHS = ("lora", "qlora"), (512, 4096)
KNOWN = {model.id: model.shape for model in known_models()}
# What differs by more than WITHIN between arithmetic and dry run, and why.
SCORES = "on the null card four copies of the scores lie in the softmax's backward, the dry run counts three"
APART = dict.fromkeys(("gemma-2-2b-it", "gemma-2-9b-it", "gemma-2-27b-it"), SCORES)
# A family each, the smallest and the largest, long and short, with and without checkpointing; MORE: made of the same
# parts.
CORNERS = [
    ("starter", "qlora", 512, False), ("llama-3.3-70b-instruct", "qlora", 512, True), ("qwen3-0.6b", "lora", 512,
        False),
    ("qwen2.5-72b-instruct", "lora", 4096, True), ("gemma-3-270m-it", "lora", 512, True), ("gemma-2-2b-it", "lora",
        4096, False),
    ("phi-3.5-mini-instruct", "lora", 512, False), ("nemotron-mini-4b-instruct", "qlora", 512, True),
]  # fmt: skip
MORE = [
    ("mistral-7b-instruct", "qlora", 4096, False), ("olmo-2-1b-instruct", "lora", 4096, True), ("smollm3-3b", "qlora",
        512, False),
    ("granite-3.3-2b-instruct", "lora", 512, False), ("glm-4-9b-0414", "lora", 512, False), ("aya-expanse-8b", "lora",
        512, False),
    ("seed-oss-36b-instruct", "qlora", 4096, False),
]  # fmt: skip


def looked_at(on_card_gib: float) -> DryRunState:
    terms = {"weights": on_card_gib}
    estimate = Estimate(
        trainable_params=1, idle_gib=1, allocated_gib=1, on_card_gib=on_card_gib, terms=terms, margin=0.1
    )
    return DryRunState(
        DryRun(
            estimate=estimate, place="backward", layer=36, operation="aten.mul.Tensor", layers_run=(2, 4), seconds=2.0
        )
    )


@pytest.fixture(scope="module")
def dry_runs() -> Iterator[DryRuns]:
    """One warm process for all of them."""
    runs = DryRuns(limit_s=PATIENT_S)
    yield runs
    runs.end_process()


def question_of(
    shape: ModelShape, method: str = "lora", length: int = 512, checkpointing: bool = True, **other: object
) -> Question:
    setup = Setup(method=method, max_length=length, gradient_checkpointing=checkpointing, **other)
    return Question(config=shape.config(), setup=setup)


def answer(dry_runs: DryRuns, question: Question) -> DryRun:
    looked = dry_runs.wait(question)
    assert looked.answer is not None, looked.why
    return looked.answer


def compare(dry_runs: DryRuns, model: str, method: str, length: int, checkpointing: bool) -> float:
    """Arithmetic over dry run, less one."""
    question = question_of(KNOWN[model], method, length, checkpointing)
    counted, reckoned = answer(dry_runs, question), estimate(KNOWN[model], question.setup)
    assert counted.estimate.trainable_params == reckoned.trainable_params
    # blocks of 512 bytes, small states in fp32
    assert counted.estimate.idle_gib == pytest.approx(reckoned.idle_gib, rel=0.015)
    return reckoned.allocated_gib / counted.estimate.allocated_gib - 1


@pytest.mark.parametrize(
    ("model", "method", "length", "checkpointing"),
    [*CORNERS, *(pytest.param(*more, marks=pytest.mark.full) for more in MORE)],
)
def test_arithmetic_and_dry_run_agree(dry_runs: DryRuns, model: str, method: str, length: int, checkpointing: bool):
    assert abs(compare(dry_runs, model, method, length, checkpointing)) < WITHIN


@pytest.mark.full
def test_they_agree_over_the_whole_catalogue(dry_runs: DryRuns):
    """Models of the same widths are one case. Left out: those of which the widths are not the whole config.json. The
    classes of transformers would fill the rest with another model's; tiny ones of each are in test_families and
    test_experts."""
    described = {
        name: shape
        for name, shape in KNOWN.items()
        if not shape.low_confidence and shape.model_type != "granitemoehybrid"
    }
    shapes = {json.dumps(shape.config(), sort_keys=True): name for name, shape in described.items()}
    cases = itertools.product(shapes.values(), METHODS, LENGTHS, (True, False))
    differences = {case: compare(dry_runs, *case) for case in cases}
    worst = sorted(differences.items(), key=lambda item: -abs(item[1]))
    print(f"\n{len(differences)} cases, {len(shapes)} shapes; the worst:")
    for case, error in worst[:20]:
        print(f"  {error:+.2%}", *case)
    assert {case for case, error in differences.items() if abs(error) >= WITHIN and case[0] not in APART} == set()


def test_every_exception_is_explained_and_still_one(dry_runs: DryRuns):
    assert set(APART) <= set(KNOWN) and all(APART.values())


# ---- other settings, other models ----------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"optim": "adamw_torch", "r": 64},
        {"per_device_train_batch_size": 4, "supervised_tokens": 100},
        {"target_modules": "q_proj,v_proj"},
        {"use_dora": True},
        {"lora_dropout": 0.1, "checkpointing": False},
        {"accumulates": False, "checkpointing": False},
    ],
    ids=lambda other: next(iter(other)),
)
def test_they_agree_on_other_settings(dry_runs: DryRuns, other: dict):
    question = question_of(KNOWN["tinyllama-1.1b-chat"], **other)
    counted = answer(dry_runs, question).estimate
    assert estimate(KNOWN["tinyllama-1.1b-chat"], question.setup).allocated_gib == pytest.approx(
        counted.allocated_gib, rel=WITHIN
    )


LATENT = {
    "model_type": "deepseek_v3", "hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 8, "num_key_value_heads": 8, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1, "kv_lora_rank": 64, "q_lora_rank": 128, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32,
    "v_head_dim": 64, "vocab_size": 2000, "n_group": 1, "topk_group": 1,
}  # fmt: skip
EXPERTS = {
    "model_type": "qwen3_moe", "hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2,
    "vocab_size": 2000,
}  # fmt: skip
HYBRID = {
    "model_type": "qwen3_next", "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "num_experts": 4, "num_experts_per_tok": 2,
    "vocab_size": 2000,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    "shared_expert_intermediate_size": 64,
}  # fmt: skip


@pytest.mark.parametrize("config", [LATENT, EXPERTS, HYBRID], ids=lambda config: config["model_type"])
def test_families_that_no_formula_knows_answer_for_themselves(dry_runs: DryRuns, config: dict):
    dry = answer(dry_runs, Question(config=config, setup=Setup(max_length=256)))
    assert dry.estimate.terms["weights"] > 0 and dry.estimate.terms["activations"] > 0
    assert dry.estimate.allocated_gib > dry.estimate.idle_gib


def test_a_family_that_transformers_does_not_know_is_a_sentence(dry_runs: DryRuns):
    looked = dry_runs.wait(Question(config=KNOWN["starter"].config() | {"model_type": "of_next_year"}, setup=Setup()))
    assert looked.answer is None and "of_next_year" in str(looked.why)


def test_a_repository_that_is_quantised_already_is_a_sentence(dry_runs: DryRuns):
    config = KNOWN["starter"].config() | {"quantization_config": {"quant_method": "awq"}}
    assert "awq" in str(dry_runs.wait(Question(config=config, setup=Setup())).why)


def test_what_is_not_this_projects_training_is_not_counted():
    assert obstacle(Setup()) is None
    for other in ({"method": "full"}, {"loss": "full"}, {"attention": "eager"}, {"device": "cpu"}):
        assert obstacle(Setup(**other)) is not None, other


def test_it_says_where_the_most_is_needed(dry_runs: DryRuns):
    wide = answer(dry_runs, question_of(KNOWN["qwen3-0.6b"]))
    assert (wide.place, wide.layers_run) == ("head", (2, 4)), "152k words beside layers of 1,024"
    deep = answer(dry_runs, question_of(KNOWN["qwen3-32b"], "qlora", 4096))
    assert deep.place == "backward" and deep.layer == 64
    assert "64" in deep.where.render("en") and "64" in deep.where.render("zh")


# ---- two and four layers, and all of them --------------------------------------------------------


ROUNDS = {"num_hidden_layers": 9, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 3}


@pytest.mark.parametrize(
    ("model", "other", "run"),
    [("starter", {"num_hidden_layers": 12}, (2, 4)), ("gemma-3-270m-it", ROUNDS, (3, 6))],
    ids=["alike", "rounds"],
)
def test_a_few_layers_tell_what_all_of_them_come_to(model: str, other: dict, run: tuple[int, int]):
    """Sliding and full attention take turns in Gemma: its two runs differ by one such round."""
    from core.trial import dry_run

    setup = Setup(max_length=512, gradient_checkpointing=False)
    question = Question(config=KNOWN[model].config() | other, setup=setup)
    few = dry_run.dry_run(question)
    config = dry_run._config(question.config)
    layers = config.num_hidden_layers
    simulated = dry_run._SimulatedModel(
        config, question.setup, dry_run._FamilyTraits(config, True, lambda: None), lambda: None
    ).run()
    every = dry_run._estimate(simulated, question.setup)
    assert few.layers_run == run and max(run) < layers
    assert few.estimate.allocated_gib == pytest.approx(every.allocated_gib, rel=0.002)
    assert few.estimate.trainable_params == every.trainable_params


# ---- counting ------------------------------------------------------------------------------------


def test_allocations_follow_storages_and_not_views():
    import torch

    from core.trial.allocations import Allocations

    with torch.device("meta"):
        held = torch.empty(256, dtype=torch.float32)
        with Allocations(vocab_size=1000) as allocations:
            allocations.hold([held], "weights")
            a = torch.empty(300, dtype=torch.float32)  # 1,200 bytes: three blocks of 512
            a.view(3, 100).mul_(2)
            b = a + 1
            del a
            c = torch.zeros(2, 1000, dtype=torch.float32)
            with allocations.making("optimizer"):
                d = torch.zeros(128)
    assert allocations.now() == {"weights": 1024, "activations": 1536, "logits": 8192, "optimizer": 512}
    assert allocations.peak.bytes == allocations.now() and allocations.peak.total == 11264
    del b, c, d
    assert allocations.now()["activations"] == 0


@pytest.mark.parametrize("cap", [None, 30.0])
def test_the_loss_holds_8_bytes_a_logit_however_many_chunks_there_are(cap: float | None):
    """It was 14: the 16-bit logits, their fp32 copy, its softmax, and that of the chunk before. Arithmetic says 8."""
    import torch

    from core.engine.loss import Head, head_losses
    from core.memory.arithmetic import rows_at_once
    from core.trial.allocations import Allocations

    words, rows = 1_000_000, rows_at_once(1_000_000, True)
    with torch.device("meta"):
        layer = torch.nn.Linear(8, words, bias=False, dtype=torch.bfloat16).requires_grad_(False)
        hidden = torch.empty(3 * rows, 8, dtype=torch.bfloat16, requires_grad=True)
        targets = torch.empty(3 * rows, dtype=torch.int64)
    with Allocations(words) as allocations:
        allocations.hold([layer.weight], "weights")
        head_losses(layer, hidden, targets, Head(cap=cap)).sum()
    a_logit = allocations.peak.bytes["logits"] / (rows * words)
    assert a_logit == pytest.approx(8, rel=0.01)


def test_a_step_on_data_holds_what_the_same_step_without_data_holds(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    """The model, adapters, loss and checkpointing of a real step on the processor, with the attention, the norm and the
    head of a card: of its numbers only their places matter here."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from core.engine import adapter, optimizer
    from core.engine.loss import Head
    from core.engine.out_of_memory import Retreat
    from core.engine.step import Step
    from core.engine.variants import chunk, elementwise
    from core.recipe import Adapter
    from core.trial import dry_run
    from core.trial.allocations import Allocations

    setup = Setup(max_length=64, optim="adamw_torch", accumulates=False)
    monkeypatch.setattr(elementwise, "BLOCKWISE", ())
    monkeypatch.setattr(chunk, "FEW_AT_ONCE", ())
    monkeypatch.setattr(elementwise, "kernel", dry_run._norm)
    monkeypatch.setattr(elementwise, "kernel_back", lambda above, rows, weight, shrunk: above * weight)
    monkeypatch.setattr(
        elementwise, "_norm_function", lambda module: partial(elementwise._normed, eps=1e-6, offset=0.0)
    )

    def peak(device: str) -> int:
        with torch.device(device):
            config = AutoConfig.from_pretrained(tiny_model)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
            tuned = adapter.add(model, Adapter(method="lora"), "x", None).train()
        batch = dry_run._batch(setup, packed=False)
        moved = {name: value.to(device) if value.is_meta and device == "meta" else torch.zeros(value.shape,
            dtype=value.dtype)
                 for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}  # fmt: skip
        moved["attention_mask"] = moved["attention_mask"] + 1
        from dataclasses import replace

        batch = replace(batch, **moved)
        model.set_attn_implementation("eager")
        adamw = optimizer.by_name(None, optimizer.groups_of(tuned, None))
        step = Step(tuned, torch.device(device), torch.bfloat16, adamw, Head(), Retreat(1, False, False, True))
        step.save_memory()
        step.fuse()
        with Allocations(model.config.vocab_size) as allocations:
            step.backward([batch])
        step.release()
        return allocations.peak.total

    assert peak("cpu") == pytest.approx(peak("meta"), rel=0.02)


# ---- the process that counts ---------------------------------------------------------------------


def test_two_runs_are_compared_at_the_same_moment_of_like_layers():
    """Gemma 4 12B's worst moment was in a sliding layer of 6 and in one that sees all of 12: 0.5 GiB too much for
    48."""
    from core.trial.allocations import Peak
    from core.trial.dry_run import _moment

    kinds = ["sliding", "sliding", "full"] * 2
    few, like, other = (
        _moment(Peak(operation="mul", place=place), kinds) for place in ("backward 1", "backward 4", "backward 5")
    )
    assert few == like != other and _moment(Peak(operation="mul", place="head"), kinds) != like


def at_work(dry_runs: DryRuns, question: Question) -> None:
    assert dry_runs.look(question).is_counting
    wait_until(lambda: dry_runs._worker and dry_runs._at_work == question.key, PATIENT_S)


def test_looking_never_waits_and_of_what_waits_the_newest_is_answered(dry_runs: DryRuns):
    first, second, third = (
        question_of(KNOWN["qwen3-32b"], r=3),
        question_of(KNOWN["starter"], r=3),
        question_of(KNOWN["starter"], r=2),
    )
    at_work(dry_runs, first)
    assert dry_runs.look(second).is_counting and dry_runs.look(third).is_counting
    wait_until(lambda: third.key in dry_runs._results, PATIENT_S)
    assert dry_runs.look(third).answer and dry_runs.look(first).answer and second.key not in dry_runs._results


def test_a_process_that_dies_is_a_sentence_and_the_next_question_starts_another(dry_runs: DryRuns):
    question = question_of(KNOWN["qwen3-32b"], r=5)
    at_work(dry_runs, question)
    dry_runs._worker.process.kill()
    assert "exit status" in str(dry_runs.wait(question).why)
    assert dry_runs.wait(question_of(KNOWN["starter"], r=5)).answer


def test_a_question_that_waited_for_a_process_that_dies_is_answered_by_the_next(dry_runs: DryRuns):
    """It was "being counted" for ever, by a process that nobody heard."""
    first, second = question_of(KNOWN["qwen3-32b"], r=6), question_of(KNOWN["starter"], r=6)
    at_work(dry_runs, first)
    assert dry_runs.look(second).is_counting
    dry_runs._worker.process.kill()
    wait_until(lambda: dry_runs.look(second).answer, PATIENT_S)


def test_what_a_run_interrupted_is_counted_anew_and_what_is_too_slow_is_a_sentence(dry_runs: DryRuns):
    question = question_of(KNOWN["qwen3-32b"], r=9)
    at_work(dry_runs, question)
    dry_runs.end_process()
    assert answer(dry_runs, question)
    hasty = DryRuns(limit_s=0.01)
    assert "0 s" in str(hasty.wait(question).why) and hasty.wait(question).answer is None
    hasty.end_process()


def test_a_process_that_is_being_started_when_a_run_begins_is_ended_too(monkeypatch: pytest.MonkeyPatch):
    """It was not yet kept, so it went on beside the run."""
    runs, started = DryRuns(idle_s=0.1), []

    class Starting(Child):
        def __init__(self, *arguments: Any, **how: Any):
            rest = threading.Thread(target=runs.end_process)
            rest.start()
            rest.join(0.5)  # with nothing to end, unless it waits for this start
            super().__init__("tests.kit.bad_judges")  # hangs
            started.append(self.process)

    monkeypatch.setattr("core.trial.dry_runs.Child", Starting)
    question = question_of(KNOWN["starter"])
    assert runs.look(question).is_counting
    wait_until(lambda: started and started[0].poll() is not None)
    wait_until(lambda: not runs._at_work)
    assert runs._worker is None and question.key not in runs._results


def test_it_waits_for_a_run_that_needs_the_processor(tmp_path: Path):
    class Running:
        def facts(self) -> RunFacts:
            return RunFacts(device="cpu")

    busy = DryRuns(lambda: Running())
    looked = busy.look(question_of(KNOWN["starter"]))
    assert not looked.is_counting and "waits for the current run" in str(looked.why)
    assert busy._worker is None
    assert takes_processor(Running()) and not takes_processor(None)


# ---- on the plan's card --------------------------------------------------------------------------


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Qwen3 4B is read as one whose config.json is here."""
    opened = Services.open(Workspace.open(tmp_path / "workspace"))
    shape, config = Models.shape, Models.config
    known = {"Qwen/Qwen3-4B": KNOWN["qwen3-4b"].model_copy(update={"source": "headers"})}
    monkeypatch.setattr(Models, "shape", lambda self, name, *at: known.get(name) or shape(self, name, *at))
    monkeypatch.setattr(
        Models, "config", lambda self, name, *at: known[name].config() if name in known else config(self, name, *at)
    )
    return opened


def form(memory: str) -> Form:
    answers = FormAnswers()
    return Form(
        goal="style", model="Qwen/Qwen3-4B", data="sample:pirate_answers", memory=memory, name="", answers=answers
    )


def test_the_plan_is_there_before_the_dry_run_and_has_one_number(services: Services):
    """It said that something is being counted, then two numbers that hardly ever differed."""
    questions: list[Question] = []
    services.dry_runs.look = lambda question: questions.append(question) or DryRunState()
    outlook = Planner(services).plan_form(form("size:8"), EN)
    assert outlook.plan.advice.estimate is not None and outlook.unsettled
    assert questions[0].setup == outlook.plan.advice.setup, "what the arithmetic was asked"
    assert questions[0].config["model_type"] == "qwen3"
    for looked in (
        DryRunState(),
        DryRunState(why=msg("dry_run.failed", reason="MemoryError")),
        looked_at(outlook.plan.advice.estimate.on_card_gib * 1.05),
    ):
        assert plan_view.dry_run_line(looked, outlook.plan.advice, EN) is None
    assert outlook.plan.advice.verdict == "fits"


def test_a_model_of_the_catalogue_is_measured_from_its_own_config_alone(
    services: Services, monkeypatch: pytest.MonkeyPatch
):
    """GPT-OSS was measured from its widths, without its experts: 4 GiB in place of 15."""
    monkeypatch.setattr(services.dry_runs, "look", lambda question: pytest.fail(str(question)))
    known = "unsloth/gpt-oss-20b-BF16"
    assert Planner(services).plan_form(replace(form("size:8"), model=known), EN).dry_run is None
    refused = ModelError("hub.no_network", repo=known, host="hub")
    with monkeypatch.context() as patch:
        patch.setattr(peek, "fetch_config", lambda *asked: (_ for _ in ()).throw(refused))
        state = counted_dry_run(services.models, known, Setup(max_length=512))
    assert state.answer is None and state.why == refused.message


def test_a_dry_run_that_disagrees_says_both_numbers_and_warns_where_only_the_estimate_fits(services: Services):
    services.dry_runs.look = lambda question: looked_at(4.4)
    outlook = Planner(services).plan_form(form("size:8"), EN)
    thumb = f"{outlook.plan.advice.estimate.on_card_gib:.1f}"
    assert not outlook.unsettled
    drawn = str(plan_view.dry_run_line(outlook.dry_run, outlook.plan.advice, EN))
    assert f"Dry run: 4.4 GiB; estimate {thumb} GiB." in drawn and "backward pass of layer 36" in drawn
    assert drawn in str(plan_view.card(outlook, EN))
    assert "does not fit" not in drawn
    too_much = str(plan_view.dry_run_line(looked_at(9.0), outlook.plan.advice, EN))
    assert "According to the dry run it does not fit: it needs 9.9 GiB" in too_much
    assert "试算：9.0 GiB；估算" in str(plan_view.dry_run_line(looked_at(9.0), outlook.plan.advice, ZH))


def test_a_plan_for_the_processor_has_no_dry_run(services: Services):
    services.dry_runs.look = lambda question: pytest.fail("asked")
    assert Planner(services).plan_form(form("cpu"), EN).dry_run is None


@pytest.mark.spawn
def test_a_command_gives_the_same_fields(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    shape = KNOWN["starter"]
    config = tmp_path / "config.json"
    config.write_text(json.dumps(shape.config()), "utf-8")
    place = ["--workspace", str(tmp_path / "workspace")]
    assert commands.main(["estimate", "--model", str(config), "--dry-run", "--json", *place]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"]["allocated_gib"] == pytest.approx(plan["allocated_gib"], rel=WITHIN)
    assert plan["dry_run"]["trainable_params"] == plan["trainable_params"] and set(plan["dry_run"]["terms"]) == set(
        plan["terms"]
    )
    assert commands.main(["estimate", "--model", str(config), "--dry-run", "--attention", "eager", *place]) == 0
    assert "this app's own training" in capsys.readouterr().out


@pytest.mark.slow
def test_a_warm_process_answers_for_the_largest_model_soon(dry_runs: DryRuns):
    """At most 5 s of one core are wanted; seen: 2.4. What counts is processor time, whatever else the PC does."""
    answer(dry_runs, question_of(KNOWN["starter"], r=7))
    process = psutil.Process(dry_runs._worker.process.pid)
    before = sum(process.cpu_times()[:2])
    largest = answer(dry_runs, question_of(KNOWN["llama-3.3-70b-instruct"], "qlora", r=7))
    print(
        f"70B, warm: {sum(process.cpu_times()[:2]) - before:.1f} s of one core, {process.memory_info().rss >> 20} MiB"
    )
    assert largest.layers_run == (2, 4), "what makes it quick"


def test_torchs_functions_are_replaced_for_a_count_alone_and_still_are_what_is_replaced() -> None:
    """_as_on_a_card stands in front of four functions of torch's; what it needs of them is looked at here, for the next
    torch."""
    import torch
    from torch.nn import functional

    from core.engine.variants import elementwise
    from core.trial.dry_run import _as_on_a_card, _attention, _norm

    own = functional.scaled_dot_product_attention, functional.dropout, torch.autocast, elementwise.kernel
    with pytest.raises(RuntimeError):
        torch.autocast("meta", enabled=False)  # once torch takes this, its replacement may go
    like = torch.empty(1, 2, 4, 8, dtype=torch.bfloat16, device="meta")
    theirs, plain = (each(like[0, 0], like[0, 0, 0], 1e-6) for each in (elementwise.kernel, _norm))
    assert [(each.shape, each.dtype) for each in theirs] == [(each.shape, each.dtype) for each in plain]
    options = {"attn_mask": None, "dropout_p": 0.0, "is_causal": True, "scale": None, "enable_gqa": False}
    assert own[0](like, like, like, **options).shape == _attention(like, like, like, **options).shape, (
        "torch's takes other arguments"
    )
    with pytest.raises(ZeroDivisionError), _as_on_a_card():
        assert functional.scaled_dot_product_attention is _attention and torch.autocast is not own[2]
        assert elementwise.kernel is _norm
        with torch.autocast("meta", enabled=False), torch.autocast("cpu", enabled=False):
            raise ZeroDivisionError
    assert own == (functional.scaled_dot_product_attention, functional.dropout, torch.autocast, elementwise.kernel), (
        "put back, whatever happened"
    )
