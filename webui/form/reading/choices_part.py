"""The person's choices for an added dataset in the data step: voice, silence and pseudonyms of a chat, the roles of a
table's columns.

They are stored with the dataset, which is then read again; the form shows the stored choices. Datasets that were not
added here (samples, files of a library folder) are read without choices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import get_args

import gradio as gr
from gradio.components import Component

from core import files
from core.data.chats.overview import Chat
from core.data.reading import sniff
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.file_rows import Row
from core.data.reading.reader import read_rows
from core.data.sets.inspection import DataReport
from core.errors import GarageError
from core.recipe import ColumnRole
from webui.form.fields import edit_event
from webui.form.handle import Components, FieldValues, Fill, Filled, Filling, FormHandle
from webui.form.reading.file_part import FilePart
from webui.form.reading.recipe_reading import choices_for
from webui.kit.format import grouped
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import LAST, QUIET, Updates, shown
from webui.kit.wording import Wording
from webui.state.services import Services

ROLES: tuple[ColumnRole, ...] = get_args(ColumnRole)
FIRST_ROWS = 4
MAX_COLUMNS = 12  # with a field here; further columns are mapped by a command
LONGEST_CELL = 90
MAX_PEOPLE = 200  # in the list of voices
# The parts of a row, from top to bottom.
ROLES_IN_ORDER: tuple[ColumnRole, ...] = ("system", "context", "question", "text", "answer", "ignore")
PICK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-roles]");
  if (!button) return;
  window.loraGarageReading = { roles: JSON.parse(button.dataset.roles), at: Date.now() };
  trigger("select", { value: "" });
});
"""
PICKED = "() => window.loraGarageReading"


