"""The four figures of a run: step, loss, validation loss (in training by rewards: reward, held-out reward) and memory,
each with one line about it. Pure functions."""

from __future__ import annotations

from core.runs.states import BUSY, State
from webui.kit import format
from webui.kit.html import Html, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView


def figures(view: RunView, w: Wording) -> Html:
    """Return the four figures; a dash for an unknown number."""
    trained, evaluated = ("reward", "held_out_reward") if view.row.is_reward else ("loss", "validation")
    shown = (
        ("step", *_step(view, w)),
        (trained, *_trained(view, w)),
        (evaluated, *_evaluated(view, w)),
        ("memory", *_memory(view, w)),
    )
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", w.t(f"run_figures.{name}")),
                tag("dd", tag("strong", number), tag("span", about, class_=f"lg-{tone}")),
                class_="lg-figure",
            )
            for name, number, about, tone in shown
        ),
        class_="lg-figures",
    )


def _step(view: RunView, w: Wording) -> tuple[str, str, str]:
    """Return (number, remark, tone); the remark is the time left, or what the run took."""
    status = view.row.status
    if not status.total_steps:
        return "–", "", "quiet"
    number = f"{format.grouped(w, status.step)} / {format.grouped(w, status.total_steps)}"
    if status.state in BUSY:
        left = format.time_left(w, status.seconds_left) if status.state == State.RUNNING else ""
        return number, left, "quiet"
    seconds = view.row.seconds
    return number, w.t("run_memory.took", time=format.duration(w, seconds)) if seconds else "", "quiet"


def _trained(view: RunView, w: Wording) -> tuple[str, str, str]:
    """Return (number, remark, tone) of the newest training loss, or reward, "–" for an unknown one. The remark is the
    change since the start: of a loss in per cent, of a reward the difference."""
    row = view.row
    if row.last_measure is None:
        return "–", "", "quiet"
    first = row.course[0] if row.course else 0.0
    if row.is_reward:
        gained = row.last_measure - first
        about = w.t("run_figures.gained", change=gained) if len(row.course) > 1 else ""
        return format.loss(w, row.last_measure), about, "ok" if gained > 0 else "quiet"
    change = round(100 * (row.last_measure - first) / first) if first else 0
    about = w.t("run_figures.since_start", change=change) if len(row.course) > 1 and change else ""
    return format.loss(w, row.last_measure), about, "ok" if change < 0 else "quiet"


def _evaluated(view: RunView, w: Wording) -> tuple[str, str, str]:
    """Return (number, remark, tone) of the best or newest validation loss, or held-out reward, "–" for an unknown one.
    The remark names the step if the adapter is the best one measured."""
    row, facts = view.row, view.facts
    if row.evaluated is None:
        return "–", "", "quiet"
    step = facts.adapter_step if facts.adapter_is_best else None
    about = w.t("run_figures.best_step", step=step) if step is not None else ""
    return format.loss(w, row.evaluated), about, "ok" if about else "quiet"


def _memory(view: RunView, w: Wording) -> tuple[str, str, str]:
    """Return (number, remark, tone) of the measured memory, "–" before that; the remark is the planned memory."""
    facts = view.facts.memory
    measured = facts and (facts.peak_gib or facts.measured_gib)
    if facts is None or not measured:
        return "–", "", "quiet"
    about = "" if facts.predicted_gib is None else w.t("run_figures.planned", gib=format.gib(w, facts.predicted_gib))
    return w.t("run_figures.gib", gib=format.gib(w, measured)), about, "quiet"
