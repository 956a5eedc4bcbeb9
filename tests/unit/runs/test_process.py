"""A run has the card that it was planned for, or says why not. What NVML and torch find is said here."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.api import loading, training
from core.chat.client import ChatClient, ChatState, ChatTarget
from core.commands import running, taking
from core.errors import RecipeError, RunError
from core.messages import msg
from core.recipe import Recipe
from core.runs import process
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import devices
from core.system.devices import TorchBuild
from core.system.gpu import Card, Nvidia
from core.workspace.folder import Workspace
from tests.kit.runs import trained

A, B, C = (Card(index=i, name=f"RTX {i}", uuid=f"GPU-{i}", total_bytes=8 << 30, free_bytes=7 << 30) for i in range(3))
PLAN = {"budget": {"kind": "card", "name": "RTX 0", "card_uuid": "GPU-0"}}
CUDA, PROCESSOR = TorchBuild(version="2.15.0", cuda="13.0"), TorchBuild(version="2.15.0")


@pytest.fixture
def set_cards(monkeypatch: pytest.MonkeyPatch):
    def are(*cards: Card, build: TorchBuild | None = CUDA) -> None:
        monkeypatch.setattr(devices, "read_cards", lambda: Nvidia(driver="580", cards=cards))
        monkeypatch.setattr(devices, "torch_build", lambda: build)

    are(A, B)
    return are


def run_of(workspace: Workspace, **facts: object) -> RunFolder:
    recipe = Recipe.parse({"name": "A run", "data": {"source": "sample:pirate_answers"}})
    return Runs(workspace).create(recipe, "command", RunFacts(**facts))


def refused(run: RunFolder) -> tuple[str, str]:
    with pytest.raises(RunError) as refusal:
        process.require_device(run)
    text = refusal.value.message.render("zh") + refusal.value.advice.render("zh")
    assert "{" not in text and "{" not in f"{refusal.value.message}{refusal.value.advice}"
    return refusal.value.message.key.removeprefix("device."), refusal.value.advice.key.removeprefix("device.")


def test_a_run_is_started_with_its_card_and_nothing_else(workspace: Workspace, set_cards):
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    assert process.environment(run)["CUDA_VISIBLE_DEVICES"] == "GPU-0"
    set_cards(B, A.model_copy(update={"lost": True}))
    assert process.environment(run) == {}  # its worker says that it is gone, and sees what there is instead
    assert process.environment_nearest("GPU-0")["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert process.environment(run_of(workspace, wanted_device="cpu")) == {"CUDA_VISIBLE_DEVICES": "-1"}


@pytest.mark.parametrize(
    ("cards", "hides", "said"),
    [
        ((A, B), "1", ("hidden", "offer")),
        ((A.model_copy(update={"lost": True}), B, C), None, ("lost", "offer")),
        ((B, C), None, ("gone", "offer")),
    ],
)
def test_its_worker_judges_the_cards_as_the_person_shows_them(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    cards: tuple[Card, ...],
    hides: str | None,
    said: tuple[str, str],
):
    """It was started with the card's uuid whatever became of the card, so that a hidden one trained, and no other was
    seen."""
    shown = {"CUDA_VISIBLE_DEVICES": hides} if hides else {}

    def here_with(environment: dict[str, str]) -> None:
        judged = devices.with_exclusions(Nvidia(cards=cards), (shown | environment).get("CUDA_VISIBLE_DEVICES"), CUDA)
        monkeypatch.setattr(devices, "read_cards", lambda: judged)

    monkeypatch.setattr(devices, "torch_build", lambda: CUDA)
    here_with({})
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    here_with(process.environment(run))
    assert refused(run) == said


def test_a_driver_that_does_not_answer_is_not_a_card_that_is_gone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    """An update of the driver on Linux: every run was told to bring its card back."""
    monkeypatch.setattr(devices, "read_cards", lambda: Nvidia(error="Driver/library version mismatch", error_code=18))
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    assert refused(run) == ("driver", "ask_doctor")
    fail(run)
    monkeypatch.setattr(devices, "read_cards", lambda: pytest.fail("nothing was offered"))
    Runs(workspace).queue_again(run, "command")


def test_a_chat_that_any_card_will_do_for_stays_on_its_own(
    workspace: Workspace, set_cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    """Its base made the other card the one with more free memory, and was read again there at each load."""
    set_cards(A.model_copy(update={"free_bytes": 1 << 30}), B)
    client = ChatClient(workspace)
    assert client._environment(ChatTarget("base"))["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    client._worker_environment = devices.environment_of("GPU-0", devices.read_cards())
    client._worker = SimpleNamespace(process=SimpleNamespace(poll=lambda: None))
    assert client._environment(ChatTarget("base")) == client._worker_environment
    client._worker = SimpleNamespace(process=SimpleNamespace(poll=lambda: 1))
    assert client._environment(ChatTarget("base"))["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_a_command_s_run_is_for_the_best_card_or_for_the_processor(
    make_workspace: Callable[[], Workspace], set_cards, tmp_path: Path
):
    """It named none, so that it trained on CUDA's first."""
    set_cards(A, B.model_copy(update={"free_bytes": 8 << 30}))
    space, recipe = make_workspace(), Recipe.parse({"data": {"source": "sample:pirate_answers"}})
    run, _ = training.prepare(space, recipe, tmp_path).enqueue(None)
    assert (run.facts().wanted_device, run.facts().planned.budget.name) == ("GPU-1", "RTX 1")
    assert (run.facts().data.name, run.facts().data.rows) == ("sample:pirate_answers", 68), "as a page's run has it"
    run, _ = training.prepare(space, recipe.model_copy(update={"name": "other"}), tmp_path, cpu=True).enqueue(None)
    assert (run.facts().wanted_device, run.facts().planned.budget.kind) == ("cpu", "cpu")
    chosen = training.cards_of("0, GPU-1", False)
    two = recipe.model_copy(update={"name": "both", "train": recipe.train.model_copy(update={"ranks": 2})})
    both, _ = training.prepare(space, two, tmp_path, cards=chosen).enqueue(None)
    assert (both.facts().wanted_device, both.facts().wanted_beside, running.ranks_of(chosen)) == (
        "GPU-1",
        {"GPU-0": "RTX 0"},
        ["train.ranks=2"],
    )
    assert both.facts().planned.budget.card_uuid == "GPU-1"
    with pytest.raises(RecipeError, match="cannot be combined"):
        training.cards_of("0", True)
    assert run.recipe().train.optim == "adamw_torch" and not run.recipe().train.gradient_checkpointing


