"""Chat's corrections: the answer is edited or picked, kept as a row, and the conversation goes on from what is
right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.chat import corrections
from core.chat.evaluation import sets
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from webui.kit.wording import Wording
from webui.pages.chat_history import last_answer
from webui.pages.corrections import CorrectionsPanel
from webui.state.services import Services

BASE = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "Water."}]
TUNED = [
    {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
    {"role": "assistant", "content": "Wet <b>arr</b>"},
]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return trained(Workspace.open(tmp_path), "Pirate")


@pytest.fixture
def page(tmp_path: Path, run: RunFolder) -> CorrectionsPanel:
    panel = CorrectionsPanel(Services.open(Workspace.open(tmp_path)), Wording("en"))
    with gr.Blocks(analytics_enabled=False):
        panel.build_button()
        panel.build()
        panel.wire(lambda event: None, *(gr.JSON() for _ in range(4)))
    return panel


def kept(page: CorrectionsPanel) -> list[tuple[str, str, str]]:
    """System or question, better and worse of each row of the sets of corrections."""
    sets = [info.id for info in page.services.datasets.list() if info.corrects]
    rows = [example.as_dict() for id in sets for _, example in page.services.datasets.rows(id)]
    return [
        (row["messages"][0]["content"], row["messages"][-1]["content"], row["rejected"][-1]["content"]) for row in rows
    ]


def test_an_answer_is_corrected_and_the_conversation_goes_on_from_it(page: CorrectionsPanel, run: RunFolder) -> None:
    opened = page.opened(BASE, TUNED)
    assert opened[page.panel]["visible"] and opened[page.text] == "Wet <b>arr</b>"
    saved = page.saved("Water, arr!", BASE, TUNED, f"run:{run.id}", " Be brief. ")
    notice = saved[page.notice]["value"]
    assert "Corrections of Pirate" in notice and "now 1 row." in notice and saved[page.train]["visible"]
    assert kept(page) == [("Be brief.", "Water, arr!", "Wet <b>arr</b>")]
    assert last_answer(saved[page.tuned]) == ([{"role": "user", "content": "Rain?"}], "Water, arr!")
    assert page.base not in saved


def test_of_two_answers_the_better_one_is_kept_and_stays(page: CorrectionsPanel, run: RunFolder) -> None:
    earlier = page.begin_again(None, TUNED)
    now = [TUNED[0], {"role": "assistant", "content": "Dry."}]
    offered = page.offered(earlier, now)
    known = offered[page.earlier]
    assert offered[page.choice]["visible"] and not offered[page.panel]["visible"]
    assert "Wet &lt;b&gt;arr" in offered[page.before]
    assert page.begin_again(known, now)["tries"] == 2, "the next one is drawn from another seed"
    tuned = page.preferred(False, known, BASE, now, f"run:{run.id}", "")[page.tuned]
    assert last_answer(tuned)[1] == "Wet <b>arr</b>" and kept(page) == [("Rain?", "Wet <b>arr</b>", "Dry.")]
    assert "temperature" in page.offered(earlier, TUNED)[page.notice]["value"], "the same answer again is no pair"


BAD = (None, {"a": 1}, "run:", "run:../x", "run:gone", "base:../x", "adapter:gone")


@pytest.mark.parametrize(
    ("target", "text"), [*((target, "Better.") for target in BAD), ("run:{id}", None), ("run:{id}", "Wet <b>arr</b>")]
)
def test_what_cannot_be_kept_is_a_sentence_and_the_conversation_stays(
    page: CorrectionsPanel, run: RunFolder, target: Any, text: str | None
) -> None:
    target = target.format(id=run.id) if isinstance(target, str) else target
    saved = page.saved(text, BASE, TUNED, target, None)
    assert set(saved) == {page.notice} and "lg-bad" in saved[page.notice]["value"] and kept(page) == []
    assert "lg-warn" in page.opened(None, [])[page.notice]["value"]


@pytest.mark.parametrize(
    ("rows", "objective", "says"), [(1, "sft", "memorized"), (20, "sft", "enough"), (50, "dpo", "DPO")]
)
def test_corrections_continue_their_run_by_the_objective_that_so_many_allow(
    page: CorrectionsPanel, run: RunFolder, rows: int, objective: str, says: str
) -> None:
    turns = [{"role": "user", "content": "Rain?"}]
    made = [corrections.row(turns, f"Water, arr! {number}", f"Wet {number}") for number in range(rows)]
    info, new = corrections.keep(page.services.workspace, page.services.datasets, f"run:{run.id}", "Corrections", made)
    recipe = corrections.recipe_for(run, info)
    assert (new, recipe.data.source, recipe.train.objective) == (rows, info.id, objective)
    assert recipe.goal == ("question_answer" if objective == "sft" else run.recipe().goal), "its epochs teach them"
    assert recipe.adapter == run.recipe().adapter and recipe.name == "Pirate · 2"
    assert not {"learning_rate", "max_steps", "num_train_epochs"} & recipe.train.model_fields_set
    assert says in page._enough(rows)


def test_a_bad_answer_is_a_test_at_one_press_and_its_correction_says_what_is_expected(
    page: CorrectionsPanel, run: RunFolder
) -> None:
    space, target = page.services.workspace, f"run:{run.id}"
    for _ in range(2):
        update = page.kept_as_test(BASE, TUNED, target, "Be brief.")
        assert "Kept as a test: Bad answers of SmolLM2" in update["value"] and "1 question" in update["value"]
    [test_set] = sets.all_sets(space)
    [test] = test_set.prompts
    assert [turn["content"] for turn in test.turns] == ["Be brief.", "Rain?"] and test.expected is None
    assert test_set.base == run.recipe().model.id and test.judge is not None and test.judge.kind == "person"
    page.saved("Water, arr!", BASE, TUNED, target, "Be brief.")
    page.saved("Something else", [*BASE[:1], {"role": "assistant", "content": "x"}], [], "base:starter", "")
    [test_set] = sets.all_sets(space)
    assert [prompt.expected for prompt in test_set.prompts] == ["Water, arr!"], "of its own question alone"
    assert "lg-bad" in page.kept_as_test(BASE[:1], [], target, "")["value"], "nothing was answered"
    assert "lg-bad" in page.kept_as_test(BASE, TUNED, "run:gone", "")["value"]
