"""The banner above all tabs: a workspace that cannot be written, and interrupted runs."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from core.runs import ended
from core.runs.ended import LeftRun
from webui.kit.format import moment
from webui.kit.html import Html, join, tag
from webui.kit.live import CONTROL, LivePart, Poller, Update, ViewContext, outcome, shown
from webui.kit.panel import Panel
from webui.pages.runs import resumed
from webui.state.snapshot import Snapshot


class WriteNotice(Panel):
    """A sentence while the workspace cannot be written."""

    def build(self) -> None:
        self.banner = gr.HTML(self._text(), visible=bool(self._text()), elem_id="workspace-notice")

    def parts(self) -> list[LivePart]:
        return [LivePart(self.banner, lambda context: shown(self._text()))]

    def _text(self) -> Html:
        """Return the sentence why the workspace cannot be written; "" if it can."""
        if (problem := self.services.write_watch.problem) is None:
            return Html("")
        return tag(
            "div", tag("p", tag("strong", self.w.render(problem))), class_="lg-notice lg-warn lg-banner", role="status"
        )


class LeftRuns(Panel):
    """Interrupted runs, each with what would be lost; the buttons resume one, or dismiss it for good."""

    def build(self) -> None:
        """Build the banner: the runs that were left, the choice among several, and its two buttons; hidden without such
        runs."""
        w, runs = self.w, self._offered_runs(self.services.snapshots.now())
        with gr.Column(visible=bool(runs), elem_id="left-runs", elem_classes="lg-card") as self.banner:
            self.text = gr.HTML(self._text(runs), elem_id="left-runs-message")
            self.which = gr.Radio(
                self._choices(runs),
                value=runs[0].id if runs else None,
                visible=len(runs) > 1,
                **w.named("left_runs_card.which", "left-runs-which"),
            )
            with gr.Row(elem_classes="lg-tight"):
                self.go_on = gr.Button(w.t("left_runs_card.go_on"), scale=0, min_width=150, elem_id="left-runs-go-on")
                self.leave = gr.Button(w.t("left_runs_card.leave"), scale=0, min_width=150, elem_id="left-runs-leave")
        self.notice = gr.HTML("", visible=False, elem_id="left-runs-notice")

    def _offered_runs(self, snapshot: Snapshot) -> Sequence[LeftRun]:
        """Return the interrupted runs; () while something is at work."""
        return () if snapshot.busy is not None else snapshot.left

    def _text(self, runs: Sequence[LeftRun]) -> Html:
        """Return the heading and a line for each run that was left; nothing without one."""
        w = self.w
        if not runs:
            return Html("")
        title = w.t("left_runs_card.left_one") if len(runs) == 1 else w.t("left_runs_card.left_many", count=len(runs))
        each = (
            tag("li", w.render(run.words), " ", tag("span", moment(w, run.created), class_="lg-quiet")) for run in runs
        )
        return join([tag("h2", title), tag("ul", *each, class_="lg-plain-list")])

    def _choices(self, runs: Sequence[LeftRun]) -> list[tuple[str, str]]:
        """Return (label, id) of each run for the radio buttons; label: its name and when it was created."""
        return [(f"{run.name} · {moment(self.w, run.created)}", run.id) for run in runs]

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.banner, lambda context: gr.update(visible=bool(self._offered_runs(context.snapshot)))),
            LivePart(self.text, lambda context: gr.update(value=self._text(self._offered_runs(context.snapshot)))),
            LivePart(self.which, self._run_choices),
        ]

    def _run_choices(self, context: ViewContext) -> Update:
        """Return the update of the list of interrupted runs, with the first one chosen; hidden if there is only one."""
        runs = self._offered_runs(context.snapshot)
        return gr.update(choices=self._choices(runs), value=runs[0].id if runs else None, visible=len(runs) > 1)

    def wire(self, poller: Poller, tabs: gr.Tabs) -> None:
        """Connect the two buttons: one resumes the chosen run and opens the Train page in tabs, the other dismisses it
        for good. poller: updates the page's live parts after each."""
        resume = lambda run_id: resumed(self.services, self.w, self.notice, tabs, self._offered(run_id))  # noqa: E731
        poller.after(self.go_on.click(resume, [self.which], [self.notice, tabs], **CONTROL))
        poller.after(self.leave.click(self.dismiss, [self.which], [self.notice], **CONTROL))

    def dismiss(self, run_id: object) -> Update:
        """Dismiss an interrupted run for good, so that the banner no longer offers it; return the update of the notice,
        hidden unless it failed. run_id: the chosen one of several."""
        return outcome(self.w, lambda: ended.dismiss(self.services.runs.get(self._offered(run_id))))

    def _offered(self, run_id: object) -> str:
        """Return the id of the only interrupted run, or the chosen one of several; "" for any other id."""
        ids = [run.id for run in self.services.snapshots.now(fresh=True).left]
        return run_id if run_id in ids else ids[0] if len(ids) == 1 else ""
