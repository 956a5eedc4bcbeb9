"""The rows of a dataset as a table: searched, filtered, edited in place, several deleted at once, undone.

The page holds the rows that can be seen and those around them, and asks for others by their place in the table
(assets/data_table.js). What a row says reaches the page as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from core.data.sets import working
from core.data.sets.edits import Change
from core.data.sets.stored_rows import Rows
from core.data.sets.working import ShownRow
from core.errors import DataError, GarageError
from webui.form.handle import Updates
from webui.kit import format
from webui.kit.icons import icon
from webui.kit.live import mark
from webui.kit.panel import Panel
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.pages.data_row import laid_out, rewritten
from webui.pages.data_view import RowFilter, View, Views
from webui.state.services import Services

A_CELL = 300  # characters of a cell that are sent; the rest is fetched when it is edited or opened
MOST_ROWS = 200  # that one answer brings
WORDS = (
    "list", "search", "filter", "row", "question", "answer", "open", "choose", "choose_all", "undo", "redo", "add",
    "delete", "deselect", "chosen", "none_found", "show_all", "hint", "read_hint", "offline", "edit",
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
  <div class='dt-over'><p class='dt-said' id='data-said' role='status'></p></div>
</div>
<p class='dt-foot'><span id='data-place' role='status'></span><span class='dt-hint'></span></p>
</div>
"""


