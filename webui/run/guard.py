"""The run's own corrections, on its card: saved memory, skipped steps, returned to a checkpoint, kept the best. Pure
functions."""

from __future__ import annotations

from core.files import JsonObject
from core.messages import Message
from webui.kit.html import Html, muted, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView

MOST = 3  # the newest; the timeline has all


def chip(view: RunView, w: Wording) -> Html | None:
    """Return a chip beside the run's state: the number of its own corrections; None for none. The timeline lists
    them."""
    count = len(_sentences(view, w))
    return tag("span", w.t("run_guard.head", count=count), class_="lg-badge") if count else None


def _sentences(view: RunView, w: Wording) -> list[str]:
    """Return the run's own corrections as sentences, oldest first."""
    events = (event for event in view.events if event.get("kind") == "guard")
    return [text for event in events if (text := sentence(event.get("message"), w))]


def lines(view: RunView, w: Wording) -> list[Html]:
    """Return the kept best step and a list of the run's last MOST corrections; [] if there were none."""
    parts, sentences = [kept_best(view, w)], _sentences(view, w)
    if sentences:
        head = tag("p", tag("strong", w.t("run_guard.head", count=len(sentences))))
        items = tag("ul", *(tag("li", text) for text in sentences[-MOST:]))
        more = muted(w.t("run_guard.more", count=len(sentences) - MOST)) if len(sentences) > MOST else None
        parts.append(tag("div", head, items, more, class_="lg-outcome lg-warn lg-guard"))
    return [line for line in parts if line is not None]


def kept_best(view: RunView, w: Wording) -> Html | None:
    """Return a line with step and loss of the adapter, if it is the best measured one and the run's outcome does not
    already say so; else None."""
    status, step, loss = view.row.status, view.facts.adapter_step, view.facts.best_eval_loss
    is_shown = status.message is not None and status.message.key in (
        "run.completed_best",
        "run.completed_early",
        "run.stopped_best",
    )
    if is_shown or not view.facts.adapter_is_best or not status.has_adapter or loss is None:
        return None
    return muted(w.t("run_guard.kept_best", step=step, loss=loss))


def sentence(message: JsonObject | Message | None, w: Wording) -> str:
    """Return an event's message as a sentence; "" if there is none to read."""
    try:
        return w.render(message)
    except ValueError:  # from a damaged line
        return ""
