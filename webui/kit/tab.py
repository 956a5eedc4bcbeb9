"""Tabs that are drawn when they are first opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr
from gradio.blocks import Block
from gradio.components import FormComponent
from gradio.context import LocalContext
from gradio.events import Dependency

from webui.kit.live import AT_ONCE, QUIET, LivePart, Poller

BEAT = "() => loraGarageBeat()"  # assets/rail.js


def when_opened(tab: gr.Tab, draw: Callable[[], None]) -> None:
    """Connect the tab so that its contents are drawn by `draw` when it is first opened. To be called inside of the tab.

    Events of the page outside must not be listened to by both the page and a drawn tab: the page's listeners to that
    event of that component are lost then (gradio 6.31).
    """
    is_opened = gr.State(False)
    # In gradio's queue: a State that is changed outside of it triggers no event (6.31).
    tab.select(lambda: True, None, [is_opened], concurrency_limit=None, **QUIET)

    # One at a time: gradio goes through all components of a page while it draws some of them.
    @gr.render(triggers=[is_opened.change], concurrency_limit=1, concurrency_id="tabs", show_progress="minimal")
    def draw_interactive() -> None:
        """Draw the tab, and make each of its fields one that a person can change, unless it is set otherwise."""
        draw()
        for block in _drawn_blocks():
            # Only for the page's first components does gradio (6.31) work out that a person may change them.
            if isinstance(block, FormComponent) and block.interactive is None:
                block.interactive = True


def _drawn_blocks() -> list[Block]:
    """Return the blocks that the render function at work has drawn so far; [] outside of one."""
    config, renderable = LocalContext.blocks_config.get(), LocalContext.renderable.get()
    return [block for block in config.blocks.values() if block.rendered_in is renderable] if config else []


class TabPoller(Poller):
    """The live parts of a tab, which are updated with the clock while the tab is open."""

    def __init__(self, page: Poller, parts: Sequence[LivePart]):
        """page: the poller of the parts outside of the tabs."""
        super().__init__(page.services, parts, page.opened, page.planning)
        self._page = page

    def wire_tab(self, page: gr.Blocks, tab: gr.Tab) -> None:
        """Update the tab's live parts at each tick of the page's clock while the tab is open, when it is opened, and
        when the page is loaded."""
        beat = gr.Button("", visible="hidden", elem_id=f"beat-{tab.id}", elem_classes="lg-beat")  # pressed by BEAT
        beat.click(self.beat, self.inputs, self.outputs, **AT_ONCE)
        tab.select(self.now, self.inputs, self.outputs, **AT_ONCE)
        self.wire_first(page)

    def after(self, event: Dependency) -> Dependency:
        """Update the live parts of the tab, then those of the page around it, as soon as an event has ended; return the
        event of the latter."""
        return self._page.after(super().after(event))
