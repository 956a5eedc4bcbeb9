"""The blind duel's handlers: what is shown never says whose it is, a verdict counts once, and anything else is a
sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.chat import corrections
from core.chat.comparison import ComparisonAnswer, PromptComparison
from core.chat.prompts import Prompt, own_prompts
from core.errors import ChatError
from core.messages import msg
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.chat import Chat, pair_of
from tests.kit.runs import trained
from webui.kit.wording import Wording
from webui.pages.duel.blind_duel import BlindDuel
from webui.run import better
from webui.state.services import Services

OWN = "What is <i>a lantern</i>?\nWhat is <i>rain</i>?"
USUAL = ("", "adapter", 100, "trained")
BASE, TUNED = "A light in the dark & nothing more.", "A light, arr! <b>Yo-ho-ho!</b>"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def run(space: Workspace) -> RunFolder:
    return trained(space, "Pirate")


@pytest.fixture
def duel(space: Workspace, run: RunFolder) -> BlindDuel:
    """Two own questions, all answered."""
    made = PromptComparison.create(space, own_prompts(OWN), pair_of(run, "Base", "Pirate"))
    for prompt in range(2):
        for contestant, text in enumerate((BASE, TUNED)):
            made.add(
                ComparisonAnswer(
                    prompt=prompt, contestant=contestant, text=text, tokens=9, seconds=1.0, finish_reason="stop"
                )
            )
    made_duel = BlindDuel(Services.open(space), Wording("en"))
    with gr.Blocks(analytics_enabled=False):
        made_duel.build()
    return made_duel


def begun(duel: BlindDuel, target: Any, voter: Any = "me", count: Any = 10) -> dict[Any, Any]:
    return list(duel.start(target, "adapter", count, OWN, 256, *USUAL, *USUAL, voter))[-1]


def test_two_answers_without_a_name_then_whose_they_were(duel: BlindDuel, run: RunFolder) -> None:
    view = begun(duel, f"run:{run.id}")
    answers = view[duel.answers]
    assert view[duel.at] == 0 and "What is &lt;i&gt;a lantern" in view[duel.question]
    assert (
        "Base" not in answers and "Pirate" not in answers and "&lt;b&gt;Yo-ho-ho!" in answers and "Answer A" in answers
    )
    view = duel.vote(view[duel.opened], 0, "left", "me")
    markup = duel.vote(view[duel.opened], view[duel.at], "both_bad", "me")[duel.result]["value"]
    assert "both bad 1" in markup and "Pirate" in markup and "Base" in markup and "&lt;b&gt;" in markup
    assert "Your vote: Both bad" in markup and "What is &lt;i&gt;rain" in markup


def test_a_verdict_that_comes_twice_counts_once_and_a_reload_goes_on(
    duel: BlindDuel, run: RunFolder, space: Workspace
) -> None:
    opened = begun(duel, f"run:{run.id}")[duel.opened]
    for _ in range(2):
        duel.vote(opened, 0, "right", "me")
    duel.vote(opened, 1, "nonsense", "me")
    (comparison,) = PromptComparison.all_of(space)
    assert [(vote.prompt, vote.verdict) for vote in comparison.votes()] == [(0, "right")]
    again = begun(duel, f"run:{run.id}")
    assert (again[duel.opened], again[duel.at]) == (opened, 1)
    other = begun(duel, f"run:{run.id}", voter="you")
    assert (other[duel.opened], other[duel.at]) == (opened, 0), "another browser sees nothing of it"


@pytest.mark.parametrize(
    ("target", "count"),
    [("base:starter", 10), (None, 10), ({"a": 1}, 10), ("run:nobody", 10), ("run:", 10), ("run:../x", 10)],
)
def test_what_is_no_run_is_a_sentence(duel: BlindDuel, target: Any, count: Any) -> None:
    view = begun(duel, target, count=count)
    assert view[duel.opened] is None and view[duel.at] is None and "lg-bad" in view[duel.status]
    assert not view[duel.question] + view[duel.answers]


@pytest.mark.parametrize("count", [None, 7, [], "10", 10**9])
def test_a_count_that_nobody_offers_is_a_sentence(duel: BlindDuel, run: RunFolder, count: Any) -> None:
    assert "count" in begun(duel, f"run:{run.id}", count=count)[duel.status]


@pytest.mark.parametrize("opened", [None, "", "..", {"x": []}, "no-such"])
def test_a_vote_on_nothing_is_a_sentence(duel: BlindDuel, opened: Any) -> None:
    assert "lg-bad" in duel.vote(opened, 0, "left", "me")[duel.status]


def test_a_vote_before_all_is_answered_is_a_sentence_and_a_training_keeps_the_device(
    duel: BlindDuel, space: Workspace, run: RunFolder
) -> None:
    prompts = [Prompt(turns=({"role": "user", "content": "What is rain?"},))]
    newer = PromptComparison.create(space, prompts, pair_of(run, "Base", "Pirate"))
    assert "was stopped early" in duel.vote(newer.id, 0, "left", "me")[duel.status] and not newer.votes()

    def refuse() -> None:
        raise ChatError("chat_page.training", name="another")

    duel.services.snapshots.refuse_while_in_use = refuse  # type: ignore[method-assign]
    for left in PromptComparison.all_of(space):  # that which is answered needs no device
        if not left.missing():
            for prompt in range(2):
                left.vote(prompt, "equal", "me")
    assert "another" in begun(duel, f"run:{run.id}")[duel.status]


def test_a_question_that_was_left_out_is_not_asked_for_a_verdict_and_the_end_says_so(
    duel: BlindDuel, run: RunFolder, space: Workspace
) -> None:
    (comparison,) = PromptComparison.all_of(space)
    comparison.leave_out(0, msg("chat.too_long_for_card", tokens=9000, max_new_tokens=128, context_limit=4096))
    view = begun(duel, f"run:{run.id}")
    assert view[duel.at] == 1
    result = duel.vote(view[duel.opened], 1, "left", "me")[duel.result]["value"]
    assert "left out" in result and "4096" in result.replace(",", "")
    assert ">1 / 1<" in result or ">0 / 1<" in result  # of the tuned model, at the bar


def test_any_two_stand_against_each_other_and_own_questions_are_asked(
    duel: BlindDuel, space: Workspace, run: RunFolder
) -> None:
    """It was base against tuned, and no two others."""
    child, chat = trained(space, "Pirate further"), Chat()
    duel.services = replace(duel.services, chat=chat)
    first, second = (f"run:{run.id}", "adapter", 50, "trained"), (f"run:{child.id}", "adapter", None, "4")
    view = list(duel.start("base:starter", "adapter", 10, "One?\n\n Two? \n", 64, *first, *second, "me"))[-1]
    comparison = PromptComparison.open(space, view[duel.opened])
    assert [(one.run, one.strength, one.precision, one.label) for one in comparison.lineup.contestants] == [
        (run.id, 0.5, "trained", "Pirate, 50 %"), (child.id, 1.0, "4", "Pirate further, 4 bit")
    ]  # fmt: skip
    assert [prompt.question for prompt in comparison.lineup.prompts] == ["One?", "Two?"] and view[duel.at] == 0
    assert [(target.run, target.four_bit) for target in chat.loads] == [(run.id, False), (child.id, True)]
    again = list(duel.start(None, None, 10, "One?\nTwo?", 64, *first, *second, "you"))[-1]
    assert (again[duel.opened], again[duel.at]) == (comparison.id, 0), "somebody else judges the same"
    for at in (0, 1):
        better = "left" if comparison.sides(at, "me")[0] == 1 else "right"
        view = duel.vote(comparison.id, at, better, "me")
    assert "“Pirate further, 4 bit” won 2, “Pirate, 50 %” won 0" in view[duel.result]["value"]
    assert corrections.answered_by(comparison) == f"run:{child.id}"


def test_questions_of_the_data_do_not_resume_a_comparison_of_others(
    duel: BlindDuel, space: Workspace, run: RunFolder
) -> None:
    """Seen: without own questions, an unfinished comparison of own ones was resumed."""
    (own,) = PromptComparison.all_of(space)
    duel.services = replace(duel.services, chat=Chat())
    asked = [
        list(duel.start(f"run:{run.id}", "adapter", 10, "", 256, *USUAL, *USUAL, "me"))[-1][duel.opened]
        for _ in range(2)
    ]
    assert asked[0] == asked[1] != own.id


def test_two_precisions_of_a_base_and_what_is_no_pair(duel: BlindDuel, space: Workspace, run: RunFolder) -> None:
    chat = Chat()
    duel.services = replace(duel.services, chat=chat)
    base = ("base:starter", "adapter", 100)
    view = list(duel.start("base:starter", "adapter", 5, "", None, *base, "16", *base, "4", "me"))[-1]
    assert view[duel.at] == 0 and [(target.adapter, target.four_bit) for target in chat.loads] == [
        (None, False),
        (None, True),
    ]
    assert [one.label for one in PromptComparison.open(space, view[duel.opened]).lineup.contestants] == [
        "SmolLM2-135M-Instruct, 16 bit", "SmolLM2-135M-Instruct, 4 bit"
    ]  # fmt: skip
    twice = (f"run:{run.id}", "adapter", 100, "trained")
    for first, second, refusal in (
        (USUAL, ("base:starter", "adapter", 100, "4"), "Choose both models"), (twice, twice, "twice"), (("adapter:gone",
            "", 100, "4"), twice, "no longer here"),
        (USUAL, (*twice[:2], 900, "4"), "200"), (USUAL, (*twice[:2], "x", "4"), "200"), (USUAL, (*twice[:3], "8"),
            "precision"), (USUAL, ({"a": 1}, *twice[1:]), "no longer here"),
    ):  # fmt: skip
        view = list(duel.start("base:starter", "adapter", 5, "", 128, *first, *second, "me"))[-1]
        assert view[duel.opened] is None, (first, second)
        assert "lg-bad" in view[duel.status] and refusal in view[duel.status], (first, second)


def test_the_newest_votes_against_the_base_stand_on_the_card_of_the_run(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    run, w = trained(space, "Pirate"), Wording("en")
    prompts = [Prompt(turns=({"role": "user", "content": f"Question {number}?"},)) for number in range(4)]
    base, tuned = pair_of(run, "Base", "Pirate")

    def shown() -> str:
        view = Services.open(space).snapshots.now().shown
        return "".join(better.lines(view, w))

    half = tuned.model_copy(update={"strength": 0.5})
    for contestants in ([tuned, base], [base, half]):  # another order is the same test, another strength is none
        made = PromptComparison.create(space, prompts, contestants)
        assert w.t("blind_duel.title") not in shown()
        for prompt in range(4):
            left = made.sides(prompt, "me")[0]
            wins = contestants.index(base) if prompt == 3 else 1 - contestants.index(base)
            made.vote(prompt, "left" if left == wins else "right", "me")
        if contestants[0] is tuned:
            assert "3 / 4" in shown() and "“Pirate” won 75 %" in shown()
            (made.path / "votes.jsonl").unlink()
    assert w.t("blind_duel.title") not in shown()
