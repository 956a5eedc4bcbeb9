"""The form of the Train page without a browser: what follows the plan, what was edited, what is missing or cannot
be."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core import files
from core.data.reading.choices import Choices
from core.data.sets import working
from core.messages import LANGUAGES, msg
from core.models.known import shape_of_size
from core.recipe import Data, Recipe
from core.reward_settings import Rewards
from core.runs.states import State
from core.system import devices
from core.system.devices import TorchBuild
from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.trial.dry_runs import DryRunState
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from webui.form import learned_view, model, plan_view, settings_view
from webui.form.data import is_recipe, sample_for
from webui.form.fields import (
    ELSEWHERE,
    FIELDS,
    FormAnswers,
    FormError,
    edit_event,
    explicit_values,
    kind_of,
    name_of,
    shown_value,
)  # fmt: skip
from webui.form.form import Wizard
from webui.form.handle import READING, Filling
from webui.form.plan import PlanStep
from webui.form.planner import HERE, PROCESSOR, Form, FormResult, Planner, recipe_of
from webui.form.reading.recipe_reading import RecipeReading
from webui.form.start import StartStep
from webui.form.start_view import StartView, Summary
from webui.kit.html import tag
from webui.kit.live import shown
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording, field_of
from webui.state.services import Services

EN, ZH = Wording("en"), Wording("zh")
PIRATE = "sample:pirate_answers"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services.open(Workspace.open(tmp_path / "workspace"))


@pytest.fixture
def planner(services: Services) -> Planner:
    services.dry_runs.look = lambda question: DryRunState()  # it would start torch
    return Planner(services)


def two_cards(
    services: Services, monkeypatch: pytest.MonkeyPatch, visible: str | None = None, build: str | None = "13.0"
) -> None:
    """A GTX 1060 with most free memory and an RTX 4060."""
    old = Card(index=0, name="GTX 1060", uuid="GPU-0", capability=(6, 1), total_bytes=10 << 30, free_bytes=9 << 30)
    new = Card(index=1, name="RTX 4060", uuid="GPU-1", capability=(8, 9), total_bytes=8 << 30, free_bytes=7 << 30)
    torch = TorchBuild(version="2.15.0", cuda=build)
    monkeypatch.setattr(devices, "torch_build", lambda: torch)
    machine = Machine(
        system="Linux", nvidia=devices.with_exclusions(Nvidia(driver="580", cards=(old, new)), visible, torch)
    )
    services.monitor._newest = machine


def test_a_run_gets_the_card_that_its_plan_is_for(
    services: Services, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_cards(services, monkeypatch)
    result = planner.plan_form(form(), EN)
    assert (result.plan.advice.budget.name, device(planner), result.note) == ("RTX 4060", "GPU-1", None)
    assert device(planner, PROCESSOR) == "cpu" and planner.plan_form(form(memory=PROCESSOR), EN).note is None
    assert planner.cards_of(HERE, ["GPU-1"]) == (), "torch has no code for the other, so that there is no choice"
    assert [value for _, value in PlanStep(services, EN).memory_choices(services.monitor.newest())][:3] == [
        HERE,
        PROCESSOR,
        "size:6",
    ]


def device(planner: Planner, choice: str = HERE) -> str | None:
    return planner.device(choice, planner.budget(choice))


def chosen(planner: Planner, *uuids: str, **more: object) -> FormResult:
    return planner.plan_form(
        replace(form(**more), answers=FormAnswers({"cards": [*uuids]}), cards=planner.cards_of(HERE, uuids)), EN
    )


@pytest.mark.parametrize(
    ("experts", "explicit", "shown"),
    [(8, {}, True), (0, {}, False), (0, {"adapter.target_parameters": "experts"}, True)],
)
def test_experts_are_a_setting_where_a_model_has_some(
    experts: int, explicit: dict[str, object], shown: bool, services: Services
) -> None:
    result = FormResult(shape=shape_of_size("3B").model_copy(update={"num_experts": experts}))
    hidden = PlanStep(services, EN).hidden(result, explicit, None, None)
    assert ("adapter.target_parameters" not in hidden) is shown


def test_the_cards_that_are_chosen_are_planned_for_by_the_smallest_and_no_other(
    services: Services, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_cards(services, monkeypatch, build="12.6")  # which has code for both
    monkeypatch.setattr(devices, "torch_build", lambda: TorchBuild(version="2.15.0", cuda="12.6"))
    alone, both = chosen(planner, "GPU-1"), chosen(planner, "GPU-1", "GPU-0")
    of_one, of_both = alone.plan.advice.budget, both.plan.advice.budget
    assert (of_one.name, of_one.free_gib, of_one.beside, alone.plan.recipe.train.ranks) == ("RTX 4060", 7, (), 1)
    assert (of_both.card_uuid, of_both.free_gib, of_both.smallest) == ("GPU-0", 7, "RTX 4060")
    assert (of_both.beside, both.plan.recipe.train.ranks) == ((("GPU-1", "RTX 4060"),), 2)
    assert "Trains on 2 GPUs together" in plan_view.card(both, EN)
    by_recipe = planner.plan_form(replace(form(), answers=FormAnswers({"train.ranks": 2})), EN)
    assert by_recipe.plan.advice.budget.beside == of_both.beside, "the two with most free memory"
    assert planner.cards_of(PROCESSOR, ["GPU-0"]) == planner.cards_of("size:24", ["GPU-0"]) == ()
    assert planner.cards_of(HERE, ["GPU-9", "GPU-1"]) == ("GPU-1",)


def test_a_run_is_submitted_with_the_cards_of_its_plan(
    services: Services, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_cards(services, monkeypatch, build="12.6")
    both, form_sent = chosen(planner, "GPU-1", "GPU-0"), form()
    monkeypatch.setattr(services.supervisor, "submit", lambda recipe, facts, not_before: (recipe, facts))
    recipe, facts = StartStep(services, planner, EN)._submit(both.plan, None, form_sent, None)
    assert (facts.wanted_device, facts.wanted_beside, recipe.train.ranks) == ("GPU-0", {"GPU-1": "RTX 4060"}, 2)


def test_a_chosen_card_that_is_lost_is_said_and_what_is_left_is_planned_for(
    services: Services, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_cards(services, monkeypatch, build="12.6")
    machine_now = services.monitor._newest
    lost = machine_now.nvidia.cards[1].model_copy(update={"lost": True})
    services.monitor._newest = machine_now.model_copy(
        update={"nvidia": Nvidia(cards=(machine_now.nvidia.cards[0], lost))}
    )
    result = chosen(planner, "GPU-1", "GPU-0")
    assert result.plan.advice.budget.name == "GTX 1060" and result.plan.recipe.train.ranks == 1
    assert "RTX 4060 no longer responds" in EN.render(result.note)
    assert chosen(planner, "GPU-0").note is None, "it is missed by nobody"


@pytest.mark.parametrize("cards", [None, "GPU-1", {"a": 1}, [3, None, ["GPU-1"]], ["x" * 9999], [{}]])
def test_cards_are_whatever_a_browser_sends(planner: Planner, cards: object) -> None:
    answers = FormAnswers.from_state({"explicit": {"cards": cards}, "revision": 1})
    assert planner.cards_of(HERE, answers.cards) == () and planner.budget(HERE, cards).kind == "cpu"


@pytest.mark.parametrize(
    ("visible", "build", "sentence"), [("-1", "13.0", "CUDA_VISIBLE_DEVICES"), (None, None, "built without CUDA")]
)
def test_a_card_that_will_not_be_used_is_said_beside_the_plan(
    services: Services,
    planner: Planner,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    build: str | None,
    sentence: str,
) -> None:
    """PyPI's torch for Windows has no +cpu in its version, so that nothing was said."""
    two_cards(services, monkeypatch, visible, build)
    result = planner.plan_form(form(), EN)
    assert sentence in EN.render(result.note) and "{" not in ZH.render(result.note)
    assert device(planner) == ("cpu" if visible else "GPU-0")


