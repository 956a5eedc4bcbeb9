"""A run's progress for a person on another browser tab: hidden parts of the header that assets/signal.js turns into the
tab's title, its icon, and a notification if the browser allows it."""

from __future__ import annotations

from core.files import JsonObject
from core.runs.states import BUSY, State
from webui.kit.html import Html, join, tag
from webui.kit.wording import Wording
from webui.run.card import ended_with, tone_of
from webui.state.snapshot import RunRow, Snapshot


def signal(snapshot: Snapshot, w: Wording) -> Html:
    """Return two hidden parts with title, per cent, tone and sentence: the run at work, and the one that ended last
    (another one may have begun since)."""
    over = [row for row in snapshot.rows if row.status.state not in BUSY]
    busy, last = snapshot.busy, max(over, key=lambda row: row.status.since, default=None)
    attributes: list[JsonObject] = [{}, {}]
    if busy:
        steps = busy.status.total_steps if busy.status.state == State.RUNNING else 0
        percent = round(100 * min(1.0, busy.status.step / steps)) if steps else 0
        attributes[0] = {
            "data_title": _title(busy, w, f"{percent} %" if steps else ""),
            "data_percent": percent,
            "data_run": busy.id,
        }
    if last:
        attributes[1] = {"data_title": _title(last, w), "data_tone": tone_of(last.status), "data_run": last.id}
        attributes[1]["data_body"] = ended_with(last.status, w)
    return join(
        tag("span", hidden=True, class_=f"lg-{name}", **each)
        for name, each in zip(("at-work", "ended"), attributes, strict=True)
    )


def _title(row: RunRow, w: Wording, percent: str = "") -> str:
    """Return the tab's title for a run, such as "Paused – Pirate answers"; percent, such as "62 %", replaces its
    state."""
    title = w.t("run_signal.title", state=percent or w.t(f"state.{row.status.state.value}"), name=row.name)
    return title[:1].upper() + title[1:]


def notify_switch(w: Wording) -> Html:
    """Return the switch for notifications; it requests the browser's permission only when it is switched on."""
    words = {f"data_{name}": w.t(f"run_signal.{name}") for name in ("blocked", "not_here")}
    box = tag("label", tag("input", type="checkbox"), w.t("run_signal.notify"))
    return tag("div", box, tag("small", class_="lg-quiet", role="status"), class_="lg-notify", **words)
