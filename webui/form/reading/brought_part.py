"""A line in step 3 where a recipe reads the set otherwise than it is kept now, with a button for each way back."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from core.errors import GarageError
from webui.form.handle import Filling, FormHandle, Given, Taken, Updates
from webui.form.reading.brought import Brought
from webui.kit.html import Html, join, notice
from webui.kit.live import QUIET, shown
from webui.kit.wording import Wording
from webui.state.services import Services


class BroughtPart:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def build(self) -> None:
        self.said = gr.HTML("", visible=False, elem_id="brought")
        with gr.Row(elem_classes="lg-tight", visible=False) as self.ways:
            self.newest = gr.Button("", size="sm", elem_id="brought-newest")
            self.kept = gr.Button(self.w.t("brought.take_kept"), size="sm", elem_id="brought-kept")

    def wire(self, form: FormHandle, data: Component) -> None:
        for button, is_newest in ((self.newest, True), (self.kept, False)):
            form.fills(button.click, partial(self._take, form, data, is_newest), form.inputs, set(), **QUIET)

    def _take(self, form: FormHandle, data: Component, is_newest: bool, given: Given) -> Taken:
        brought = form.read(given).answers.reading
        if brought and is_newest:
            brought = brought.model_copy(update={"choices": brought.choices.model_copy(update={"version": None})})
        return Filling(answers={"reading": brought.state() if brought and is_newest else None}), {}

    def draw(self, data: Any, brought: Brought | None) -> Updates:
        """For every look at the form."""
        said: list[Html] = []
        newest: int | None = None
        is_other = False
        if brought and brought.data == data:
            store, choices = self.services.datasets, brought.choices
            try:
                is_other = store.settled(data, choices).key != store.settled(data).key
                head = store.edits(data, choices=choices).head
                newest = head if choices.version not in (None, head) else None
            except GarageError as error:  # such as a voice that the set does not have any more
                is_other = True
                said.append(notice(self.w.of(error.message)))
            if is_other:
                said.append(notice(self.w.t("brought.other_reading", title=brought.title), "warn"))
            if newest is not None:
                words = self.w.t("brought.older", title=brought.title, version=choices.version, newest=newest)
                said.append(notice(words, "warn"))
        return {
            self.said: shown(join(said)),
            self.ways: gr.update(visible=bool(said)),
            self.newest: gr.update(visible=newest is not None, value=self.w.t("brought.take_newest", newest=newest or 0)),
            self.kept: gr.update(visible=is_other),
        }
