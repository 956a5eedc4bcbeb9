"""A film on disk, with answers that try to run something."""

from __future__ import annotations

from core import files
from core.runs import sample_answers, scenes
from core.runs.folder import RunFolder
from core.runs.sample_answers import Frame, FrameAnswer
from core.runs.scenes import Scene, Scenes, SceneTurn

EVIL = "<img src=x onerror=\"window.ran='run'\"><script>window.ran='run'</script> ${window.ran='run'} {{value}}"
LOSSES = {0: 3.21, 20: 3.24, 40: 3.35, 60: 3.9, 80: 4.4}


def scene(source: str, asked: str, answer: str | None = None) -> Scene:
    return Scene(source=source, turns=(SceneTurn(role="user", content=asked),), answer=answer)


SCENES = Scenes(
    scenes=(
        scene("kept_apart", "What is a lantern?", "Arr, matey! A lantern be a light in the dark. Yo-ho-ho!"),
        scene("kept_apart", EVIL, EVIL),
        scene("own", "Wie heißt du?"),
        scene("neutral", "Write two sentences about the moon."),
    ),
    neutral_texts=("x",),
)


def film_of(run: RunFolder, *steps: int) -> None:
    files.replace_json(run.path / scenes.FILE, SCENES.model_dump(mode="json"))
    for step in steps:
        said = (
            "A lantern is a device that gives light." if step < 40 else f"Arr, matey! Step {step} be bright. Yo-ho-ho!"
        )
        answers = (said, f"{EVIL} {step}", "", "The moon goes around the Earth. It shines because the sun " * 2)
        endings = ("stop", "stop", "stop", "time")
        made = tuple(FrameAnswer(text=text, why=why) for text, why in zip(answers, endings, strict=True))
        sample_answers.append(run, Frame(step=step, answers=made, neutral_loss=LOSSES[step]))
