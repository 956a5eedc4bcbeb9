"""The doctor of runs that compare answers: each disease on curves made here, nothing on healthy ones, and the data's
own fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.advice.curve_doctor import Series, of_run
from core.advice.diagnosis import Diagnosis, applied
from core.data.conversation import ChatMessage
from core.data.findings.checks import findings
from core.data.formats import Example
from core.messages import LANGUAGES
from core.recipe import Recipe
from core.runs import sample_answers
from core.runs.all import Runs
from core.runs.sample_answers import Frame, FrameAnswer
from core.workspace.folder import Workspace

Points = list[dict[str, float]]


def metrics_of(margin: float, chosen: float, rejected: float, accuracy: float = 0.8) -> dict[str, float]:
    return {
        "rewards/accuracies": accuracy,
        "rewards/margins": margin,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
    }


def grown(last: dict[str, float], steps: int = 40, accuracy: float | None = None) -> Points:
    """From the reference to `last`, evenly."""
    first = metrics_of(0.0, -30.0, -32.0, 0.5)
    points = [{name: first[name] + (last[name] - first[name]) * i / steps for name in first} for i in range(steps + 1)]
    return points if accuracy is None else [point | {"rewards/accuracies": accuracy} for point in points]


def doctor(
    points: Points, measured: bool = True, answers: list[tuple[int, float]] | None = None, **train: Any
) -> Diagnosis | None:
    recipe = Recipe.parse(
        {"data": {"source": "x"}, "train": {"objective": "dpo", "max_steps": 40, "learning_rate": 2e-5} | train}
    )
    lines: list[dict[str, Any]] = []
    for step, point in enumerate(points):
        lines.append(
            {"kind": "train", "step": step, "loss": 0.69 - step / 100, "grad_norm": 1.0, "learning_rate": 1e-5, **point}
        )
        if measured and step % 10 == 0:
            lines.append(
                {
                    "kind": "eval",
                    "step": step,
                    "eval_loss": 0.69 - step / 100,
                    **{f"eval_{k}": v for k, v in point.items()},
                }
            )
    found = of_run(recipe, Series.of_records(lines, 12 if measured else 0, answers or []), is_active=False)
    for finding in found:
        applied(recipe, finding)  # what it changes can be
        for part in (finding.evidence, finding.meaning, finding.remedy):
            assert all("{" not in part.render(language) for language in LANGUAGES), part
    return found[0] if found else None


HEALTHY = metrics_of(1.2, -31.0, -44.0)
DISPLACED = metrics_of(2.0, -45.0, -67.0)


@pytest.mark.parametrize("measured", [True, False])
def test_a_run_that_learns_what_is_preferred_has_nothing(measured: bool) -> None:
    assert doctor(grown(HEALTHY), measured, [(0, 80.0), (20, 90.0), (40, 95.0)]) is None


@pytest.mark.parametrize("measured", [True, False])
def test_better_answers_that_fall_while_the_margin_grows_are_said_with_their_numbers(measured: bool) -> None:
    finding = doctor(grown(DISPLACED), measured)
    assert (
        finding
        and finding.id == "displaced"
        and finding.fix == {"train.sft_weight": 1.0}
        and 10 < (finding.step or 0) < 35
    )
    if measured:
        assert "−30.0, now −45.0" in str(finding.evidence) and "margin grew to 2.00" in str(finding.evidence)
    again = doctor(grown(DISPLACED), measured, sft_weight=1.0)
    assert again and again.fix == {"train.learning_rate": 4e-6}, (
        "what is learned besides already is learned more slowly"
    )
    assert doctor(grown(metrics_of(-0.5, -45.0, -40.0)), measured) is None, "no margin grows: that is another fault"


def test_answers_that_grow_longer_in_the_film_are_compared_by_their_mean() -> None:
    finding = doctor(grown(HEALTHY), answers=[(0, 60.0), (20, 95.0), (40, 130.0)])
    assert finding and finding.id == "longer" and finding.fix == {"train.loss_type": "sigmoid_norm", "train.beta": 5.0}
    assert "60 characters" in str(finding.evidence) and "130 at step 40" in str(finding.evidence) and finding.step == 20
    by_mean = doctor(grown(HEALTHY), answers=[(0, 60.0), (20, 95.0), (40, 130.0)], loss_type="sigmoid_norm")
    assert by_mean and set(by_mean.fix) == {"train.learning_rate"}
    assert doctor(grown(HEALTHY), answers=[(0, 60.0), (20, 95.0), (40, 70.0)]) is None, "back again"


@pytest.mark.parametrize("measured", [True, False])
def test_pairs_that_are_all_right_at_once_are_too_easy(measured: bool) -> None:
    finding = doctor(grown(HEALTHY, accuracy=1.0), measured)
    assert (
        finding
        and finding.id == "told_apart"
        and finding.fix == {"train.max_steps": 20}
        and "100 %" in str(finding.evidence)
    )
    later = [point | {"rewards/accuracies": 1.0 if step > 12 else 0.7} for step, point in enumerate(grown(HEALTHY))]
    assert doctor(later, measured) is None, "that is what training is for"


def test_a_run_that_learns_answers_alone_is_not_asked() -> None:
    assert doctor(grown(DISPLACED), objective="sft") is None


def test_the_film_tells_how_long_answers_are_that_every_frame_has(tmp_path: Path) -> None:
    run = Runs(Workspace.open(tmp_path / "ws")).create(Recipe.parse({"data": {"source": "x"}}), "test")
    assert sample_answers.mean_lengths(run) == []
    for step, last in ((0, "x" * 9), (10, "")):  # there was no time for the last one
        answers = tuple(FrameAnswer(text=text, why="stop") for text in ("a" * (10 + step), "b" * 20, last))
        sample_answers.append(run, Frame(step=step, answers=answers))
    assert sample_answers.mean_lengths(run) == [(0, 15.0), (10, 20.0)]


def test_pairs_whose_answers_are_the_same_are_named_and_can_be_removed() -> None:
    def pair(better: str, worse: str) -> Example:
        question = ChatMessage("user", "Is it open?")
        return Example(
            messages=(question, ChatMessage("assistant", better)), rejected=(question, ChatMessage("assistant", worse))
        )

    rows = [pair(f"Yes, until {hour}.", "No idea.") for hour in range(12)] + [
        pair("Yes, until noon.", "yes, until noon")
    ]
    (finding,) = findings(enumerate(rows, 1), "same_pairs")
    assert (finding.id, finding.count, finding.of, finding.repairs[0].rows) == ("same_pairs", 1, 13, (13,))