class RowsTable(Panel):
    """Its value is {set, stamp, may_edit}. "select" tells that a row is to be opened (OPENED), "submit" that the set
    was changed."""

    def __init__(self, services: Services, wording: Wording):
        super().__init__(services, wording)
        self.views = Views(services)

    def build(self) -> None:
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

    def _served(self, answer: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        """Wrap a function for gradio: any input from a browser is accepted, and errors are returned as a sentence."""

        def served(given: Any) -> dict[str, Any]:
            try:
                return answer(given if isinstance(given, dict) else {})
            except GarageError as error:
                return {"error": self.w.render(error.message)}
            except OSError:  # the set was deleted meanwhile
                return {"error": self.w.t("data_page.set_gone")}

        served.__name__ = answer.__name__
        return served

    def draw(self, id: str, may_edit: bool) -> Updates:
        """Raises DataError."""
        return {self.table: {"set": id, "stamp": self.views.stamp(id), "may_edit": may_edit}}

    # ---- what the script asks for -----------------------------------------------------------------------------------
    def rows(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """given: set, show, words, begin, count. Searches on where words are not yet sought in all rows. Raises
        DataError."""
        asked, stamp, view = self.views.of(RowFilter.of(given))
        view.look()
        begin, count = max(0, _whole(given, "begin")), min(MOST_ROWS, max(0, _whole(given, "count")))
        return {
            "stamp": stamp,
            "show": asked.show,
            "total": len(view),
            "searching": view.looked_at < view.of,
            "place": self._place(asked, view),
            "begin": begin,
            "rows": [self.told(row, view.rows) for row in view.part(begin, count)],
            **self._history(asked.id),
        }

    def _place(self, asked: RowFilter, view: View) -> str:
        rows = format.rows(self.w, view.of)
        if view.looked_at < view.of:
            looked_at = format.grouped(self.w, view.looked_at)
            return self.w.t("data_table.searching", shown=len(view), looked_at=looked_at, rows=rows)
        return self.w.t("data_table.place", shown=len(view), rows=rows) if asked.words else rows

    def _history(self, id: str) -> dict[str, Any]:
        edits = self.services.datasets.edits(id)
        story = edits.history()
        may_redo = any(change.parent == edits.head for change in edits.changes.values())
        return {"undo": self.w.render(story[-1].what) if story else "", "redo": may_redo}

    def told(self, row: ShownRow, rows: Rows) -> dict[str, Any]:
        """n: its number. a, b: the question and the answer, b null where there is one text alone. why: what is wrong
        with it. may: whether its cells can be edited where they stand."""
        row_dict = laid_out(row, rows)
        cells = None if row_dict is None else _cells(row_dict)
        if cells is None:
            cells = _shown(row) if row.example else (json.dumps(row.values, ensure_ascii=False), None)
            may = False
        else:
            may = True
        why = self.w.render(row.problem) if row.problem else "" if row.example else self.w.t("data_page.bad_answer")
        return {"n": row.number, "a": _short(cells[0]), "b": _short(cells[1]), "why": why, "may": may}

    def cell(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """given: set, n. The whole texts of a row that is about to be edited, and its mark. Raises DataError."""
        id, rows = RowFilter.of(given).id, self.services.datasets.rows(RowFilter.of(given).id)
        row = laid_out(working.row_of(rows, _whole(given, "n")), rows) or {}
        return {"cells": _cells(row), "mark": mark(row), "set": id}

    def write(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """given: set, n, at (0 or 1: the cell), text, mark. Raises DataError."""
        at, text = _whole(given, "at"), str(given.get("text") or "")
        change = rewritten(
            self.services.datasets,
            RowFilter.of(given).id,
            _whole(given, "n"),
            given.get("mark"),
            lambda row, kind: with_cell(row, at, text),
        )
        return self._done(change)

    def remove(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """given: numbers of the rows to delete; all: all others that are shown, as of stamp. Raises DataError."""
        listed = given.get("numbers")
        numbers = {each for each in listed if isinstance(each, int)} if isinstance(listed, list) else set()
        id = RowFilter.of(given).id
        if given.get("all"):
            _, stamp, view = self.views.of(RowFilter.of(given))
            if stamp != given.get("stamp"):
                raise DataError("data_page.stale")
            while view.looked_at < view.of:
                view.look()
            numbers = set(view.numbers()) - numbers
        return self._done(working.edit_rows(self.services.datasets, id, remove=sorted(numbers)))

    def travel(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """given: set, back: whether the newest change is undone, or what was undone is done again. Raises DataError."""
        back = bool(given.get("back"))
        with self.services.datasets.editing(RowFilter.of(given).id) as (edits, _):
            change = edits.undo() if back else edits.redo()
        return self._done(change, "undone" if back else "done")

    def _done(self, change: Change, key: str = "done") -> dict[str, Any]:
        return {"said": self.w.t(f"data_page.{key}", version=change.version, what=self.w.render(change.what))}


def _whole(given: Mapping[str, Any], name: str) -> int:
    value = given.get(name)
    return value if isinstance(value, int) else 0


def _short(text: str | None) -> str | None:
    if text is None:
        return None
    line = " ".join(text[: 4 * A_CELL].split())
    return line if len(line) <= A_CELL else line[: A_CELL - 1] + "…"


def _cells(row: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The cells that can be edited in the table: the last question and its answer, or a text; None for other rows."""
    if set(row) == {"text"}:
        return row["text"], None
    if set(row) == {"prompt", "completion"}:
        return row["prompt"], row["completion"]
    turns = row.get("messages", [])[-2:]
    is_plain = [turn.get("role") for turn in turns] == ["user", "assistant"] and all(
        set(turn) == {"role", "content"} and isinstance(turn["content"], str) for turn in turns
    )
    return (turns[0]["content"], turns[1]["content"]) if is_plain else None


def with_cell(row: Mapping[str, Any], at: int, text: str) -> dict[str, Any]:
    """The row with another text in one of its cells. Raises DataError where it has no such."""
    if (cells := _cells(row)) is None or at not in (0, 1) or cells[at] is None:
        raise DataError("data_page.no_cell")
    if "text" in row:
        return {"text": text}
    if "prompt" in row:
        return {**row, ("prompt", "completion")[at]: text}
    sides = ("messages", "rejected") if at == 0 else ("messages",)  # the worse answer is to the same question
    return {**row, **{side: _with_turn(row[side], at - 2, text) for side in sides if side in row}}


def _with_turn(turns: Sequence[dict[str, Any]], at: int, text: str) -> list[dict[str, Any]]:
    changed = list(turns)
    changed[at] = changed[at] | {"content": text}
    return changed


def _shown(row: ShownRow) -> tuple[str, str | None]:
    """The last question and the last answer of a row that the table does not edit: one with calls of tools, say."""
    example = row.example
    assert example is not None
    if not example.messages:
        return example.prompt or example.text or "", example.completion
    asked = next((message.content for message in reversed(example.messages) if message.role == "user"), "")
    return asked, example.messages[-1].content