class ReadingPart:
    """The fields for how a dataset is read: a chat, a table, a file."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.file = FilePart(wording)
        self._first_rows: dict[tuple[str, str, tuple[int, ...]], list[Row]] = {}  # of the last eight datasets

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Build the fields for a chat (voice, silence, pseudonyms) and for a table (readings, first rows, a role for
        each column), hidden at first."""
        w = self.w
        self.file.build()
        with gr.Column(visible=False, elem_id="chat-choices", elem_classes="lg-choices") as self.chat:
            self.voice = gr.Dropdown([], **w.named("reading_choices.voice", "chat-voice"))
            # No slider: its keys send no event (gradio 6.31), and a list shows the effect of each choice.
            self.gap = gr.Dropdown([], **w.named("reading_choices.gap", "chat-gap"))
            self.pseudonyms = gr.Checkbox(True, **w.named("reading_choices.pseudonyms", "chat-pseudonyms"))
            self.about_chat = gr.HTML("", elem_id="chat-about")
        with gr.Column(visible=False, elem_id="column-choices", elem_classes="lg-choices") as self.table:
            self.readings = gr.HTML("", elem_id="readings", js_on_load=PICK, apply_default_css=False)
            self.picked = gr.JSON(None, visible=False)
            self.rows = gr.HTML("", elem_id="first-rows")
            with gr.Row(elem_classes="lg-columns"):
                roles = [(w.t(f"reading_choices.role_{role}"), role) for role in ROLES]
                self.columns = [
                    gr.Dropdown(
                        roles, value="ignore", visible=False, label="", min_width=150, elem_id=f"column-{number}"
                    )
                    for number in range(1, MAX_COLUMNS + 1)
                ]
            self.about_table = gr.HTML("", elem_id="column-about")
        self.message = gr.HTML("", elem_id="reading-notice", visible=False)
        self.column_names = gr.JSON([], visible=False)  # the names of the shown columns

    @property
    def parts(self) -> Components:
        """Return the components that `draw` may update."""
        return {
            self.chat, self.voice, self.gap, self.pseudonyms, self.about_chat, self.table, self.readings, self.rows,
            *self.columns,
            self.about_table,
            self.column_names, *self.file.parts,
        }  # fmt: skip

    def wire(self, form: FormHandle, data: Component, choices: Callable[[], list[tuple[str, str]]]) -> None:
        """Let each field store its choice for the dataset and fill the form anew. data: the list of datasets. choices:
        returns its current entries, since a dataset may have another number of rows now."""

        def chosen(read: Callable[[FieldValues, Choices], Choices]) -> Fill:
            """Return a handler that stores what `read` makes of the fields."""

            def fill(values: FieldValues) -> Filled:
                """Store the new choice with those of the recipe, except its version, which belongs to another reading;
                the form then reads as stored. An error is shown."""
                id, store = values[data], self.services.datasets
                choices_before = choices_for(id, form.read(values).answers.reading).model_copy(update={"version": None})
                try:
                    store.choose(id, read(values, store.choices(id, choices_before)))
                except GarageError as error:
                    return None, {self.message: shown(notice(self.w.render(error.message)))}
                return Filling(answers={"reading": None}), {self.message: shown(""), data: gr.update(choices=choices())}

            return fill

        self.readings.select(None, None, [self.picked], js=PICKED, **QUIET)
        of_chat: Components = {self.voice, self.gap, self.pseudonyms}
        outputs: Components = {self.message}
        options = {**QUIET, **LAST, "concurrency_id": "reading", "concurrency_limit": 1}
        for events, inputs, read in (
            ([edit_event(field) for field in (self.voice, self.gap, self.pseudonyms)], of_chat, self._chat_choices),
            ([edit_event(column) for column in self.columns], {*self.columns, self.column_names}, self._column_choices),
            ([self.picked.change], {self.picked}, self._reading_choices),
            ([edit_event(self.file.sheet)], {self.file.sheet}, self.file.sheet_choices),
            ([edit_event(self.file.header)], {self.file.header}, self.file.header_choices),
            ([edit_event(self.file.encoding)], {self.file.encoding}, self.file.encoding_choices),
        ):
            form.fill_on(partial(gr.on, events), chosen(read), form.inputs | inputs, outputs, **options)

    # ---- reading the fields -----------------------------------------------------------------------------------
    def _chat_choices(self, values: FieldValues, stored: Choices) -> Choices:
        """Return stored with the voice, silence and pseudonyms that the fields have; an invalid silence leaves the
        stored one."""
        voice, gap = values[self.voice], values[self.gap]
        hours = float(gap) if isinstance(gap, int | float) and 0.25 <= gap <= 8760 else stored.gap_hours
        update = {
            "voice": voice if isinstance(voice, str) and voice else None,
            "gap_hours": hours,
            "pseudonyms": values[self.pseudonyms] is True,
        }
        return stored.model_copy(update=update)

    def _column_choices(self, values: FieldValues, stored: Choices) -> Choices:
        """Return stored with the columns' roles that the fields have, named by column_names."""
        names = values[self.column_names]
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        roles = {
            name: values[column] for name, column in zip(names, self.columns, strict=False) if values[column] in ROLES
        }
        return stored.model_copy(update={"columns": roles})

    def _reading_choices(self, values: FieldValues, stored: Choices) -> Choices:
        """Return stored with the columns of the pressed reading. Its roles come from the page and are checked; without
        a valid one the stored columns stay."""
        picked = values[self.picked]
        roles = picked.get("roles") if isinstance(picked, dict) else None
        roles = roles if isinstance(roles, dict) else {}
        columns = {str(name): role for name, role in roles.items() if role in ROLES}
        return stored.model_copy(update={"columns": columns or stored.columns})

    # ---- drawing the stored choices ------------------------------------------------------------------------------
    def draw(self, data: object, choices: Choices = NO_CHOICES) -> Updates:
        """Return the updates: for a chat its choices, for a table its columns with first rows; else both hidden, as for
        a sample, no dataset or one that cannot be read."""
        updates: Updates = {
            self.chat: gr.update(visible=False),
            self.table: gr.update(visible=False),
            **self.file.draw(None),
        }
        if not isinstance(data, str) or not data:
            return updates
        try:
            if self.services.datasets.get(data).origin != "imported":
                return updates
            report = self.services.datasets.report(data, choices=choices)
            updates |= self.file.draw(report)
            if report.chat is not None:
                updates |= self._drawn_chat(report.chat)
            elif report.roles:
                updates |= self._drawn_table(self.first_rows(data, choices), report)
        except GarageError:  # the report beside it shows the error
            pass
        return updates

    def _drawn_chat(self, chat: Chat) -> Updates:
        """Return the updates that show a chat's fields: its people, the silences that end a conversation, and notes."""
        w = self.w
        people = [
            person for number, person in enumerate(chat.people) if number < MAX_PEOPLE or person.name == chat.voice
        ]
        names = [
            (w.t("reading_choices.person", name=person.name, count=grouped(w, person.messages)), person.name)
            for person in people
        ]
        # including the chosen one
        ladder = {*chat.ladder, *([(chat.gap_hours, chat.conversations)] if chat.gap_hours else [])}
        silences = [
            (w.t("reading_choices.silence", hours=hours, count=grouped(w, count)), hours)
            for hours, count in sorted(ladder)
        ]
        notes = [w.t("reading_choices.voice_guessed", voice=chat.voice)] if chat.guessed else []
        if len(people) < chat.count:
            notes.append(w.t("reading_choices.more_people", shown=len(people), count=chat.count))
        private = w.t("reading_choices.repeats" if chat.pseudonyms else "reading_choices.repeats_all")
        return {
            self.chat: gr.update(visible=True),
            self.voice: gr.update(choices=names, value=chat.voice),
            self.gap: gr.update(visible=bool(silences), choices=silences, value=chat.gap_hours),
            self.pseudonyms: chat.pseudonyms,
            self.about_chat: join(
                [tag("p", " ".join(notes), role="status") if notes else None, tag("p", private, class_="lg-quiet")]
            ),
        }

    def first_rows(self, data: str, choices: Choices) -> list[Row]:
        """Return the first FIRST_ROWS readable rows of a table, of several files as many of each, from memory while the
        file stays the same. Raises DataError."""
        store = self.services.datasets
        choices = store.choices(data, choices)
        path = store.path(data)
        key = (data, choices.key, files.stamp(path))  # a dataset that is deleted and added again has the same id
        if (rows := self._first_rows.get(key)) is None:
            source = sniff.probe(path, choices=choices)
            parts = source.parts[:FIRST_ROWS] or (source,)
            each = ((row for row in read_rows(part) if isinstance(row, Row)) for part in parts)
            rows = [row for rows in each for row in islice(rows, -(-FIRST_ROWS // len(parts)))]
            self._first_rows = {**dict(list(self._first_rows.items())[-7:]), key: rows}
        return rows

    def _drawn_table(self, rows: list[Row], report: DataReport) -> Updates:
        """Return the updates that show a table's fields: possible readings, first rows, and a field for each column."""
        w = self.w
        names = list(dict.fromkeys(str(name) for row in rows for name in row.values))
        guessed = w.t("reading_choices.guessed") if report.guessed else ""  # None would keep the old text
        updates: Updates = {
            self.table: gr.update(visible=True),
            self.readings: self._as_readings(rows, report),
            self.rows: self._as_table(names, [row.values for row in rows]),
            self.column_names: names[:MAX_COLUMNS],
            self.about_table: tag(
                "p", w.t("reading_choices.more_columns", shown=MAX_COLUMNS, count=len(names)), class_="lg-quiet"
            )
            if len(names) > MAX_COLUMNS
            else "",
        }
        for number, field in enumerate(self.columns):
            if number >= len(names):
                updates[field] = gr.update(visible=False)
                continue
            role = report.roles.get(names[number])
            updates[field] = gr.update(
                visible=True, label=names[number], value=role or "ignore", info=guessed if role else ""
            )
        return updates

    def _as_readings(self, rows: list[Row], report: DataReport) -> Html | str:
        """Return a card for each possible reading of a table's columns: one row of the file under its roles, and a
        button that chooses it; above them the question which is right. "" if the report offers none or there are no
        rows."""
        if not report.readings or not rows:
            return ""
        w = self.w
        cards = []
        for number, roles in enumerate(report.readings):
            fitting = [row for row in rows if roles.keys() <= row.values.keys()] or rows  # of several files, its own
            values = fitting[number % len(fitting)].values
            title = next(
                w.t("reading_choices.answer_is" if role == "answer" else "reading_choices.text_is", column=name)
                for name, role in roles.items()
                if role in ("answer", "text")
            )
            lines = (
                tag(
                    "p",
                    tag("span", w.t(f"reading_choices.role_{role}"), class_="lg-quiet"),
                    " ",
                    _cell(values.get(name)),
                )
                for name, role in sorted(roles.items(), key=lambda column: (ROLES_IN_ORDER.index(column[1]), column[0]))
            )
            button = tag("button", w.t("reading_choices.pick"), type="button", data_roles=json.dumps(roles))
            cards.append(tag("div", tag("h3", title), *lines, button, class_="lg-reading"))
        is_open = report.undecided and len(report.readings) > 1
        question = w.t("reading_choices.which_answer" if is_open else "reading_choices.is_right")
        return join([tag("p", tag("strong", question), role="status"), tag("div", *cards, class_="lg-readings")])

    def _as_table(self, names: list[str], rows: list[Mapping[str, object]]) -> Html:
        """Return the columns and rows (cells shortened) as a table that can be scrolled by keyboard, since it may be
        wider than a phone."""
        head = tag("tr", *(tag("th", name[:LONGEST_CELL], scope="col") for name in names))
        body = (tag("tr", *(tag("td", _cell(row.get(name))) for name in names)) for row in rows)
        table = tag("table", tag("thead", head), tag("tbody", *body), class_="lg-table")
        title = self.w.t("reading_choices.first_rows", count=len(rows))
        return join(
            [
                tag("p", tag("strong", self.w.t("reading_choices.columns"))),
                tag("div", table, class_="lg-scroll", tabindex="0", role="region", aria_label=title),
            ]
        )


def _cell(value: object) -> str:
    """Return a cell as one line of at most LONGEST_CELL characters; "" for None."""
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL].rstrip()}…"
