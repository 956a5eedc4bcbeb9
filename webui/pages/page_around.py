"""The page around a tab, as the tab needs it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from webui.form.form import Wizard
from webui.kit.live import Poller
from webui.kit.wording import Wording
from webui.state.services import Services


@dataclass(frozen=True)
class PageAround:
    """The page around a tab. page: all of the app. poller: of the parts outside of the tabs. opened: the id of the run
    that Runs shows. talk_to: the model that Chat is to choose next, "" for none."""

    services: Services
    w: Wording
    page: gr.Blocks
    poller: Poller
    tabs: gr.Tabs
    wizard: Wizard
    opened: gr.Textbox
    talk_to: gr.Textbox
