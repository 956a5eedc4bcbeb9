"""Better, or only different: told of questions at both ends of a run, with what cannot be said said too."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import files
from core.judges.specs import LabelJudge, NumberJudge, RegexJudge
from core.messages import LANGUAGES, msg
from core.runs import sample_answers, scenes
from core.runs.cards import better
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.sample_answers import Ending, Frame, FrameAnswer
from core.runs.scenes import Scene, Scenes, SceneTurn
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from webui.kit.wording import Wording
from webui.run import better as shown
from webui.state.services import Services

QUESTIONS = tuple(
    Scene(source="kept_apart", turns=(SceneTurn(role="user", content=f"Sum {n}?"),), answer=f"It is {n}.")
    for n in range(10)
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return trained(Workspace.open(tmp_path), "Sums")


def filmed(run: RunFolder, held: tuple[Scene, ...] = QUESTIONS, **given: object) -> None:
    made = Scenes(scenes=(), neutral_texts=("x",), held_out=held, **given)  # type: ignore[arg-type]
    files.replace_json(run.path / scenes.FILE, made.model_dump(mode="json"))
    (run.path / sample_answers.FILE).unlink(missing_ok=True)
    for step, loss in ((0, 2.0), (40, 2.5)):
        sample_answers.append(run, Frame(step=step, answers=(), neutral_loss=loss))


def add_frame(run: RunFolder, step: int, *texts: str, why: Ending = "stop") -> None:
    better.append(run, step, [FrameAnswer(text=text, why=why) for text in texts])


def test_three_sentences_of_what_was_asked_at_both_ends(run: RunFolder) -> None:
    filmed(run)
    add_frame(run, 0, *["I cannot add such numbers, sorry."] * 9, "it is  9.")
    add_frame(run, 40, *[f"It is {n}." for n in range(8)], "?", "?")
    matched, length, neutral = map(str, better.sentences(run))
    # 8/10 and 1/10 as scipy 1.17.1's binomtest(...).proportion_ci(method="wilson"): 0.4902 to 0.9433, 0.0179 to 0.4042
    assert "8 of 10" in matched and "49–94 %" in matched and "base model 1 (2–40 %)" in matched
    assert "shorter" in length and "+25.0 %" in neutral
    view = Services.open(Workspace.open(run.path.parent.parent)).snapshots.view(run.id)
    assert view and "8 of 10" in "".join(shown.lines(view, Wording("en")))
    run.add_facts(RunFacts(adapter_step=20, adapter_is_best=True))
    assert "step 20" in str(better.sentences(run)[-1])
    assert all(Wording("zh").render(sentence) for sentence in better.sentences(run))


def test_the_answers_are_judged_as_the_data_proposes_and_the_judge_is_named(run: RunFolder) -> None:
    """An answer "red." among labels was right, and "It is red." was not: only the exact judge was there."""
    labels = LabelJudge(labels=("red", "blue"))
    held = tuple(scene.model_copy(update={"answer": ("red", "blue")[n % 2]}) for n, scene in enumerate(QUESTIONS))
    filmed(run, held, judge=labels)
    add_frame(run, 0, *["Perhaps blue or red."] * 10)
    add_frame(run, 40, *["It is red."] * 10)
    assert "5 of 10" in str(better.sentences(run)[0]) and "judge: Label" in str(better.sentences(run)[0])
    filmed(run, tuple(scene.model_copy(update={"judge": RegexJudge(pattern="^it is")}) for scene in held))
    assert "10 of 10" in str(better.sentences(run)[0]) and "judge: Pattern" in str(better.sentences(run)[0])


def test_an_expected_answer_that_the_judge_cannot_read_is_compared_as_text(run: RunFolder) -> None:
    """The end of a run was JudgeError's sentence instead of a comparison: "unknown" among numbers is no number."""
    held = tuple(scene.model_copy(update={"answer": str(n) if n else "unknown"}) for n, scene in enumerate(QUESTIONS))
    filmed(run, held, judge=NumberJudge())
    add_frame(run, 0, *["?"] * 10)
    add_frame(run, 40, "Unknown.", *["It is 4."] * 9)
    assert "2 of 10" in str(better.sentences(run)[0]) and "base model 0" in str(better.sentences(run)[0])


def test_questions_of_an_earlier_version_without_a_judge_say_nothing(run: RunFolder) -> None:
    filmed(run, tuple(scene.model_copy(update={"answer": None}) for scene in QUESTIONS))
    add_frame(run, 0, *["x"] * 10)
    add_frame(run, 40, *["x"] * 10)
    assert [sentence.key for sentence in better.sentences(run)] == ["better.neutral"]


def test_what_cannot_be_said_is_said_with_its_reason(run: RunFolder) -> None:
    assert better.sentences(run) == [] or (run.path / scenes.FILE).exists()
    filmed(run, (), not_asked="none_held_out")
    assert [said.key for said in better.sentences(run)] == ["better.none_held_out", "better.neutral"]
    filmed(run)
    assert better.sentences(run)[0].key == "better.not_at_both_ends"
    add_frame(run, 0, *["x"] * 10)
    (run.path / better.FILE).open("ab").write(b'{"step": 40, "answ')
    assert better.sentences(run)[0].key == "better.not_at_both_ends"
    (run.path / better.FILE).unlink()
    add_frame(run, 0, *["x"] * 10)
    add_frame(run, 40, *[""] * 10, why="time")
    assert [said.key for said in better.sentences(run)] == ["better.neutral"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_setting_is_called_by_its_label(language: str) -> None:
    """A run's card said that “data.eval_fraction” should be raised."""
    w = Wording(language)
    assert w.t("wizard.field_eval_fraction") in w.render(msg("better.none_held_out", least=8, tokens=48))
