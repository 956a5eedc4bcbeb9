"""The base class of the parts of a page."""

from __future__ import annotations

from webui.kit.wording import Wording
from webui.state.services import Services


class Panel:
    """Some widgets with their events. Most have build (makes the widgets where it is called), parts (the live ones) and
    wire."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