def form(**changes: Any) -> Form:
    """The form as it is filled in at first, the pirate sample chosen; settings by "section.name"."""
    settings = changes.pop("settings", {})
    fields = {"goal": "style", "model": "starter", "data": PIRATE, "memory": HERE, "name": "", **changes}
    return Form(answers=FormAnswers(settings), **fields)


# ---- fields --------------------------------------------------------------------------------------


def test_every_setting_of_a_recipe_has_a_field_and_words_in_both_languages() -> None:
    settings = {
        (section, name)
        for section in ("model", "data", "adapter", "train")
        for name in Recipe.model_fields[section].annotation.model_fields
    }
    assert set(FIELDS) | ELSEWHERE == settings
    for _, name in FIELDS:
        assert EN.knows(f"wizard.field_{name}") and ZH.knows(f"wizard.field_{name}")


def taken(key: tuple[str, str], given: Any) -> Any:
    """A value of the form as the recipe has it that is made of it."""
    return getattr(getattr(recipe_of(form(settings={name_of(key): given})), key[0]), key[1])


@pytest.mark.parametrize("key", FIELDS, ids=name_of)
def test_a_field_that_shows_its_default_gives_the_default_back(key: tuple[str, str]) -> None:
    default = field_of(*key).default
    assert taken(key, shown_value(key, default)) == default


def test_an_optional_number_is_empty_and_never_0() -> None:
    assert shown_value(("train", "eval_steps"), None) == "" and taken(("train", "eval_steps"), "") is None
    assert taken(("train", "eval_steps"), " 20 ") == 20
    assert (
        kind_of(("train", "gradient_checkpointing")).optional
        and taken(("train", "gradient_checkpointing"), "no") is False
    )


def test_a_field_for_several_takes_one_a_line_and_says_how_many() -> None:
    key = ("train", "sample_prompts")
    assert taken(key, "Who are you?\n\n  Say hello. ") == ("Who are you?", "Say hello.")
    assert shown_value(key, ("Who are you?", "Say hello.")) == "Who are you?\nSay hello." and taken(key, None) == ()
    for wrong in ("a\nb\nc\nd", "a" * 501):
        with pytest.raises(FormError) as refused:
            taken(key, wrong)
        assert "at most 3 lines, each of at most 500 characters" in EN.render(refused.value.message)


def test_the_event_that_records_an_edit_comes_from_people_only() -> None:
    """A dropdown's `input` also comes when it is only left: it would count as edited."""
    for field, event in ((gr.Dropdown([]), "select"), (gr.Radio([]), "input"), (gr.Textbox(), "input")):
        assert edit_event(field).event_name == event


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_setting_has_one_field_with_its_label_and_help(language: str) -> None:
    w = Wording(language)
    fields = "".join(str(part(w).value) for part in (settings_view.at_hand, settings_view.all_settings))
    steps = {("adapter", "method"), ("adapter", "r")}  # chosen by gradio's own buttons
    assert sorted(re.findall(r'data-setting="([^"]+)"', fields)) == sorted(
        f"{section}.{name}" for section, name in set(FIELDS) - steps
    )
    for id in re.findall(r'<(?:input|select|textarea) [^>]*id="([^"]+)-field"', fields):
        assert f'for="{id}-field"' in fields and f'aria-describedby="{id}-help"' in fields
        assert re.search(rf'id="{id}-help">[^<]+<', fields), id


