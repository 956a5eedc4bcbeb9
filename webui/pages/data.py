"""Data: all datasets, added and deleted; the rows of one, edited, repaired, joined, split and exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.data.sample_sets import sample_of
from core.data.sets import working
from core.data.sets.info import DatasetInfo
from core.data.sets.stored_rows import Rows
from core.errors import GarageError
from core.progress import Check, go_on
from webui.form.data import is_recipe
from webui.form.handle import FieldValues, Filled, Filling, FormHandle
from webui.form.reading.adding import Adding
from webui.form.reading.importing import ImportPart
from webui.kit import format, samples
from webui.kit.drawn_part import drawn_part
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.live import AT_ONCE, CONTROL, LAST, QUIET, SET_WORK, SHOW_FORM, Options, Update, Updates, outcome, shown
from webui.kit.wording import Wording
from webui.pages.data_mending import Mending
from webui.pages.data_parting import Parting
from webui.pages.data_row import RowEditor
from webui.pages.data_table import RowsTable
from webui.pages.making import DocumentQuestions
from webui.pages.page_around import PageAround
from webui.server.set_file import address
from webui.state.services import Services

RUNS_NAMED = 3
FOUND_AT_ONCE = 1_000  # rows of a dataset whose problems are drawn with it; those of larger ones follow
DRAW = "() => document.querySelector('#data-draw').click()"
# Hides the sets whose names lack the text; a rule, so that it holds when the list is drawn again.
FIND = """
const rule = document.head.appendChild(document.createElement("style"));
element.addEventListener("input", ({ target }) => {
  const sought = JSON.stringify(target.value.trim());
  rule.textContent = `#data-sets label:not([data-testid*=${sought} i]) { display: none; }`.repeat(sought !== '""');
});
"""
OPENED = "() => [window.loraGarageRow]"
SHOW_ROW = "() => { if (window.loraGarageRow) loraGarageShow('#data-row', true); }"


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the Data page into its tab and connect it."""
    page, step = DataPage(around.services, around.w), around.wizard.data_step
    page.build()
    page.wire(around.page, tab, around.wizard.model_step.model)
    page.wire_use(around.wizard, step.data, step.choices, around.tabs)


