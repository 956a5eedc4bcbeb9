"""The rows of a dataset as a table: searched, filtered, edited in place, several deleted at once, undone.

The page holds the visible rows and those around them, and requests others by their place in the table
(assets/data_table.js). The contents of a row reach the page as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import gradio as gr

from core.data.sets import working
from core.data.sets.edits import Change
from core.data.sets.stored_rows import Rows
from core.data.sets.working import ShownRow
from core.errors import DataError, GarageError
from core.files import JsonObject
from webui.kit import format
from webui.kit.icons import icon
from webui.kit.live import Updates, mark
from webui.kit.panel import Panel
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.pages.data_row import editable_row, rewrite
from webui.pages.data_view import RowFilter, View, Views
from webui.state.services import Services

A_CELL = 300  # characters sent of a cell; the rest is fetched when it is edited or opened
MAX_ROWS = 200  # in one answer
WORDS = (
    "list", "search", "filter", "row", "question", "answer", "text", "open", "choose", "choose_all", "undo", "redo",
    "add", "delete", "deselect", "chosen", "none_found", "show_all", "hint", "read_hint", "offline", "edit",
    "saving",
)  # fmt: skip
TEMPLATE = f"""
<div class='dt'>
<div class='dt-tools'>
  <input class='dt-search' id='data-search' type='search'>
  <div class='dt-acts'>
    <button type='button' class='dt-button' id='data-undo' disabled>{icon("undo")}<span></span></button>
    <button type='button' class='dt-button' id='data-redo' disabled>{icon("redo")}<span></span></button>
    <button type='button' class='dt-button' id='data-add'>{icon("plus")}<span></span></button>
  </div>
  <div class='dt-chosen' hidden><strong role='status'></strong>
    <button type='button' class='dt-button' id='data-delete-rows'>{icon("trash")}<span></span></button>
    <button type='button' class='dt-button' id='data-deselect'><span></span></button>
  </div>
</div>
<div class='dt-filters' id='data-show' role='group' hidden></div>
<div class='dt-frame'>
  <div class='dt-scroll'>
    <div role='grid' aria-multiselectable='true'>
      <div role='rowgroup' class='dt-head'><div role='row' aria-rowindex='1'></div></div>
      <div role='rowgroup' class='dt-body'></div>
    </div>
    <div class='dt-empty' hidden><p></p><button type='button' class='dt-button'><span></span></button></div>
  </div>
  <div class='dt-over'><p class='dt-message' id='data-message' role='status'></p></div>
