"""Data: all datasets; the rows of one, a page at a time, searched, edited, repaired, exported."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from core.data.sets import working
from core.data.sets.draft import draft_of
from core.data.sets.info import DatasetInfo
from core.data.sets.rows import Rows
from core.data.sets.working import Page, ShownRow
from core.errors import GarageError
from webui.kit import format, samples
from webui.kit.html import Html, facts, join, muted, notice, placeholder, tag
from webui.kit.live import AT_ONCE, LAST, QUIET, SET_WORK, shown
from webui.kit.wording import Wording
from webui.pages.data_mending import ALL, PROBLEMS, Mending
from webui.pages.data_parting import Parting
from webui.pages.data_row import RowEditor, fields_of, kind_of
from webui.server.set_file import address
from webui.state.services import Services

A_PAGE = 20
A_LINE = 160  # characters of a question, and of an answer, in the list
RUNS_NAMED = 3
DRAW = "() => document.querySelector('#data-draw').click()"
# it stands above a long list
TO_THE_ROW = "() => document.querySelector('#data-row')?.scrollIntoView({block: 'nearest'})"


class DataPage:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.row, self.mending = RowEditor(services, wording), Mending(services, wording)
        self.parting = Parting(services, wording)

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        w = self.w
        self.begins = gr.State([0])  # where each page up to this one begins
        self.next_begin = gr.State(None)
        with gr.Row(equal_height=False, elem_id="data-columns"):
            with gr.Column(scale=4, min_width=300), gr.Column(elem_classes="lg-card"):
                gr.HTML(tag("h2", w.t("data_page.title")))
                self.sets = gr.Radio([], value=None, **w.named("data_page.sets", "data-sets"))
            with gr.Column(scale=6, min_width=320):
                with gr.Column(elem_classes="lg-card"):
                    self.head = gr.HTML(placeholder(w.t("data_page.unopened")), elem_id="data-head")
                    self.notice = gr.HTML("", visible=False, elem_id="data-notice")
                    self.copy = gr.Button(w.t("data_page.copy"), visible=False, elem_id="data-copy")
                    with gr.Row(visible=False, elem_classes="lg-tight") as self.tools:
                        self.undo = gr.Button(w.t("data_page.undo"), elem_id="data-undo")
                        self.redo = gr.Button(w.t("data_page.redo"), elem_id="data-redo")
                        self.add = gr.Button(w.t("data_page.add"), elem_id="data-add")
                # above what is drawn later, so that its buttons stay where a finger is about to touch them
                self.row.build()
                self.mending.build()
                self.parting.build()
                with gr.Column(visible=False, elem_id="data-table", elem_classes="lg-card") as self.table:
                    self._build_table()

    def _build_table(self) -> None:
        w = self.w
        gr.HTML(tag("h2", w.t("data_page.rows_title")))
        self.words = gr.Textbox(max_lines=1, **w.named("data_page.search", "data-search"))
        self.mending.build_filter()
        self.place = gr.HTML("", elem_id="data-place")
        self.rows = gr.Radio([], value=None, **w.named("data_page.rows", "data-rows"))
        with gr.Row(elem_classes="lg-tight"):
            self.before = gr.Button(w.t("data_page.before"), size="sm", elem_id="data-before")
            self.next = gr.Button(w.t("data_page.next"), size="sm", elem_id="data-next")

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, page: gr.Blocks, tab: gr.Tab) -> None:
        show = self.mending.show
        shows = [self.sets, self.begins, self.words, show]
        drawn = [
            self.sets, self.head, self.copy, self.tools, self.undo, self.redo, self.table, self.begins, self.next_begin,
            self.place, self.rows, self.before, self.next, show, *self.parting.outputs,
        ]  # fmt: skip

        # One listener for all that is drawn, so that the newest comes last. What is found in the rows follows: counted
        # once a version.
        asked = gr.Button("", visible="hidden", elem_id="data-draw")  # pressed by DRAW alone
        looked = asked.click(self.draw, shows, drawn, **LAST, **AT_ONCE)
        looked.then(self.mending.look, [self.sets], self.mending.outputs, **LAST, **QUIET)

        def redraw(event: Any) -> None:
            event.then(None, None, None, js=DRAW, **QUIET)

        page.load(self.draw, shows, drawn, **AT_ONCE)
        tab.select(None, None, None, js=DRAW, **QUIET)
        opened = [self.begins, self.words, show, self.parting.others, self.notice, *self.row.outputs]
        redraw(self.sets.input(self.opened, None, opened, **LAST, **AT_ONCE))
        for changed in (self.words.submit, show.input):
            redraw(changed(lambda: [0], None, [self.begins], **LAST, **AT_ONCE))
        redraw(self.next.click(self.further, [self.begins, self.next_begin], [self.begins], **AT_ONCE))
        redraw(self.before.click(self.back, [self.begins], [self.begins], **AT_ONCE))
        one = [self.notice, *self.row.outputs]
        self.rows.input(self.open_row, [self.sets, self.rows], one, **LAST, **AT_ONCE).then(
            None, None, None, js=TO_THE_ROW, **QUIET
        )
        self.add.click(self.new_row, [self.sets], one, **AT_ONCE)
        self.row.wire(self.notice, redraw)
        self.mending.wire(self.sets, self.notice, redraw)
        self.parting.wire(self.sets, self.notice, redraw)
        for button, act in ((self.undo, self.mending.undo), (self.redo, self.mending.redo)):
            redraw(button.click(act, [self.sets], [self.notice], **SET_WORK))
        redraw(self.copy.click(self.copied, [self.sets], [self.notice, self.sets], **SET_WORK))

    def opened(self) -> list[Any]:
        """Outputs: begins, words, show, others, notice, the row's outputs: another set was chosen."""
        return [[0], "", ALL, gr.update(value=[]), shown(""), *self.row.closed()]

    def further(self, begins: list[int], next_begin: int | None) -> list[int]:
        return begins if next_begin is None else [*begins, next_begin]

    def back(self, begins: list[int]) -> list[int]:
        return begins[:-1] or [0]

    def open_row(self, id: Any, number: Any) -> list[Any]:
        """Inputs: sets, rows. Outputs: notice, the row's outputs."""
        try:
            found = self.row.open_row(id, int(number))
        except GarageError as error:
            return [shown(notice(self.w.of(error.message), "warn")), *self.row.closed()]
        except (TypeError, ValueError):  # nothing chosen, or not by this page
            return [gr.skip(), *self.row.closed()]
        return [shown(""), *found]

    def new_row(self, id: Any) -> list[Any]:
        """Inputs: sets. Outputs: notice, the row's outputs."""
        try:
            return [shown(""), *self.row.new(id)]
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), *self.row.closed()]

    def copied(self, id: Any) -> list[Any]:
        """Inputs: sets. Outputs: notice, sets (the copy)."""
        store = self.services.datasets
        try:
            name = self.w.t("data_page.copy_name", name=samples.title(store.get(id), self.w))
            made = working.joined(store, [id], name, self.services.workspace.cache / "sets")
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), gr.skip()]
        said = notice(self.w.t("data_page.copy_made", name=made.name), "ok")
        return [shown(said), gr.update(choices=self._choices(), value=made.id)]

    # ---- what is shown --------------------------------------------------------------------------------------------
    def draw(self, id: Any, begins: Any, words: Any, chosen: Any) -> list[Any]:
        """Inputs: sets, begins, words, show. Outputs: sets, head, copy, tools, undo, redo, table, begins, next_begin,
        place, rows, before, next, show, what the parting shows."""
        choices, hidden = self._choices(), gr.update(visible=False)
        nothing: list[Any] = [hidden, hidden, gr.skip(), gr.skip(), hidden, [0], None, "", gr.update(choices=[],
            value=None), hidden, hidden, ALL, hidden, gr.skip()]  # fmt: skip
        if not isinstance(id, str) or not id:
            return [gr.update(choices=choices), placeholder(self.w.t("data_page.unopened")), *nothing]
        try:
            info, rows = self.services.datasets.get(id), self.services.datasets.rows(id)
            edits = self.services.datasets.edits(id)
            story = edits.story()
            show, wanted = chosen, self.mending.rows_with(id, chosen)
        except GarageError as error:
            there = any(id == known for _, known in choices)
            listed = gr.update(choices=choices) if there else gr.update(choices=choices, value=None)
            said = self.w.of(error.message) if there else self.w.t("data_page.set_gone")
            return [listed, notice(said, "warn"), *nothing]
        own = info.origin == "imported"
        begins = [begin for begin in begins if isinstance(begin, int)] or [0] if isinstance(begins, list) else [0]
        # the last of a kind was mended
        show = show if wanted is not None or (show == PROBLEMS and len(rows.flawed)) else ALL
        sought = words.strip() if isinstance(words, str) else ""

        def page_at(begin: int) -> Page:
            if wanted is not None:
                return working.picked(rows, wanted, begin, A_PAGE, sought)
            if show == PROBLEMS:
                return working.problems(rows, begin, A_PAGE)
            return working.page(rows, begin, A_PAGE, sought)

        page = page_at(begins[-1])
        while not page.rows and len(begins) > 1:  # what stood there was deleted
            begins = begins[:-1]
            page = page_at(begins[-1])
        may_redo = any(change.parent == edits.head for change in edits.changes.values())
        return [
            gr.update(choices=choices),
            self._head(info, rows, self.w.of(story[-1].what) if story else ""),
            gr.update(visible=not own),
            gr.update(visible=own),
            gr.update(interactive=bool(story)),
            gr.update(interactive=may_redo),
            gr.update(visible=True),
            begins,
            page.next,
            self._place(page, rows, len(begins)),
            gr.update(
                choices=[(self._line(row), str(row.number)) for row in page.rows], value=None, visible=bool(page.rows)
            ),
            gr.update(visible=len(begins) > 1),
            gr.update(visible=page.next is not None),
            gr.skip() if show == chosen else show,  # it may have been chosen anew meanwhile
            *self.parting.drawn(id, choices),
        ]

    def _place(self, page: Page, rows: Rows, number: int) -> Html:
        said = self.w.t(
            "data_page.place",
            page=number,
            shown=format.rows(self.w, len(page.rows)),
            rows=format.rows(self.w, len(rows)),
        )
        return muted(said if page.rows else self.w.t("data_page.no_rows"))

    def _line(self, row: ShownRow) -> str:
        """The number with the last question, then the answer to it; or the number, why it cannot be trained, and its
        words."""
        if row.example is None:
            why = self.w.of(row.problem) if row.problem else self.w.t("data_page.bad_answer")
            draft = draft_of(row.values or {})
            said = (
                " ".join(fields_of(draft, kind_of(draft)))
                if draft
                else json.dumps(row.values or "", ensure_ascii=False).strip('"')
            )
            return f"{self.w.t('data_page.row', row=row.number)}\n{why}\n{_short(said)}"
        example, number = row.example, format.grouped(self.w, row.number)
        if example.text is not None:
            return f"{number} · {_short(example.text)}"
        if example.messages:
            asked = next((message.content for message in reversed(example.messages) if message.role == "user"), "")
            return f"{number} · {_short(asked)}\n{_short(example.messages[-1].content)}"
        return f"{number} · {_short(example.prompt or '')}\n{_short(example.completion or '')}"

    def _head(self, info: DatasetInfo, rows: Rows, last: str) -> Html:
        w = self.w
        version = (
            w.t("data_page.version_is", version=info.version, what=last) if last else w.t("data_page.version_none")
        )
        pairs: list[tuple[str, str]] = [
            (w.t("data_page.rows_count"), format.rows(w, len(rows))),
            (w.t("data_page.size"), format.bytes_used(w, info.bytes)),
            (w.t("data_page.origin"), info.origin_name or w.t(f"data_page.origin_{info.origin}")),
            (w.t("data_page.used_by"), self._used_by(info.id) or w.t("data_page.no_run")),
        ]
        own = info.origin == "imported"
        href = address(info.id, w.language)
        return join(
            [
                tag("h2", samples.title(info, w)),
                facts([*pairs, (w.t("data_page.version"), version)] if own else pairs),
                tag("p", tag("a", w.t("data_page.export"), href=href, download=True, id="data-export")),
                *([] if own else [muted(w.t("data_page.read_only"))]),
            ]
        )

    def _used_by(self, id: str) -> str:
        names = [run.name for run in self.services.runs.list() if (data := run.facts().data) and data.id == id]
        named = self.w.t("data_page.comma").join(names[:RUNS_NAMED])
        more = len(names) - RUNS_NAMED
        return self.w.t("data_page.and_more", names=named, more=more) if more > 0 else named

    def _choices(self) -> list[tuple[str, str]]:
        return [(self._set_line(info), info.id) for info in self.services.datasets.list()]

    def _set_line(self, info: DatasetInfo) -> str:
        w = self.w
        rows = format.rows(w, info.good_rows) if info.good_rows is not None else w.t("data_page.rows_unknown")
        parts = [rows, format.bytes_used(w, info.bytes), w.t(f"data_page.origin_{info.origin}")]
        return f"{samples.title(info, w)}\n{' · '.join(parts)}"


def _short(text: str) -> str:
    line = " ".join(text[: 4 * A_LINE].split())
    return line if len(line) <= A_LINE else line[: A_LINE - 1] + "…"
