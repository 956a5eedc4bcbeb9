"""Train: the run at work, or the newest, and below it the form: its top, its steps and the plan.

While something trains, "Plan the next run" shows the form again; its Start then adds the run to the queue. This is a
gr.State of the page: a reload shows the run at work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import gradio as gr
from gradio.events import Dependency

from core.runs.states import State
from webui.form import start
from webui.form.form import LOOK, Wizard
from webui.kit.html import muted
from webui.kit.live import AT_ONCE, QUIET, SHOW_CHAT, LivePart, Poller, Update, ViewContext
from webui.kit.wording import Wording
from webui.pages import runs
from webui.pages.conversations import CHOSEN
from webui.run.column import RunColumn
from webui.run.queue import QueuePanel
from webui.run.way_out import SEE_WAY_OUT
from webui.shelf.downloads import DownloadsCard
from webui.state.services import Services


class TrainPage:
    """The Train page: the queue, the run at work or the newest one, downloads, and below them the form with its
    plan."""

    def __init__(self, services: Services, wording: Wording, planning: gr.State):
        """Create the parts of the page (form, run, queue, downloads), without any widget yet.

        planning: true while the form shows the next run although another trains; of this page alone.
        """
        self.services, self.w, self.planning = services, wording, planning
        self.wizard, self.run = Wizard(services, wording), RunColumn(services, wording)
        self.line, self.downloads = QueuePanel(services, wording), DownloadsCard(services, wording)

    def build(self) -> None:
        """Build the page: the queue, the run, downloads and the form."""
        w = self.w
        self.start_waits = gr.Textbox("", visible="hidden")  # changes the label of Start
        self.run.build_notice()
        self.line.build_reasons()
        self.run.build()
        self.line.build_list()
        self.downloads.build()
        with gr.Column(elem_id="form-column") as self.form_column:
            with gr.Row(elem_id="plan-bar", visible=False) as self.plan_bar:
                self.plan_says = gr.HTML("", elem_id="plan-says")
                self.back = gr.Button(w.t("queue_panel.back"), size="sm", elem_id="plan-back")
            self.wizard.build_start()
            with gr.Row(elem_id="train-columns", equal_height=False):
                with gr.Column(scale=6, min_width=320, elem_id="left-column"):
                    self.wizard.build()
                with gr.Column(scale=5, min_width=320, elem_id="run-column"):
                    self.wizard.build_plan()

    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock: the form's visibility, queue, downloads and run."""
        return [
            LivePart(
                self.start_waits, lambda context: gr.update(value="yes" if start.will_wait(context.snapshot) else "")
            ),
            LivePart(
                self.form_column,
                lambda context: gr.update(visible=context.snapshot.busy is None or context.planning),
            ),
            LivePart(self.plan_bar, lambda context: gr.update(visible=context.snapshot.busy is not None)),
            LivePart(self.plan_says, self._plan_says),
            *self.line.parts(),
            *self.downloads.parts(),
            *self.run.parts(),
        ]

    def _plan_says(self, context: ViewContext) -> Update:
        """Return the line that the next run is planned while one trains or waits; "" otherwise."""
        busy = context.snapshot.busy
        key = "plan_waits" if busy and busy.status.state == State.QUEUED else "plan_says"
        return gr.update(value=muted(self.w.t(f"queue_panel.{key}", name=busy.name)) if busy else "")

    def wire(self, page: gr.Blocks, poller: Poller, tab: gr.Tab) -> None:
        """Connect the form, the run, the queue and the downloads."""
        self.wizard.wire(page, poller, self.run.notice, self.planning)
        self.start_waits.change(None, None, None, js=LOOK, **QUIET)
        self.wizard.data_step.follow(tab)
        self.wizard.follow(tab)
        self.run.wire(poller)
        self.line.wire(poller)
        self.downloads.wire(poller)
        for button, planning in ((self.run.plan_next, True), (self.back, False)):
            shown = poller.after(button.click(lambda planning=planning: planning, None, [self.planning], **AT_ONCE))
            if planning:
                self.wizard.redraw_after(shown)

    def wire_tabs(self, poller: Poller, tabs: gr.Tabs, opened: gr.Textbox, talk_to: gr.Textbox) -> None:
        """Connect the buttons of the run that fill the form, open another tab, or save its picture. opened: the run
        that Runs shows. talk_to: the model that Chat chooses."""
        run, wizard = self.run, self.wizard
        for button, anew in ((run.further, False), (run.again, True)):
            wizard.further.wire_button(wizard, button, None, tabs, run.notice, anew=anew)
        run.finding.wire(wizard, None, tabs, run.notice)
        talk = lambda: runs.to_chat(self.services, tabs, talk_to, self._shown())  # noqa: E731
        run.open_chat.click(talk, None, [tabs, talk_to], js=CHOSEN, **AT_ONCE).then(None, js=SHOW_CHAT)

        # `opened` is set first, because Runs opens what it names when it is drawn.
        def go_to_runs(button: gr.Button, which: Callable[[], str | None]) -> Dependency:
            """Let the button open the run that `which` returns, on the Runs page."""
            pressed = button.click(which, None, opened, **AT_ONCE)
            return poller.after(pressed.then(lambda: gr.update(selected="runs"), None, tabs, **AT_ONCE))

        go_to_runs(run.ended, self._ended)
        go_to_runs(run.take_out, self._shown).then(None, js=SEE_WAY_OUT)
        file = partial(runs.file_of, self.services, self.w, runs.picture_of, run.picture_file, run.notice)
        saved = run.save_picture.click(lambda: file(self._shown()), None, [run.picture_file, run.notice], **AT_ONCE)
        saved.then(None, [run.picture_file], None, js=runs.SAVE, **QUIET)

    def _ended(self) -> str | None:
        """Return the id of the run that the link to a result names; None without one."""
        row = self.services.snapshots.now().ended
        return row.id if row else None

    def _shown(self) -> str | None:
        """Return the id of the run that the page shows; None without one."""
        view = self.services.snapshots.now().shown
        return view.row.id if view else None