@pytest.mark.parametrize("state", [None, "x", [], {}, {"explicit": 1}, {"explicit": [], "revision": 3}])
def test_what_a_browser_sends_that_is_no_state_begins_anew(state: Any) -> None:
    assert FormAnswers.from_state(state) == FormAnswers()
    odd = FormAnswers.from_state({"explicit": {"train.seed": 7}, "parent": 5, "revision": "many"})
    assert odd == FormAnswers({"train.seed": 7}) and FormAnswers.from_state(odd.state()) == odd


def test_a_run_that_is_continued_keeps_its_adapters_own_settings() -> None:
    state = {"explicit": {"adapter.r": 16, "train.seed": 7}, "parent": "run", "revision": 4}
    assert FormAnswers.from_state(state) == FormAnswers({"train.seed": 7}, "run", 4)
    assert FormAnswers.from_state(state | {"parent": None}).explicit["adapter.r"] == 16


def test_a_recipe_that_was_opened_brings_only_what_it_sets() -> None:
    recipe = Recipe.parse(
        {"data": {"source": PIRATE}, "adapter": {"r": 32}, "train": {"gradient_checkpointing": False}}
    )
    assert explicit_values(recipe) == {"adapter.r": 32, "train.gradient_checkpointing": "no"}


@pytest.mark.parametrize(("alpha", "is_kept"), [(16, False), (8, True)])
def test_the_alpha_of_a_duplicate_follows_its_rank_where_it_did(alpha: int, is_kept: bool) -> None:
    """Seen: a run of rank 8 duplicated with rank 16 kept the alpha of 16."""
    recipe = Recipe.parse({"data": {"source": PIRATE}, "adapter": {"r": 8, "lora_alpha": alpha}})
    assert ("adapter.lora_alpha" in explicit_values(recipe)) == is_kept


# ---- the plan of a form --------------------------------------------------------------------------


def test_a_sample_set_brings_its_own_settings_with_the_starter_only(planner: Planner) -> None:
    tried = planner.plan_form(form(), EN).plan
    assert (tried.recipe.train.max_steps, tried.recipe.train.learning_rate, tried.recipe.train.warmup_steps) == (
        48,
        8e-4,
        4,
    )
    assert "tested with the starter" in " ".join(
        EN.render(reason.text) for reason in tried.advice.reasons if reason.field == "r"
    )
    large = planner.plan_form(form(model="Qwen/Qwen3-8B", memory="size:12"), EN).plan
    assert (large.recipe.train.max_steps, large.recipe.adapter.method) == (
        -1,
        "qlora",
    ) and large.recipe.train.learning_rate < 1e-3


def test_an_edited_setting_wins_over_sample_and_advice(planner: Planner) -> None:
    made = planner.plan_form(form(settings={"adapter.r": 16, "train.num_train_epochs": 2}), EN).plan
    assert (made.recipe.adapter.r, made.recipe.adapter.lora_alpha) == (16, 32), (
        "the sample's alpha belonged to its own rank"
    )
    assert (made.recipe.train.num_train_epochs, made.recipe.train.max_steps) == (2, -1), (
        "counted in epochs, not in its 48 steps"
    )


def test_a_plan_leaves_no_field_open_but_those_that_wait_for_the_steps_or_mean_off(planner: Planner) -> None:
    recipe = planner.plan_form(form(), EN).plan.recipe
    open_fields = {
        (section, name)
        for section in ("data", "adapter", "train")
        for name, value in getattr(recipe, section).model_dump().items()
        if value is None
    }
    waiting = {
        ("data", "format"),
        ("data", "columns"),
        ("data", "encoding"),
        ("data", "sheet"),
        ("data", "header"),
        ("data", "voice"),
        ("data", "gap_hours"),
        ("data", "pseudonyms"),
        ("data", "version"),
        ("data", "rated"),
        ("data", "join_paragraphs"),
        ("data", "enable_thinking"),
    } | {("train", name) for name in ("eval_steps", "save_steps", "early_stopping_patience")}
    assert open_fields == waiting | {("train", name) for name in ("neftune_noise_alpha", "loraplus_lr_ratio", "beta")}


@pytest.mark.parametrize("data", [None, "", ["x"], {"a": 1}])
def test_start_says_that_data_is_missing(planner: Planner, data: object) -> None:
    result = planner.plan_form(form(data=data), EN)
    assert result.missing.key == "wizard.missing_data" and result.plan is not None, (
        "the plan is shown before there is data"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "../../etc"}, "is not a model name"),
        ({"data": "../../etc/passwd"}, "no dataset"),
        ({"memory": "size:-4"}, "-4"),
        ({"memory": "size:huge"}, "0"),
        ({"settings": {"train.learning_rate": 0}}, "learning_rate is 0"),
        ({"settings": {"train.learning_rate": math.nan}}, "learning_rate"),
        ({"settings": {"data.max_length": 2.5}}, "whole number"),
        ({"settings": {"train.per_device_train_batch_size": 10**9}}, "between 1 and 1024"),
        ({"settings": {"train.seed": -1}}, "seed is -1"),
        ({"settings": {"train.eval_steps": "7; rm"}}, "eval_steps is 7; rm"),
        ({"settings": {"adapter.method": "full"}}, "method is “full”"),
        ({"settings": {"adapter.target_modules": "nothing_here"}}, "nothing_here"),
        ({"settings": {"adapter.r": 10**9}}, "between 1 and 256"),
        ({"settings": {"adapter.target_parameters": "experts"}}, "no routed experts"),
    ],
)
def test_the_form_refuses_in_a_sentence(planner: Planner, changes: dict, sentence: str) -> None:
    result = planner.plan_form(form(**changes), EN)
    assert sentence in EN.render(result.problem) and ZH.render(result.problem) != EN.render(result.problem)


