"""The blind duel's handlers: what is shown never says whose it is, a verdict counts once, and anything else is a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.chat.comparison import Answered, PromptComparison, all_of
from core.chat.contest import pair_of
from core.chat.prompts import Prompt
from core.errors import ChatError
from core.messages import msg
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from webui.kit.wording import Wording
from webui.pages.blind_duel import BlindDuel
from webui.state.services import Services

BASE, TUNED = "A light in the dark & nothing more.", "A light, arr! <b>Yo-ho-ho!</b>"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def run(space: Workspace) -> RunFolder:
    return trained(space, "Pirate")


@pytest.fixture
def duel(space: Workspace, run: RunFolder) -> BlindDuel:
    """Two questions, all answered."""
    prompts = [Prompt(turns=({"role": "user", "content": f"What is <i>{what}</i>?"},)) for what in ("a lantern", "rain")]
    made = PromptComparison.create(space, prompts, pair_of(run, "Base", "Pirate"))
    for prompt in range(2):
        for contestant, text in enumerate((BASE, TUNED)):
            made.add(Answered(prompt=prompt, contestant=contestant, text=text, tokens=9, seconds=1.0, finish_reason="stop"))
    page = BlindDuel(Services.open(space), Wording("en"), lambda: None)
    with gr.Blocks(analytics_enabled=False):
        page.build()
    return page


def begun(duel: BlindDuel, target: Any, voter: Any = "me", count: Any = 10) -> list[Any]:
    return list(duel.start(target, "adapter", count, voter))[-1]


def test_two_answers_without_a_name_then_whose_they_were(duel: BlindDuel, run: RunFolder) -> None:
    opened, at, *_, asked, answers, _, _, _ = begun(duel, f"run:{run.id}")
    assert at == 0 and "What is &lt;i&gt;a lantern" in asked
    assert "Base" not in answers and "Pirate" not in answers and "&lt;b&gt;Yo-ho-ho!" in answers and "Answer A" in answers
    opened, at, *_ = duel.vote(opened, at, "left", "me")
    *_, result, pairs, _ = duel.vote(opened, at, "both_bad", "me")
    said = result["value"]
    assert "both bad 1" in said and "Pirate" in said and "Base" in said and "&lt;b&gt;" in said
    assert "Your vote: Both bad" in said and "What is &lt;i&gt;rain" in said


def test_a_verdict_that_comes_twice_counts_once_and_a_reload_goes_on(duel: BlindDuel, run: RunFolder, space: Workspace) -> None:
    opened, at, *_ = begun(duel, f"run:{run.id}")
    for _ in range(2):
        duel.vote(opened, at, "right", "me")
    duel.vote(opened, 1, "nonsense", "me")
    (found,) = all_of(space)
    assert [(vote.prompt, vote.verdict) for vote in found.votes()] == [(0, "right")]
    again = begun(duel, f"run:{run.id}")
    assert (again[0], again[1]) == (opened, 1)
    assert begun(duel, f"run:{run.id}", voter="you")[:2] == [opened, 0], "another browser sees nothing of it"


@pytest.mark.parametrize(
    ("target", "count"), [("base:starter", 10), (None, 10), ({"a": 1}, 10), ("run:nobody", 10), ("run:", 10), ("run:../x", 10)]
)
def test_what_is_no_run_is_a_sentence(duel: BlindDuel, target: Any, count: Any) -> None:
    opened, at, _, _, said, stage, asked, answers, *_ = begun(duel, target, count=count)
    assert opened is None and at is None and "lg-bad" in said and not asked + answers


@pytest.mark.parametrize("count", [None, 7, [], "10", 10**9])
def test_a_count_that_nobody_offers_is_a_sentence(duel: BlindDuel, run: RunFolder, count: Any) -> None:
    assert "count" in begun(duel, f"run:{run.id}", count=count)[4]


@pytest.mark.parametrize("opened", [None, "", "..", {"x": []}, "no-such"])
def test_a_vote_on_nothing_is_a_sentence(duel: BlindDuel, opened: Any) -> None:
    assert "lg-bad" in duel.vote(opened, 0, "left", "me")[4]


def test_a_vote_before_all_is_answered_is_a_sentence_and_a_training_keeps_the_device(
    duel: BlindDuel, space: Workspace, run: RunFolder
) -> None:
    prompts = [Prompt(turns=({"role": "user", "content": "What is rain?"},))]
    newer = PromptComparison.create(space, prompts, pair_of(run, "Base", "Pirate"))
    assert "was stopped early" in duel.vote(newer.id, 0, "left", "me")[4] and not newer.votes()

    def refuse() -> None:
        raise ChatError("chat_page.training", name="another")

    duel._refuse = refuse
    for left in all_of(space):  # that which is answered needs no device
        if not left.missing():
            for prompt in range(2):
                left.vote(prompt, "equal", "me")
    assert "another" in begun(duel, f"run:{run.id}")[4]


def test_a_question_that_was_left_out_is_not_asked_for_a_verdict_and_the_end_says_so(
    duel: BlindDuel, run: RunFolder, space: Workspace
) -> None:
    (found,) = all_of(space)
    found.leave_out(0, msg("chat.too_long_for_card", tokens=9000, max_new_tokens=128, context_limit=4096))
    opened, at, *_ = begun(duel, f"run:{run.id}")
    assert at == 1
    *_, result, _, _ = duel.vote(opened, at, "left", "me")
    assert "left out" in result["value"] and "4096" in result["value"].replace(",", "")
