"""Training by rewards on a run's page: judges, questions, answers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from core.chat import corrections
from core.errors import ChatError, RunError
from core.messages import LANGUAGES
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from webui.kit.wording import Wording
from webui.run.judged import drawn, pressed, without_frame
from webui.state.services import Services

JUDGES = [{"kind": "contains", "all_of": ["a"]}, {"kind": "number", "weight": 0.5}]


def of_rewards(workspace: Workspace) -> RunFolder:
    settings = {"data": {"source": "sample:pirate_answers"}, "train": {"objective": "grpo"}}
    return Runs(workspace).create(Recipe.parse(settings | {"rewards": {"judges": JUDGES}}), "test")


def step(run: RunFolder, number: int, best: str, worst: str, rewards: tuple[float, float] = (1.5, 0.0)) -> None:
    shares = {"frac_all_wrong": 0.5, "frac_all_right": 0.0, "completions/clipped_ratio": 0.25}
    judged = {"rewards/contains/mean": number / 4, "rewards/number/mean": 0.0}
    run.log_metrics("train", 1, number, reward=0.5, **shares, **judged, **{"completions/mean_length": 20.6})
    answers = zip(("best", "worst"), (best, worst), rewards, strict=True)
    line = {
        name: {"question": f"system\nBe kind.\nuser\nWhat is {number}?\nassistant", "answer": text, "reward": reward}
        for name, text, reward in answers
    }
    with open(run.path / "answers.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": number} | line) + "\n")


def test_each_judge_and_the_best_and_worst_answer_are_shown(workspace: Workspace) -> None:
    run = of_rewards(workspace)
    assert drawn(run, run.recipe(), Wording("en")) == "", "nothing before the first step"
    step(run, 1, "four", "none")
    step(run, 4, "<b>five</b>", "six\nseven")
    shown = drawn(run, run.recipe(), Wording("en"))
    assert "Contains</th>" in shown and "<td>25 %</td><td>100 %</td>" in shown
    assert "Number (weight 0.5)" in shown and "Tokens of an answer" in shown and "<td>21</td>" in shown
    assert "Best answer of step 4" in shown and "&lt;b&gt;five" in shown and "reward 1.500" in shown
    assert "Worst answer of step 4" in shown and "six\nseven" in shown
    assert ">What is 4?</p>" in shown, "without the lines of the chat template"
    assert "Distance" not in shown, "not measured"
    run.log_metrics("eval", 1, 4, eval_reward=0.4, eval_kl=1.25)
    assert "Distance" in drawn(run, run.recipe(), Wording("en"))


def test_answers_with_the_same_reward_are_one_and_damaged_lines_none(workspace: Workspace) -> None:
    run = of_rewards(workspace)
    step(run, 1, "four", "five", (1.0, 1.0))
    with open(run.path / "answers.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2, "best": 7}\nno json\n[]\n{"step": 3, "best": {}, "worst": {"rew')
    shown = drawn(run, run.recipe(), Wording("en"))
    assert "All answers of step 1 got the same reward" in shown and "four" in shown and "five" not in shown
    (run.path / "answers.jsonl").unlink()
    for language in LANGUAGES:
        assert "judged_view" not in drawn(run, run.recipe(), Wording(language))


def test_a_question_is_shown_without_what_all_begin_and_end_with() -> None:
    framed = [f"system\nHi\nuser\n{text}\nassistant" for text in ("What is 1?", "What is 2?", "And\nnow?")]
    assert [without_frame(one, framed) for one in framed] == ["What is 1?", "What is 2?", "And\nnow?"]
    assert without_frame("alone\n", ["alone\n"]) == "alone\n"
    assert without_frame("a", ["a", "ab"]) == "a"


def test_one_press_makes_a_dataset_of_pairs_of_the_best_and_worst_answers(tmp_path: Path) -> None:
    services = Services.open(Workspace.open(tmp_path / "ws"))
    run = of_rewards(services.workspace)
    step(run, 1, "four", "five")
    assert 'data-act="pairs"' not in drawn(run, run.recipe(), Wording("en")), "nothing to save yet"
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is 2 + 2?"}]
    good = {"messages": asked, "chosen": "four", "rejected": "five"}
    damaged: list[object] = [{}, {"messages": 7, "chosen": "a", "rejected": "b"}, good | {"rejected": "four"}, good | {
        "messages": []}, good | {"chosen": None}, [1]]  # fmt: skip
    file = run.path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in damaged) + "no json\n", "utf-8")
    with pytest.raises(ChatError, match="no pairs yet"):
        corrections.rows_from_draws(run)
    with open(file, "a", encoding="utf-8") as lines:  # a resumed run computes a step again
        lines.write(2 * (json.dumps(good) + "\n") + json.dumps(good | {"rejected": "six"}) + '\n{"messages"')
    assert 'data-act="pairs"' in drawn(run, run.recipe(), Wording("de"))
    press = partial(pressed, services, Wording("en"))
    said = press({"act": "pairs", "run": run.id})["notice"]
    assert f"Best and worst of {run.name}" in said and "has 2 pairs now, 2 of them new" in said
    [info] = [one for one in services.datasets.list() if one.corrects == f"run:{run.id}"]
    row = services.datasets.rows(info.id)[0][1]
    assert [turn.content for turn in row.messages or ()] == ["Be kind.", "What is 2 + 2?", "four"]
    assert row.rejected and row.rejected[-1].content == "five", "preference training reads it"
    assert "0 of them new" in press({"act": "pairs", "run": run.id})["notice"]
    assert press({"act": ["pairs"], "run": run.id}) == {"notice": ""}
    for junk in (None, ["x"], "../runs", "gone"):
        with pytest.raises(RunError):
            press({"act": "pairs", "run": junk})
