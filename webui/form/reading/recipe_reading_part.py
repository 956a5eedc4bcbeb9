"""A line in the data step if the recipe reads the dataset differently from how it is stored, with a button for each
reading."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.components import Component

from core.data.sets import gathered
from core.errors import GarageError
from core.hub.sets.name import SetName
from core.progress import Check, go_on
from core.workspace.folder import expand
from webui.form.handle import READING, FieldValues, Filled, Filling, FormHandle
from webui.form.reading.importing import ImportPart
from webui.form.reading.recipe_reading import RecipeReading
from webui.kit.html import Html, join, notice
from webui.kit.live import QUIET, Updates, shown
from webui.kit.panel import Panel
from webui.kit.visitor import IS_LOCAL


class RecipeReadingPart(Panel):
    """The line about a recipe that reads the dataset differently, with its buttons."""

    def build(self) -> None:
        self.message = gr.HTML("", visible=False, elem_id="brought")
        with gr.Row(elem_classes="lg-tight", visible=False) as self.ways:
            self.newest = gr.Button("", size="sm", elem_id="brought-newest")
            self.add = gr.Button("", size="sm", elem_id="brought-add")
            self.kept = gr.Button(self.w.t("brought.take_kept"), size="sm", elem_id="brought-kept")

    def wire(
        self,
        form: FormHandle,
        data: Component,
        choices: Callable[[], object],
        importing: ImportPart,
        notice_html: gr.HTML,
    ) -> None:
        """Connect the buttons: add the recipe's file, take the newest version, keep the stored reading. data: the list
        of datasets. choices: returns its current entries. notice_html: the place of a notice about a cancelled
        import."""
        add = importing.cancellable(partial(self._add, data, choices), notice_html)
        form.fill_on(importing.announced(self.add.click), add, set(), {self.message, data, notice_html}, **QUIET)
        for button, is_newest in ((self.newest, True), (self.kept, False)):
            form.fill_on(button.click, partial(self._fill, form, data, is_newest), form.inputs, set(), **QUIET)

    def _fill(self, form: FormHandle, data: Component, is_newest: bool, values: FieldValues) -> Filled:
        """Return the form with the recipe's reading in the newest version (is_newest), else the stored one."""
        reading = form.read(values).answers.reading
        if reading and is_newest:
            reading = reading.model_copy(update={"choices": reading.choices.model_copy(update={"version": None})})
        return Filling(answers={"reading": reading.state() if reading and is_newest else None}), {}

    def _add(self, data: Component, choices: Callable[[], object], values: FieldValues, check: Check = go_on) -> Filled:
        """Add the recipe's file by its path, which only a visitor on this PC may do, and choose it; a notice if that
        fails, nothing for other visitors."""
        reading = values[READING]
        if not reading or not values[IS_LOCAL]:
            return None, {}
        try:
            added = gathered.add(self.services.datasets, [expand(reading.data)], choices=reading.choices, check=check)
        except GarageError as error:
            return None, {self.message: shown(notice(self.w.render(error.message)))}
        return Filling({"data": added.id}, {"reading": None}), {data: gr.update(choices=choices())}

    def draw(self, data: object, reading: RecipeReading | None) -> Updates:
        """Return the updates: notices if the recipe's dataset is missing, read in another way, or changed since, with
        the buttons that help; all hidden if none of that holds."""
        notices: list[Html] = []
        newest: int | None = None
        is_other = False
        missing = reading if reading and not data and not self.services.datasets.knows(reading.data) else None
        if missing:
            notices.append(notice(self._missing(missing), "warn"))
        if reading and reading.data == data:
            store, choices = self.services.datasets, reading.choices
            try:
                is_other = store.resolved_choices(data, choices).key != store.resolved_choices(data).key
                head = store.edits(data, choices=choices).head
                newest = head if choices.version not in (None, head) else None
            except GarageError as error:  # such as a voice that the dataset no longer has
                is_other = True
                notices.append(notice(self.w.render(error.message)))
            if is_other:
                notices.append(notice(self.w.t("brought.other_reading", title=reading.title), "warn"))
            if newest is not None:
                words = self.w.t("brought.older", title=reading.title, version=choices.version, newest=newest)
                notices.append(notice(words, "warn"))
        return {
            self.message: shown(join(notices)),
            self.ways: gr.update(visible=is_other or newest is not None or bool(missing and missing.is_known)),
            self.add: gr.update(
                visible=bool(missing and missing.is_known),
                value=self.w.t("brought.add", file=missing.data if missing else ""),
            ),
            self.newest: gr.update(
                visible=newest is not None, value=self.w.t("brought.take_newest", newest=newest or 0)
            ),
            self.kept: gr.update(visible=is_other),
        }

    def _missing(self, reading: RecipeReading) -> str:
        """Return a sentence on which file, or dataset of the hub, the recipe needs."""
        is_hubs = not Path(reading.file).suffix and SetName.looks_like(reading.data)
        return self.w.t(
            "brought.missing_hub" if is_hubs else "brought.missing",
            title=reading.title,
            file=reading.data if is_hubs else reading.file,
        )
