"""A hub dataset in the data step: search, results, one dataset with its parts and first rows, and a button that
downloads and chooses it.

Only presses send requests to the hub. The page keeps the description of the shown dataset, and the name of its
download; the download itself belongs to the list (core/hub/downloads) and continues without the page.
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
from gradio.components import Component
from huggingface_hub import constants

from core.data.hub_sets import adding
from core.data.hub_sets.adding import FIRST_ROWS
from core.data.hub_sets.head import is_recognized
from core.errors import DataError, GarageError
from core.files import JsonObject
from core.hub.hub_errors import host_of
from core.hub.sets import search
from core.hub.sets.about import AboutPart, AboutSet, SetHead, about, select_part
from core.hub.sets.name import PartName, SetName
from webui.form.handle import FieldValues, Filled, Filling, FormHandle
from webui.form.hub_set import view
from webui.kit import samples
from webui.kit.format import grouped
from webui.kit.html import Html, notice, success, tag
from webui.kit.live import CONTROL, LAST, QUIET, TICK_S, Options, Poller, Updates, shown
from webui.kit.panel import Panel

# The press of a row's button. The script of the event gets no data, so the page stores it.
PRESS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-set]");
  if (!button) return;
  window.loraGarageHubSet = button.dataset.set;
  trigger("select", { value: button.dataset.set });
});
"""
ORDER = "(...values) => loraGarageForm.order(...values)"
DELIVERED = "(...values) => loraGarageForm.delivered(...values)"
PRESSED = "() => [window.loraGarageHubSet ?? '']"
# A download does not wait for events that may open another dataset.
BEGINS = {**CONTROL, "concurrency_id": "hub-set"}
# Options of requests to the hub, which take some seconds.
ASKING: Options = {"show_progress": "minimal", "concurrency_limit": 2, "api_visibility": "private"}


