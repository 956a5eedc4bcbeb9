"""One row of a dataset on the Data page: opened, edited, added, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import gradio as gr

from core.data.formats import Example
from core.data.sets import working
from core.errors import DataError, GarageError
from webui.kit.html import notice, tag
from webui.kit.live import AT_ONCE, SET_WORK, Update, shown
from webui.kit.panel import Panel

Kind = Literal["chat", "completion", "text", "json"]
Opened = dict[str, Any]  # number: of the row, 0 for a new one; row: as it was read; kind
NEW: dict[Kind, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]},
    "completion": {"prompt": "", "completion": ""},
    "text": {"text": ""},
}


def kind_of(row: dict[str, Any]) -> Kind:
    """chat: a question and an answer, with or without instructions before them. Whatever has more in it is shown as it is stored."""
    if set(row) == {"text"}:
        return "text"
    if set(row) == {"prompt", "completion"}:
        return "completion"
    turns = row.get("messages", [])
    roles = [turn.get("role") for turn in turns]
    plain = set(row) == {"messages"} and all(set(turn) == {"role", "content"} for turn in turns)
    return "chat" if plain and roles in (["user", "assistant"], ["system", "user", "assistant"]) else "json"


def fields_of(row: dict[str, Any], kind: Kind) -> tuple[str, str]:
    """What stands in the two fields; the first is not shown for text and for what is shown as JSON."""
    if kind == "chat":
        return row["messages"][-2]["content"], row["messages"][-1]["content"]
    if kind == "completion":
        return row["prompt"], row["completion"]
    return "", row["text"] if kind == "text" else json.dumps(row, ensure_ascii=False, indent=2)


def written(opened: Opened, first: str, second: str) -> Any:
    """The row with what the fields say. Raises DataError where that is no JSON."""
    row, kind = opened["row"], opened["kind"]
    if kind == "chat":
        question, answer = row["messages"][-2:]
        return {"messages": [*row["messages"][:-2], question | {"content": first}, answer | {"content": second}]}
    if kind == "completion":
        return {"prompt": first, "completion": second}
    if kind == "text":
        return {"text": second}
    try:
        return json.loads(second)
    except (ValueError, RecursionError):
        raise DataError("sets.no_json", found=second[:80]) from None


class RowEditor(Panel):
    def build(self) -> None:
        w = self.w
        self.opened = gr.State(None)
        with gr.Column(visible=False, elem_id="data-row", elem_classes="lg-card") as self.column:
            self.title = gr.HTML("", elem_id="data-row-title")
            self.first = gr.Textbox(lines=3, max_lines=12, **w.named("data_page.question", "data-row-first"))
            self.second = gr.Textbox(lines=5, max_lines=20, **w.named("data_page.answer", "data-row-second"))
            with gr.Row(elem_classes="lg-tight"):
                self.save = gr.Button(w.t("data_page.save"), variant="primary", elem_id="data-row-save")
                self.delete = gr.Button(w.t("data_page.delete_row"), elem_id="data-row-delete")
                self.close = gr.Button(w.t("data_page.close_row"), elem_id="data-row-close")

    @property
    def outputs(self) -> list[Any]:
        return [self.opened, self.column, self.title, self.first, self.second, self.save, self.delete]

    def wire(self, chosen: gr.Radio, notice_: gr.HTML, redraw: Callable[[Any], Any]) -> None:
        """redraw: shows what an event changed."""
        fields = [chosen, self.opened, self.first, self.second]
        redraw(self.save.click(self.saved, fields, [notice_, *self.outputs], **SET_WORK))
        redraw(self.delete.click(self.deleted, [chosen, self.opened], [notice_, *self.outputs], **SET_WORK))
        self.close.click(self.closed, None, self.outputs, **AT_ONCE)

    # ---- what is shown --------------------------------------------------------------------------------------------
    def closed(self) -> list[Any]:
        """Outputs: outputs."""
        return [None, gr.update(visible=False), *([gr.skip()] * 5)]

    def show(self, id: str, number: int, row: dict[str, Any], kind: Kind | None = None) -> list[Any]:
        """Outputs: outputs. number: 0 for a row that is not in the set."""
        w, kind = self.w, kind or kind_of(row)
        first, second = fields_of(row, kind)
        may = self.services.datasets.get(id).origin == "imported"
        two = kind in ("chat", "completion")
        title = w.t("data_page.row", row=number) if number else w.t("data_page.new_row")
        return [
            {"number": number, "row": row, "kind": kind},
            gr.update(visible=True),
            tag("h3", title),
            gr.update(value=first, visible=two, interactive=may),
            gr.update(value=second, label=w.t(f"data_page.{'answer' if two else kind}"), interactive=may),
            gr.update(visible=may),
            gr.update(visible=may and bool(number)),
        ]

    def open_row(self, id: str, number: int) -> list[Any]:
        """Outputs: outputs. Raises DataError where the set, or the row, has gone."""
        return self.show(id, number, working.row_of(self.services.datasets.rows(id), number).as_dict())

    def open_problem(self, id: str, number: int, page: working.Page) -> list[Any]:
        """Outputs: outputs. A row that cannot be learned from, to be added mended: as JSON, for it has no other form yet."""
        found = next((row.values for row in page.rows if row.number == number), None)
        return self.show(id, 0, found or {}, "json")

    def new(self, id: str) -> list[Any]:
        """Outputs: outputs. A row such as the set has."""
        rows = self.services.datasets.rows(id)
        kind = kind_of(rows[0][1].as_dict())
        return self.show(id, 0, NEW.get(kind, NEW["chat"]))

    # ---- what is done ---------------------------------------------------------------------------------------------
    def saved(self, id: Any, opened: Opened | None, first: Any, second: Any) -> list[Any]:
        """Inputs: sets, opened, first, second. Outputs: notice, outputs. A row that another page has changed is shown, not overwritten."""
        if not opened or not isinstance(id, str):
            return [gr.skip(), *self.closed()]
        number = opened["number"]

        def act() -> str:
            row = written(opened, str(first or ""), str(second or ""))
            if number:
                change = working.changed(self.services.datasets, id, change=[(number, row)])
            else:
                change = working.changed(self.services.datasets, id, add=[row])
            return self.w.t("data_page.done", version=change.version, what=self.w.of(change.what))

        return self._done(id, opened, act)

    def deleted(self, id: Any, opened: Opened | None) -> list[Any]:
        """Inputs: sets, opened. Outputs: notice, outputs."""
        if not opened or not opened["number"] or not isinstance(id, str):
            return [gr.skip(), *self.closed()]

        def act() -> str:
            change = working.changed(self.services.datasets, id, remove=[opened["number"]])
            return self.w.t("data_page.done", version=change.version, what=self.w.of(change.what))

        return self._done(id, opened, act)

    def _done(self, id: str, opened: Opened, act: Callable[[], str]) -> list[Any]:
        stays = [gr.skip()] * len(self.outputs)
        try:
            if opened["number"]:
                now = self._now(id, opened["number"])
                if now is None:
                    return [self._gone(opened["number"]), *self.closed()]
                if now.as_dict() != opened["row"]:
                    said = notice(self.w.t("data_page.changed_meanwhile", row=opened["number"]), "warn")
                    return [shown(said), *self.show(id, opened["number"], now.as_dict())]
            return [shown(notice(act(), "ok")), *self.closed()]
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), *stays]

    def _now(self, id: str, number: int) -> Example | None:
        """None where the row was deleted meanwhile. Raises DataError where the set has gone."""
        rows = self.services.datasets.rows(id)
        try:
            return working.row_of(rows, number)
        except DataError:
            return None

    def _gone(self, number: int) -> Update:
        return shown(notice(self.w.t("data_page.row_gone", row=number), "warn"))
