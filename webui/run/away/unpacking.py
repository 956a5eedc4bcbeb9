"""Opens a packed run that is dropped on the Runs page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from gradio.components import Component

from core.errors import GarageError
from core.runs.away import packed
from webui.kit.html import notice
from webui.kit.live import CONTROL, EACH, Poller, shown
from webui.kit.panel import Panel


class Unpacking(Panel):
    def build(self) -> None:
        """Build the fold with the drop zone for a packed run, and its notice."""
        w = self.w
        with gr.Accordion(w.t("runs_page.unpack"), open=False, elem_id="unpack-fold"):
            self.file = gr.File(
                label=w.t("runs_page.unpack_file"),
                file_types=[".zip"],
                height=90,
                elem_id="unpack",
                elem_classes="lg-drop",
            )
            self.notice = gr.HTML("", visible=False, elem_id="unpack-notice")

    def wire(self, poller: Poller, pick: Callable[[str], Sequence[object]], outputs: list[Component]) -> None:
        """Let a dropped file be unpacked and its run opened. pick: returns the updates (of outputs) that open a run by
        its id."""

        def unpack(file: object) -> tuple[object, ...]:
            run_id, message = self.unpack(file)
            return gr.update(value=None), message, *(pick(run_id) if run_id else [gr.skip()] * len(outputs))

        poller.after(self.file.upload(unpack, [self.file], [self.file, self.notice, *outputs], **EACH, **CONTROL))

    def unpack(self, file: object) -> tuple[str | None, object]:
        """Unpack a packed run into the workspace; return its id (None after an error), and a notice."""
        try:
            run = packed.unpack(self.services.workspace, Path(str(file)))
        except GarageError as error:
            return None, shown(notice(self.w.render(error.message)))
        self.services.snapshots.now(fresh=True)
        return run.id, shown(notice(self.w.t("runs_page.unpacked", name=run.name), "ok"))