class HubSetPanel(Panel):
    """The folded panel that finds, shows and downloads hub datasets."""

    def build(self) -> None:
        """Build the folded panel: search field, results, one dataset with its parts and first rows, column fields,
        download buttons and progress."""
        w = self.w
        with gr.Accordion(w.t("hub_set_view.title"), open=False, elem_id="hub-set", elem_classes="lg-fold"):
            self.words = gr.Textbox(max_lines=1, max_length=200, **w.named("hub_set_view.words", "hub-set-words"))
            label = w.t("hub_set_view.ask", host=host_of(constants.ENDPOINT))
            self.ask = gr.Button(label, size="sm", elem_id="hub-set-ask")
            self.results = gr.HTML(
                "", visible=False, elem_id="hub-set-found", js_on_load=PRESS, apply_default_css=False
            )
            self.pressed = gr.Textbox(visible=False)  # filled in by the browser
            self.failure = gr.HTML("", visible=False, elem_id="hub-set-failure")
            with gr.Column(visible=False, elem_id="hub-set-one") as self.one:
                self.about = gr.HTML("", elem_id="hub-set-about")
                self.part = gr.Dropdown([], **w.named("hub_set_view.part", "hub-set-part"))
                self.head = gr.HTML("", visible=False, elem_id="hub-set-head")
                self.message = gr.HTML("", visible=False, elem_id="hub-set-message")
                with gr.Column(visible=False, elem_id="hub-set-columns") as self.columns:
                    gr.HTML(tag("p", w.t("hub_set_view.columns")))
                    with gr.Row(elem_classes="lg-tight"):
                        self.question = gr.Dropdown([], **w.named("hub_set_view.question", "hub-set-question"))
                        self.answer = gr.Dropdown([], **w.named("hub_set_view.answer", "hub-set-answer"))
                with gr.Row(elem_classes="lg-tight"):
                    self.add = gr.Button(w.t("hub_set_view.add"), size="sm", variant="primary", elem_id="hub-set-add")
                    self.take = gr.Button(
                        w.t("hub_set_view.take", rows=grouped(w, FIRST_ROWS)), size="sm", elem_id="hub-set-take"
                    )
            self.progress = gr.HTML("", visible=False, elem_id="hub-set-progress")
        self.dataset = gr.State(None)  # AboutSet of the shown dataset
        self.download = gr.State(None)  # name of its download in the list
        self.clock = gr.Timer(TICK_S, active=False)
        self.arrived = gr.JSON(None, visible=False)  # id of the downloaded dataset

    def wire(self, form: FormHandle, data: Component, poller: Poller) -> None:
        """Connect search, results, parts, downloads and the clock that follows a download. data: the step's list of
        datasets, in which the downloaded one is chosen."""
        self._data = data
        opened = [self.failure, self.one, self.about, self.part, self.dataset, *self._part_components]
        for pressed in (self.ask.click, self.words.submit):
            pressed(self.search, [self.words], [self.results, *opened], show_progress_on=[self.ask], **ASKING)
        self.results.select(
            self.open, [self.pressed], opened, js=PRESSED, show_progress_on=[self.results], **LAST, **ASKING
        )
        self.part.select(
            self.choose_part,
            [self.dataset, self.part],
            self._part_components,
            show_progress_on=[self.part],
            **LAST,
            **ASKING,
        )
        outputs = [self.download, self.clock, self.progress, self.failure]
        for button, rows in ((self.add, 0), (self.take, FIRST_ROWS)):
            inputs = [self.dataset, self.part, self.question, self.answer]
            poller.after(button.click(self.begin(rows), inputs, outputs, js=ORDER, **BEGINS))
        self.clock.tick(self.poll, [self.download], [self.clock, self.progress, self.failure, self.arrived], **QUIET)
        form.fill_on(
            self.arrived.change, self.fill, {self.arrived}, {data, self.one, self.failure}, js=DELIVERED, **QUIET
        )

    @property
    def _part_components(self) -> list[Component]:
        return [self.head, self.message, self.add, self.take, self.columns, self.question, self.answer]

    # ---- handlers -------------------------------------------------------------------------------------------------
    def search(self, words: object) -> Updates:
        """Show the datasets of a search, or its error; a name with a slash is opened instead."""
        text = words.strip() if isinstance(words, str) else ""
        if "/" in text:
            return {self.results: shown(""), **self.open(text)}
        try:
            rows = search.search(text)
        except GarageError as error:
            return {self.results: shown(""), **self._closed(error)}
        return {self.results: shown(view.results(rows, text, self.w)), **self._closed()}

    def open(self, name: object) -> Updates:
        """Show the dataset of this name with its parts, or the error."""
        try:
            dataset = about(SetName.parse(name if isinstance(name, str) else ""), with_rows=True)
            part = dataset.part
        except GarageError as error:
            return self._closed(error)
        choices = [(view.part_label(each, self.w), _key(each)) for each in dataset.parts]
        return {
            self.failure: shown(""),
            self.one: gr.update(visible=True),
            self.about: view.about(dataset, self.w),
            self.part: gr.update(choices=choices, value=_key(part)),
            self.dataset: dataset,
            **self._of_part(dataset),
        }

    def choose_part(self, dataset: object, part: object) -> Updates:
        """Show another part of the shown dataset, or why it is not available; nothing if none is shown. part: its key
        in the list."""
        if not isinstance(dataset, AboutSet):
            return {}
        try:
            return self._of_part(about(SetName(dataset.repo, _part_name(part)), with_rows=True))
        except GarageError as error:
            return self._unavailable(error)

    def begin(self, rows: int) -> Callable[..., Updates]:
        """Return the handler that starts the download of the chosen part, with the chosen columns, and the clock that
        follows it. rows: at most so many, 0 for all."""

        def begun(dataset: object, part: object, question: object, answer: object) -> Updates:
            """Start the download of the chosen part, and the clock that follows it; show an error instead."""
            if not isinstance(dataset, AboutSet):
                return {}
            try:
                name = adding.part_of(dataset.repo, select_part(dataset.parts, dataset.repo, _part_name(part)), rows)
                row = self.services.downloads.start(str(name), reading=_column_roles(question, answer))
            except GarageError as error:
                return {self.download: None, **self._ended(notice(self.w.render(error.message)))}
            return {
                self.download: str(name),
                self.clock: gr.Timer(active=True),
                self.progress: shown(view.progress(row, self.w)),
                self.failure: shown(""),
            }

        return begun

    def poll(self, name: object) -> Updates:
        """Follow a download with the clock, which stops at its end, failure or cancelling; `arrived` gets the id of a
        finished one."""
        row = self.services.downloads.row(name) if isinstance(name, str) and PartName.parse(name) else None
        if row is None:  # cancelled in the list of downloads
            return self._ended()
        if row.state == "failed":
            return self._ended(notice(self.w.render(row.message)))
        if row.state == "done":
            return {**self._ended(), self.arrived: {"id": row.result, "requested": row.requested}}
        return {self.progress: shown(view.progress(row, self.w))}

    def fill(self, values: FieldValues) -> Filled:
        """Return the form with the downloaded dataset chosen, and the panel closed; nothing if it no longer exists."""
        arrived = values[self.arrived]
        id = arrived.get("id") if isinstance(arrived, dict) else None
        choices = [samples.choice(info, self.w) for info in self.services.datasets.list()]
        if not isinstance(id, str) or id not in [value for _, value in choices]:
            return None, {}
        message = success(self.w.t("hub_set_view.arrived"))
        return Filling({"data": id}), {
            self._data: gr.update(choices=choices),
            self.one: gr.update(visible=False),
            self.failure: shown(message),
        }

    # ---- outputs -------------------------------------------------------------------------------------------------
    def _ended(self, failure: Html | None = None) -> Updates:
        """Return the updates that end the following of a download, and show its failure if there was one."""
        failed: Updates = {self.failure: shown(failure)} if failure else {}
        return {self.clock: gr.Timer(active=False), self.progress: shown(""), **failed}

    def _closed(self, error: GarageError | None = None) -> Updates:
        """Return the updates that show no dataset, and an error if there was one."""
        message = notice(self.w.render(error.message)) if error else ""
        return {self.failure: shown(message), self.one: gr.update(visible=False), self.about: "", self.dataset: None}

    def _of_part(self, dataset: AboutSet) -> Updates:
        """Return the updates that show one part of a dataset: its first rows, a warning, its buttons and fields. A part
        above the size limit keeps only the button for its first rows; one without use here keeps none, and shows the
        reason. The fields for question and answer appear if the roles of its columns are not recognized."""
        part = dataset.part
        is_large, is_small = adding.is_too_large(part), part.rows is not None and part.rows <= FIRST_ROWS
        message, names, head = view.too_large(self.w) if is_large else Html(""), [], Html("")
        if isinstance(dataset.head, SetHead):
            head, names = (
                view.head(dataset.head, self.w),
                [] if is_recognized(dataset.head) else list(dataset.head.columns),
            )
        elif dataset.head is not None:
            if dataset.head.key in ("hub_set.no_text", "hub.gated", "hub.gated_token"):
                return self._unavailable(DataError(dataset.head))
            message = notice(self.w.render(dataset.head), "warn")
        return {
            self.head: shown(head),
            self.message: shown(message),
            self.add: gr.update(visible=not is_large),
            self.take: gr.update(visible=not is_small),
            self.columns: gr.update(visible=bool(names)),
            **dict.fromkeys((self.question, self.answer), gr.update(choices=["", *names], value="")),
        }

    def _unavailable(self, why: GarageError) -> Updates:
        """Return the updates that show why a part cannot be used, and nothing else of it."""
        hidden = dict.fromkeys((self.add, self.take, self.columns), gr.update(visible=False))
        none = dict.fromkeys((self.question, self.answer), gr.update(choices=[""], value=""))
        return {self.head: shown(""), self.message: shown(notice(self.w.render(why.message))), **hidden, **none}


def _column_roles(question: object, answer: object) -> JsonObject:
    """Return the roles of two columns as Choices have them: a question and its answer, or a text alone; {} if none were
    chosen."""
    prompt_column, answer_column = (each if isinstance(each, str) else "" for each in (question, answer))
    if not answer_column:
        return {}
    return {
        "columns": {prompt_column: "question", answer_column: "answer"}
        if prompt_column and prompt_column != answer_column
        else {answer_column: "text"}
    }


def _key(each: AboutPart) -> str:
    """Return the value of a part in the list of parts: "config:split"."""
    return f"{each.config}:{each.split}"


def _part_name(key: object) -> tuple[str, ...]:
    """Return (config, split) of a key "config:split"."""
    return tuple(key.split(":")) if isinstance(key, str) else ("",)
