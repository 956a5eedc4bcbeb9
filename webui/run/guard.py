"""What a run did by itself, on its card: saved memory, skipped steps, went back, kept the best. Pure functions."""

from __future__ import annotations

from typing import Any

from webui.kit.html import Html, muted, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView

MOST = 3  # the newest; all of them stand in the run's story


def chip(view: RunView, w: Wording) -> Html | None:
    """A chip beside the run's state: the number of its own corrections. The timeline lists them."""
    count = len(_sentences(view, w))
    return tag("span", w.t("run_guard.head", count=count), class_="lg-badge lg-warn") if count else None


def _sentences(view: RunView, w: Wording) -> list[str]:
    events = (event for event in view.events if event.get("kind") == "guard")
    return [told for event in events if (told := sentence(event.get("message"), w))]


def lines(view: RunView, w: Wording) -> list[Html]:
    """Nothing where a run needed no help."""
    found, said = [kept(view, w)], _sentences(view, w)
    if said:
        head = tag("p", tag("strong", w.t("run_guard.head", count=len(said))))
        items = tag("ul", *(tag("li", told) for told in said[-MOST:]))
        more = muted(w.t("run_guard.more", count=len(said) - MOST)) if len(said) > MOST else None
        found.append(tag("div", head, items, more, class_="lg-outcome lg-warn lg-guard"))
    return [line for line in found if line is not None]


def kept(view: RunView, w: Wording) -> Html | None:
    """Which step the adapter is of, where it is the best measured and how the run ended does not say so already."""
    status, step, loss = view.row.status, view.facts.adapter_step, view.facts.best_eval_loss
    is_said = status.message is not None and status.message.key in (
        "run.completed_best",
        "run.completed_early",
        "run.stopped_best",
    )
    if is_said or not view.facts.adapter_is_best or not status.has_adapter or loss is None:
        return None
    return muted(w.t("run_guard.kept_best", step=step, loss=loss))


def sentence(message: Any, w: Wording) -> str:
    try:
        return w.render(message)
    except ValueError:  # of a damaged line
        return ""
