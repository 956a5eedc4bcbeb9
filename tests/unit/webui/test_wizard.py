"""The form of the Train page without a browser: what follows the plan, what was edited, what is missing or cannot be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.recipe import Recipe
from core.runs.states import State
from core.trial.dry_runs import Looked
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from webui.form import plan_view
from webui.form.fields import ELSEWHERE, FIELDS, Answers, FormError, explicit_of, kind_of, name_of, setting_of, shown_value
from webui.form.form import STEPS, Wizard
from webui.form.planner import HERE, PROCESSOR, Form, Planner
from webui.kit.wording import Wording, field_of
from webui.state.services import Services

EN, ZH = Wording("en"), Wording("zh")
PIRATE = "sample:pirate_answers"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services.open(Workspace.open(tmp_path / "workspace"))


@pytest.fixture
def planner(services: Services) -> Planner:
    services.pace_probe.begin = lambda step: None  # it would start torch, and so would a dry run
    services.dry_runs.look = lambda question: Looked()
    return Planner(services)


def form(**changes: Any) -> Form:
    """The form as it is filled in at first, the pirate sample chosen; settings by "section.name"."""
    settings = changes.pop("settings", {})
    fields = {"goal": "style", "model": "starter", "data": PIRATE, "memory": HERE, "name": "", **changes}
    return Form(answers=Answers(settings, Answers.fresh().shown), **fields)


# ---- fields -----------------------------------------------------------------------------------------------------------


def test_every_setting_of_a_recipe_has_a_field_and_words_in_both_languages() -> None:
    wanted = {
        (section, name)
        for section in ("model", "data", "adapter", "train")
        for name in Recipe.model_fields[section].annotation.model_fields
    }
    assert set(FIELDS) | ELSEWHERE == wanted
    for _, name in FIELDS:
        assert EN.knows(f"wizard.field_{name}") and ZH.knows(f"wizard.field_{name}")


@pytest.mark.parametrize("key", FIELDS, ids=name_of)
def test_a_field_that_shows_its_default_gives_the_default_back(key: tuple[str, str]) -> None:
    default = field_of(*key).default
    assert setting_of(key, shown_value(key, default)) == default


def test_an_optional_number_is_empty_and_never_0() -> None:
    assert shown_value(("train", "eval_steps"), None) == "" and setting_of(("train", "eval_steps"), "") is None
    assert setting_of(("train", "eval_steps"), " 20 ") == 20
    assert kind_of(("train", "gradient_checkpointing")).optional and setting_of(("train", "gradient_checkpointing"), "no") is False


def test_a_field_for_several_takes_one_a_line_and_says_how_many() -> None:
    key = ("train", "sample_prompts")
    assert setting_of(key, "Who are you?\n\n  Say hello. ") == ("Who are you?", "Say hello.")
    assert shown_value(key, ("Who are you?", "Say hello.")) == "Who are you?\nSay hello." and setting_of(key, None) == ()
    for wrong in ("a\nb\nc\nd", "a" * 501):
        with pytest.raises(FormError) as refused:
            setting_of(key, wrong)
        assert "at most 3 lines of at most 500 characters" in EN.of(refused.value.message)


def test_only_what_differs_from_what_was_shown_counts_as_edited() -> None:
    fresh = Answers.fresh()
    values = [fresh.shown[name_of(key)] for key in FIELDS]
    assert fresh.with_values(values).explicit == {}
    seed = FIELDS.index(("train", "seed"))
    edited = fresh.with_values([*values[:seed], 7, *values[seed + 1 :]])
    assert edited.explicit == {"train.seed": 7}
    emptied = Answers(edited.explicit, {**fresh.shown, "train.seed": 7}).with_values([*values[:seed], None, *values[seed + 1 :]])
    assert emptied.explicit == {}, "an emptied field goes back to the plan"


def test_a_recipe_that_was_opened_brings_only_what_it_sets() -> None:
    recipe = Recipe.parse({"data": {"source": PIRATE}, "adapter": {"r": 32}, "train": {"gradient_checkpointing": False}})
    opened = Answers(explicit_of(recipe), {})
    assert opened.explicit == {"adapter.r": 32, "train.gradient_checkpointing": "no"}
    assert opened.with_values([field_of(*key).default for key in FIELDS]).explicit == opened.explicit


# ---- the plan of a form -----------------------------------------------------------------------------------------------


def test_a_sample_set_brings_its_own_settings_with_the_starter_only(planner: Planner) -> None:
    tried = planner.look(form(), EN).plan
    assert (tried.recipe.train.max_steps, tried.recipe.train.learning_rate, tried.recipe.train.warmup_steps) == (80, 1e-3, 4)
    assert "tried with the starter" in " ".join(EN.of(reason.text) for reason in tried.advice.reasons if reason.field == "r")
    large = planner.look(form(model="Qwen/Qwen3-8B", memory="size:12"), EN).plan
    assert (large.recipe.train.max_steps, large.recipe.adapter.method) == (-1, "qlora") and large.recipe.train.learning_rate < 1e-3


def test_an_edited_setting_wins_over_sample_and_advice(planner: Planner) -> None:
    made = planner.look(form(settings={"adapter.r": 16, "train.num_train_epochs": 2}), EN).plan
    assert (made.recipe.adapter.r, made.recipe.adapter.lora_alpha) == (16, 32), "the sample's alpha belonged to its own rank"
    assert (made.recipe.train.num_train_epochs, made.recipe.train.max_steps) == (2, -1), "counted in epochs, not in its 80 steps"


def test_a_plan_leaves_no_field_open_but_those_that_wait_for_the_steps_or_mean_off(planner: Planner) -> None:
    recipe = planner.look(form(), EN).plan.recipe
    open_fields = {
        (section, name)
        for section in ("data", "adapter", "train")
        for name, value in getattr(recipe, section).model_dump().items()
        if value is None
    }
    waiting = {("data", "format")} | {("train", name) for name in ("eval_steps", "save_steps", "early_stopping_patience")}
    assert open_fields == waiting | {("train", "neftune_noise_alpha"), ("train", "loraplus_lr_ratio")}


@pytest.mark.parametrize("data", [None, "", ["x"], {"a": 1}])
def test_start_says_that_data_is_missing(planner: Planner, data: object) -> None:
    result = planner.look(form(data=data), EN)
    assert result.missing.key == "wizard.missing_data" and result.plan is not None, "the plan is shown before there is data"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "../../etc"}, "is no model name"),
        ({"data": "../../etc/passwd"}, "no data set"),
        ({"memory": "size:-4"}, "-4"),
        ({"memory": "size:huge"}, "0"),
        ({"settings": {"train.learning_rate": 0}}, "learning_rate is 0"),
        ({"settings": {"train.learning_rate": math.nan}}, "learning_rate"),
        ({"settings": {"data.max_length": 2.5}}, "whole number"),
        ({"settings": {"train.per_device_train_batch_size": 10**9}}, "from 1 to 1024"),
        ({"settings": {"train.seed": -1}}, "seed is -1"),
        ({"settings": {"train.eval_steps": "7; rm"}}, "eval_steps is 7; rm"),
        ({"settings": {"adapter.method": "full"}}, "method is “full”"),
        ({"settings": {"adapter.target_modules": "nothing_here"}}, "nothing_here"),
        ({"settings": {"adapter.r": 10**9}}, "from 1 to 256"),
    ],
)
def test_the_form_refuses_in_a_sentence(planner: Planner, changes: dict, said: str) -> None:
    result = planner.look(form(**changes), EN)
    assert said in EN.of(result.problem) and ZH.of(result.problem) != EN.of(result.problem)


def test_a_card_that_is_only_planned_for_cannot_be_trained_on(planner: Planner) -> None:
    result = planner.look(form(memory="size:24"), EN)
    assert result.problem.key == "wizard.only_planned" and result.plan.advice.budget.planned and result.seconds is None


def test_the_processor_may_be_chosen(planner: Planner) -> None:
    assert planner.look(form(memory=PROCESSOR), EN).plan.advice.budget.kind == "cpu"
    assert planner.device(PROCESSOR) == "cpu" and planner.device(HERE) is None


@pytest.mark.slow
def test_start_is_refused_where_nothing_would_be_learned(make_workspace: Callable[[], Workspace]) -> None:
    services = Services.open(make_workspace())
    services.pace_probe.begin = lambda step: None
    services.dry_runs.look = lambda question: Looked()
    result = Planner(services).look(form(settings={"data.max_length": 8}), EN)
    assert "None of the 68 rows has anything to learn within the first 8 tokens" in EN.of(result.problem)
    assert result.preview.counts(8).rows_dropped == 68


def test_the_time_is_that_of_the_last_run_of_the_same_kind(services: Services, planner: Planner) -> None:
    done = ScriptedRun(services.workspace, "before").to(State.RUNNING)
    run = done.run
    lines = [
        {"v": 1, "kind": "train", "attempt": 1, "step": step, "time": 100.0 + 2 * step, "loss": 1.0, "tokens_seen": 250 * step}
        for step in range(1, 11)
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    done.to(State.COMPLETED)
    result = planner.look(form(), EN)
    assert result.pace.tokens_per_second == pytest.approx(125)
    tokens = 80 * 4 * result.preview.counts(128).tokens / 68
    assert result.seconds == pytest.approx(tokens / 125)


# ---- what the page is sent --------------------------------------------------------------------------------------------


def answers_of(wizard: Wizard, **changes: Any) -> list[Any]:
    asked = form(**changes)
    fields = [asked.answers.explicit.get(name_of(key), asked.answers.shown[name_of(key)]) for key in FIELDS]
    return [asked.goal, asked.model, asked.data, asked.memory, asked.name, 0, Answers.fresh().state(), *fields]


@pytest.fixture
def wizard(services: Services, planner: Planner) -> Wizard:
    import gradio as gr

    made = Wizard(services, EN)
    made.planner = planner
    with gr.Blocks():
        made.build()
    return made


def test_one_look_draws_every_part_and_sends_only_fields_that_change(wizard: Wizard) -> None:
    drawn = wizard.refresh(*answers_of(wizard))
    assert len(drawn) == len(wizard._drawn)
    state = Answers.of_state(drawn[0])
    fields = dict(zip(FIELDS, drawn[-len(FIELDS) :], strict=True))
    assert state.explicit == {} and state.shown["train.max_steps"] == 80
    assert fields["train", "max_steps"]["value"] == 80 and "value" not in fields["train", "seed"]
    again = wizard.refresh(*[*answers_of(wizard)[:6], drawn[0], *(state.shown[name_of(key)] for key in FIELDS)])
    assert all("value" not in update for update in again[-len(FIELDS) :]), "nothing is sent twice"


def test_the_clock_redraws_the_plan_and_leaves_the_fields_alone(wizard: Wizard) -> None:
    """Seen: it sent the state of a plan that was over, and four settings that nobody had touched counted as edited."""
    drawn = wizard.refresh(*answers_of(wizard))
    state = Answers.of_state(drawn[0])
    now = [*answers_of(wizard)[:6], drawn[0], *(state.shown[name_of(key)] for key in FIELDS)]
    ticked = wizard.on_clock(*now)
    assert "shown" not in ticked[0] and all("value" not in update for update in ticked[-len(FIELDS) :])
    mark = next(update for update in ticked if isinstance(update, dict) and "of" in update)
    assert wizard.follow_memory(mark, *now)[0] == gr_skip(), "nothing has moved"
    redrawn = wizard.follow_memory(mark | {"free": mark["free"] + 50}, *now)
    assert "lg-plan" in redrawn[wizard._drawn.index(wizard.plan_step.card)]
    assert wizard.follow_memory(mark | {"of": ["another model"]}, *now) != wizard.follow_memory(mark, *now)


def test_where_the_plan_becomes_another_by_the_clock_all_of_its_fields_are_sent(wizard: Wizard) -> None:
    drawn = wizard.refresh(*answers_of(wizard, model="Qwen/Qwen3-8B", memory="size:8"))
    state = Answers.of_state(drawn[0])
    larger = answers_of(wizard, model="Qwen/Qwen3-8B", memory="size:80")
    ticked = wizard.on_clock(*larger[:6], drawn[0], *(state.shown[name_of(key)] for key in FIELDS))
    assert ticked[0]["explicit"] == {} and ticked[0]["shown"]["adapter.method"] == "lora"
    assert all("value" in update for update in ticked[-len(FIELDS) :])


def gr_skip() -> dict[str, Any]:
    import gradio as gr

    return gr.skip()


def test_a_setting_that_cannot_be_is_left_in_its_field(wizard: Wizard) -> None:
    drawn = wizard.refresh(*answers_of(wizard, settings={"train.learning_rate": 5}))
    assert all("value" not in update for update in drawn[-len(FIELDS) :])
    assert "learning_rate is 5" in drawn[1 + STEPS.index("plan")]["label"]


def test_an_unfinished_form_starts_nothing_and_opens_the_step_that_is_meant(wizard: Wizard, services: Services) -> None:
    said, _, _, *folds = wizard.begin(*answers_of(wizard, data=None))
    assert "Choose a data set first" in said["value"] and folds[STEPS.index("data")]["open"] is True
    assert not services.runs.list()


def test_start_makes_a_run_with_the_plan_and_its_reasons(wizard: Wizard, services: Services) -> None:
    wizard.begin(*answers_of(wizard, name="海盗", settings={"adapter.r": 4}))
    [run] = services.runs.list()
    recipe, facts = run.recipe(), run.facts()
    assert (run.name, recipe.goal, recipe.adapter.r, recipe.train.max_steps) == ("海盗", "style", 4, 80)
    assert facts.advice["verdict"] == "fits" and facts.advice["planned_steps"] == 80 and facts.data.rows == 68


def test_a_recipe_on_the_page_fills_it_and_missing_data_is_said(wizard: Wizard, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: Mine\ngoal: writing\nmodel: {id: Qwen/Qwen3-4B}\ndata: {source: gone}\nadapter: {r: 32}\n", "utf-8")
    _, goal, model, data, name, state, said = wizard.open_recipe(str(file))
    assert (goal["value"], model["value"], name) == ("writing", "Qwen/Qwen3-4B", "Mine") and "value" not in data
    assert Answers.of_state(state).explicit == {"adapter.r": 32} and "not on this PC" in said["value"]
    assert not file.exists(), "gradio's copy is removed"


@pytest.mark.parametrize("content", ["[1]", "adapter: {r: 0}\ndata: {source: x}", "{{{", "\x00\x01"])
def test_a_file_that_is_no_recipe_changes_nothing_and_is_said(wizard: Wizard, tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yml").write_text(content, "utf-8")
    drawn = wizard.add_file(str(tmp_path / "recipe.yml"))
    assert len(drawn) == 2 + len(wizard._filled)
    assert "lg-bad" in drawn[-1]["value"] and all("value" not in update for update in drawn[1:-1])


def test_a_sample_sets_its_own_goal_and_next_offers_the_sample_of_a_goal(wizard: Wizard) -> None:
    assert wizard.follow_sample("sample:kettlewisp_facts", "style")[0]["value"] == "question_answer"
    assert "value" not in wizard.follow_sample(PIRATE, "chatbot")[0], "a chatbot may well learn from the pirate set"
    assert wizard.data_done(None, "classification")[0]["value"] == "sample:shop_messages"
    assert "Sort shop messages" in wizard.data_step.next_label(None, "classification")


def test_a_preset_keeps_goal_model_and_ones_own_settings(wizard: Wizard) -> None:
    said, choices, _ = wizard.save_preset("Mine", *answers_of(wizard, goal="writing", settings={"train.seed": 7}))
    assert "1 settings" in said["value"] and ("Mine", "mine") in choices["choices"]
    goal, model, data, _, state, _ = wizard.take_preset("mine")
    assert (goal["value"], model["value"]) == ("writing", "starter") and "value" not in data
    assert Answers.of_state(state).explicit == {"train.seed": 7}


@pytest.mark.parametrize("w", [EN, ZH], ids=["en", "zh"])
@pytest.mark.parametrize("memory", [HERE, "size:8", "size:24", "size:80"])
def test_a_plan_is_all_words_and_lights_the_row_that_applied(planner: Planner, wizard: Wizard, memory: str, w: Wording) -> None:
    result = planner.look(form(model="mistralai/Mistral-7B-Instruct-v0.3", memory=memory), w)
    shown = plan_view.card(result, wizard.table, w) + plan_view.summary(result, w)
    for prefix in ("plan_view.", "advise.", "wizard.", "None", "budget="):
        assert prefix not in shown, prefix
    assert shown.count('class="lg-lit"') == 1 and shown.count("lg-lit-cell") == 1
