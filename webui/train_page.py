"""Train: the wizard on the left, or the frozen settings of what is at work; on the right what the run is doing."""

from __future__ import annotations

import gradio as gr

from webui import run_panel
from webui.live import LivePart, Look, Pulse
from webui.markup import tag
from webui.run_column import RunColumn
from webui.services import Services
from webui.wizard import Wizard
from webui.wording import Wording


class TrainPage:
    def __init__(self, services: Services, wording: Wording):
        self.w = wording
        self.wizard, self.run = Wizard(services, wording), RunColumn(services, wording)

    def build(self) -> None:
        self.intro = gr.HTML(tag("p", self.w.t("wizard.intro"), class_="lg-quiet"), elem_id="train-intro")
        with gr.Row(elem_id="train-columns", equal_height=False) as self.columns:
            with gr.Column(scale=6, min_width=320, elem_id="form-column") as self.form_column:
                self.wizard.build()
            self.frozen_column = gr.Column(scale=6, min_width=320, elem_id="frozen-column", visible=False)
            with self.frozen_column, gr.Column(elem_classes="lg-card"):
                gr.HTML(tag("h2", self.w.t("train_page.frozen")))
                self.frozen = gr.HTML("", elem_id="frozen")
            with gr.Column(scale=6, min_width=320, elem_id="run-column"):
                self.run.build()

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.intro, lambda look: gr.update(visible=look.moment.busy is None)),
            LivePart(self.form_column, lambda look: gr.update(visible=look.moment.busy is None)),
            LivePart(self.frozen_column, lambda look: gr.update(visible=look.moment.busy is not None)),
            LivePart(self.frozen, self._frozen),
            LivePart(self.columns, lambda look: gr.update(elem_classes=["lg-has-run"] if look.moment.shown else [])),
            *self.run.parts(),
        ]

    def _frozen(self, look: Look) -> dict:
        busy = look.moment.busy is not None and look.moment.shown is not None
        return gr.update(value=run_panel.frozen(look.moment.shown, self.w) if busy else "")

    def wire(self, page: gr.Blocks, pulse: Pulse) -> None:
        self.wizard.wire(page, pulse, self.run.notice)
        self.run.wire(pulse)
