"""The goals that are offered and the documented table: data, held against the document (source/lora-qlora.zh.md)."""

from __future__ import annotations

from typing import get_args

import pytest

from core import recipe
from core.advice import plan
from core.advice.goals import Goal, goal_of, goal_shown_by, goals
from core.data.formats import Example
from core.data.sample_sets import sample_of
from core.errors import RecipeError
from core.memory.documented import vram_table
from core.messages import msg
from core.presets import PRESETS

# "适合 LoRA" and section 四 of the document; the other four are its "不适合 LoRA".
SUITABLE = {"style", "question_answer", "instructions", "chatbot", "writing", "classification"}


def test_the_goals_are_those_that_a_recipe_may_name_in_their_order() -> None:
    assert tuple(found.id for found in goals()) == get_args(recipe.Goal)


@pytest.mark.parametrize("found", goals(), ids=lambda found: found.id)
def test_a_goal_says_everything_in_both_languages(found: Goal) -> None:
    for sentences in (found.title, found.description, found.why, *([found.instead] if found.instead else [])):
        assert set(sentences) == {"en", "zh"} and all(sentences.values())
        assert sentences["en"] != sentences["zh"]
    assert set(found.example) == {"en", "zh"}
    assert all(set(row) == {"question", "answer"} and all(row.values()) for row in found.example.values())


@pytest.mark.parametrize("found", goals(), ids=lambda found: found.id)
def test_what_the_document_advises_against_is_explained_and_shown_with_another_way(found: Goal) -> None:
    assert found.suitable == (found.id in SUITABLE)
    assert (found.instead is None) == found.suitable and (found.sample is None) == (not found.suitable)


def test_each_sample_has_a_goal_and_each_sample_on_the_start_is_that_of_its_goal() -> None:
    named = {found.sample for found in goals() if found.sample}
    every = {f"sample:{file.stem}": sample_of(f"sample:{file.stem}") for file in (PRESETS / "samples").glob("*.jsonl")}
    for name, sample in every.items():
        assert sample and sample.goal and (not sample.on_start or goal_of(sample.goal).sample == name)
    assert named == {name for name, sample in every.items() if sample and sample.on_start}


def test_the_floors_of_the_rank_are_those_of_the_design() -> None:
    assert {found.id for found in goals() if found.r_floor == 8} == {"style", "question_answer", "classification"}
    assert {found.r_floor for found in goals()} == {8, 16}


def test_facts_that_are_remembered_are_not_judged_by_those_that_are_kept_out() -> None:
    """Seen: a club's 40 facts; the run ended early, and its adapter of step 10 knew none of them."""
    for goal, train, patience, best in (
        ("question_answer", {}, 0, False),
        ("question_answer", {"early_stopping_patience": 2, "load_best_model_at_end": True}, 2, True),
        ("style", {}, None, True),
    ):
        given = recipe.Recipe.parse({"data": {"source": "x"}, "goal": goal, "train": train})
        planned = plan.resolve(given, "x", has_card=False).train
        assert (planned.early_stopping_patience, planned.load_best_model_at_end) == (patience, best)


def test_an_unknown_goal_is_answered_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match="fame.*style.*agents"):
        goal_of("fame")


def test_the_table_is_the_documents() -> None:
    """Section 二.3: minimums in GB as sold; of "30-40" and "8-12" the lower number."""
    table = vram_table()
    table_read = {row.name: [table.minimum(row, method) for method in ("full", "lora", "qlora")] for row in table.rows}
    assert table_read == {"7B": [40, 16, 8], "13B": [80, 30, 16], "33B": [None, 80, 24]}
    assert table.qlora_up_to_gb == 24
    assert [table.shown("13B", method, "en") for method in ("full", "lora", "qlora")] == ["80 GB+", "30-40 GB", "16 GB"]
    assert table.document("zh") == "LoRA 与 QLoRA 的原理与应用场景"


@pytest.mark.parametrize(
    ("billions", "name"),
    [(5.9, None), (6.0, "7B"), (9.94, "7B"), (9.96, "13B"), (19.9, "13B"), (20.0, "33B"), (40.0, "33B"), (40.1, None)],
)
def test_a_model_reads_the_row_of_its_size_class(billions: float, name: str | None) -> None:
    """Bounds: docs/design.md, section 5; to one decimal, so that no model falls between two classes."""
    row = vram_table().row_of(round(billions * 1e9))
    assert (row.name if row else None) == name


def test_a_rule_is_a_sentence_in_the_readers_language_alone() -> None:
    rule = vram_table().rule("small_card")
    assert (
        rule.render("en")
        == "Up to 24 GB of VRAM the document recommends QLoRA; what its table gives for LoRA is the bare minimum."
    )
    assert rule.render("zh") == "显存不超过 24 GB 时，文档建议用 QLoRA；表中 LoRA 一列只是最低需求。"
    outer = msg("advise.unsuitable_goal", title=rule, why="", instead="")
    assert "显存" not in outer.render("en") and "graphics" not in outer.render("zh")


def test_facts_that_are_asked_in_several_ways_and_labels_show_their_goal() -> None:
    """Seen: 24 questions about 3 facts, for which the page kept the goal "Answer style"."""
    built, sort = "Ada Pell built the mill.", "delivery"
    for answers, shown in (([built] * 3, "question_answer"), ([built] * 2, None), ([sort] * 3, None), ([], None)):
        rows = [(at, Example(prompt=f"Question {at}?", completion=answer)) for at, answer in enumerate(answers)]
        assert goal_shown_by("question_answer", rows) == shown
    assert goal_shown_by("text_label", []) == "classification"