def test_a_card_that_is_only_planned_for_cannot_be_trained_on(planner: Planner) -> None:
    result = planner.plan_form(form(memory="size:24"), EN)
    assert result.problem.key == "wizard.only_planned" and result.plan.advice.budget.planned


def test_a_model_has_a_computed_time_before_a_run_has_told_it_and_on_a_planned_card(planner: Planner) -> None:
    """Seen: 31B "fits" on two cores, Start green, no time; and none for a planned GPU."""
    large = planner.plan_form(form(model="google/gemma-4-31B-it"), EN)
    assert large.pace.source.key == "pace.computed" and large.seconds > 600
    assert planner.plan_form(form(), EN).seconds < 300
    days = planner.plan_form(form(model="google/gemma-4-31B-it", settings={"train.max_steps": 10**6}), EN)
    assert days.is_long and days.is_doubtful and "takes very long" in plan_view.card(days, EN)
    starter = planner.plan_form(form(settings={"train.max_steps": 10**6}), EN)
    bar = StartView(planner.services, EN).draw_bar(Summary(), starter)
    assert starter.is_long and "lg-warn" in bar and "lg-ok" not in bar  # a green "fits" for days
    there = planner.plan_form(form(model="Qwen/Qwen3-8B", memory="size:12"), EN)
    assert "RTX 3060" in plan_view.card(there, EN) and there.seconds > 10


@pytest.mark.parametrize(("method", "problem"), [("gptq", "model.quantised_of"), ("bitsandbytes", None)])
def test_a_base_that_is_quantised_otherwise_is_no_plan(
    method: str, problem: str | None, tmp_path: Path, starter_folder: Path
) -> None:
    """Before Start, and with the model to take instead."""
    folder, space = tmp_path / "library" / "packed", tmp_path / "workspace"
    folder.mkdir(parents=True)
    space.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(starter_folder / name, folder / name)
    config = files.read_json(starter_folder / "config.json") | {
        "quantization_config": {"quant_method": method, "load_in_4bit": True}
    }
    files.replace_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "README.md").write_text("---\nbase_model: maker/Model\n---\n", "utf-8")
    files.replace_json(space / "settings.yaml", {"library_folders": [str(folder.parent)]})
    services = Services.open(Workspace.open(space))
    services.dry_runs.look = lambda question: DryRunState()
    look = Planner(services).plan_form(form(model="library:packed"), EN)
    assert (look.problem and look.problem.key) == problem and (look.plan is None) == bool(problem)
    about = model.about("library:packed", look, services, EN)
    assert ("maker/Model" in about) == bool(problem) and "135M" in about


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model_type": "t5", "d_model": 64, "num_layers": 2, "is_encoder_decoder": True}, "model.encoder_decoder"),
        ({"model_type": "qwen9_omni"}, "model.unknown_family_unsaid"),
        ({"model_type": "strange", "auto_map": {"AutoConfig": "a.B"}}, "model.own_code"),
    ],
)
def test_a_family_that_cannot_be_trained_is_told_at_the_model_step(config: dict, key: str, tmp_path: Path) -> None:
    """The page let it be started; the run said it, after a download."""
    folder, space = tmp_path / "library" / "other", tmp_path / "workspace"
    folder.mkdir(parents=True)
    space.mkdir()
    files.replace_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(b"")
    files.replace_json(space / "settings.yaml", {"library_folders": [str(folder.parent)]})
    services = Services.open(Workspace.open(space))
    look = Planner(services).plan_form(form(model="library:other"), EN)
    assert look.plan is None and look.problem.key == key
    assert EN.render(look.problem) in html.unescape(model.about("library:other", look, services, EN))


def test_the_processor_may_be_chosen(planner: Planner) -> None:
    assert planner.plan_form(form(memory=PROCESSOR), EN).plan.advice.budget.kind == "cpu"
    assert device(planner, PROCESSOR) == "cpu" and device(planner) is None


@pytest.mark.slow
def test_start_is_refused_where_nothing_would_be_learned(make_workspace: Callable[[], Workspace]) -> None:
    services = Services.open(make_workspace())
    services.dry_runs.look = lambda question: DryRunState()
    result = Planner(services).plan_form(form(settings={"data.max_length": 8}), EN)
    assert "None of the 68 rows has anything to train on within the first 8 tokens" in EN.render(result.problem)
    assert result.preview.counts(8).rows_dropped == 68


