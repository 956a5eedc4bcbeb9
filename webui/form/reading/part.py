"""The person's choices for an added dataset in the data step: the voice, silence and pseudonyms of a chat, the roles
of a table's columns.

It is kept with the set, which is then read anew; each look at the form shows what the set has. Sets that were not added
here (samples, files of a library folder) are read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any, get_args

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
from webui.form.fields import edited
from webui.form.handle import Filling, FormHandle, Given, Parts, Take, Taken, Updates
from webui.form.reading.brought import choices_for
from webui.form.reading.file_part import FilePart
from webui.kit.format import grouped
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import LAST, QUIET, shown
from webui.kit.wording import Wording
from webui.state.services import Services

ROLES: tuple[ColumnRole, ...] = get_args(ColumnRole)
FIRST_ROWS = 4
MOST_COLUMNS = 12  # that can be set here; a table with more is mapped by a command
LONGEST_CELL = 90
MOST_PEOPLE = 200  # to choose from
ROLES_IN_ORDER: tuple[ColumnRole, ...] = ("system", "context", "question", "text", "answer", "ignore")  # of a row
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
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.file = FilePart(wording)
        self._first_rows: dict[tuple[str, str, tuple[int, ...]], list[Row]] = {}  # of the sets that were looked at last

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        w = self.w
        self.file.build()
        with gr.Column(visible=False, elem_id="chat-choices", elem_classes="lg-choices") as self.chat:
            self.voice = gr.Dropdown([], **w.named("reading_choices.voice", "chat-voice"))
            # No slider, whose keys tell gradio 6.31 nothing; and a list shows what each choice gives before it is made.
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
                    for number in range(1, MOST_COLUMNS + 1)
                ]
            self.about_table = gr.HTML("", elem_id="column-about")
        self.said = gr.HTML("", elem_id="reading-notice", visible=False)
        self.sheet_of = gr.JSON([], visible=False)  # the names of the columns as they were drawn

    @property
    def parts(self) -> Parts:
        return {
            self.chat, self.voice, self.gap, self.pseudonyms, self.about_chat, self.table, self.readings, self.rows,
            *self.columns,
            self.about_table,
            self.sheet_of, *self.file.parts,
        }  # fmt: skip

    def wire(self, form: FormHandle, data: Component, choices: Any) -> None:
        """data: the list of sets. choices: gives what is in it, since a set may have another number of rows now."""

        def chosen(read: Any) -> Take:
            def take(given: Given) -> Taken:
                """What a recipe said of the set is kept with it from now on, with what was chosen; its versions were of
                another reading."""
                id, store = given[data], self.services.datasets
                said = choices_for(id, form.read(given).answers.reading).model_copy(update={"version": None})
                try:
                    store.choose(id, read(given, store.choices(id, said)))
                except GarageError as error:
                    return None, {self.said: shown(notice(self.w.render(error.message)))}
                return Filling(answers={"reading": None}), {self.said: shown(""), data: gr.update(choices=choices())}

            return take

        self.readings.select(None, None, [self.picked], js=PICKED, **QUIET)
        of_chat: Parts = {self.voice, self.gap, self.pseudonyms}
        outputs: Parts = {self.said}
        options = {**QUIET, **LAST, "concurrency_id": "reading", "concurrency_limit": 1}
        for events, inputs, read in (
            ([edited(field) for field in (self.voice, self.gap, self.pseudonyms)], of_chat, self._of_chat),
            ([edited(column) for column in self.columns], {*self.columns, self.sheet_of}, self._of_columns),
            ([self.picked.change], {self.picked}, self._of_reading),
            ([edited(self.file.sheet)], {self.file.sheet}, self.file.of_sheet),
            ([edited(self.file.header)], {self.file.header}, self.file.of_header),
            ([edited(self.file.encoding)], {self.file.encoding}, self.file.of_encoding),
        ):
            form.fills(partial(gr.on, events), chosen(read), form.inputs | inputs, outputs, **options)

    # ---- what was said --------------------------------------------------------------------------------------------
    def _of_chat(self, given: Given, kept: Choices) -> Choices:
        voice, gap = given[self.voice], given[self.gap]
        hours = float(gap) if isinstance(gap, int | float) and 0.25 <= gap <= 8760 else kept.gap_hours
        said = {
            "voice": voice if isinstance(voice, str) and voice else None,
            "gap_hours": hours,
            "pseudonyms": given[self.pseudonyms] is True,
        }
        return kept.model_copy(update=said)

    def _of_columns(self, given: Given, kept: Choices) -> Choices:
        names = given[self.sheet_of]
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        roles = {
            name: given[column] for name, column in zip(names, self.columns, strict=False) if given[column] in ROLES
        }
        return kept.model_copy(update={"columns": roles})

    def _of_reading(self, given: Given, kept: Choices) -> Choices:
        """Choices with the reading that was pressed. Its roles come from the page: they are checked as any are."""
        picked = given[self.picked]
        roles = picked.get("roles") if isinstance(picked, dict) else None
        roles = roles if isinstance(roles, dict) else {}
        columns = {str(name): role for name, role in roles.items() if role in ROLES}
        return kept.model_copy(update={"columns": columns or kept.columns})

    # ---- what the set has -----------------------------------------------------------------------------------------
    def draw(self, data: Any, choices: Choices = NO_CHOICES) -> Updates:
        """For every look at the form."""
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
        except GarageError:  # the report beside it says so
            pass
        return updates

    def _drawn_chat(self, chat: Chat) -> Updates:
        w = self.w
        people = [
            person for number, person in enumerate(chat.people) if number < MOST_PEOPLE or person.name == chat.voice
        ]
        names = [
            (w.t("reading_choices.person", name=person.name, count=grouped(w, person.messages)), person.name)
            for person in people
        ]
        # and the one that is chosen
        ladder = {*chat.ladder, *([(chat.gap_hours, chat.conversations)] if chat.gap_hours else [])}
        silences = [
            (w.t("reading_choices.silence", hours=hours, count=grouped(w, count)), hours)
            for hours, count in sorted(ladder)
        ]
        said = [w.t("reading_choices.voice_guessed", voice=chat.voice)] if chat.guessed else []
        if len(people) < chat.count:
            said.append(w.t("reading_choices.more_people", shown=len(people), count=chat.count))
        private = w.t("reading_choices.repeats" if chat.pseudonyms else "reading_choices.repeats_all")
        return {
            self.chat: gr.update(visible=True),
            self.voice: gr.update(choices=names, value=chat.voice),
            self.gap: gr.update(visible=bool(silences), choices=silences, value=chat.gap_hours),
            self.pseudonyms: chat.pseudonyms,
            self.about_chat: join(
                [tag("p", " ".join(said), role="status") if said else None, tag("p", private, class_="lg-quiet")]
            ),
        }

    def first_rows(self, data: str, choices: Choices) -> list[Row]:
        """Of a table, without rows that cannot be read. Raises DataError."""
        store = self.services.datasets
        choices = store.choices(data, choices)
        path = store.path(data)
        key = (data, choices.key, files.stamp(path))  # a set that is deleted and added anew has the id of the old one
        if (found := self._first_rows.get(key)) is None:
            source = sniff.probe(path, choices=choices)
            found = list(islice((row for row in read_rows(source) if isinstance(row, Row)), FIRST_ROWS))
            self._first_rows = {**dict(list(self._first_rows.items())[-7:]), key: found}
        return found

    def _drawn_table(self, rows: list[Row], report: DataReport) -> Updates:
        w = self.w
        names = list(dict.fromkeys(str(name) for row in rows for name in row.values))
        guessed = w.t("reading_choices.guessed") if report.guessed else ""  # None would leave what is there
        updates: Updates = {
            self.table: gr.update(visible=True),
            self.readings: self._as_readings(rows, report),
            self.rows: self._as_table(names, [row.values for row in rows]),
            self.sheet_of: names[:MOST_COLUMNS],
            self.about_table: tag(
                "p", w.t("reading_choices.more_columns", shown=MOST_COLUMNS, count=len(names)), class_="lg-quiet"
            )
            if len(names) > MOST_COLUMNS
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
        """Each possible reading with a row of the file, and the button that chooses it."""
        if not report.readings or not rows:
            return ""
        w = self.w
        cards = []
        for number, roles in enumerate(report.readings):
            values = rows[number % len(rows)].values
            title = next(
                w.t("reading_choices.answer_is" if role == "answer" else "reading_choices.text_is", column=name)
                for name, role in roles.items()
                if role in ("answer", "text")
            )
            by_role = sorted((ROLES_IN_ORDER.index(role), name) for name, role in roles.items())
            kinds = ((w.t(f"reading_choices.role_{ROLES_IN_ORDER[place]}"), name) for place, name in by_role)
            lines = (tag("p", tag("span", kind, class_="lg-quiet"), " ", _cell(values.get(at))) for kind, at in kinds)
            button = tag("button", w.t("reading_choices.pick"), type="button", data_roles=json.dumps(roles))
            cards.append(tag("div", tag("h3", title), *lines, button, class_="lg-reading"))
        asked = w.t("reading_choices.which_answer" if report.undecided else "reading_choices.is_right")
        return join([tag("p", tag("strong", asked), role="status"), tag("div", *cards, class_="lg-readings")])

    def _as_table(self, names: list[str], rows: list[Mapping[str, Any]]) -> Html:
        """Reached and scrolled by keyboard, since a table may be wider than a phone."""
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


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL].rstrip()}…"