</div>
<p class='dt-foot'><span id='data-place' role='status'></span><span class='dt-hint'></span></p>
</div>
"""


class RowsTable(Panel):
    """The rows of a dataset as a table on the Data page. Its value is {set, stamp, may_edit}; its script calls the
    methods with a `request`. "select" opens a row (OPENED), "submit" reports a change of the dataset."""

    def __init__(self, services: Services, wording: Wording):
        super().__init__(services, wording)
        self.views = Views(services)

    def build(self) -> None:
        """Build the table, whose script calls rows, cell, write, remove and travel."""
        words = {name: self.w.raw(f"data_table.{name}") for name in WORDS} | {"open_icon": icon("panel")}
        self.table = gr.HTML(
            None,
            html_template=TEMPLATE,
            css_template=(ASSETS / "data_table.css").read_text("utf-8"),
            js_on_load=(ASSETS / "data_table.js").read_text("utf-8").replace("__WORDS__", json.dumps(words)),
            server_functions=[*map(self._served, (self.rows, self.cell, self.write, self.remove, self.travel))],
            apply_default_css=False,
            elem_id="data-rows",
        )

    def _served(self, answer: Callable[[Mapping[str, object]], JsonObject]) -> Callable[[object], JsonObject]:
        """Return the function wrapped for gradio: any input from a browser is accepted, and errors are returned as a
        sentence."""

        def served(request: object) -> JsonObject:
            """Answer a request of the table; an error is returned as {"error": sentence}."""
            try:
                return answer(request if isinstance(request, dict) else {})
            except GarageError as error:
                return {"error": self.w.render(error.message)}
            except OSError:  # the set was deleted meanwhile
                return {"error": self.w.t("data_page.set_gone")}

        served.__name__ = answer.__name__
        return served

    def draw(self, id: str, may_edit: bool) -> Updates:
        """Return the table's new value. Raises DataError."""
        return {self.table: {"set": id, "stamp": self.views.stamp(id), "may_edit": may_edit}}

    # ---- requests of the script ------------------------------------------------------------------------------------
    def rows(self, request: Mapping[str, object]) -> JsonObject:
        """Return a part of the table's rows, and how many there are so far. request: set, show, words, begin, count.
        Continues the search if words were not yet searched in all rows. Raises DataError."""
        row_filter, stamp, view = self.views.get(RowFilter.from_request(request))
        view.search_more()
        begin, count = max(0, _int(request, "begin")), min(MAX_ROWS, max(0, _int(request, "count")))
        return {
            "stamp": stamp,
            "show": row_filter.show,
            "total": len(view),
            "searching": view.looked_at < view.row_count,
            "place": self._place(row_filter, view),
            "begin": begin,
            "rows": [self.row_data(row, view.rows) for row in view.part(begin, count)],
            **self._undo_and_redo(row_filter.id),
        }

    def _place(self, row_filter: RowFilter, view: View) -> str:
        """Return in words how many rows are shown of how many, or how far the search is."""
        rows = format.rows(self.w, view.row_count)
        if view.looked_at < view.row_count:
            looked_at = format.grouped(self.w, view.looked_at)
            return self.w.t("data_table.searching", shown=len(view), looked_at=looked_at, rows=rows)
        return self.w.t("data_table.place", shown=len(view), rows=rows) if row_filter.words else rows

    def _undo_and_redo(self, id: str) -> JsonObject:
        """Return {undo: what the newest change was, "" for none; redo: whether an undone one can be redone}."""
        edits = self.services.datasets.edits(id)
        story = edits.history()
        may_redo = any(change.parent == edits.head for change in edits.changes.values())
        return {"undo": self.w.render(story[-1].what) if story else "", "redo": may_redo}

    def row_data(self, row: ShownRow, rows: Rows) -> JsonObject:
        """Return a row as the table shows it. n: its number. a, b: question and answer, b null for a single text. why:
        the problem of the row. may: true if its cells can be edited in place."""
        row_dict = editable_row(row, rows)
        cells = None if row_dict is None else _cells(row_dict)
        may = cells is not None
        if cells is None:
            cells = _readonly_cells(row) if row.example else (json.dumps(row.values, ensure_ascii=False), None)
        why = self.w.render(row.problem) if row.problem else "" if row.example else self.w.t("data_page.bad_answer")
        return {"n": row.number, "a": _short(cells[0]), "b": _short(cells[1]), "why": why, "may": may}

    def cell(self, request: Mapping[str, object]) -> JsonObject:
        """Return the complete texts of a row to edit, and its mark. request: set, n (the row's number). Raises
        DataError."""
        id = RowFilter.from_request(request).id
        rows = self.services.datasets.rows(id)
        row = editable_row(working.row_of(rows, _int(request, "n")), rows) or {}
        return {"cells": _cells(row), "mark": mark(row), "set": id}

    def write(self, request: Mapping[str, object]) -> JsonObject:
        """Write a text into a cell as a new version, if the row still has this mark. request: set, n (the row's
        number), at (0 or 1: the cell), text, mark. Raises DataError."""
        at, text = _int(request, "at"), str(request.get("text") or "")
        change = rewrite(
            self.services.datasets,
            RowFilter.from_request(request).id,
            _int(request, "n"),
            request.get("mark"),
            lambda row, kind: with_cell(row, at, text),
        )
        return self._done(change)

    def remove(self, request: Mapping[str, object]) -> JsonObject:
        """Delete rows as a new version. request: numbers of the rows to delete, or with `all`, of those that stay in
        the view that has this `stamp`. Raises DataError."""
        listed = request.get("numbers")
        numbers = {each for each in listed if isinstance(each, int)} if isinstance(listed, list) else set()
        id = RowFilter.from_request(request).id
        if request.get("all"):
            _, stamp, view = self.views.get(RowFilter.from_request(request))
            if stamp != request.get("stamp"):
                raise DataError("data_page.stale")
            while view.looked_at < view.row_count:
                view.search_more()
            numbers = set(view.numbers()) - numbers
        return self._done(working.edit_rows(self.services.datasets, id, remove=sorted(numbers)))

    def travel(self, request: Mapping[str, object]) -> JsonObject:
        """Undo the newest change, or redo an undone one. request: set, back (true: undo). Raises DataError."""
        back = bool(request.get("back"))
        with self.services.datasets.editing(RowFilter.from_request(request).id) as (edits, _):
            change = edits.undo() if back else edits.redo()
        return self._done(change, "undone" if back else "done")

    def _done(self, change: Change, key: str = "done") -> JsonObject:
        """Return the sentence about a change, for the script. key: "done" or "undone"."""
        return {"notice": self.w.t(f"data_page.{key}", version=change.version, what=self.w.render(change.what))}