def test_the_time_is_that_of_the_last_run_of_the_same_kind(services: Services, planner: Planner) -> None:
    done = ScriptedRun(services.workspace, "before").to(State.RUNNING)
    run = done.run
    lines = [
        {
            "v": 1,
            "kind": "train",
            "attempt": 1,
            "step": step,
            "time": 100.0 + 2 * step,
            "loss": 1.0,
            "tokens_seen": 250 * step,
        }
        for step in range(1, 11)
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    done.to(State.COMPLETED)
    result = planner.plan_form(form(), EN)
    assert result.pace.tokens_per_second == pytest.approx(125)
    tokens = 48 * 4 * result.preview.counts(128).tokens / 68
    assert result.seconds == pytest.approx(tokens / 125)


# ---- what the page is sent -----------------------------------------------------------------------


@pytest.fixture
def wizard(services: Services, planner: Planner) -> Wizard:
    made = Wizard(services, EN)
    made.planner = made.start_step.planner = planner
    with gr.Blocks():
        made.build_start()
        made.build()
        made.build_plan()
    return made


def given(
    wizard: Wizard,
    others: dict[Any, Any] | None = None,
    revision: int = 3,
    parent: str | None = None,
    reading: Any = None,
    **changes: Any,
) -> dict:
    """The form as it arrives, by component. others: components that are no part of it."""
    sent = form(**changes)
    step = wizard.data_step
    return {
        wizard.goal_step.goal: sent.goal, wizard.model_step.model: sent.model, step.data: sent.data,
        step.row_at: None, step.shown_mark: step.mark(),
        wizard.plan_step.memory: sent.memory, wizard.start_step.name: sent.name, wizard.start_step.notice: "",
        wizard.state: {"explicit": dict(sent.answers.explicit), "parent": parent, "revision": revision,
            "reading": reading},
        **(others or {}),
    }  # fmt: skip


def look(wizard: Wizard, **changes: Any) -> tuple[dict, dict]:
    """What a look answers for the fields, and what it draws."""
    drawn = wizard.look("answer")(given(wizard, **changes))
    return drawn.pop("answer"), drawn


def test_one_look_draws_every_part_and_says_what_each_field_is_to_show(wizard: Wizard) -> None:
    answer, drawn = look(wizard, revision=5, settings={"train.seed": 7})
    data, reading = wizard.data_step, wizard.data_step.reading
    unchanged = {data.shown_mark, data.data}  # the list of datasets, which the page already has
    assert set(drawn) == wizard._drawn_components - unchanged - (reading.parts - reading.draw(None).keys())
    assert answer["is_look"] and answer["revision"] == 5 and answer["answers"] == {"explicit": {"train.seed": 7}}
    assert set(answer["values"]) == {name_of(key) for key in FIELDS}, "no cards: there is none"
    assert (answer["values"]["train.max_steps"], answer["values"]["train.seed"]) == (48, 7)
    assert answer["values"]["adapter.r"]["value"] == 8 and drawn[wizard.plan_step.reset]["visible"] is True
    assert json.dumps(answer), "it goes to the browser as it is"


def test_cards_can_be_ticked_once_those_of_the_plan_are(
    wizard: Wizard, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box that was ticked before the first look chose that card alone."""
    two_cards(services, monkeypatch, build="12.6")
    cards = look(wizard)[0]["values"]["cards"]
    assert wizard.plan_step.cards.interactive is False and cards["interactive"] is True and cards["value"] == ["GPU-0"]


def test_a_rank_that_is_not_offered_is_offered_with_its_value(wizard: Wizard) -> None:
    answer, _ = look(wizard, settings={"adapter.r": 12})
    assert answer["values"]["adapter.r"]["value"] == 12 and ("12", 12) in answer["values"]["adapter.r"]["choices"]


def test_the_plan_is_looked_at_anew_when_free_memory_has_moved(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    _, drawn = look(wizard)
    mark = drawn[wizard.plan_step.drawn_from]
    monkeypatch.setattr(wizard.planner, "budget", lambda choice, cards: SimpleNamespace(free_gib=mark["free"]))
    assert wizard.memory_has_moved(mark, HERE)[wizard.moved] == {"has_moved": False}
    moved = wizard.memory_has_moved(mark | {"free": mark["free"] + 50}, HERE)
    assert moved[wizard.moved] == {"has_moved": True}
    monkeypatch.undo()
    moved = wizard.memory_has_moved(mark | {"free": 1e6}, "size:huge")
    assert moved[wizard.moved] == {"has_moved": False}, "a size that cannot be"


def test_a_setting_that_cannot_be_is_left_in_its_field(wizard: Wizard) -> None:
    answer, drawn = look(wizard, settings={"train.learning_rate": 5})
    assert answer["values"] == {} and answer["answers"] == {"explicit": {"train.learning_rate": 5}}
    assert "learning_rate is 5" in drawn[wizard.plan_step.card]


def test_a_dataset_that_came_by_a_command_can_be_chosen_by_its_card(wizard: Wizard, tmp_path: Path) -> None:
    """Its card was drawn by the next look, and the list of the step refused it in English."""
    before = given(wizard)
    (tmp_path / "new.jsonl").write_text('{"question": "Who?", "answer": "Me."}\n', "utf-8")
    made = wizard.services.datasets.import_file(tmp_path / "new.jsonl", "new")
    answer: Any = object()
    drawn = wizard.look(answer)(before)
    assert made.id in drawn[wizard.start_view.cards]
    assert made.id in [value for _, value in drawn[wizard.data_step.data]["choices"]]
    assert wizard.data_step.data not in wizard.look(answer)(given(wizard)), "drawn anew it would lose a click"


def test_another_row_is_of_the_data_that_are_chosen(wizard: Wizard) -> None:
    step = wizard.data_step
    second = step.turn_row(1, None, PIRATE)
    assert step.row_shown(second, PIRATE) == 1 and step.row_shown(step.turn_row(-1, second, PIRATE), PIRATE) == 0
    assert step.row_shown(second, "sample:shop_messages") == 0, "of other data, the first"
    rows = SimpleNamespace(rows=[0] * 68, row=lambda at, *limits: at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned_view, "row", lambda row, w: row)
        assert step.row_of(rows, -1, 128, "cut") == 67 and step.row_of(rows, 68, 128, "cut") == 0, (
            "before the first comes the last"
        )


def start(wizard: Wizard, **changes: Any) -> tuple[Filling | None, dict]:
    return wizard.start_step.begin(wizard, wizard.folds, "run notice", "planning")(
        given(wizard, {wizard.start_step.start_at: changes.pop("start_at", "")}, **changes)
    )


def test_an_unfinished_form_starts_nothing_and_opens_the_step_that_is_meant(wizard: Wizard, services: Services) -> None:
    filling, updates = start(wizard, data=None)
    assert (
        "Choose a dataset first" in updates[wizard.start_step.notice]["value"]
        and updates[wizard.folds["data"]]["open"] is True
    )
    assert filling is None and not services.runs.list()
    filling, updates = start(wizard, start_at="soon")
    assert (
        filling is None
        and updates[wizard.folds["train"]]["open"] is True
        and "soon" in updates[wizard.start_step.notice]["value"]
    )
    assert not services.runs.list()


def test_why_nothing_was_started_is_removed_once_it_is_put_right(wizard: Wizard) -> None:
    """ "Plan for a GPU of 12 GB" stayed in red above a form that could start."""
    notice = wizard.start_step.notice
    for changes in ({"memory": "size:12"}, {"data": None}):
        refusal = start(wizard, **changes)[1][notice]["value"]
        assert look(wizard, others={notice: refusal}, **changes)[1][notice] == gr.skip(), "a look follows each press"
        assert look(wizard, others={notice: refusal})[1][notice] == shown("")
    other = look(wizard, others={notice: refusal}, memory="size:12")[1][notice]["value"]
    assert "12 GB" in other and "dataset" not in other
    late = start(wizard, start_at="soon")[1][notice]["value"]
    assert look(wizard, others={notice: late})[1][notice] == gr.skip(), "nothing in the form is wrong"


def test_start_makes_a_run_with_the_plan_and_its_reasons(wizard: Wizard, services: Services) -> None:
    filling, updates = start(wizard, name="海盗", settings={"adapter.r": 4})
    [run] = services.runs.list()
    recipe, facts = run.recipe(), run.facts()
    assert (run.name, recipe.goal, recipe.adapter.r, recipe.train.max_steps) == ("海盗", "style", 4, 48)
    assert facts.advice["verdict"] == "fits" and facts.advice["planned_steps"] == 48 and facts.data.rows == 68
    assert filling == Filling({"name": ""}, {"parent": None}), "the next one has no name yet, and continues nothing"
    assert updates["planning"] is False and updates[wizard.start_step.notice]["visible"] is False


def test_a_recipe_that_trains_by_rewards_is_opened_with_its_judges(wizard: Wizard, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    rewards = {"judges": [{"kind": "number", "weight": 0.5}], "num_generations": 4}
    settings = {"data": {"source": "gone"}, "train": {"objective": "grpo"}, "rewards": rewards}
    file.write_text(json.dumps(settings), "utf-8")
    filling, _ = wizard.fillings.open_recipe({wizard.goal_step.recipe: str(file)})
    explicit = filling.answers["explicit"]
    assert explicit["train.objective"] == "grpo" and explicit["rewards"] == rewards
    answers = FormAnswers.from_state({"explicit": explicit})
    fields = {"goal": None, "model": "starter", "data": "sample:pirate_answers", "memory": HERE, "name": ""}
    recipe = recipe_of(Form(answers=answers, **fields))
    assert recipe.rewards == Rewards.model_validate(rewards)
    sft = FormAnswers.from_state({"explicit": explicit | {"train.objective": "sft"}})
    assert recipe_of(Form(answers=sft, **fields)).rewards is None, "another objective was chosen since"
    assert re.search('<option[^>]*value="grpo"[^>]* hidden', str(settings_view.at_hand(EN).value))


def test_a_recipe_on_the_page_fills_it_and_missing_data_is_said(wizard: Wizard, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "name: Mine\ngoal: writing\nmodel: {id: Qwen/Qwen3-4B}\ndata: {source: gone}\nadapter: {r: 32}\n", "utf-8"
    )
    filling, updates = wizard.fillings.open_recipe({wizard.goal_step.recipe: str(file)})
    notice = filling.values.pop("notice")["value"]
    assert filling.values == {"goal": "writing", "model": "Qwen/Qwen3-4B", "name": "Mine", "data": None}, (
        "no data that are not here"
    )
    assert (filling.answers["explicit"], filling.answers["parent"]) == ({"adapter.r": 32}, None)
    assert "is not here yet" in notice and updates[wizard.goal_step.recipe] is None
    assert not file.exists(), "gradio's copy is removed"


def test_another_tools_recipe_shows_what_became_of_its_keys_and_that_its_data_is_missing(
    wizard: Wizard, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(
        "base_model: Qwen/Qwen3-4B\nadapter: lora\nlora_r: 32\ndatasets: [{path: owner/set}]\nodd: 1\n", "utf-8"
    )
    filling, _ = wizard.fillings.open_recipe({wizard.goal_step.recipe: str(file)})
    notice = filling.values["notice"]["value"]
    assert (filling.values["model"], filling.values["data"]) == ("Qwen/Qwen3-4B", None)
    assert "is not here yet" in notice and "A recipe of axolotl" in notice and "odd: 1 is left out" in notice


def test_a_dropped_script_is_a_recipe_only_with_a_command_of_trl(tmp_path: Path) -> None:
    for text, expected in (("trl sft --model_name_or_path a/b\n", True), ("echo hello\nexit 1\n", False)):
        (script := tmp_path / "run.sh").write_text(text, "utf-8")
        assert is_recipe(str(script)) is expected


CHAT = "".join(f"12/03/2025, {hour}:00 - {who}: at {hour}\n" for hour in (10, 20) for who in ("Maria", "Jo", "Maria"))


def test_a_recipe_whose_file_is_not_added_yet_says_which_and_the_file_is_added_as_it_says(
    wizard: Wizard, tmp_path: Path
) -> None:
    """Seen: how the recipe reads it was lost, and no file was named in step 3. A path is a matter of who sits at this
    PC alone."""
    (chat := tmp_path / "my chat.txt").write_text(CHAT, "utf-8")
    step, store = wizard.data_step, wizard.services.datasets

    def opened(is_here: bool, source: Path | str = chat, voice: str = "Jo") -> RecipeReading:
        (recipe := tmp_path / "recipe.yaml").write_text(
            json.dumps({"data": {"source": str(source), "voice": voice, "version": 3}}), "utf-8"
        )
        filling, _ = wizard.fillings.open_recipe({wizard.goal_step.recipe: str(recipe), IS_LOCAL: is_here})
        return RecipeReading.from_state(json.loads(json.dumps(filling.answers["reading"])))

    here, elsewhere = opened(True), opened(False)
    for brought, is_offered in ((here, True), (elsewhere, False), (opened(True, "gone.txt"), False)):
        drawn = step.recipe_reading.draw(None, brought)
        assert (
            brought.file in drawn[step.recipe_reading.message]["value"]
            and drawn[step.recipe_reading.add]["visible"] is is_offered
        )
    assert not step.recipe_reading.draw(PIRATE, here)[step.recipe_reading.message]["visible"], "another set was chosen"
    assert (
        "on the Hub"
        in step.recipe_reading.draw(None, opened(True, "somebody/poems"))[step.recipe_reading.message]["value"]
    )

    forged = {READING: elsewhere, IS_LOCAL: False}
    assert step.recipe_reading._add(step.data, step.choices, forged)[0] is None and not store.knows("my-chat")
    filling, _ = step.recipe_reading._add(step.data, step.choices, {READING: here, IS_LOCAL: True})
    assert filling.answers == {"reading": None} and store.choices(filling.values["data"]) == Choices(voice="Jo")
    for brought, voice in ((elsewhere, "Jo"), (opened(True, voice="Nobody"), None), (opened(True, "b.txt"), None)):
        (dropped := tmp_path / "up" / "my chat.txt").parent.mkdir(exist_ok=True)
        # the same bytes would be the set that is here
        dropped.write_text(CHAT + brought.file * (voice is None), "utf-8")
        filling, updates = wizard.fillings.add_file({step.file: [str(dropped)], READING: brought, IS_LOCAL: False})
        assert store.choices(filling.values["data"]).voice == voice
        assert updates[step.notice]["visible"] is (brought.choices.voice == "Nobody"), "why it is not read so"


def test_a_recipe_brings_how_its_set_is_read_and_the_version_it_learned_from(wizard: Wizard, tmp_path: Path) -> None:
    """Seen: the page took the newest version, and whichever voice was chosen last."""
    store, (file, recipe) = wizard.services.datasets, (tmp_path / "chat.txt", tmp_path / "recipe.yaml")
    file.write_text(CHAT, "utf-8")
    store.import_file(file, choices=Choices(voice="Jo"))
    recipe.write_text("data: {source: chat, voice: Maria, gap_hours: 1, version: 0}\n", "utf-8")
    working.edit_rows(store, "chat", add=[{"question": "Q", "answer": "A"}])

    filling, _ = wizard.fillings.open_recipe({wizard.goal_step.recipe: str(recipe)})
    assert filling.values["data"] == "chat" and json.dumps(filling.answers)
    answers = FormAnswers.from_state({"explicit": {}, "revision": 1, **filling.answers})
    form_sent = form(data="chat")
    form_sent = replace(form_sent, answers=answers)
    assert recipe_of(form_sent).data == Data(source="chat", voice="Maria", gap_hours=1, version=0)
    assert recipe_of(replace(form_sent, data=PIRATE)).data == Data(source=PIRATE), "of its own set alone"
    reading, brought = wizard.data_step.reading, wizard.data_step.recipe_reading
    drawn = {**reading.draw("chat", answers.reading.choices), **brought.draw("chat", answers.reading)}
    assert drawn[reading.voice]["value"] == "Maria" and drawn[reading.gap]["value"] == 1
    assert "differently from its saved settings" in drawn[brought.message]["value"] and drawn[brought.kept]["visible"]
    assert store.choices("chat") == Choices(voice="Jo"), "the set is left as it is"
    assert brought._fill(wizard, wizard.data_step.data, False, given(wizard, reading=filling.answers["reading"]))[
        0
    ].answers == {"reading": None}

    as_kept = RecipeReading(title="old", data="chat", choices=store.resolved_choices("chat", Choices(version=0)))
    drawn = brought.draw("chat", as_kept)
    assert "was trained on version 0 of the dataset; the newest is version 1" in drawn[brought.message]["value"]
    assert drawn[brought.newest]["visible"] and not drawn[brought.kept]["visible"]
    filling, _ = brought._fill(wizard, wizard.data_step.data, True, given(wizard, data="chat", reading=as_kept.state()))
    newest = RecipeReading.from_state(filling.answers["reading"])
    assert newest.choices.version is None and not brought.draw("chat", newest)[brought.message]["visible"]


@pytest.mark.parametrize(
    "odd",
    [
        3,
        [],
        {},
        {"data": "x", "title": "t", "choices": {"version": -1}},
        {"data": 1, "title": "t", "choices": {}},
        {"data": "x", "title": "t", "choices": 4},
    ],
)
def test_whatever_arrives_as_a_recipes_reading_is_one_or_none(odd: Any) -> None:
    assert FormAnswers.from_state({"explicit": {}, "reading": odd}).reading is None


@pytest.mark.parametrize("content", ["[1]", "adapter: {r: 0}\ndata: {source: x}", "{{{", "\x00\x01"])
def test_a_file_that_is_no_recipe_changes_nothing_and_is_said(wizard: Wizard, tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yml").write_text(content, "utf-8")
    filling, updates = wizard.fillings.add_file({wizard.data_step.file: [str(tmp_path / "recipe.yml")]})
    assert set(filling.values) == {"file_notice"} and not filling.answers, "said where it was dropped"
    assert "lg-bad" in filling.values["file_notice"]["value"] and not updates


def test_a_dropped_file_becomes_the_data_set_that_is_chosen(wizard: Wizard, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"question": "Who?", "answer": "Me."}\n', "utf-8")
    filling, updates = wizard.fillings.add_file({wizard.data_step.file: [str(tmp_path / "mine.jsonl")]})
    assert filling == Filling({"data": "mine"}) and "mine" in dict(
        map(reversed, updates[wizard.data_step.data]["choices"])
    )


def test_several_dropped_files_become_one_set_and_gradios_copies_go(wizard: Wizard, tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.csv"]
    files[0].write_text('{"question": "Who?", "answer": "Me."}\n', "utf-8")
    files[1].write_text("question,answer\nWhere?,Here.\n", "utf-8")
    filling, _ = wizard.fillings.add_file({wizard.data_step.file: [str(file) for file in files]})
    report = wizard.services.datasets.report(filling.values["data"])
    assert report.good_rows == 2 and not any(file.exists() for file in files)


def test_a_sample_set_brings_its_own_goal(wizard: Wizard) -> None:
    goals = wizard._goals()
    assert goals["sample:kettlewisp_facts"]["style"] == "question_answer"
    assert "chatbot" not in goals[PIRATE], "a chatbot may well learn from the pirate set"
    assert sample_for("classification") == "sample:shop_messages"


@pytest.mark.parametrize("w", [EN, ZH], ids=["en", "zh"])
@pytest.mark.parametrize("memory", [HERE, "size:8", "size:24", "size:80"])
def test_a_plan_is_all_words_and_lights_the_row_that_applied(
    planner: Planner, wizard: Wizard, memory: str, w: Wording
) -> None:
    result = planner.plan_form(form(model="mistralai/Mistral-7B-Instruct-v0.3", memory=memory), w)
    shown = plan_view.card(result, w) + plan_view.more(result, wizard.table, w)
    shown += wizard.start_view.draw_bar(Summary(), result)
    for prefix in ("plan_view.", "advise.", "wizard.", "None", "budget="):
        assert prefix not in shown, prefix
    assert shown.count('class="lg-lit"') == 1 and shown.count("lg-lit-cell") == 1


@pytest.mark.parametrize("w", [EN, ZH], ids=["en", "zh"])
def test_what_would_fit_stands_on_the_card_of_a_plan_that_does_not(planner: Planner, w: Wording) -> None:
    picked = form(model="mistralai/Mistral-7B-Instruct-v0.3", memory="size:8", settings={"adapter.method": "lora"})
    result = planner.plan_form(picked, w)
    assert result.plan.advice.verdict == "does_not_fit"
    fitting = [other for other in result.plan.advice.alternatives if other.verdict == "fits"]
    card = plan_view.card(result, w)
    assert (
        fitting
        and w.t("plan_view.would_fit") in card
        and all(str(tag("li", w.render(other.text))) in card for other in fitting)
    )
    fits = planner.plan_form(replace(picked, answers=FormAnswers({})), w)
    assert fits.plan.advice.verdict == "fits" and w.t("plan_view.would_fit") not in plan_view.card(fits, w)


def test_rows_for_validation_are_not_counted_among_those_trained(planner: Planner) -> None:
    result = planner.plan_form(form(settings={"data.eval_fraction": 0.25}), EN)
    assert "Trains on 51 rows, with 17 more for validation;" in plan_view.card(result, EN)  # of 68
    result = planner.plan_form(form(settings={"data.eval_fraction": 0.0}), EN)
    assert "Trains on 68 rows, with none held out for validation;" in plan_view.card(result, EN)


def test_the_two_gravest_warnings_stand_beside_the_form_and_the_others_in_a_fold(
    planner: Planner, wizard: Wizard
) -> None:
    look = planner.plan_form(form(), EN)
    keys = [f"wizard.{name}" for name in ("missing_data", "missing_model", "start", "not_added")]
    advice = look.plan.advice.model_copy(update={"warnings": tuple(msg(key) for key in keys)})
    result = replace(look, plan=replace(look.plan, advice=advice))
    card, more = plan_view.card(result, EN), plan_view.more(result, wizard.table, EN)
    assert [EN.t(key) in card for key in keys] == [True, True, False, False]
    assert [EN.t(key) in more for key in keys] == [False, False, True, True] and "More warnings: 2" in more
