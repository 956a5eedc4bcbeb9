"""The run of the Train page: the current one, otherwise the newest.

On the left its card, Stop, Pause and its curves; beside them its sample answers, its settings and its timeline.
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from core.runs.further import may_be_parent
from core.runs.states import BUSY, State, may_pause, may_resume, may_stop
from webui.kit.html import Html, notice, tag
from webui.kit.live import CONTROL, ENDS, LivePart, Options, Poller, Update, ViewContext, outcome, shown
from webui.kit.wording import Wording
from webui.run import card
from webui.run.chart import live_chart
from webui.run.evaluated import evaluation_view
from webui.run.film import film_strip
from webui.run.findings import RunFinding
from webui.run.judged import judged_view
from webui.run.queue import awaited
from webui.run.signal import notify_switch
from webui.state.services import Services
from webui.state.snapshot import RunRow, RunView, Snapshot


class RunColumn:
    """The run of the Train page: card, buttons, curves, sample answers, settings and timeline."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.finding = RunFinding(services, wording, "run", lambda context: context.snapshot.shown)

    def build_notice(self) -> None:
        self.notice = gr.HTML("", elem_id="run-notice", visible=False)

    def build(self) -> None:
        """Build the run's two columns; hidden while there is no run."""
        has_run = self.services.snapshots.now().shown is not None
        with gr.Row(visible=has_run, elem_id="run-box", equal_height=False) as self.box:
            with gr.Column(scale=7, min_width=320, elem_id="run-main"):
                self._build_main()
            with gr.Column(scale=4, min_width=280, elem_id="run-side"):
                self._build_side()

    def _build_main(self) -> None:
        """Build the run's card, its buttons, evaluation and curves."""
        w = self.w
        self.ended = gr.Button("", visible=False, elem_id="run-ended", elem_classes="lg-link")
        self.card = gr.HTML("", elem_id="run-card")
        self.finding.build()
        with gr.Row(elem_id="run-buttons"):
            self.resume = gr.Button(w.t("train_page.resume"), variant="primary", visible=False, elem_id="resume")
            self.pause = gr.Button(w.t("train_page.pause"), visible=False, elem_id="pause")
            self.again = gr.Button(w.t("train_page.again"), visible=False, elem_id="run-again")
            self.stop = gr.Button(w.t("train_page.stop"), variant="stop", visible=False, elem_id="stop")
            with gr.Row(visible=False, elem_id="run-actions") as self.actions:
                self.open_chat = gr.Button(w.t("train_page.open_chat"), variant="primary", elem_id="run-open-chat")
                self.take_out = gr.Button(w.t("way_out.open_here"), visible=False, elem_id="run-way-out")
                self.further = gr.Button(w.t("further_card.further"), visible=False, elem_id="run-further")
                self.save_picture = gr.Button(w.t("recipe_card.picture"), elem_id="run-picture")
            self.plan_next = gr.Button(w.t("queue_panel.plan_next"), visible=False, elem_id="plan-next")
        self.picture_file = gr.JSON(None, visible=False)
        # On a phone a finished run is a short card above the form.
        unfold = tag("button", w.t("train_page.unfold"), type="button", class_="lg-small", aria_expanded="false")
        gr.HTML(unfold, elem_id="run-unfold")
        evaluation_view(self.services, w, "", "run-evaluation")
        with gr.Column(elem_id="run-chart", elem_classes="lg-card"):
            self.chart = live_chart(self.services, w, "", "live-chart")
        judged_view(self.services, w, "", "run-judged")

    def _build_side(self) -> None:
        """Build the sample answers, and the folds with settings and timeline."""
        w = self.w
        film_strip(self.services, w, "", "live-film")
        folded: Options = {"open": False, "elem_classes": "lg-card"}
        with gr.Accordion(w.t("train_page.run_settings"), elem_id="run-settings-fold", **folded):
            self.settings = gr.HTML("", elem_id="run-settings")
        with gr.Accordion(w.t("train_page.story"), elem_id="run-story-fold", **folded):
            self.story = gr.HTML("", elem_id="run-story")
        self.notify = gr.HTML(notify_switch(w), visible=False, elem_id="run-notify")

    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock: card, buttons, settings, timeline."""
        return [
            LivePart(self.box, lambda context: gr.update(visible=context.snapshot.shown is not None)),
            LivePart(self.ended, self._ended_link),
            LivePart(self.card, lambda context: self._about(context, card.card)),
            *self.finding.parts(),
            LivePart(  # unless the queue waits for that run: then the queue's card has the button
                self.resume,
                lambda context: gr.update(
                    visible=self._resumable(context.snapshot) is not None and awaited(context.snapshot) is None
                ),
            ),
            LivePart(self.again, self._again_button),
            LivePart(self.pause, self._pause_button),
            LivePart(self.stop, self._stop_button),
            LivePart(self.notify, lambda context: gr.update(visible=context.snapshot.busy is not None)),
            LivePart(
                self.actions,
                lambda context: gr.update(visible=bool(context.snapshot.shown and context.snapshot.shown.row.can_chat)),
            ),
            LivePart(self.take_out, self._export_button),
            LivePart(self.further, lambda context: gr.update(visible=self._may_continue(context.snapshot))),
            LivePart(self.settings, lambda context: self._about(context, card.settings)),
            LivePart(self.story, lambda context: self._about(context, card.story)),
            LivePart(
                self.plan_next,
                lambda context: gr.update(visible=context.snapshot.busy is None or not context.planning),
            ),
        ]

    def _about(self, context: ViewContext, show: Callable[[RunView, Wording], Html]) -> Update:
        """Return the update that draws the shown run by `show`, if any."""
        return gr.update(value=show(context.snapshot.shown, self.w) if context.snapshot.shown else "")

    def _ended_link(self, context: ViewContext) -> Update:
        """Return the update of the link to the result of the run that ended last while the one at work waited; hidden
        without such a run."""
        row = context.snapshot.ended
        return shown(self.w.t("train_page.ended", name=row.name) if row else "")

    def _again_button(self, context: ViewContext) -> Update:
        """Return the update of the button that sets up the shown run again, for instance with another learning rate;
        hidden unless that run was stopped or failed and nothing is at work."""
        row = context.snapshot.shown.row if context.snapshot.shown else None
        is_over = row is not None and row.status.state in (State.STOPPED, State.FAILED)
        return gr.update(visible=context.snapshot.busy is None and is_over)

    def _stop_button(self, context: ViewContext) -> Update:
        """Return the update of Stop: its label names its present effect; hidden without a run at work, disabled if
        there is nothing to stop any more."""
        busy = context.snapshot.busy
        if busy is None:
            return gr.update(visible=False, interactive=False, value=self.w.t("train_page.stop"))
        state = busy.status.state
        before = "stop" if busy.checkpoints else "stop_before_training"  # a resumed run keeps what it has
        key = {State.RUNNING: "stop", State.PAUSING: "stop", State.STOPPING: "stop_under_way"}.get(state, before)
        return gr.update(visible=True, interactive=may_stop(state), value=self.w.t(f"train_page.{key}"))

    def _pause_button(self, context: ViewContext) -> Update:
        """Return the update of Pause; hidden unless a run prepares, trains or pauses."""
        busy = context.snapshot.busy
        if busy is None or busy.status.state not in (State.PREPARING, State.RUNNING, State.PAUSING):
            return gr.update(visible=False, interactive=False)
        key = "pause_under_way" if busy.status.state == State.PAUSING else "pause"
        return gr.update(visible=True, interactive=may_pause(busy.status.state), value=self.w.t(f"train_page.{key}"))

    def _export_button(self, context: ViewContext) -> Update:
        """Show the button to exports if the shown run has an adapter and is over."""
        row = context.snapshot.shown.row if context.snapshot.shown else None
        return gr.update(visible=bool(row and row.status.has_adapter and row.status.state not in BUSY))

    def _may_continue(self, snapshot: Snapshot) -> bool:
        """Return whether the shown run can be trained further: it was completed or stopped, it has an adapter, and
        nothing is at work."""
        row = snapshot.shown.row if snapshot.shown else None
        return bool(snapshot.busy is None and row and row.status.has_adapter and may_be_parent(row.status.state))

    def _resumable(self, snapshot: Snapshot) -> RunRow | None:
        """Return the run that is shown if it can be resumed and nothing else is at work; else None."""
        row = snapshot.shown.row if snapshot.shown else None
        return row if row and snapshot.busy is None and may_resume(row.status.state) else None

    def wire(self, poller: Poller) -> None:
        poller.after(self.stop.click(self.stop_run, None, [self.notice], **ENDS))
        poller.after(self.pause.click(self.pause_run, None, [self.notice], **ENDS))
        poller.after(self.resume.click(self.resume_run, None, [self.notice], **CONTROL))

    def pause_run(self) -> Update:
        """Let the run at work pause, and return the update of the notice: hidden if that succeeds, else the error, or
        that nothing is at work."""
        busy = self.services.snapshots.now(fresh=True).busy
        if busy is None:
            return shown(notice(self.w.t("train_page.nothing_to_pause"), "plain"))
        return outcome(self.w, lambda: self.services.supervisor.pause(self.services.runs.get(busy.id)), tone="plain")

    def resume_run(self) -> Update:
        """Resume the run that is shown, if it can be, and return the notice."""
        row = self._resumable(self.services.snapshots.now(fresh=True))
        if row is None:
            return shown(notice(self.w.t("train_page.nothing_to_resume"), "plain"))
        return outcome(self.w, lambda: self.services.supervisor.resume(self.services.runs.get(row.id)), tone="plain")

    def stop_run(self) -> Update:
        """Stop the run at work, of which there is at most one, and return the notice."""
        busy = self.services.snapshots.now(fresh=True).busy
        if busy is None or busy.status.state not in BUSY:
            return shown(notice(self.w.t("train_page.nothing_to_stop"), "plain"))
        return outcome(self.w, lambda: self.services.supervisor.stop(self.services.runs.get(busy.id)), tone="plain")