def _int(request: Mapping[str, object], name: str) -> int:
    """Return the integer of this name, 0 for anything else."""
    value = request.get(name)
    return value if isinstance(value, int) else 0


def _short(text: str | None) -> str | None:
    """Return a text on one line, of at most A_CELL characters; None for None."""
    if text is None:
        return None
    line = " ".join(text[: 4 * A_CELL].split())
    return line if len(line) <= A_CELL else line[: A_CELL - 1] + "…"


def _cells(row: JsonObject) -> tuple[str, str | None] | None:
    """Return the texts that can be edited in the table: last question and answer, also of a preference row, or (text,
    None); None for other rows."""
    if set(row) == {"text"}:
        return row["text"], None
    if set(row) == {"prompt", "completion"}:
        return row["prompt"], row["completion"]
    turns = row.get("messages", [])[-2:]
    is_plain = [turn.get("role") for turn in turns] == ["user", "assistant"] and all(
        set(turn) == {"role", "content"} and isinstance(turn["content"], str) for turn in turns
    )
    return (turns[0]["content"], turns[1]["content"]) if is_plain else None


def with_cell(row: JsonObject, at: int, text: str) -> JsonObject:
    """Return the row with another text in a cell: at 0 its question or text, at 1 its answer. A preference row gets the
    new question on both sides; its rejected answer stays. Raises DataError if it has no such cell."""
    if (cells := _cells(row)) is None or at not in (0, 1) or cells[at] is None:
        raise DataError("data_page.no_cell")
    if "text" in row:
        return {"text": text}
    if "prompt" in row:
        return {**row, ("prompt", "completion")[at]: text}
    sides = ("messages", "rejected") if at == 0 else ("messages",)  # the worse answer has the same question
    return {**row, **{side: _with_turn(row[side], at - 2, text) for side in sides if side in row}}


def _with_turn(turns: Sequence[JsonObject], at: int, text: str) -> list[JsonObject]:
    """Return a copy of the turns with another content at index `at`."""
    changed = list(turns)
    changed[at] = changed[at] | {"content": text}
    return changed


def _readonly_cells(row: ShownRow) -> tuple[str, str | None]:
    """Return the last question and answer of a row that the table does not edit, such as one with tool calls; the
    answer is None for a text."""
    example = row.example
    assert example is not None
    if not example.messages:
        return example.prompt or example.text or "", example.completion
    question = next((message.content for message in reversed(example.messages) if message.role == "user"), "")
    return question, example.messages[-1].content
