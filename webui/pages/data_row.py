"""One row of a dataset on the Data page: opened, edited, added, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, cast

import gradio as gr

from core.data.sets import working
from core.data.sets.draft import draft_of
from core.data.sets.edits import Change
from core.data.sets.rows import Rows
from core.data.sets.working import ShownRow
from core.errors import DataError, GarageError
from core.messages import Message, msg
from webui.kit.html import join, notice, tag
from webui.kit.live import AT_ONCE, SET_WORK, Update, mark, shown
from webui.kit.panel import Panel

Kind = Literal["chat", "completion", "text", "json"]
NEW: dict[Kind, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]},
    "completion": {"prompt": "", "completion": ""},
    "text": {"text": ""},
}


def kind_of(row: dict[str, Any]) -> Kind:
    """chat: a question and an answer, with or without instructions before them. Whatever has more in it is shown as
    JSON."""
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


def written(row: dict[str, Any], kind: Kind, first: str, second: str) -> Any:
    """The row with what the fields say. Raises DataError where that is no JSON."""
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
        # set, number (0 for a new row), kind, mark: of the row that was on the screen, sent with the press.
        self.opened = gr.JSON(None, visible=False)
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

    def wire(self, notice_: gr.HTML, redraw: Callable[[Any], Any]) -> None:
        """redraw: shows what an event changed."""
        fields = [self.opened, self.first, self.second]
        redraw(self.save.click(self.saved, fields, [notice_, *self.outputs], **SET_WORK))
        redraw(self.delete.click(self.deleted, self.opened, [notice_, *self.outputs], **SET_WORK))
        self.close.click(self.closed, None, self.outputs, **AT_ONCE)

    # ---- what is shown --------------------------------------------------------------------------------------------
    def closed(self) -> list[Any]:
        """Outputs: outputs."""
        return [None, gr.update(visible=False), *([gr.skip()] * 5)]

    def show(self, id: str, number: int, row: dict[str, Any], kind: Kind, why: Message | None = None) -> list[Any]:
        """Outputs: outputs. number: 0 for a row that is not in the set. why: it cannot be used."""
        w = self.w
        first, second = fields_of(row, kind)
        may = self.services.datasets.get(id).origin == "imported"
        two = kind in ("chat", "completion")
        title = w.t("data_page.row", row=number) if number else w.t("data_page.new_row")
        return [
            {"set": id, "number": number, "kind": kind, "mark": mark(row)},
            gr.update(visible=True),
            join([tag("h3", title), notice(w.t("data_page.not_used", why=w.of(why)), "warn") if why else None]),
            gr.update(value=first, visible=two, interactive=may),
            gr.update(value=second, label=w.t(f"data_page.{'answer' if two else kind}"), interactive=may),
            gr.update(visible=may),
            gr.update(visible=may and bool(number)),
        ]

    def open_row(self, id: str, number: int) -> list[Any]:
        """Outputs: outputs. Raises DataError where the set, or the row, has gone."""
        rows = self.services.datasets.rows(id)
        shown_row = working.row_of(rows, number)
        why = None if shown_row.example else shown_row.problem or msg("data_page.bad_answer")
        return self.show(id, number, *self._laid_out(shown_row, rows), why)

    def new(self, id: str) -> list[Any]:
        """Outputs: outputs. A row such as the set has."""
        row = self._blank(self.services.datasets.rows(id))
        return self.show(id, 0, row, kind_of(row))

    def _laid_out(self, row: ShownRow, rows: Rows) -> tuple[dict[str, Any], Kind]:
        """The row as its fields show it: empty where a text is missing, JSON where something else is wrong with it."""
        if row.example is not None:
            found = row.example.as_dict()
        elif row.values is None:  # not even its columns could be read
            found = self._blank(rows)
        elif (draft := draft_of(row.values)) is None:
            return row.values, "json"
        else:
            found = draft
        return found, kind_of(found)

    def _blank(self, rows: Rows) -> dict[str, Any]:
        return NEW.get(kind_of(rows[0][1].as_dict()), NEW["chat"])

    # ---- what is done ---------------------------------------------------------------------------------------------
    def saved(self, opened: Any, first: Any, second: Any) -> list[Any]:
        """Inputs: opened, first, second. Outputs: notice, outputs. A row that another page has changed is shown, not
        overwritten."""

        def act(id: str, number: int, row: dict[str, Any], kind: Kind) -> Change:
            new = written(row, kind, str(first or ""), str(second or ""))
            return working.changed(
                self.services.datasets, id, change=[(number, new)] if number else (), add=() if number else [new]
            )

        return self._done(opened, act)

    def deleted(self, opened: Any) -> list[Any]:
        """Inputs: opened. Outputs: notice, outputs."""
        return self._done(opened, lambda id, number, *_: working.changed(self.services.datasets, id, remove=[number]))

    def _done(self, opened: Any, act: Callable[[str, int, dict[str, Any], Kind], Change]) -> list[Any]:
        known: dict[str, Any] = opened if isinstance(opened, dict) else {}
        id, number, kind = known.get("set"), known.get("number"), cast(Kind, str(known.get("kind")))
        if not isinstance(id, str) or not isinstance(number, int):
            return [gr.skip(), *self.closed()]
        try:
            row = NEW.get(kind, {})
            if number:
                rows = self.services.datasets.rows(id)
                now = self._now(rows, number)
                if now is None:
                    return [self._gone(number), *self.closed()]
                row, kind = self._laid_out(now, rows)
                if mark(row) != known.get("mark"):
                    said = notice(self.w.t("data_page.changed_meanwhile", row=number), "warn")
                    return [shown(said), *self.open_row(id, number)]
            change = act(id, number, row, kind)
            done = self.w.t("data_page.done", version=change.version, what=self.w.of(change.what))
            return [shown(notice(done, "ok")), *self.closed()]
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), *[gr.skip()] * len(self.outputs)]

    def _now(self, rows: Rows, number: int) -> ShownRow | None:
        """None where the row was deleted meanwhile."""
        try:
            return working.row_of(rows, number)
        except DataError:
            return None

    def _gone(self, number: int) -> Update:
        return shown(notice(self.w.t("data_page.row_gone", row=number), "warn"))