class DataPage:
    """The Data page: the list of datasets, and of the chosen one its problems, rows and the editor of a row, with
    copying, deleting, joining and splitting."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.row, self.mending = RowEditor(services, wording), Mending(services, wording)
        self.table, self.parting = RowsTable(services, wording), Parting(services, wording)
        self.adding, self.importing = Adding(services, wording), ImportPart(wording, "data-import")

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Build the page: datasets, the head of the chosen one, problems, rows, the row's editor, joining and
        splitting."""
        with gr.Row(equal_height=False, elem_id="data-columns"):
            with gr.Column(scale=3, min_width=220, elem_id="data-side"):
                self._build_sets()
            with gr.Column(scale=9, min_width=320, elem_id="data-main"):
                self._build_head()
                self.mending.build()
                questions = DocumentQuestions(self.services, self.w)
                self.questions = drawn_part(
                    self.services, self.w, None, "data-questions", questions.drawn, questions.press
                )
                with gr.Row(equal_height=False, elem_id="data-work"):
                    with gr.Column(
                        visible=False, scale=6, min_width=300, elem_id="data-table", elem_classes="lg-card"
                    ) as self.work:
                        self.table.build()
                    self.row.build()
                self.parting.build()

    def _build_sets(self) -> None:
        """Build the drop zone and the list of datasets."""
        w = self.w
        self.file = gr.File(
            label=w.t("data_page.file"), file_count="multiple", height=90, elem_id="data-file", elem_classes="lg-drop"
        )
        self.importing.build()
        find = tag("input", type="search", aria_label=w.t("data_page.find"), placeholder=w.t("data_page.find"))
        gr.HTML(find, elem_id="data-sets-find", js_on_load=FIND, apply_default_css=False)
        # Chosen when it is drawn: gradio 6.31 can lose an update that comes while the part is put into the page.
        self.sets = gr.Radio(**self._listed(), **w.named("data_page.sets", "data-sets"))

    def _build_head(self) -> None:
        """Build the chosen dataset's head with its buttons."""
        w = self.w
        with gr.Column(elem_id="data-title"):
            self.head = gr.HTML(muted(w.t("data_page.reading")), elem_id="data-head")
            with gr.Row(visible=False, elem_id="data-actions", elem_classes="lg-tight") as self.actions:
                self.use = gr.Button(w.t("data_page.use"), variant="primary", elem_id="data-use")
                self.copy = gr.Button(w.t("data_page.copy"), elem_id="data-copy")
                self.export = gr.HTML("", elem_id="data-export-link")
                self.delete = gr.Button(w.t("data_page.delete"), elem_id="data-delete")
            self.notice = gr.HTML("", visible=False, elem_id="data-notice")

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, page: gr.Blocks, tab: gr.Tab, model: Component) -> None:
        """Connect all events of the page; each change draws the chosen dataset again. model: the model chosen in Train,
        whose tokens are shown."""
        drawn = [
            self.sets, self.head, self.actions, self.copy, self.export, self.delete, self.work, self.table.table,
            *self.parting.outputs, *self.row.outputs, *self.mending.outputs, self.questions,
        ]  # fmt: skip
        shows = [self.sets, self.row.opened]

        # One listener for all drawing, so that the newest comes last. The findings follow, computed once per version.
        trigger = gr.Button("", visible="hidden", elem_id="data-draw")  # pressed only by DRAW
        self.mending.follow(trigger.click(self.draw, shows, drawn, **LAST, **AT_ONCE), self.sets)

        def redraw(event: Dependency) -> None:
            """Draw the chosen dataset again after the event."""
            event.then(None, None, None, js=DRAW, **QUIET)

        page.load(None, None, None, js=DRAW, **QUIET)
        redraw(tab.select(self.entered, [self.sets], [self.sets], **LAST, **AT_ONCE))
        another = [self.parting.others, self.notice, *self.row.outputs]
        redraw(self.sets.input(self.another, None, another, **LAST, **AT_ONCE))
        self._wire_row(model, redraw)
        self.table.table.submit(None, None, None, js=DRAW, **LAST, **QUIET)
        self.mending.wire(self.notice, redraw)
        self.parting.wire(self.sets, self.notice, redraw)
        self._wire_sets(redraw)

    def _wire_row(self, model: Component, redraw: Callable[[Dependency], None]) -> None:
        """Connect the opening of a row in the table, and the row's editor. model: whose tokens it shows."""
        pressed = gr.JSON(None, visible=False)  # filled in by the browser
        one = [self.notice, *self.row.outputs]
        opened = self.table.table.select(self.open_row, [pressed], one, js=OPENED, **LAST, **AT_ONCE)
        opened.then(None, None, None, js=SHOW_ROW, **QUIET)
        self.row.follow(opened, model)
        self.row.wire(self.notice, redraw)

    def _wire_sets(self, redraw: Callable[[Dependency], None]) -> None:
        """Connect adding, copying and deleting datasets."""
        chosen = [self.notice, self.sets]
        self.importing.wire()
        fill = self.importing.cancellable(self._fill, self.notice, self.file)
        redraw(
            self.importing.announced(self.file.upload, self.file)(
                lambda values: fill(values)[1], set(), {*chosen}, concurrency_limit=2, **QUIET
            )
        )
        redraw(self.copy.click(self.copied, [self.sets], chosen, **SET_WORK))
        sure = json.dumps(self.w.t("data_page.sure"), ensure_ascii=False)
        asks = f"(id) => id && !confirm({sure}) ? null : id"
        outputs = [*chosen, *self.row.outputs]
        redraw(self.delete.click(self.deleted, [self.sets], outputs, js=asks, **SET_WORK))

    def wire_use(self, form: FormHandle, data: Component, choices: Callable[[], object], tabs: gr.Tabs) -> None:
        """Connect the button that opens Train with this dataset. data: the list of datasets there. choices: returns its
        current entries."""

        def fill(values: FieldValues) -> Filled:
            """Choose the dataset, and a sample's goal, in the form, and open the Train page; nothing for an unknown
            one."""
            id = values[self.sets]
            if not isinstance(id, str) or not self.services.datasets.knows(id):
                return None, {}
            sample = sample_of(id)
            goal = {"goal": sample.goal} if sample and sample.goal else {}
            updates = {data: gr.update(choices=choices()), tabs: gr.update(selected="train")}
            return Filling({"data": id, **goal}), updates

        used = form.fill_on(self.use.click, fill, {self.sets}, {tabs}, **CONTROL)
        used.then(None, None, None, js=SHOW_FORM, **QUIET)

    # ---- handlers -------------------------------------------------------------------------------------------------
    def entered(self, id: object) -> Update:
        """Choose the first dataset of the list (the person's newest, else a sample) unless one is chosen (id)."""
        return gr.skip() if id else self._first()

    def _first(self) -> Update:
        """Return the update that lists the datasets anew and chooses the first."""
        return gr.update(**self._listed())

    def _listed(self) -> Options:
        """Return the list of datasets with its first one chosen, as gradio's arguments: choices, and value, which is
        None without a dataset."""
        choices = self._choices()
        return {"choices": choices, "value": choices[0][1] if choices else None}

    def another(self) -> Updates:
        """Return the updates that clear what belongs to the dataset before."""
        return {self.parting.others: gr.update(value=[]), self.notice: shown(""), **self.row.closed()}

    def open_row(self, pressed: object) -> Updates:
        """Open a row in the editor, or show why it cannot be; close the editor for anything that this page did not
        send. pressed: {set, number}, 0 for a new row."""
        id, number = (pressed.get(name) for name in ("set", "number")) if isinstance(pressed, dict) else ("", None)
        if not isinstance(id, str) or not isinstance(number, int):  # not sent by this page
            return self.row.closed()
        try:
            updates = self.row.open_row(id, number) if number else self.row.new(id)
        except GarageError as error:
            return {self.notice: shown(notice(self.w.render(error.message), "warn")), **self.row.closed()}
        return {self.notice: shown(""), **updates}

    def _fill(self, values: FieldValues, check: Check = go_on) -> Filled:
        """Make one dataset of the dropped files, choose it, and say so, or why not; a recipe is refused. check: called
        during the work, raises to cancel it. The form's filling is None."""
        paths = values[self.file]
        if not paths:
            return None, {}
        if len(paths) == 1 and is_recipe(paths[0]):
            Path(paths[0]).unlink(missing_ok=True)  # gradio's copy
            return None, {self.notice: shown(notice(self.w.t("data_page.is_recipe"), "warn"))}
        added, problem = self.adding.add(paths, check=check)
        if added is None:
            return None, {self.notice: shown(problem)}
        name = self.services.datasets.get(added).name
        message = problem or success(self.w.t("data_page.added", name=name))
        return None, {self.notice: shown(message), self.sets: gr.update(choices=self._choices(), value=added)}

    def copied(self, id: str) -> Updates:
        """Copy a dataset under a new name, and choose the copy; show the error if that fails."""
        store = self.services.datasets
        try:
            name = self.w.t("data_page.copy_name", name=samples.title(store.get(id), self.w))
            copy = working.join(store, [id], name, self.services.workspace.cache / "sets")
        except GarageError as error:
            return {self.notice: shown(notice(self.w.render(error.message)))}
        message = success(self.w.t("data_page.copy_made", name=copy.name))
        return {self.notice: shown(message), self.sets: gr.update(choices=self._choices(), value=copy.id)}

    def deleted(self, id: object) -> Updates:
        """Delete a dataset, choose the first of the list and close the row editor, also if that fails; nothing if the
        person did not confirm, as id is None then."""
        if not isinstance(id, str) or not id:
            return {}
        message = outcome(self.w, lambda: self.services.datasets.delete(id), self.w.t("data_page.deleted"))
        return {self.notice: message, self.sets: self._first(), **self.row.closed()}

    # ---- what is shown --------------------------------------------------------------------------------------------
    def draw(self, id: object, opened: object = None) -> Updates:
        """Return the updates that draw the chosen dataset: its head, table and parting, and its problems unless it has
        more than FOUND_AT_ONCE rows, of which they follow. If it cannot be read, the error in place of the head, and
        the rest hidden.

        id: the chosen dataset. opened: the row in the editor, which is closed if it belongs to another dataset.
        """
        choices, hidden = self._choices(), gr.update(visible=False)
        closed = self.row.closed() if isinstance(opened, dict) and opened.get("set") != id else {}
        nothing = {
            self.actions: hidden, self.work: hidden, self.table.table: None, self.parting.column: hidden,
            self.questions: None,
            **self.row.closed(),
        }  # fmt: skip
        if not isinstance(id, str) or not id:
            return {self.sets: gr.update(choices=choices), self.head: "", **nothing}  # none is chosen
        try:
            info, rows = self.services.datasets.get(id), self.services.datasets.rows(id)
            own = info.origin == "imported"
            table = self.table.draw(id, own)
            story = self.services.datasets.edits(id).history()
        except GarageError as error:
            exists = any(id == other for _, other in choices)
            sets = gr.update(choices=choices) if exists else gr.update(choices=choices, value=None)
            message = self.w.render(error.message) if exists else self.w.t("data_page.set_gone")
            return {self.sets: sets, self.head: notice(message, "warn"), **nothing}
        export = tag(
            "a", self.w.t("data_page.export"), href=address(info.id, self.w.language), download=True, id="data-export"
        )
        return {
            self.sets: gr.update(choices=choices),
            self.head: self._head(info, rows, self.w.render(story[-1].what) if story else ""),
            self.actions: gr.update(visible=True),
            self.copy: gr.update(visible=not own),
            self.export: export,
            self.delete: gr.update(visible=own),
            self.work: gr.update(visible=True),
            self.questions: id,
            **table,
            **closed,
            **(self.mending.problems_and_filters(id) if rows.stored <= FOUND_AT_ONCE else {}),
            **self.parting.draw(id, choices),
        }

    def _head(self, info: DatasetInfo, rows: Rows, last: str) -> Html:
        """Return the dataset's title with its facts: rows, size, origin, runs, version. last: what its last change
        was."""
        w, own = self.w, info.origin == "imported"
        used_by = self._used_by(info.id)
        facts = [
            format.rows(w, len(rows)),
            format.bytes_used(w, info.bytes),
            info.origin_name or w.t(f"data_page.origin_{info.origin}"),
            w.t("data_page.used_by", runs=used_by) if used_by else w.t("data_page.no_run"),
            *([w.t("data_page.version_is", version=info.version, what=last)] if own and last else []),
        ]
        about = join([tag("h2", samples.title(info, w)), muted(" · ".join(facts))])
        return about if own else join([about, muted(w.t("data_page.read_only"))])

    def _used_by(self, id: str) -> str:
        """Return the names of the runs that were trained on a dataset, up to RUNS_NAMED and the number of others."""
        names = [run.name for run in self.services.runs.list() if (data := run.facts().data) and data.id == id]
        listed = self.w.t("data_page.comma").join(names[:RUNS_NAMED])
        more = len(names) - RUNS_NAMED
        return self.w.t("data_page.and_more", names=listed, more=more) if more > 0 else listed

    def _choices(self) -> list[tuple[str, str]]:
        """Return (line, id) of each dataset."""
        return [(self._set_line(info), info.id) for info in self.services.datasets.list()]

    def _set_line(self, info: DatasetInfo) -> str:
        """Return a dataset's two lines in the list: title; rows, size and origin."""
        w = self.w
        rows = format.rows(w, info.good_rows) if info.good_rows is not None else w.t("data_page.rows_unknown")
        parts = [rows, format.bytes_used(w, info.bytes), w.t(f"data_page.origin_{info.origin}")]
        return f"{samples.title(info, w)}\n{' · '.join(parts)}"
