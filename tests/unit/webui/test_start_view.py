"""The start of the Train page: its cards, and the questions and chapters that other pages open with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.chat.comparison import ComparisonAnswer
from core.data.sample_sets import introduction
from core.messages import msg
from core.presets import PRESETS
from core.runs import scenes
from core.runs.scenes import Scene, Scenes, SceneTurn
from core.trial.dry_runs import DryRunState
from core.trial.pace import Pace
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from webui.form.fields import FormAnswers
from webui.form.planner import HERE, Form, FormResult, Planner
from webui.form.start_view import StartView, Summary
from webui.kit.wording import Wording
from webui.pages import chat_ideas
from webui.pages.help import CHAPTERS, text_of, title_of
from webui.state.evaluating import Choice
from webui.state.services import Services

EN = Wording("en")
SAMPLES = sorted(f"sample:{path.stem}" for path in (PRESETS / "samples").glob("*.jsonl"))
PACE = Pace(tokens_per_second=300.0, source=msg("pace.from_run", run="a run"))


@pytest.fixture
def services(tmp_path: Path) -> Services:
    made = Services.open(Workspace.open(tmp_path / "workspace"))
    made.dry_runs.look = lambda question: DryRunState()  # type: ignore[method-assign]
    return made


def looked(services: Services, data: str, model: str = "starter") -> FormResult:
    form = Form(goal="style", model=model, data=data, memory=HERE, name="", answers=FormAnswers({}))
    return replace(Planner(services).plan_form(form, EN), pace=PACE)


@pytest.mark.parametrize("model", ["starter", "Qwen/Qwen3-0.6B"])
def test_a_card_says_the_time_that_the_bar_says_once_its_sample_is_chosen(services: Services, model: str) -> None:
    """The settings of a sample were taken for every model; they come with the starter alone."""
    view, chosen = StartView(services, EN), looked(services, SAMPLES[0], model)
    for sample in SAMPLES[1:]:
        assert view._seconds(sample, chosen) == pytest.approx(looked(services, sample, model).seconds)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_introduced_by_a_short_row_of_its_own(sample: str) -> None:
    question, answer = introduction(sample)
    rows = (PRESETS / "samples" / f"{sample.removeprefix('sample:')}.jsonl").read_text("utf-8")
    assert json.dumps(question)[1:-1] in rows and json.dumps(answer)[1:-1] in rows
    assert 0 < len(question) < 60 and 0 < len(answer) < 100


def test_a_chat_suggests_no_question_that_the_run_has_learned(services: Services) -> None:
    run = trained(services.workspace, "A run")

    def asked(source: str, words: str) -> Scene:
        return Scene(source=source, turns=(SceneTurn(role="user", content=words),), answer="So.")  # type: ignore[arg-type]

    every = (asked("trained", "Learned?"), asked("kept_apart", "Kept apart?"), asked("own", "My own?"))
    (run.path / scenes.FILE).write_text(Scenes(scenes=every, neutral_texts=("One.",)).model_dump_json(), "utf-8")
    assert "Ask both models" in chat_ideas.empty(services, f"run:{run.id}", EN)
    assert "Ask the base model." in chat_ideas.empty(services, "base:starter", EN)
    ideas = chat_ideas.ideas(services, f"run:{run.id}", EN)
    assert ideas[:2] == ["Kept apart?", "My own?"] and len(ideas) == 3 and "Learned?" not in ideas


@pytest.mark.parametrize("language", ["en", "zh", "de"])
def test_help_shows_every_chapter_of_the_guide_without_links_that_lead_nowhere(language: str) -> None:
    for chapter in CHAPTERS:
        text = text_of(chapter, language)
        assert title_of(chapter, language) and len(text) > 500
        assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == [] and "![" not in text
        assert not re.search(r"[，、。]\n\w", text), "Markdown shows this line break as a space"


def test_a_sample_that_trains_by_rewards_has_a_card_only_when_it_is_chosen(services: Services) -> None:
    view = StartView(services, EN)
    cards = view.draw_cards(FormResult(), "sample:pirate_answers")
    assert cards.count("lg-sample-foot") == 3 and "sums_as_json" not in cards
    assert 'data-set="sample:sums_as_json"' in view.draw_cards(FormResult(), "sample:sums_as_json")


def test_a_dataset_can_be_tried_without_fine_tuning_and_the_result_stays_beside_it(services: Services) -> None:
    view, data = StartView(services, EN), "sample:shop_messages"
    assert "evaluate" not in view.draw_links("starter", None) and "evaluate" not in view.draw_links(" ", data)
    link = view.draw_links("starter", data)
    assert 'data-page="evaluate" data-model="base:starter" data-questions="data:sample:shop_messages"' in link
    assert "data-start" in link
    evaluation = services.evaluating.prepare(Choice("base:starter", f"data:{data}", ("base", "base+prompt")))
    for number, prompt in enumerate(evaluation.lineup.prompts):
        for place in range(2):
            text = str(prompt.expected) if place and number % 2 else "?"
            evaluation.add(ComparisonAnswer(prompt=number, contestant=place, text=text, tokens=1, seconds=0.1,
                                            finish_reason="stop"))  # fmt: skip
        if number == 0:
            assert "lg-quiet" not in view.draw_links("starter", data), "not while answers are missing"
    done = view.draw_links("starter", data)
    assert "the base model with the best prompt has 10 of 20 right" in done and "data-start" not in done
    assert "right" not in view.draw_links("base/other", data)


def test_the_bar_waits_for_the_first_plan_and_does_not_call_it_missing(services: Services) -> None:
    """Seen on a busy PC: "No plan yet, see why" in red for ten seconds, and then the plan."""
    view = StartView(services, EN)
    assert "Planning" in view.draw_bar(Summary()) and "lg-bad" not in view.draw_bar(Summary())
    assert "No plan yet" in view.draw_bar(Summary(), FormResult())
