"""What a run's card says of memory and time: predicted beside measured, before the start beside now. Pure functions."""

from __future__ import annotations

from typing import Any

from core.runs.spill import Spill, sentence
from core.runs.states import BUSY
from webui.kit import correction, format
from webui.kit.html import Html, notice, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView


def lines(view: RunView, w: Wording) -> list[Html]:
    """Warnings first; nothing where nothing is known yet."""
    found = [spill(view, w), memory(view.facts, w), time(view, w)]
    return [line for line in found if line is not None]


def memory(facts: dict[str, Any], w: Wording) -> Html | None:
    """ "Memory: predicted 1.31 GiB, measured 1.42 GiB" """
    known = _part(facts, "memory")
    predicted, measured = _number(known, "predicted_gib"), _number(known, "measured_gib")
    if measured is None:
        return None
    if predicted is None:
        return _line(w.t("run_memory.measured_alone", measured=f"{measured:.2f}"))
    numbers = {"predicted": f"{predicted:.2f}", "measured": f"{measured:.2f}"}
    peak = _number(known, "peak_gib")
    said = w.t("run_memory.measured_more", peak=f"{peak:.2f}", **numbers) if peak else w.t("run_memory.measured", **numbers)
    runs, factor = known.get("runs"), _number(known, "factor")
    if isinstance(runs, int) and runs > 0 and factor is not None:
        said += ("" if w.language == "zh" else " ") + correction.said(factor, runs, w)
    return _line(said)


def time(view: RunView, w: Wording) -> Html | None:
    """ "Time: about 4 min predicted before the start, about 5 min now"; what it took, once it is over."""
    before = _number(view.facts, "predicted_seconds")
    status, told = view.row.status, _part(view.facts, "time")
    took = _number(told, "took_seconds")
    parts = [w.t("run_memory.before", time=format.about(w, before))] if before is not None else []
    if status.state in BUSY:
        if status.seconds_total is not None:
            parts.append(w.t("run_memory.now", time=format.about(w, status.seconds_total)))
    elif took is not None:
        if (said := _number(told, "said_seconds")) is not None:
            parts.append(w.t("run_memory.after_steps", steps=told.get("after_steps"), time=format.about(w, said)))
        parts.append(w.t("run_memory.took", time=format.duration(w, took)))
    return _line(w.t("run_memory.time", parts=w.t("run_memory.comma").join(parts))) if parts else None


def spill(view: RunView, w: Wording) -> Html | None:
    """While it lasts: the steps have become slow because the memory overflowed."""
    known = view.facts.get("spill")
    if view.row.status.state not in BUSY or not isinstance(known, dict):
        return None
    try:
        return notice(w.of(sentence(Spill(**known))), "warn")
    except TypeError:  # of another version
        return None


def _part(facts: dict[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def _number(known: dict[str, Any], name: str) -> float | None:
    value = known.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _line(said: str) -> Html:
    return tag("p", said, class_="lg-quiet lg-held-beside")
