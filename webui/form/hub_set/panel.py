"""A hub dataset in the data step: search, results, one dataset with its parts and first rows, and a button that
downloads and chooses it.

The hub is asked by presses alone. What was told of the set that is looked at, and which download is waited for, this
page keeps; the download itself is the list's (core/hub/downloads) and goes on without it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from huggingface_hub import constants

from core.data.hub_sets import adding
from core.data.hub_sets.adding import FIRST_ROWS
from core.data.hub_sets.head import is_recognised
from core.errors import DataError, GarageError
from core.hub.hub_errors import host_of
from core.hub.sets import search
from core.hub.sets.about import AboutPart, AboutSet, SetHead, about, select_part
from core.hub.sets.name import PartName, SetName
from webui.form.handle import Filling, FormHandle, Given, Taken
from webui.form.hub_set import view
from webui.kit import samples
from webui.kit.format import grouped
from webui.kit.html import Html, notice, tag
from webui.kit.live import CONTROL, LAST, QUIET, TICK_S, Poller, Update, shown
from webui.kit.panel import Panel

# The press of a row's button; the script of the event gets no data, so the page keeps it.
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
# A download begins behind nothing after which another set may be looked at.
BEGINS = {**CONTROL, "concurrency_id": "hub-set"}
# Of buttons that ask the hub, and take some seconds.
ASKING: dict[str, Any] = {"show_progress": "minimal", "concurrency_limit": 2, "api_visibility": "private"}


class HubSetPanel(Panel):
    def build(self) -> None:
        w = self.w
        with gr.Accordion(w.t("hub_set_view.title"), open=False, elem_id="hub-set", elem_classes="lg-fold"):
            self.words = gr.Textbox(max_lines=1, max_length=200, **w.named("hub_set_view.words", "hub-set-words"))
            label = w.t("hub_set_view.ask", host=host_of(constants.ENDPOINT))
            self.ask = gr.Button(label, size="sm", elem_id="hub-set-ask")
            self.found = gr.HTML("", visible=False, elem_id="hub-set-found", js_on_load=PRESS, apply_default_css=False)
            self.pressed = gr.Textbox(visible=False)  # filled in by the browser
            self.failure = gr.HTML("", visible=False, elem_id="hub-set-failure")
            with gr.Column(visible=False, elem_id="hub-set-one") as self.one:
                self.about = gr.HTML("", elem_id="hub-set-about")
                self.part = gr.Dropdown([], **w.named("hub_set_view.part", "hub-set-part"))
                self.head = gr.HTML("", visible=False, elem_id="hub-set-head")
                self.said = gr.HTML("", visible=False, elem_id="hub-set-said")
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
        self.told = gr.State(None)  # AboutSet of the one that is looked at
        self.waited_for = gr.State(None)  # its name in the list of downloads
        self.clock = gr.Timer(TICK_S, active=False)
        self.arrived = gr.JSON(None, visible=False)  # the id of the set that it became

    def wire(self, form: FormHandle, data: Component, poller: Poller) -> None:
        """data: the choice of the step, which takes what arrived."""
        self._data = data
        opened = [self.failure, self.one, self.about, self.part, self.told, *self._of_part]
        for pressed in (self.ask.click, self.words.submit):
            pressed(self.asked, [self.words], [self.found, *opened], show_progress_on=[self.ask], **ASKING)
        self.found.select(
            self.open, [self.pressed], opened, js=PRESSED, show_progress_on=[self.found], **LAST, **ASKING
        )
        self.part.select(
            self.chosen, [self.told, self.part], self._of_part, show_progress_on=[self.part], **LAST, **ASKING
        )
        begun = [self.waited_for, self.clock, self.progress, self.failure]
        for button, rows in ((self.add, 0), (self.take, FIRST_ROWS)):
            asked = [self.told, self.part, self.question, self.answer]
            poller.after(button.click(self.begin(rows), asked, begun, js=ORDER, **BEGINS))
        self.clock.tick(
            self.looked, [self.waited_for], [self.clock, self.progress, self.failure, self.arrived], **QUIET
        )
        form.fills(
            self.arrived.change, self.taken, {self.arrived}, {data, self.one, self.failure}, js=DELIVERED, **QUIET
        )

    @property
    def _of_part(self) -> list[Component]:
        return [self.head, self.said, self.add, self.take, self.columns, self.question, self.answer]

    # ---- handlers -------------------------------------------------------------------------------------------------
    def asked(self, words: Any) -> list[Any]:
        """Inputs: words, or a name. Outputs: found, and those of open."""
        text = words.strip() if isinstance(words, str) else ""
        if "/" in text:
            return [shown(""), *self.open(text)]
        try:
            rows = search.search(text)
        except GarageError as error:
            return [shown(""), *self._closed(error)]
        return [shown(view.found(rows, text, self.w)), *self._closed()]

    def open(self, name: Any) -> list[Any]:
        """Inputs: the name of a set. Outputs: failure, one, about, part, told, and those of a part."""
        try:
            told = about(SetName.parse(name if isinstance(name, str) else ""), with_rows=True)
            chosen = told.part
        except GarageError as error:
            return self._closed(error)
        choices = [(view.part_label(each, self.w), _key(each)) for each in told.parts]
        return [
            shown(""), gr.update(visible=True), view.about(told, self.w), gr.update(choices=choices,
                value=_key(chosen)), told,
            *self._part(told),
        ]  # fmt: skip

    def chosen(self, told: Any, part: Any) -> list[Any]:
        """Inputs: told, part. Outputs: those of a part."""
        if not isinstance(told, AboutSet):
            return [gr.skip()] * len(self._of_part)
        try:
            return self._part(about(SetName(told.repo, _named(part)), with_rows=True))
        except GarageError as error:
            return self._not_to_be_had(error)

    def begin(self, rows: int) -> Any:
        def begun(told: Any, part: Any, question: Any, answer: Any) -> list[Any]:
            """Inputs: told, part, question, answer. Outputs: waited_for, clock, progress, failure."""
            if not isinstance(told, AboutSet):
                return [gr.skip()] * 4
            try:
                name = adding.part_of(told.repo, select_part(told.parts, told.repo, _named(part)), rows)
                row = self.services.downloads.start(str(name), reading=_meant(question, answer))
            except GarageError as error:
                return [None, gr.Timer(active=False), shown(""), shown(notice(self.w.render(error.message)))]
            return [str(name), gr.Timer(active=True), shown(view.progress(row, self.w)), shown("")]

        return begun

    def looked(self, name: Any) -> list[Any]:
        """Inputs: waited_for. Outputs: clock, progress, failure, arrived."""
        row = self.services.downloads.row(name) if isinstance(name, str) and PartName.parse(name) else None
        if row is None:  # cancelled in the list
            return [gr.Timer(active=False), shown(""), gr.skip(), gr.skip()]
        if row.state == "failed":
            return [gr.Timer(active=False), shown(""), shown(notice(self.w.render(row.message))), gr.skip()]
        if row.state == "done":
            return [gr.Timer(active=False), shown(""), gr.skip(), {"id": row.result, "asked": row.asked}]
        return [gr.skip(), shown(view.progress(row, self.w)), gr.skip(), gr.skip()]

    def taken(self, given: Given) -> Taken:
        """What arrived is chosen, if it is still here."""
        told = given[self.arrived]
        id = told.get("id") if isinstance(told, dict) else None
        known = [samples.choice(info, self.w) for info in self.services.datasets.list()]
        if not isinstance(id, str) or id not in [value for _, value in known]:
            return None, {}
        said = notice(self.w.t("hub_set_view.arrived"), "ok")
        return Filling({"data": id}), {
            self._data: gr.update(choices=known),
            self.one: gr.update(visible=False),
            self.failure: shown(said),
        }

    # ---- what they draw ---------------------------------------------------------------------------------------------
    def _closed(self, error: GarageError | None = None) -> list[Any]:
        said = notice(self.w.render(error.message)) if error else Html("")
        return [shown(said), gr.update(visible=False), "", gr.skip(), None, *[gr.skip()] * len(self._of_part)]

    def _part(self, told: AboutSet) -> list[Update]:
        chosen = told.part
        is_large, is_small = adding.is_too_large(chosen), chosen.rows is not None and chosen.rows <= FIRST_ROWS
        said, names, head = view.too_large(self.w) if is_large else Html(""), [], Html("")
        if isinstance(told.head, SetHead):
            head, names = view.head(told.head, self.w), [] if is_recognised(told.head) else list(told.head.columns)
        elif told.head is not None:
            if told.head.key in ("hub_set.no_text", "hub.gated", "hub.gated_token"):
                return self._not_to_be_had(DataError(told.head))
            said = notice(self.w.render(told.head), "warn")
        return [
            shown(head), shown(said), gr.update(visible=not is_large), gr.update(visible=not is_small),
            gr.update(visible=bool(names)),
            *[gr.update(choices=["", *names], value="")] * 2,
        ]  # fmt: skip

    def _not_to_be_had(self, why: GarageError) -> list[Update]:
        none = gr.update(choices=[""], value="")
        return [shown(""), shown(notice(self.w.render(why.message))), *[gr.update(visible=False)] * 3, none, none]


def _meant(question: Any, answer: Any) -> dict[str, Any]:
    """What two columns are for, as Choices have it: a question and its answer, or a text alone; nothing where nothing
    was said."""
    asked, answered = (each if isinstance(each, str) else "" for each in (question, answer))
    if not answered:
        return {}
    return {"columns": {asked: "question", answered: "answer"} if asked and asked != answered else {answered: "text"}}


def _key(each: AboutPart) -> str:
    return f"{each.config}:{each.split}"


def _named(key: Any) -> tuple[str, ...]:
    return tuple(key.split(":")) if isinstance(key, str) else ("",)
