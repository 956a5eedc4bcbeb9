"""The button in Chat that serves the chosen run to other programs of this PC, and what a program needs to use it."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from core import COMMAND
from core.errors import GarageError
from webui.kit.html import Html, facts, join, muted, notice, tag
from webui.kit.live import CONTROL, LivePart, Updates
from webui.kit.panel import Panel
from webui.pages.chat_choices import run_id_of


class ServingPanel(Panel):
    """Starts and stops the server; shows its address, key and models."""

    def build(self) -> None:
        self.state = gr.HTML(self._state(), elem_id="chat-serving")
        self.button = gr.Button(self._label(), elem_id="chat-serve", scale=0)

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.state, lambda context: gr.update(value=self._state())),
            LivePart(self.button, lambda context: gr.update(value=self._label())),
        ]

    def wire(self, target: Component) -> None:
        """Connect the button that starts and stops the server. target: the field with the model that is chosen in
        Chat."""
        self.button.click(self._press, target, [self.state, self.button], **CONTROL)

    def _press(self, target: object) -> Updates:
        """Stop the server, or start it for the chosen run, and return the updates of state and button, with the error
        if it does not start."""
        error, serving = None, self.services.serving
        if serving.served:
            serving.stop()
        elif run := run_id_of(target):
            try:
                serving.start(run)
            except GarageError as raised:
                error = notice(self.w.render(raised.message))
        else:
            error = notice(self.w.t("serving.needs_run"))
        return {self.state: join([error, self._state()]), self.button: self._label()}

    def _label(self) -> str:
        return self.w.t("serving.stop" if self.services.serving.served else "serving.start")

    def _state(self) -> Html:
        """Return what the server is for, or while it runs what a program needs to use it."""
        t, served = self.w.t, self.services.serving.served
        title = tag("p", tag("strong", t("serving.title")))
        if served is None:
            return join([title, muted(t("serving.about"))])
        pairs = [
            (t("serving.address"), tag("code", served.address)),
            (t("serving.key"), tag("code", served.key)),
            (t("serving.models"), tag("code", ", ".join(served.models))),
        ]
        return join([title, facts(pairs), muted(t("serving.only_here", command=COMMAND))])