def test_a_command_that_continues_a_run_is_planned_so(
    make_workspace: Callable[[], Workspace], set_cards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It was told to train with sft first, which the run before had done."""
    planned, make, parent = [], training.plan.make, SimpleNamespace(name="before")
    monkeypatch.setattr(training.plan, "make", lambda recipe, on, name: planned.append(on) or make(recipe, on, name))
    monkeypatch.setattr("core.runs.further.recipe_to_continue", lambda recipe, parent: recipe)
    monkeypatch.setattr("core.runs.further.facts_of", lambda parent: RunFacts())
    recipe = Recipe.parse({"data": {"source": "sample:pirate_answers"}})
    training.prepare(make_workspace(), recipe, tmp_path, parent)
    assert planned[0].continues


def test_a_card_that_is_there_is_not_asked_about(workspace: Workspace, set_cards):
    process.require_device(run_of(workspace, wanted_device="GPU-0", advice=PLAN))
    set_cards(build=PROCESSOR)
    process.require_device(run_of(workspace, wanted_device="cpu"))
    process.require_device(run_of(workspace))
    # of before: it went to the processor, and stays there
    process.require_device(run_of(workspace, advice=PLAN, device="cpu"))


@pytest.mark.parametrize(
    ("cards", "build", "said"),
    [
        ((B,), CUDA, ("gone", "offer")),
        ((), CUDA, ("gone", "plan_again")),
        ((A.model_copy(update={"lost": True}),), CUDA, ("lost", "plan_again")),
        ((A.model_copy(update={"left_out": "hidden"}), B), CUDA, ("hidden", "offer")),
        ((A.model_copy(update={"left_out": "no_kernels"}),), CUDA, ("no_kernels", "plan_again")),
        ((A, B), PROCESSOR, ("torch_without_cuda", "repair")),
    ],
)
def test_a_plan_for_a_card_that_cannot_be_had_says_so_before_anything_is_fetched(
    workspace: Workspace, set_cards, cards: tuple[Card, ...], build: TorchBuild, said: tuple[str, str]
):
    """It trained on the processor, for weeks, or on another card."""
    set_cards(*cards, build=build)
    assert refused(run_of(workspace, wanted_device="GPU-0", advice=PLAN)) == said


def test_a_plan_for_a_card_that_named_none_does_not_train_on_the_processor(workspace: Workspace, set_cards):
    run = run_of(workspace, advice=PLAN)
    with pytest.raises(RunError) as refusal:
        process.keep_device(run, None, False)
    assert refusal.value.message.key == "device.not_used" and "RTX 0" in str(refusal.value)
    set_cards(build=PROCESSOR)
    assert refused(run) == ("torch_without_cuda", "repair")


def test_what_torch_found_is_kept_by_its_uuid(workspace: Workspace, set_cards):
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    process.keep_device(run, A, True)
    assert (run.facts().device_uuid, run.facts().device_name) == ("GPU-0", "RTX 0")
    with pytest.raises(RunError, match="not available now"):
        process.keep_device(run, B, True)
    assert run.facts().device_uuid == "GPU-0"


def test_a_run_of_before_that_named_no_card_says_when_it_meets_another(workspace: Workspace, set_cards):
    run = run_of(workspace, device="cuda:0", device_uuid="GPU-0", device_name="RTX 0")
    process.keep_device(run, B, True)
    (key,) = [event["message"]["key"] for event in run.events() if event["kind"] == "warning"]
    assert key == "device.another" and run.facts().device_uuid == "GPU-1"


def test_who_lets_a_run_go_on_after_the_offer_has_taken_it(workspace: Workspace, set_cards):
    set_cards(B)
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    assert refused(run) == ("gone", "offer")
    fail(run)
    Runs(workspace).queue_again(run, "command")
    assert run.facts().wanted_device == "GPU-1" and run.facts().offered_device is None
    process.require_device(run)


def test_a_card_that_was_taken_is_called_by_its_own_name(workspace: Workspace, set_cards):
    run = run_of(workspace, wanted_device="GPU-1", advice=PLAN, device_uuid="GPU-1", device_name="RTX 1")
    set_cards(A)
    with pytest.raises(RunError, match="RTX 1, and that GPU is not available"):
        process.require_device(run)


def test_the_planned_card_that_is_back_is_used_after_all(workspace: Workspace, set_cards):
    set_cards(B)
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    refused(run)
    fail(run)
    set_cards(A, B)
    Runs(workspace).queue_again(run, "command")
    assert run.facts().wanted_device == "GPU-0" and run.facts().offered_device is None


def test_nothing_is_taken_that_was_not_offered(workspace: Workspace, set_cards):
    set_cards(B)
    run = run_of(workspace, wanted_device="GPU-0", advice=PLAN)
    fail(run)
    Runs(workspace).queue_again(run, "command")
    assert run.facts().wanted_device == "GPU-0" and refused(run)[0] == "gone"


def fail(run: RunFolder) -> None:
    for state in (State.PREPARING, State.FAILED):
        run.write_status(run.status().model_copy(update={"state": state}))


def test_what_is_done_elsewhere_says_so(workspace: Workspace):
    planned = RunFacts(wanted_device="GPU-0", advice=PLAN)
    assert process.other_device_notice(planned, A, True) is None
    assert process.other_device_notice(planned, B, True).params == {"then": "RTX 0", "now": "RTX 1"}
    assert process.other_device_notice(planned, None, False).key == "device.on_processor_instead"
    for facts in (RunFacts(), RunFacts(wanted_device="cpu"), RunFacts(device="cpu", advice=PLAN)):
        assert process.other_device_notice(facts, None, False) is None


def test_a_chat_from_a_terminal_says_it_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    state = ChatState("ready", elsewhere=msg("device.instead", then="RTX 0", now="RTX 1"))
    monkeypatch.setattr(loading, "opened", lambda space, target: nullcontext(SimpleNamespace(state=lambda: state)))
    monkeypatch.setattr(loading, "answer", lambda *asked: {"tuned": "Arr", "base": None})
    taking.chat(trained(workspace, "A run").id, prompt="What is a horse?", workspace=workspace.root)
    output = capsys.readouterr()
    assert "using RTX 1 instead" in output.err and output.out == "Arr\n"


def test_a_run_json_of_before_has_no_uuid_and_opens(tmp_path: Path):
    (tmp_path / "run.json").write_text(
        json.dumps({"device": "cuda:0", "advice": {"budget": {"kind": 7}}, "device_uuid": 5}), "utf-8"
    )
    facts = RunFolder(tmp_path).facts()
    assert (facts.device, facts.device_uuid, facts.planned.budget.kind) == ("cuda:0", None, None)


def on_two(workspace: Workspace, **facts: object) -> RunFolder:
    recipe = Recipe.parse({"name": "A run", "data": {"source": "sample:pirate_answers"}, "train": {"ranks": 2}})
    of_two = {"wanted_device": "GPU-0", "wanted_beside": {"GPU-1": "RTX 1"}, "advice": PLAN}
    return Runs(workspace).create(recipe, "command", RunFacts(**of_two, **facts))


def test_a_run_of_several_cards_is_started_with_those_that_were_chosen(workspace: Workspace, set_cards):
    """By uuid, whatever their numbers are, and however much memory another has."""
    more = C.model_copy(update={"free_bytes": 30 << 30})
    set_cards(more.model_copy(update={"index": 0}), B, A.model_copy(update={"index": 2}))
    run = on_two(workspace)
    assert process.environment(run)["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    process.require_device(run)
    run.add_facts(RunFacts(ranks=1))
    assert process.environment(run)["CUDA_VISIBLE_DEVICES"] == "GPU-0"
    run.add_facts(RunFacts(ranks=3))
    assert process.environment(run)["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1,GPU-2"


@pytest.mark.parametrize(("left", "gone"), [(A, "RTX 1"), (B, "RTX 0")])
def test_one_of_several_cards_that_is_gone_is_named_and_the_others_go_on_when_they_are_let(
    workspace: Workspace, set_cards, left: Card, gone: str
):
    """None that has more memory slips in."""
    more = C.model_copy(update={"free_bytes": 30 << 30})
    set_cards(left, more)
    run = on_two(workspace)
    assert process.environment(run) == {}
    with pytest.raises(RunError, match=f"{gone}, and that GPU is not available") as refusal:
        process.require_device(run)
    assert refusal.value.advice.params["card"] == left.name
    fail(run)
    Runs(workspace).queue_again(run, "command")
    process.require_device(run)
    assert process.environment(run)["CUDA_VISIBLE_DEVICES"] == left.uuid
    assert process.recipe_of(run).train.ranks == 1 and run.recipe().train.ranks == 2


def test_several_cards_that_are_back_are_all_used_and_none_left_is_offered_another(workspace: Workspace, set_cards):
    set_cards(C)
    run = on_two(workspace)
    assert refused(run) == ("gone", "offer")
    fail(run)
    set_cards(A, B, C)
    Runs(workspace).queue_again(run, "command")
    assert process.environment(run)["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    set_cards(C)
    assert refused(run) == ("gone", "offer")
    fail(run)
    Runs(workspace).queue_again(run, "command")
    assert (run.facts().wanted_device, run.facts().wanted_beside, run.facts().ranks) == ("GPU-2", {}, 1)


def test_a_run_with_fewer_ranks_asks_for_no_card_beyond_them(workspace: Workspace, set_cards):
    set_cards(A)
    process.require_device(on_two(workspace, ranks=1))
