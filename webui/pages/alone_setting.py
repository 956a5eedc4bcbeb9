"""Settings: what a training does whose app was ended by force."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from core.errors import GarageError
from core.workspace import preferences
from webui.kit.html import notice, tag
from webui.kit.live import LivePart, shown
from webui.kit.wording import Wording
from webui.state.services import Services

QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class AloneSetting:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def build(self) -> None:
        w = self.w
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("look_on.alone_title")))
            self.choice = gr.Radio(
                [(w.t(f"look_on.alone_{choice}"), choice) for choice in get_args(preferences.WhenAlone)],
                value=preferences.read(self.services.workspace).when_alone,
                label=w.t("look_on.alone"),
                info=w.t("look_on.alone_info"),
                elem_id="when-alone",
            )
            self.notice = gr.HTML("", visible=False, elem_id="when-alone-notice")

    def parts(self) -> list[LivePart]:
        """Sent when it was changed elsewhere; sending it on each visit would undo what a quick hand has just chosen."""
        return [LivePart(self.choice, lambda look: self.fresh())]

    def wire(self) -> None:
        self.choice.input(self.choose, [self.choice], [self.notice, self.choice], **QUIET)

    def fresh(self) -> Any:
        """Outputs: choice, as it is on disk."""
        return gr.update(value=preferences.read(self.services.workspace).when_alone)

    def choose(self, choice: Any) -> tuple[Any, Any]:
        """Inputs: choice. Outputs: notice, choice (back to what holds where it was refused)."""
        try:
            self.services.require_write()
            preferences.choose(self.services.workspace, when_alone=choice)
        except GarageError as error:
            return shown(notice(self.w.of(error.text))), self.fresh()
        return shown(notice(self.w.t("look_on.saved"), "ok")), gr.skip()
