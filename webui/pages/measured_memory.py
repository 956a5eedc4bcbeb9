"""Settings: what runs on this PC measured of their memory, which corrects the plan, and a button that forgets it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.memory.record import MemoryRecord
from webui.kit.html import Html, notice, tag
from webui.kit.live import shown
from webui.kit.wording import Wording
from webui.state.services import Services

QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class MeasuredMemory:
    def __init__(self, services: Services, wording: Wording):
        self.record, self.w = MemoryRecord(services.workspace), wording

    def build(self) -> None:
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", self.w.t("free_memory.kept")))
            self.about = gr.HTML(self._about(), elem_id="measured-memory")
            self.forget = gr.Button(
                self.w.t("free_memory.forget"), size="sm", visible=self.record.count() > 0, elem_id="forget-memory"
            )

    def refresh_on(self, event: Any) -> None:
        event(self.fresh, None, [self.about, self.forget], queue=False, **QUIET)

    def wire(self, said: gr.HTML) -> None:
        self.forget.click(self.forget_all, None, [self.about, self.forget, said], **QUIET)

    def fresh(self) -> list[Any]:
        """Outputs: what is kept, the button."""
        return [gr.update(value=self._about()), gr.update(visible=self.record.count() > 0)]

    def forget_all(self) -> list[Any]:
        """Outputs: what is kept, the button, notice."""
        try:
            self.record.clear()
            said = notice(self.w.t("free_memory.forgotten"), "ok")
        except OSError as error:
            reason = error.strerror or str(error)
            said = notice(self.w.t("free_memory.cannot_forget", reason=reason, file=self.record.file.name))
        return [*self.fresh(), shown(said)]

    def _about(self) -> Html:
        count = self.record.count()
        key = "kept_none" if count == 0 else "kept_one" if count == 1 else "kept_info"
        return tag("p", self.w.t(f"free_memory.{key}", count=count), class_="lg-quiet")
