"""Memory and time on a run's card: predicted and measured, before the start and now. Pure functions."""

from __future__ import annotations

from core.progress import RankUse
from core.runs.folder import Status
from core.runs.run_json import MemoryFacts
from core.runs.spill import sentence
from core.runs.states import BUSY
from core.values import GIB
from webui.kit import correction, format
from webui.kit.html import Html, notice, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView


def lines(view: RunView, w: Wording) -> list[Html]:
    """Return memory and time, predicted and measured, as lines for the timeline; [] if neither is known. While nothing
    is measured, a prediction of the time may stand alone."""
    parts = [memory(view.facts.memory, w), time(view, w)]
    return [line for line in parts if line is not None]


def now(view: RunView, w: Wording) -> list[Html]:
    """Return lines on the card of a running run: a warning if its memory overflows, and each process of several."""
    return [line for line in (spill(view, w), ranks(view.row.status, w)) if line is not None]


def memory(facts: MemoryFacts | None, w: Wording) -> Html | None:
    """Return "Memory: predicted 1.31 GiB, measured 1.42 GiB" as a line; None before it was measured. With the run's
    peak and the correction by earlier runs, if known."""
    if facts is None or facts.measured_gib is None:
        return None
    if facts.predicted_gib is None:
        return _quiet_line(w.t("run_memory.measured_alone", measured=facts.measured_gib))
    numbers = {"predicted": facts.predicted_gib, "measured": facts.measured_gib}
    peak = facts.peak_gib
    text = w.t("run_memory.measured_more", peak=peak, **numbers) if peak else w.t("run_memory.measured", **numbers)
    if facts.runs > 0 and facts.factor is not None:
        text += w.t("language.between_sentences") + correction.factor_sentence(facts.factor, facts.runs, w)
    return _quiet_line(text)


def ranks(status: Status, w: Wording) -> Html | None:
    """Return a line for each process of a run on several GPUs, while it is at work: "Process 0: RTX 3060, 7.9 of 12.0
    GiB, 98 % load"; else None."""
    if status.state not in BUSY or len(status.ranks) < 2:
        return None
    return tag(
        "ul",
        *(tag("li", _rank(number, each, w)) for number, each in enumerate(status.ranks)),
        class_="lg-quiet lg-ranks",
    )


def _rank(number: int, each: RankUse, w: Wording) -> str:
    """Return a line such as "Process 0: RTX 3060, 7.9 of 12.0 GiB, 98 % load"."""
    device = each.device if each.host is None else w.t("run_memory.rank_elsewhere", device=each.device, host=each.host)
    sizes = {"used": each.used_bytes / GIB, "total": each.total_bytes / GIB}
    text = w.t("run_memory.rank", number=number, device=device, **sizes)
    return text if each.load_percent is None else text + w.t("run_memory.rank_load", load=each.load_percent)


def time(view: RunView, w: Wording) -> Html | None:
    """Return a line such as "Time: about 4 min predicted before the start, about 5 min now"; afterwards the actual
    time, without the prediction if not all steps were made. None if nothing is known."""
    before, measured, status = view.facts.predicted_seconds, view.facts.time, view.row.status
    is_complete = status.state in BUSY or status.step == status.total_steps
    parts = [w.t("run_memory.before", time=format.about(w, before))] if before is not None and is_complete else []
    if status.state in BUSY:
        if status.seconds_total is not None:
            parts.append(w.t("run_memory.now", time=format.about(w, status.seconds_total)))
    elif measured and measured.took_seconds is not None:
        if measured.said_seconds is not None and is_complete:
            parts.append(
                w.t("run_memory.after_steps", steps=measured.after_steps, time=format.about(w, measured.said_seconds))
            )
        parts.append(w.t("run_memory.took", time=format.duration(w, measured.took_seconds)))
    return _quiet_line(w.t("run_memory.time", parts=w.t("run_memory.comma").join(parts))) if parts else None


def spill(view: RunView, w: Wording) -> Html | None:
    """Return a warning while the steps of a run at work are slow because the memory overflows; else None."""
    facts = view.facts.spill
    return notice(w.render(sentence(facts)), "warn") if facts and view.row.status.state in BUSY else None


def _quiet_line(text: str) -> Html:
    return tag("p", text, class_="lg-quiet lg-held-beside")
