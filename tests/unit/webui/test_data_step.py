"""The data step of the form without a browser: what it says of a dataset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.advice.diagnosis import Diagnosis
from core.chat.trying import Trial
from core.messages import msg
from core.workspace.folder import Workspace
from webui.form.comparing import Comparing
from webui.form.data import FIRST, DataStep
from webui.form.fields import FormAnswers
from webui.form.planner import Form, FormResult, Planner, recipe_of
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.trying import TryingProgress


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services.open(Workspace.open(tmp_path / "ws"))


def test_duplicates_are_told_once(services: Services, tmp_path: Path) -> None:
    """Five stood row by row under "Problems found", as a possible problem in the rows, and beside the button for
    them."""
    rows = [{"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."} for i in range(36)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:5]]), "utf-8")
    id, step = services.datasets.import_file(tmp_path / "mine.jsonl", "mine").id, DataStep(services, Wording("en"))
    alone = step.report_of(id)
    assert "5 of 41 rows (12.2 %) repeat an earlier row" in alone
    assert "identical to row" not in alone and "Problems found" not in alone
    found = Diagnosis(
        id="duplicates", evidence=msg("run_doctor.none"), meaning=msg("run_doctor.none"), remedy=msg("run_doctor.none")
    )
    assert "repeat an earlier row" not in step.report_of(id, result=FormResult(findings=(found,)))


def test_a_set_that_was_deleted_on_its_page_is_chosen_here_no_more(services: Services, tmp_path: Path) -> None:
    """Train went on with a name of nothing, and its look at the row was a traceback."""
    (tmp_path / "mine.jsonl").write_text('{"question": "Who?", "answer": "Me."}\n', "utf-8")
    id, step = services.datasets.import_file(tmp_path / "mine.jsonl", "mine").id, DataStep(services, Wording("en"))
    with gr.Blocks():
        step.build()
    before = step.mark()
    assert "value" not in step.now([], id)[step.data] and step.now(before, id) == {step.is_new: []}
    services.datasets.delete(id)
    assert step.now(before, id)[step.data]["value"] == FIRST
    assert "value" not in step.now(before, "sample:kettlewisp_facts")[step.data]

    class OfDeleted:
        rows = (1,)

        def row(self, *asked: Any) -> None:
            raise FileNotFoundError

    assert step.row_of(OfDeleted(), 0, 64, "cut") == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "objective", "said", "button"),
    [
        ({"chosen": "Yes.", "rejected": "No."}, None, "leaves the worse ones out", "prefer the better answer"),
        ({"chosen": "Yes.", "rejected": "No."}, "simpo", ("SimPO (preference training, length-normalized)</strong>: "
                                                          "Training compares"), "good answers only"),
        ({"chosen": "Yes.", "rejected": "No."}, "kto", "do not suit it", "good answers only"),
        ({"answer": "Yes.", "label": False}, None, "marked as bad. Training leaves them out", "(KTO)"),
        ({"answer": "Yes.", "label": False}, "kto", "uses the good and the bad answers", "good answers only"),
        ({"answer": "Yes."}, "dpo", "do not suit it", "good answers only"),
        ({"answer": "Yes."}, None, None, None),
    ],
)  # fmt: skip
def test_what_becomes_of_worse_answers_is_said_with_the_way_to_change_it(
    services: Services, tmp_path: Path, row: dict[str, Any], objective: str | None, said: str | None, button: str | None
) -> None:
    good = row | ({"label": True} if "label" in row else {})
    rows = [{"question": f"Is {i} a number?"} | (row if i % 2 else good) for i in range(10)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), "utf-8")
    id, part = services.datasets.import_file(tmp_path / "mine.jsonl", "mine").id, Comparing(services, Wording("en"))
    with gr.Blocks():
        part.build()
    answers = FormAnswers(explicit={"train.objective": objective} if objective else {})
    drawn = part.draw(Form(goal="style", model="starter", data=id, memory="here", name="", answers=answers))
    assert drawn[part.column]["visible"] == (said is not None)
    if said and button:
        assert said in drawn[part.text] and button in drawn[part.button]["value"]
        assert ("starts from the base model" in drawn[part.text]) == (objective is not None and "suit" not in said)


def test_answers_that_a_rule_can_judge_are_offered_training_by_rewards(services: Services, tmp_path: Path) -> None:
    part = Comparing(services, Wording("en"))
    with gr.Blocks():
        part.build()

    def form(id: str, **explicit: Any) -> Form:
        answers = FormAnswers(explicit=explicit)
        return Form(goal="style", model="starter", data=id, memory="here", name="", answers=answers)

    offered = part.draw(form("sample:shop_messages"))
    assert offered[part.column]["visible"] and "A rule can judge these answers (Label)" in offered[part.text]
    explicit = part.switched(form("sample:shop_messages", **{"train.seed": 7, "train.learning_rate": 1.0}))
    assert (explicit.pop("train.objective"), explicit.pop("train.seed")) == ("grpo", 7)
    [judge] = explicit["rewards"]["judges"]
    assert explicit == {"rewards": {"judges": [judge], "max_completion_length": 32}}, "no label is longer"
    assert judge["kind"] == "label" and "payment" in judge["labels"]
    chosen = form("sample:shop_messages", **explicit, **{"train.objective": "grpo"})
    assert recipe_of(chosen).rewards
    drawn = part.draw(chosen)
    assert "writes 8 answers to each question" in drawn[part.text] and "Imitate" in drawn[part.button]["value"]
    assert part.switched(chosen) == {}
    result = Planner(services).plan_form(chosen, Wording("en"))
    assert result.plan and result.plan.recipe.rewards and result.pace is None, "not that of training on answers"
    own = part.switched(form("sample:sums_as_json"))["rewards"]
    assert [judge["kind"] for judge in own["judges"]] == ["regex", "number"], "the sample's own judges"
    assert recipe_of(form("sample:sums_as_json", **{"train.objective": "grpo", "rewards": own})).rewards
    assert part.draw(form("sample:pirate_answers"))[part.column]["visible"] is False, "sentences, which no rule judges"
    for junk in (None, 7, {"judges": 3}, {"judges": [{"kind": "odd"}]}):
        part.draw(form("sample:shop_messages", **{"train.objective": "grpo", "rewards": junk}))


def test_another_objective_takes_no_rate_and_no_steps_from_the_one_before(services: Services, tmp_path: Path) -> None:
    """Seen: a run of 48 steps at 8e-4 that was continued with DPO on two pairs kept both, and wrote one word again and
    again."""
    rows = [{"question": f"Is {i} a number?", "chosen": "Yes.", "rejected": "No."} for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), "utf-8")
    id, part = services.datasets.import_file(tmp_path / "pairs.jsonl", "pairs").id, Comparing(services, Wording("en"))
    before = {"train.max_steps": 48, "train.learning_rate": 8e-4, "train.seed": 7}

    def switched(explicit: dict[str, Any]) -> dict[str, Any]:
        answers = FormAnswers(explicit=explicit)
        return part.switched(Form(goal="style", model="starter", data=id, memory="here", name="", answers=answers))

    dpo = switched(before)
    assert dpo == {"train.seed": 7, "train.objective": "dpo"}
    assert switched(dpo | {"train.beta": 0.2, "train.learning_rate": 1e-4}) == {"train.seed": 7}


def test_the_model_is_tried_from_the_offer_and_its_verdict_is_shown(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, begun = Comparing(services, Wording("en")), list[tuple[Any, ...]]()
    monkeypatch.setattr(services.trying, "start", lambda *given: begun.append(given))
    with gr.Blocks():
        part.build()
    form = Form(
        goal="style", model="starter", data="sample:shop_messages", memory="here", name="", answers=FormAnswers()
    )
    part._try(form, lambda form: Planner(services).plan_form(form, Wording("en")))
    [(key, recipe, parent)] = begun
    assert recipe.rewards and recipe.rewards.judges[0]["kind"] == "label" and parent is None
    chosen = replace(form, answers=FormAnswers(explicit=part.switched(form)))
    trial = Trial(questions=16, answers=8, wrong=16, right=0, mixed=0, reward=0.0, question="<b>?", best="no",
                  seconds=7.5)  # fmt: skip
    for progress, said, button in (
        (TryingProgress(key, at_work=True, done=16, total=128), "16 of 128", "Stop"),
        (TryingProgress(key, trial=trial), "never gets this right", "Try the model"),
        (TryingProgress(key, error=msg("comparing.try_other")), "Another model", "Try the model"),
    ):
        monkeypatch.setattr(services.trying, "_progress", progress)
        for each in (form, chosen):  # choosing the objective changes nothing that was tried
            drawn = part.draw(each)
            assert said in drawn[part.text] and button in drawn[part.attempt]["value"]
        assert "<b>" not in drawn[part.text]
        assert said not in part.draw(replace(form, model="other"))[part.text]
        assert part.draw(replace(form, data="sample:pirate_answers"))[part.column]["visible"] is False
    planner = Planner(services)
    for tried, has_time in ((recipe, True), (recipe.model_copy(update={"rewards": None}), False)):
        monkeypatch.setattr(services.trying, "_progress", TryingProgress(key, tried, trial=trial))
        result = planner.plan_form(chosen, Wording("en"))
        assert result.plan and (steps := result.plan.advice.planned_steps)
        train = result.plan.recipe.train
        rows = steps * train.per_device_train_batch_size * train.gradient_accumulation_steps
        assert result.seconds == (pytest.approx(7.5 * rows) if has_time else None)
    for junk in (replace(form, model="no/such/model"), replace(chosen, data=7), replace(chosen, data="gone")):
        monkeypatch.setattr(services.trying, "_progress", TryingProgress())
        part._try(junk, lambda form: Planner(services).plan_form(form, Wording("en")))
        assert services.trying.progress().error, "why it did not begin"
    assert len(begun) == 1
