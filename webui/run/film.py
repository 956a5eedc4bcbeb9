"""A run's sample answers beside its loss: a strip of evaluations, a slider, and what was forgotten, in words.

Polled like the curves, whole whenever film.jsonl has changed (at most MOST_FRAMES of core/runs/sample_answers). Prompts
and answers reach the page as JSON and through textContent only: what a model writes can run nothing. The template holds
no data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from core import files
from core.errors import RunError
from core.runs import sample_answers, scenes
from core.runs.folder import RunFolder
from core.runs.sample_answers import Frame, FrameAnswer, forgetting
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.state.services import Services

POLL_MS, IDLE_POLL_MS = 2000, 4000
MOST_TEXT = 2000  # characters of a prompt or an answer that are sent
WORDS = (
    "title", "about", "scrubber", "at_step", "of_frames", "expected", "no_time", "unanswered", "unanswered_all",
    "unanswered_yet", "nothing",
    "earlier", "later", "strip", "base", "every",
)  # fmt: skip
TEMPLATE = (
    "<section class='fs-body' hidden>"
    "<h3 class='fs-title'></h3><p class='fs-about'></p>"
    "<div class='fs-watch'><p class='fs-question'></p><ol class='fs-answers'></ol></div>"
    "<details class='fs-all'><summary></summary>"
    "<ol class='fs-strip'></ol>"
    "<div class='fs-scrub'><button class='fs-earlier' type='button'>‹</button>"
    "<input class='fs-range' type='range' min='0' max='0' value='0' step='1' aria-label='-'>"
    "<button class='fs-later' type='button'>›</button><output class='fs-at'></output></div>"
    "<p class='fs-meter'></p>"
    "<ul class='fs-scenes'></ul>"
    "</details>"
    "<p class='fs-unanswered'></p>"
    "</section>"
)


def film_strip(services: Services, w: Wording, value: str | None, elem_id: str) -> gr.HTML:
    """value: as of live_chart, which it stands beside: a run id, "" for the run that the Train page shows, None for
    none."""

    def film(asked: Any) -> dict[str, Any]:
        """Any JSON may arrive here: what names no run gets an empty film. asked["mark"]: of what the page has
        already."""
        asked = asked if isinstance(asked, dict) else {}
        run_id, at_work = services.snapshots.now().followed(asked.get("run"))
        wait = {"wait_ms": POLL_MS if at_work else IDLE_POLL_MS}
        try:
            run = services.runs.get(run_id)
        except RunError:
            return {"run": "", "mark": "", "scenes": [], "frames": []} | wait
        mark = f"{run.id} {at_work} {files.stamp(run.path / sample_answers.FILE)}"
        return wait | (
            {"same": True} if asked.get("mark") == mark else {"mark": mark, "at_work": at_work} | reel(run, w)
        )

    words = {name: w.raw(f"film_view.{name}") for name in WORDS}
    return gr.HTML(
        value=value,
        html_template=TEMPLATE,
        css_template=(ASSETS / "film.css").read_text("utf-8"),
        js_on_load=(ASSETS / "film.js").read_text("utf-8").replace("__WORDS__", json.dumps(words)),
        server_functions=[film],
        apply_default_css=False,
        elem_id=elem_id,
    )


def reel(run: RunFolder, w: Wording) -> dict[str, Any]:
    """run, scenes (source in words, asked, expected) and frames (step, answers as [text, how it ends], meter, tone) for
    a page:
    "more" where only the beginning was asked for, "none" where there was no time for it."""
    asked, made = scenes.read(run), sample_answers.read(run)
    if asked is None:
        return {"run": run.id, "scenes": [], "frames": []}
    of_run = [frame for frame in made if len(frame.answers) == len(asked.scenes)]
    return {
        "run": run.id,
        "scenes": [
            {
                "source": w.t(f"film_view.{scene.source}"),
                "asked": scene.question[:MOST_TEXT],
                "expected": scene.answer or "",
            }
            for scene in asked.scenes
        ],
        "frames": [
            {
                "step": frame.step,
                "answers": [_answer(answer) for answer in frame.answers],
                **dict(zip(("meter", "tone"), meter(of_run, frame.step, w), strict=True)),
            }
            for frame in of_run
        ],
    }


def _answer(answer: FrameAnswer) -> list[str]:
    if answer.why == "time":
        return ["", "none"]
    return [answer.text[:MOST_TEXT], "more" if answer.why == "length" else ""]


def meter(of_run: Sequence[Frame], step: int, w: Wording) -> tuple[str, str]:
    """What the neutral texts tell at a step, and its tone; "" where nothing was measured yet."""
    found = forgetting(list(of_run), step)
    if found is None:
        first = next((frame.neutral_loss for frame in of_run if frame.step == 0), None)
        return (w.t("film_view.meter_first", loss=first), "plain") if first is not None else ("", "plain")
    values = {"before": found.before, "now": found.now, "percent": round(abs(100 * found.change))}
    tone = {"some": "warn", "much": "bad"}.get(found.forgot, "plain")
    return w.t(f"film_view.meter_{found.forgot}", **values), tone
