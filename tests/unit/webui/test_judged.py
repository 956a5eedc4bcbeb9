"""Training by rewards on a run's page: judges, questions, answers."""

from __future__ import annotations

import json

from core.messages import LANGUAGES
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from webui.kit.wording import Wording
from webui.run.judged import drawn, without_frame

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
