"""A run's curves on the page: uPlot in gr.HTML, polled from the last point on, one request for all charts.

gr.LinePlot is not used: at 5,000 points it takes a second of the browser per refresh. The template is
constant and holds no data: gradio would run data in it as code.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import gradio as gr

from core.files import JsonObject
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.state.services import Services

POLL_MS, IDLE_POLL_MS = 1000, 3000
WORDS = (
    "empty", "none", "elsewhere", "offline", "step", "loss", "smoothed", "eval", "rate", "norm", "speed", "memory",
    "reward", "held_out", "help_reward", "help_held_out", "summary_reward", "accuracy", "margin",
    "logps", "chosen", "rejected", "more", "reset", "newest", "help", "help_loss", "help_eval",
    "nonfinite", "summary",
)  # fmt: skip
TEMPLATE = (
    "<p class='lc-note'></p>"
    "<div class='lc-body' hidden>"
    "<div class='lc-head'><p class='lc-legend'></p><button class='lc-reset' type='button' hidden></button></div>"
    "<div class='lc-plot' role='img' aria-label='-'></div>"
    "<details class='lc-help'><summary></summary><p></p><p></p></details>"
    "<details class='lc-more'><summary></summary><div class='lc-grid'></div></details>"
    "</div>"
    "<div class='lc-spoken' role='status' aria-live='polite'></div>"
)


def uplot_head() -> str:
    """Return uPlot's script and style for the page's head, from the package youplot, which is never imported. Raises
    ImportError without it."""
    spec = importlib.util.find_spec("youplot")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("The package youplot, which carries uPlot, is not installed.")
    vendor = Path(spec.submodule_search_locations[0]) / "vendor"
    style = (vendor / "uplot.min.css").read_text("utf-8")
    script = (vendor / "uplot.iife.min.js").read_text("utf-8")
    return f"<style>{style}</style><script>{script}</script>"


def live_chart(services: Services, w: Wording, value: str | None, elem_id: str) -> gr.HTML:
    """Return a component with a run's curves, which polls new points. value: a run id, "" for the run of the Train
    page, None for none; update it to show another run."""

    def curve(request: object) -> JsonObject:
        """Return the new points, whether the run is at work or was trained elsewhere, its steps and the wait until the
        next request, for any JSON from a browser; an empty curve for an invalid run id."""
        request = request if isinstance(request, dict) else {}
        snapshot = services.snapshots.now()
        run_id, at_work = snapshot.followed(request.get("run"))
        steps = (row.status.total_steps for row in snapshot.rows if at_work and row.id == run_id)
        ends = [row.status.message.key for row in snapshot.rows if row.id == run_id and row.status.message]
        return services.curves.since(run_id, request.get("cursor")) | {
            "at_work": at_work,
            "elsewhere": bool({"foreign.ended", "merge.ended"} & set(ends)),  # an adapter that was not trained here
            "steps": next(steps, 0),  # the length of the axis while it trains
            "wait_ms": POLL_MS if at_work else IDLE_POLL_MS,
        }

    words = {name: w.raw(f"chart.{name}") for name in WORDS}
    return gr.HTML(
        value=value,
        html_template=TEMPLATE,
        css_template=(ASSETS / "live_chart.css").read_text("utf-8"),
        # Part of the script, not a prop: gradio loses props of a component that is updated before it is first shown.
        js_on_load=(ASSETS / "live_chart.js").read_text("utf-8").replace("__WORDS__", json.dumps(words)),
        server_functions=[curve],
        apply_default_css=False,
        elem_id=elem_id,
    )
