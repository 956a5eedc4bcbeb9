"""One row of a dataset on the Data page: shown in full with its tokens, edited, added, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, cast

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.data.sets import working
from core.data.sets.draft import draft_of
from core.data.sets.edits import Change
from core.data.sets.stored_rows import Rows
from core.data.sets.working import ShownRow
from core.data.store import DatasetStore
from core.errors import DataError, GarageError
from core.files import JsonObject
from core.messages import Message, msg
from webui.form import learned_view
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.live import AT_ONCE, LAST, QUIET, SET_WORK, Update, Updates, mark, shown
from webui.kit.panel import Panel

Kind = Literal["chat", "completion", "text", "json"]
NEW: dict[Kind, JsonObject] = {
    "chat": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]},
    "completion": {"prompt": "", "completion": ""},
    "text": {"text": ""},
}
ALL_TOKENS = 1 << 30  # tokens shown of a row: no limit


def kind_of(row: JsonObject) -> Kind:
    """Return the editor's kind for a row: text, completion, chat (a question and an answer, with or without
    instructions before them), or json for rows with more content."""
    if set(row) == {"text"}:
        return "text"
    if set(row) == {"prompt", "completion"}:
        return "completion"
    turns = row.get("messages", [])
    roles = [turn.get("role") for turn in turns]
    plain = set(row) == {"messages"} and all(set(turn) == {"role", "content"} for turn in turns)
    return "chat" if plain and roles in (["user", "assistant"], ["system", "user", "assistant"]) else "json"


def fields_of(row: JsonObject, kind: Kind) -> tuple[str, str]:
    """Return the texts of the two fields; the first is hidden for text and json."""
    if kind == "chat":
        return row["messages"][-2]["content"], row["messages"][-1]["content"]
    if kind == "completion":
        return row["prompt"], row["completion"]
    return "", row["text"] if kind == "text" else json.dumps(row, ensure_ascii=False, indent=2)


def row_from_fields(row: JsonObject, kind: Kind, first: str, second: str) -> object:
    """Return a row with the texts of the editor's two fields in place of its own. A row of kind "json" is replaced by
    the JSON in the second field, which may be any value. Raises DataError for invalid JSON."""
    if kind == "chat":
        question, answer = row["messages"][-2:]
        return row | {"messages": [*row["messages"][:-2], question | {"content": first}, answer | {"content": second}]}
    if kind == "completion":
        return {"prompt": first, "completion": second}
    if kind == "text":
        return {"text": second}
    try:
        return json.loads(second)
    except (ValueError, RecursionError):
        raise DataError("sets.no_json", found=second[:80]) from None


def blank_row(rows: Rows) -> JsonObject:
    """Return a row with empty texts, of the kind of the dataset's first row; a question and an answer if that kind is
    "json"."""
    return NEW.get(kind_of(rows[0][1].as_dict()), NEW["chat"])


def editable_row(row: ShownRow, rows: Rows) -> JsonObject | None:
    """Return the row for editing, with "" for a missing text; a blank row if it could not be read at all; None if
    something else is wrong with it."""
    if row.example is not None:
        return row.example.as_dict()
    return blank_row(rows) if row.values is None else draft_of(row.values)


class ChangedMeanwhileError(DataError):
    """The row differs from the one that the person saw."""


def rewrite(
    store: DatasetStore, id: str, number: int, expected_mark: object, new: Callable[[JsonObject, Kind], object]
) -> Change:
    """Make a new version with the row replaced by the result of new(row, kind). expected_mark: the mark of the row on
    the screen; a row that was changed since is not overwritten. Raises DataError."""
    row, kind = current_row(store, id, number, expected_mark)
    return working.edit_rows(store, id, change=[(number, new(row, kind))])


def current_row(store: DatasetStore, id: str, number: int, expected_mark: object) -> tuple[JsonObject, Kind]:
    """Return a row as the editor shows it. Raises DataError if it is gone, ChangedMeanwhileError unless it still has
    expected_mark."""
    rows = store.rows(id)
    try:
        now = working.row_of(rows, number)
    except DataError:
        raise DataError("data_page.row_gone", row=number) from None
    row, kind = opened(now, rows)
    if mark(row) != expected_mark:
        raise ChangedMeanwhileError("data_page.changed_meanwhile", row=number)
    return row, kind


def opened(row: ShownRow, rows: Rows) -> tuple[JsonObject, Kind]:
    """Return the row as the editor shows it, and its kind: as JSON with all its values if it cannot be edited as
    text."""
    editable = editable_row(row, rows)
    return (editable, kind_of(editable)) if editable is not None else (row.values or {}, "json")


class RowEditor(Panel):
    """The editor of one row on the Data page: its texts in two fields, or as JSON, with its tokens below; it saves,
    adds and deletes."""

    def build(self) -> None:
        """Build the editor: title, both fields, buttons and the row's tokens; hidden at first."""
        w = self.w
        # set, number (0 for a new row), kind, mark: of the row on the screen, sent with each press
        self.opened = gr.JSON(None, visible=False)
        with gr.Column(
            visible=False, elem_id="data-row", elem_classes="lg-card", scale=4, min_width=260
        ) as self.column:
            self.title = gr.HTML("", elem_id="data-row-title")
            self.first = gr.Textbox(lines=2, max_lines=10, **w.named("data_page.question", "data-row-first"))
            self.second = gr.Textbox(lines=4, max_lines=16, **w.named("data_page.answer", "data-row-second"))
            with gr.Row(elem_classes="lg-tight"):
                self.save = gr.Button(w.t("data_page.save"), variant="primary", elem_id="data-row-save")
                self.delete = gr.Button(w.t("data_page.delete_row"), elem_id="data-row-delete")
                self.close = gr.Button(w.t("data_page.close_row"), elem_id="data-row-close")
            self.tokens = gr.HTML("", elem_id="data-row-tokens", visible=False)

    @property
    def outputs(self) -> list[object]:
        return [
            self.opened, self.column, self.title, self.first, self.second, self.save, self.delete, self.tokens
        ]  # fmt: skip

    def wire(self, notice_: gr.HTML, redraw: Callable[[Dependency], None]) -> None:
        """Connect the buttons. redraw: shows the effect of an event."""
        self.notice = notice_
        fields, outputs = [self.opened, self.first, self.second], [notice_, *self.outputs]
        redraw(self.save.click(self.saved, fields, outputs, **SET_WORK))
        redraw(self.delete.click(self.deleted, self.opened, outputs, **SET_WORK))
        self.close.click(self.closed, None, self.outputs, **AT_ONCE)

    def follow(self, event: Dependency, model: Component) -> None:
        """Show the tokens of an opened row, which may wait until the whole dataset is counted. model: its id."""
        event.then(self.as_read, [self.opened, model], [self.tokens], **LAST, **QUIET)

    # ---- what is shown --------------------------------------------------------------------------------------------
    def closed(self) -> Updates:
        """Return the updates that close the editor."""
        return {self.opened: None, self.column: gr.update(visible=False)}

    def show(self, id: str, number: int, row: JsonObject, kind: Kind, why: Message | None = None) -> Updates:
        """Return the updates that show a row in the editor, read-only if the dataset cannot be changed. number: 0 for a
        new row. why: the reason why the row cannot be used."""
        w = self.w
        first, second = fields_of(row, kind)
        may = self.services.datasets.get(id).origin == "imported"
        two = kind in ("chat", "completion")
        title = w.t("data_page.row", row=number) if number else w.t("data_page.new_row")
        reads = bool(number) and why is None
        return {
            self.opened: {"set": id, "number": number, "kind": kind, "mark": mark(row)},
            self.column: gr.update(visible=True),
            self.title: join(
                [tag("h3", title), notice(w.t("data_page.not_used", why=w.render(why)), "warn") if why else None]
            ),
            self.first: gr.update(value=first, visible=two, interactive=may),
            self.second: gr.update(value=second, label=w.t(f"data_page.{'answer' if two else kind}"), interactive=may),
            self.save: gr.update(visible=may),
            self.delete: gr.update(visible=may and bool(number)),
            self.tokens: shown(muted(w.t("data_page.tokens_awaited")) if reads else ""),
        }

    def open_row(self, id: str, number: int) -> Updates:
        """Return the updates that show a row in the editor. Raises DataError if the dataset or the row is gone."""
        rows = self.services.datasets.rows(id)
        row = working.row_of(rows, number)
        why = None if row.example else row.problem or msg("data_page.bad_answer")
        return self.show(id, number, *opened(row, rows), why)

    def new(self, id: str) -> Updates:
        """Show a new row in the dataset's format."""
        row = blank_row(self.services.datasets.rows(id))
        return self.show(id, 0, row, kind_of(row))

    def as_read(self, sent: object, model: object) -> Update:
        """Return the opened row as tokens, marked as it would be trained, or why it cannot be; no change for a new row,
        "" for one that is not used. sent: the value of `opened`. model: chosen in Train."""
        row: JsonObject = sent if isinstance(sent, dict) else {}
        id, number = row.get("set"), row.get("number")
        if not isinstance(id, str) or not isinstance(number, int) or not number:
            return gr.skip()
        try:
            place = (self.services.datasets.rows(id).numbers() == number).nonzero()[0][:1].tolist()
            if not place:  # it cannot be used, which is shown above
                return shown("")
            preview = self.services.previews.get(id, str(model or ""))
            content: Html = learned_view.row(preview.row(place[0], ALL_TOKENS, joined=False), self.w)
        except GarageError as error:
            content = notice(self.w.render(error.message), "plain")
        except OSError:  # the set was deleted meanwhile
            return shown("")
        return shown(join([tag("h4", self.w.t("data_page.tokens")), content]))

    # ---- what is done ---------------------------------------------------------------------------------------------
    def saved(self, sent: object, first: object, second: object) -> Updates:
        """Save the fields' texts in the row, or as a new one. A row that another page has changed is shown instead.
        sent: the value of `opened`."""
        store, texts = self.services.datasets, (str(first or ""), str(second or ""))

        def act(id: str, number: int, kind: Kind, expected_mark: object) -> Change:
            """Add the row if its number is 0, else replace it unless it has changed meanwhile."""
            if not number:
                return working.edit_rows(store, id, add=[row_from_fields(NEW.get(kind, {}), kind, *texts)])
            return rewrite(store, id, number, expected_mark, lambda row, now: row_from_fields(row, now, *texts))

        return self._done(sent, act)

    def deleted(self, sent: object) -> Updates:
        """Delete the row. One that another page has changed is shown instead. sent: the value of `opened`."""

        def act(id: str, number: int, kind: Kind, expected_mark: object) -> Change:
            """Remove the row unless it has changed meanwhile."""
            current_row(self.services.datasets, id, number, expected_mark)
            return working.edit_rows(self.services.datasets, id, remove=[number])

        return self._done(sent, act)

    def _done(self, sent: object, act: Callable[[str, int, Kind, object], Change]) -> Updates:
        """Call act for the row that the page sent, and return the updates that close the editor and say so; if it was
        changed meanwhile, show it as it is now. An error is shown."""
        row: JsonObject = sent if isinstance(sent, dict) else {}
        id, number, kind = row.get("set"), row.get("number"), cast(Kind, str(row.get("kind")))
        if not isinstance(id, str) or not isinstance(number, int):
            return self.closed()
        try:
            change = act(id, number, kind, row.get("mark"))
        except ChangedMeanwhileError as error:
            return {self.notice: shown(notice(self.w.render(error.message), "warn")), **self.open_row(id, number)}
        except GarageError as error:
            is_gone = error.message.key == "data_page.row_gone"
            message = notice(self.w.render(error.message), "warn" if is_gone else "bad")
            return {self.notice: shown(message), **(self.closed() if is_gone else {})}
        done = self.w.t("data_page.done", version=change.version, what=self.w.render(change.what))
        return {self.notice: shown(success(done)), **self.closed()}
