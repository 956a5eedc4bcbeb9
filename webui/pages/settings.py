"""Settings: this PC, folders, language and automation."""

from __future__ import annotations

import shutil
from importlib.metadata import version

import gradio as gr

from core import COMMAND, __version__
from webui.kit import format, hardware
from webui.kit.html import Html, facts, join, muted, tag
from webui.kit.live import AT_ONCE, LivePart
from webui.kit.tab import TabPoller
from webui.kit.wording import Wording
from webui.pages.page_around import PageAround
from webui.pages.settings_cards import AutomationCard, HubTokenCard
from webui.run.signal import notify_switch
from webui.server.language import PATHS, language_link
from webui.state.services import Services

VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "gradio")


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the Settings page into its tab and connect it."""
    page = SettingsPage(around.services, around.w)
    page.build()
    page.wire(tab)
    TabPoller(around.poller, page.parts()).wire_tab(around.page, tab)


class SettingsPage:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.automation = AutomationCard(services, wording)
        self.hub_token = HubTokenCard(services, wording)

    def build(self) -> None:
        """Build the page: this PC's hardware, folders and versions, the hub's token, the language with the switch for
        notifications, and automation."""
        w = self.w
        with gr.Row(equal_height=False, elem_id="settings-columns"):
            with gr.Column(scale=6, min_width=320):
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.this_pc")))
                    self.hardware = gr.HTML(self._hardware(), elem_id="hardware")
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.places")))
                    self.places = gr.HTML(self._places(), elem_id="places")
                self.hub_token.build()
            with gr.Column(scale=6, min_width=320):
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.language")))
                    gr.HTML(self._languages() + notify_switch(w), elem_id="languages")
                self.automation.build()

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock."""
        return [
            LivePart(self.hardware, lambda context: gr.update(value=self._hardware())),
            *self.hub_token.parts(),
        ]

    def _hardware(self) -> Html:
        return hardware.details(self.services.monitor.newest(), self.w)

    def _places(self) -> Html:
        """Return the folders of workspace and models, free space ("unknown" if unreadable), and versions."""
        w, workspace = self.w, self.services.workspace
        try:
            free: str = format.bytes_used(w, shutil.disk_usage(workspace.root).free)
        except OSError:
            free = w.t("settings_page.unknown")
        libraries = join(tag("div", str(folder)) for folder in workspace.library_folders) or w.t(
            "settings_page.no_library"
        )
        pairs = [
            (w.t("settings_page.workspace"), str(workspace.root)),
            (w.t("settings_page.disk_free"), free),
            (w.t("settings_page.library"), libraries),
            (
                w.t("settings_page.versions"),
                ", ".join([f"LoRA Garage {__version__}", *(f"{name} {version(name)}" for name in VERSIONS)]),
            ),
        ]
        elsewhere = w.t("settings_page.workspace_how", command=f"{COMMAND} workspace --use D:/lora-garage")
        libraries_how = w.t("settings_page.library_how", file=str(workspace.root / "settings.yaml"))
        return join([facts(pairs), muted(elsewhere), muted(libraries_how)])

    def _languages(self) -> Html:
        links = [
            tag("li", language_link(code, aria_current="true" if code == self.w.language else None)) for code in PATHS
        ]
        return join([tag("ul", *links, class_="lg-plain-list"), muted(self.w.t("settings_page.theme"))])

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, tab: gr.Tab) -> None:
        """Connect the cards; opening the tab refreshes the folders."""
        self.automation.wire(tab)
        tab.select(self._places, None, [self.places], **AT_ONCE)
        self.hub_token.wire()
