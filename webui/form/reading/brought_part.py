"""A line in the data step if the recipe reads the dataset differently from how it is stored now, with a button for
each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.sets import gathered
from core.errors import GarageError
from core.hub.sets.name import SetName
from core.progress import Check, go_on
from core.workspace.folder import expand
from webui.form.handle import IS_HERE, READING, Filling, FormHandle, Given, Taken, Updates
from webui.form.reading.brought import BroughtReading
from webui.form.reading.importing import ImportPart
from webui.kit.html import Html, join, notice
from webui.kit.live import QUIET, shown
from webui.kit.panel import Panel


class BroughtPart(Panel):
    def build(self) -> None:
        self.said = gr.HTML("", visible=False, elem_id="brought")
        with gr.Row(elem_classes="lg-tight", visible=False) as self.ways:
            self.newest = gr.Button("", size="sm", elem_id="brought-newest")
            self.add = gr.Button("", size="sm", elem_id="brought-add")
            self.kept = gr.Button(self.w.t("brought.take_kept"), size="sm", elem_id="brought-kept")

    def wire(
        self, form: FormHandle, data: Component, choices: Callable[[], Any], importing: ImportPart, told: gr.HTML
    ) -> None:
        """data: the list of sets. choices: gives what is in it. told: that an import was cancelled."""
        add = importing.taking(partial(self._add, data, choices), told)
        form.fills(importing.before(self.add.click), add, set(), {self.said, data, told}, **QUIET)
        for button, is_newest in ((self.newest, True), (self.kept, False)):
            form.fills(button.click, partial(self._take, form, data, is_newest), form.inputs, set(), **QUIET)

    def _take(self, form: FormHandle, data: Component, is_newest: bool, given: Given) -> Taken:
        brought = form.read(given).answers.reading
        if brought and is_newest:
            brought = brought.model_copy(update={"choices": brought.choices.model_copy(update={"version": None})})
        return Filling(answers={"reading": brought.state() if brought and is_newest else None}), {}

    def _add(self, data: Component, choices: Callable[[], Any], given: Given, check: Check = go_on) -> Taken:
        """By its path, which only somebody at this PC may say."""
        brought = given[READING]
        if not brought or not given[IS_HERE]:
            return None, {}
        try:
            added = gathered.add(self.services.datasets, [expand(brought.data)], choices=brought.choices, check=check)
        except GarageError as error:
            return None, {self.said: shown(notice(self.w.render(error.message)))}
        return Filling({"data": added.id}, {"reading": None}), {data: gr.update(choices=choices())}

    def draw(self, data: Any, brought: BroughtReading | None) -> Updates:
        """For every look at the form."""
        said: list[Html] = []
        newest: int | None = None
        is_other = False
        missing = brought if brought and not data and not self.services.datasets.knows(brought.data) else None
        if missing:
            said.append(notice(self._missing(missing), "warn"))
        if brought and brought.data == data:
            store, choices = self.services.datasets, brought.choices
            try:
                is_other = store.resolved_choices(data, choices).key != store.resolved_choices(data).key
                head = store.edits(data, choices=choices).head
                newest = head if choices.version not in (None, head) else None
            except GarageError as error:  # such as a voice that the set does not have any more
                is_other = True
                said.append(notice(self.w.render(error.message)))
            if is_other:
                said.append(notice(self.w.t("brought.other_reading", title=brought.title), "warn"))
            if newest is not None:
                words = self.w.t("brought.older", title=brought.title, version=choices.version, newest=newest)
                said.append(notice(words, "warn"))
        return {
            self.said: shown(join(said)),
            self.ways: gr.update(visible=is_other or newest is not None or bool(missing and missing.found)),
            self.add: gr.update(
                visible=bool(missing and missing.found),
                value=self.w.t("brought.add", file=missing.data if missing else ""),
            ),
            self.newest: gr.update(
                visible=newest is not None, value=self.w.t("brought.take_newest", newest=newest or 0)
            ),
            self.kept: gr.update(visible=is_other),
        }

    def _missing(self, brought: BroughtReading) -> str:
        is_hubs = not Path(brought.file).suffix and SetName.looks_like(brought.data)
        return self.w.t(
            "brought.missing_hub" if is_hubs else "brought.missing",
            title=brought.title,
            file=brought.data if is_hubs else brought.file,
        )
