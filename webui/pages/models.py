"""Models: the base models on this PC, with a link to the search for others."""

from __future__ import annotations

import gradio as gr

from webui.kit.html import tag
from webui.kit.icons import icon
from webui.kit.live import LivePart
from webui.kit.panel import Panel
from webui.kit.wording import Wording
from webui.shelf.disk import DiskCard
from webui.state.services import Services


class ModelsPage(Panel):
    def __init__(self, services: Services, wording: Wording):
        super().__init__(services, wording)
        self.disk = DiskCard(services, wording)

    def build(self) -> None:
        leads = {"data_page": "train", "data_step": "model"}
        find = tag("button", icon("models"), self.w.t("disk_view.find"), type="button", class_="lg-own-set", **leads)
        gr.HTML(find, elem_id="models-find")
        self.disk.build()

    def parts(self) -> list[LivePart]:
        return self.disk.parts()

    def wire(self, tab: gr.Tab) -> None:
        self.disk.wire(tab)
