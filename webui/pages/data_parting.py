"""Joining and splitting datasets on the Data page. The originals stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr
from gradio.events import Dependency

from core.data.sets import working
from core.data.sets.info import DatasetInfo
from core.errors import GarageError
from webui.kit import format, samples
from webui.kit.html import notice, success, tag
from webui.kit.live import SET_WORK, Updates, shown
from webui.kit.panel import Panel

PERCENT, ROWS = "percent", "rows"


class Parting(Panel):
    """The card on the Data page that joins datasets into a new one, or splits one into two; the originals stay."""

    def build(self) -> None:
        """Build the card with the fields for joining and splitting, hidden at first."""
        w = self.w
        with (
            gr.Column(visible=False, elem_classes="lg-card") as self.column,
            gr.Accordion(w.t("data_page.parting"), open=False, elem_id="data-parting", elem_classes="lg-fold"),
        ):
            gr.HTML(tag("p", w.t("data_page.parting_info")))
            self.others = gr.CheckboxGroup([], **w.named("data_page.others", "data-others"))
            self.join = gr.Button(w.t("data_page.join"), size="sm", elem_id="data-join")
            with gr.Row(elem_classes="lg-tight"):
                self.held = gr.Number(10, **w.named("data_page.held", "data-held"))
                units = [(w.t(f"data_page.held_{unit}"), unit) for unit in (PERCENT, ROWS)]
                self.unit = gr.Radio(units, value=PERCENT, **w.named("data_page.held_unit", "data-held-unit"))
                self.seed = gr.Number(42, precision=0, **w.named("data_page.seed", "data-seed"))
            self.split = gr.Button(w.t("data_page.split"), size="sm", elem_id="data-split")

    def wire(self, chosen: gr.Radio, notice_: gr.HTML, redraw: Callable[[Dependency], None]) -> None:
        """Connect both buttons. chosen: the list of datasets, which gets the new one. redraw: draws it after an
        event."""
        self.chosen, self.notice = chosen, notice_
        done = [notice_, chosen, self.others]
        redraw(self.join.click(self.joined, [chosen, self.others], done, **SET_WORK))
        redraw(self.split.click(self.parted, [chosen, self.held, self.unit, self.seed], done, **SET_WORK))

    @property
    def outputs(self) -> list[object]:
        return [self.column, self.others]

    def draw(self, id: str, sets: Sequence[tuple[str, str]]) -> Updates:
        """Return the updates that offer all datasets but this one for joining. sets: (label, id) of all."""
        others = [(title.split("\n")[0], other) for title, other in sets if other != id]
        return {self.column: gr.update(visible=True), self.others: gr.update(choices=others)}

    def joined(self, id: str, others: object) -> Updates:
        """Join the dataset with others (ids), in this order, into a new one, and choose that."""
        if not isinstance(others, list) or not others:
            return {self.notice: shown(notice(self.w.t("data_page.join_nothing")))}

        def make() -> list[DatasetInfo]:
            """Join the dataset with the others under all their names."""
            names = [samples.title(self.services.datasets.get(each), self.w) for each in (id, *others)]
            name = self.w.t("data_page.and").join(names)
            return [working.join(self.services.datasets, [id, *others], name, self.services.workspace.cache / "sets")]

        return self._make_and_choose(make)

    def parted(self, id: str, validation: float | None, unit: object, seed: float | None) -> Updates:
        """Split the dataset into two new ones. validation: the second one's per cent or rows, by unit. seed: of the
        random choice."""

        def make() -> list[DatasetInfo]:
            """Split the dataset by the size (a share or a number of rows) and the seed into two new ones."""
            store = self.services.datasets
            name = samples.title(store.get(id), self.w)
            names = self.w.t("data_page.split_most", name=name), self.w.t("data_page.split_held", name=name)
            size = (validation or 0) / 100 if unit == PERCENT else int(validation or 0)
            return list(working.split(store, id, size, int(seed or 0), names, self.services.workspace.cache / "sets"))

        return self._make_and_choose(make)

    def _make_and_choose(self, make: Callable[[], list[DatasetInfo]]) -> Updates:
        """Make datasets, and return the updates that report them, list them and choose the first one.

        The choice of datasets to join is cleared. A GarageError becomes an error notice, and nothing else is updated.
        make: stores the new datasets and returns them, at least one.
        """
        w = self.w
        try:
            datasets = make()
        except GarageError as error:
            return {self.notice: shown(notice(w.render(error.message)))}
        titles = [
            w.t("data_page.made_one", name=info.name, rows=format.rows(w, info.good_rows or 0)) for info in datasets
        ]
        message = success(w.t("data_page.made", sets=w.t("data_page.and").join(titles)))
        choices = [(info.name, info.id) for info in self.services.datasets.list()]  # redrawn right after this
        return {
            self.notice: shown(message),
            self.chosen: gr.update(choices=choices, value=datasets[0].id),
            self.others: gr.update(value=[]),
        }
