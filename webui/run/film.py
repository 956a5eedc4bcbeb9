"""A run's sample answers beside its loss: a strip of evaluations, a slider, and a sentence about forgetting.

Polled like the curves, sent whole whenever film.jsonl has changed (at most MAX_FRAMES of core/runs/sample_answers).
Prompts and answers reach the page as JSON and through textContent only, so model output cannot run code. The template
holds no data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import gradio as gr

from core import files
from core.errors import RunError
from core.files import JsonObject
from core.runs import sample_answers, scenes
from core.runs.folder import RunFolder
from core.runs.sample_answers import Frame, FrameAnswer, forgetting
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.state.services import Services

POLL_MS, IDLE_POLL_MS = 2000, 4000
MAX_TEXT = 2000  # characters sent of a prompt or an answer
WORDS = (
    "title", "about", "scrubber", "at_step", "of_frames", "expected", "no_time", "unanswered", "unanswered_all",
    "unanswered_yet", "nothing",
    "earlier", "later", "strip", "base", "all_questions",
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
    """Return a component with a run's sample answers, which polls new ones. value: as of live_chart, which it stands
    beside: a run id, "" for the run of the Train page, None for none."""

    def film(request: object) -> JsonObject:
        """Return the film, {"same": True} if the page has it (request["mark"]), an empty one for any other JSON."""
        request = request if isinstance(request, dict) else {}
        run_id, at_work = services.snapshots.now().followed(request.get("run"))
        wait = {"wait_ms": POLL_MS if at_work else IDLE_POLL_MS}
        try:
            run = services.runs.get(run_id)
        except RunError:
            return {"run": "", "mark": "", "scenes": [], "frames": []} | wait
        mark = f"{run.id} {at_work} {files.stamp(run.path / sample_answers.FILE)}"
        return wait | (
            {"same": True} if request.get("mark") == mark else {"mark": mark, "at_work": at_work} | reel(run, w)
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


def reel(run: RunFolder, w: Wording) -> JsonObject:
    """Return a run's sample answers for a page, as JSON; no scenes and frames before its questions are chosen.

    run; scenes, the questions (source in words, question, expected); frames, the evaluations with an answer to each of
    them (step, answers as [text, how it ends], meter, tone). An answer ends with "more" if it was cut off, with "none"
    if there was no time for it.
    """
    chosen, frames = scenes.read(run), sample_answers.read(run)
    if chosen is None:
        return {"run": run.id, "scenes": [], "frames": []}
    complete = [frame for frame in frames if len(frame.answers) == len(chosen.scenes)]
    return {
        "run": run.id,
        "scenes": [
            {
                "source": w.t(f"film_view.{scene.source}"),
                "question": scene.question[:MAX_TEXT],
                "expected": scene.answer or "",
            }
            for scene in chosen.scenes
        ],
        "frames": [
            {
                "step": frame.step,
                "answers": [_answer(answer) for answer in frame.answers],
                **dict(zip(("meter", "tone"), meter(complete, frame.step, w), strict=True)),
            }
            for frame in complete
        ],
    }


def _answer(answer: FrameAnswer) -> list[str]:
    """Return [text, how it ends]: "none" if there was no time for it, "more" if it was cut off, else ""."""
    if answer.why == "time":
        return ["", "none"]
    return [answer.text[:MAX_TEXT], "more" if answer.why == "length" else ""]


def meter(frames: Sequence[Frame], step: int, w: Wording) -> tuple[str, str]:
    """Return (a sentence, its tone) on how the loss on texts unlike the data (neutral texts) has changed up to a step;
    with only the measurement before training a sentence on that one; ("", "plain") if nothing was measured."""
    drift = forgetting(list(frames), step)
    if drift is None:
        first = next((frame.neutral_loss for frame in frames if frame.step == 0), None)
        return (w.t("film_view.meter_first", loss=first), "plain") if first is not None else ("", "plain")
    values = {"before": drift.before, "now": drift.now, "percent": round(abs(100 * drift.change))}
    tone = {"some": "warn", "much": "bad"}.get(drift.forgot, "plain")
    return w.t(f"film_view.meter_{drift.forgot}", **values), tone
