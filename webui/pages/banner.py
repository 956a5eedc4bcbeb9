"""The banner above all tabs: a workspace that cannot be written, and runs that were interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from core.errors import GarageError
from core.runs import ended
from core.runs.ended import LeftRun
from webui.kit.format import moment
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import CONTROL, LivePart, Poller, Update, ViewContext, outcome, shown
from webui.kit.panel import Panel
from webui.state.snapshot import Snapshot


class WriteNotice(Panel):
    """One sentence that the workspace cannot be written any more; nothing while it can."""

    def build(self) -> None:
        self.banner = gr.HTML(self._said(), visible=bool(self._said()), elem_id="workspace-notice")

    def parts(self) -> list[LivePart]:
        return [LivePart(self.banner, lambda context: shown(self._said()))]

    def _said(self) -> Html:
        if (problem := self.services.write_watch.problem) is None:
            return Html("")
        return tag(
            "div", tag("p", tag("strong", self.w.render(problem))), class_="lg-notice lg-warn lg-banner", role="status"
        )


class LeftRuns(Panel):
    """Runs that went away, each with what would be lost; go on with one, or leave it for good."""

    def build(self) -> None:
        w, found = self.w, self._found(self.services.snapshots.now())
        with gr.Column(visible=bool(found), elem_id="left-runs", elem_classes="lg-card") as self.banner:
            self.said = gr.HTML(self._said(found), elem_id="left-runs-said")
            self.which = gr.Radio(
                self._choices(found),
                value=found[0].id if found else None,
                visible=len(found) > 1,
                **w.named("left_runs_card.which", "left-runs-which"),
            )
            with gr.Row(elem_classes="lg-tight"):
                self.go_on = gr.Button(
                    w.t("left_runs_card.go_on"), variant="primary", scale=0, min_width=150, elem_id="left-runs-go-on"
                )
                self.leave = gr.Button(w.t("left_runs_card.leave"), scale=0, min_width=150, elem_id="left-runs-leave")
        self.notice = gr.HTML("", visible=False, elem_id="left-runs-notice")

    def _found(self, snapshot: Snapshot) -> Sequence[LeftRun]:
        """None are offered while something is at work."""
        return () if snapshot.busy is not None else snapshot.left

    def _said(self, found: Sequence[LeftRun]) -> Html:
        w = self.w
        if not found:
            return Html("")
        title = w.t("left_runs_card.left_one") if len(found) == 1 else w.t("left_runs_card.left_many", count=len(found))
        each = (
            tag("li", w.render(run.words), " ", tag("span", moment(run.created), class_="lg-quiet")) for run in found
        )
        return join([tag("h2", title), tag("ul", *each, class_="lg-plain-list")])

    def _choices(self, found: Sequence[LeftRun]) -> list[tuple[str, str]]:
        return [(f"{run.name} · {moment(run.created)}", run.id) for run in found]

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.banner, lambda context: gr.update(visible=bool(self._found(context.snapshot)))),
            LivePart(self.said, lambda context: gr.update(value=self._said(self._found(context.snapshot)))),
            LivePart(self.which, self._which),
        ]

    def _which(self, context: ViewContext) -> Update:
        found = self._found(context.snapshot)
        return gr.update(choices=self._choices(found), value=found[0].id if found else None, visible=len(found) > 1)

    def wire(self, poller: Poller, tabs: gr.Tabs) -> None:
        poller.after(self.go_on.click(self.resume, [self.which], [self.notice, tabs], **CONTROL))
        poller.after(self.leave.click(self.dismiss, [self.which], [self.notice], **CONTROL))

    def resume(self, run_id: Any) -> tuple[Any, Any]:
        """Inputs: which. Outputs: notice, tabs (Train, where it is seen)."""
        try:
            self.services.supervisor.resume(self.services.runs.get(self._offered(run_id)))
        except GarageError as error:
            return shown(notice(self.w.render(error.message))), gr.skip()
        return shown(""), gr.update(selected="train")

    def dismiss(self, run_id: Any) -> Any:
        """Inputs: which. Outputs: notice."""
        return outcome(self.w, lambda: ended.dismiss(self.services.runs.get(self._offered(run_id))))

    def _offered(self, run_id: Any) -> str:
        """The one that is offered, or the one of several that was chosen; an id that is not among them chooses
        nothing."""
        ids = [run.id for run in self.services.snapshots.now(fresh=True).left]
        return run_id if run_id in ids else ids[0] if len(ids) == 1 else ""
