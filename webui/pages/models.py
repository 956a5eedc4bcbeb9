"""Models: the base models on this PC, with a link to the search for others."""

from __future__ import annotations

import gradio as gr

from webui.kit.html import tag
from webui.kit.icons import icon
from webui.kit.panel import Panel
from webui.kit.tab import TabPoller
from webui.kit.wording import Wording
from webui.pages.page_around import PageAround
from webui.shelf.disk import DiskCard
from webui.state.services import Services


def draw(around: PageAround, tab: gr.Tab) -> None:
    page = ModelsPage(around.services, around.w)
    page.build()
    page.disk.wire(around.page, tab)
    TabPoller(around.poller, page.disk.parts()).wire_tab(around.page, tab)


class ModelsPage(Panel):
    def __init__(self, services: Services, wording: Wording):
        super().__init__(services, wording)
        self.disk = DiskCard(services, wording)

    def build(self) -> None:
        leads = {"data_page": "train", "data_step": "model"}
        find = tag("button", icon("models"), self.w.t("disk_view.find"), type="button", class_="lg-own-set", **leads)
        gr.HTML(find, elem_id="models-find")
        self.disk.build()
