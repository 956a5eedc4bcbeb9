"""One row of a dataset on the Data page: read in full, with its tokens, edited, added, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, cast

import gradio as gr
from gradio.components import Component

from core.data.sets import working
from core.data.sets.draft import draft_of
from core.data.sets.edits import Change
from core.data.sets.stored_rows import Rows
from core.data.sets.working import ShownRow
from core.data.store import DatasetStore
from core.errors import DataError, GarageError
from core.messages import Message, msg
from webui.form import learned_view
from webui.form.handle import Updates
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.live import AT_ONCE, LAST, QUIET, SET_WORK, mark, shown
from webui.kit.panel import Panel

Kind = Literal["chat", "completion", "text", "json"]
NEW: dict[Kind, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]},
    "completion": {"prompt": "", "completion": ""},
    "text": {"text": ""},
}
WHOLE = 1 << 30  # tokens of a row that are shown: all that the model takes


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
        return row | {"messages": [*row["messages"][:-2], question | {"content": first}, answer | {"content": second}]}
    if kind == "completion":
        return {"prompt": first, "completion": second}
    if kind == "text":
        return {"text": second}
    try:
        return json.loads(second)
    except (ValueError, RecursionError):
        raise DataError("sets.no_json", found=second[:80]) from None


def blank(rows: Rows) -> dict[str, Any]:
    """A new row such as the set has."""
    return NEW.get(kind_of(rows[0][1].as_dict()), NEW["chat"])


def laid_out(row: ShownRow, rows: Rows) -> dict[str, Any] | None:
    """The row to be edited, with "" where a text is missing; None where something else is wrong with it."""
    if row.example is not None:
        return row.example.as_dict()
    return blank(rows) if row.values is None else draft_of(row.values)


class ChangedMeanwhileError(DataError):
    """The row is another one than the person saw."""


def rewritten(
    store: DatasetStore, id: str, number: int, seen: Any, new: Callable[[dict[str, Any], Kind], Any]
) -> Change:
    """A new version, in which the row says what `new` makes of it. seen: the mark of the row that was on the screen;
    one that was changed since is not overwritten. Raises DataError."""
    row, kind = as_seen(store, id, number, seen)
    return working.edit_rows(store, id, change=[(number, new(row, kind))])


def as_seen(store: DatasetStore, id: str, number: int, seen: Any) -> tuple[dict[str, Any], Kind]:
    rows = store.rows(id)
    try:
        now = working.row_of(rows, number)
    except DataError:
        raise DataError("data_page.row_gone", row=number) from None
    row, kind = opened(now, rows)
    if mark(row) != seen:
        raise ChangedMeanwhileError("data_page.changed_meanwhile", row=number)
    return row, kind


def opened(row: ShownRow, rows: Rows) -> tuple[dict[str, Any], Kind]:
    """The row as its fields show it."""
    found = laid_out(row, rows)
    return (found, kind_of(found)) if found is not None else (row.values or {}, "json")


class RowEditor(Panel):
    def build(self) -> None:
        w = self.w
        # set, number (0 for a new row), kind, mark: of the row that was on the screen, sent with the press.
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
    def outputs(self) -> list[Any]:
        return [
            self.opened, self.column, self.title, self.first, self.second, self.save, self.delete, self.tokens
        ]  # fmt: skip

    def wire(self, notice_: gr.HTML, redraw: Callable[[Any], Any]) -> None:
        """redraw: shows what an event changed."""
        self.notice = notice_
        fields, outputs = [self.opened, self.first, self.second], [notice_, *self.outputs]
        redraw(self.save.click(self.saved, fields, outputs, **SET_WORK))
        redraw(self.delete.click(self.deleted, self.opened, outputs, **SET_WORK))
        self.close.click(self.closed, None, self.outputs, **AT_ONCE)

    def follow(self, event: Any, model: Component) -> None:
        """Show the tokens of an opened row, which may wait until the whole set is counted. model: its id."""
        event.then(self.as_read, [self.opened, model], [self.tokens], **LAST, **QUIET)

    # ---- what is shown --------------------------------------------------------------------------------------------
    def closed(self) -> Updates:
        return {self.opened: None, self.column: gr.update(visible=False)}

    def show(self, id: str, number: int, row: dict[str, Any], kind: Kind, why: Message | None = None) -> Updates:
        """number: 0 for a row that is not in the set. why: it cannot be used."""
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
        """Raises DataError where the set, or the row, has gone."""
        rows = self.services.datasets.rows(id)
        row = working.row_of(rows, number)
        why = None if row.example else row.problem or msg("data_page.bad_answer")
        return self.show(id, number, *opened(row, rows), why)

    def new(self, id: str) -> Updates:
        """A row such as the set has."""
        row = blank(self.services.datasets.rows(id))
        return self.show(id, 0, row, kind_of(row))

    def as_read(self, given: Any, model: Any) -> Any:
        """Inputs: opened, the model that is chosen in Train. Outputs: tokens."""
        known: dict[str, Any] = given if isinstance(given, dict) else {}
        id, number = known.get("set"), known.get("number")
        if not isinstance(id, str) or not isinstance(number, int) or not number:
            return gr.skip()
        try:
            place = (self.services.datasets.rows(id).numbers() == number).nonzero()[0][:1].tolist()
            if not place:  # it cannot be used, which is said above
                return shown("")
            preview = self.services.previews.get(id, str(model or ""))
            said: Html = learned_view.row(preview.row(place[0], WHOLE, joined=False), self.w)
        except GarageError as error:
            said = notice(self.w.render(error.message), "plain")
        except OSError:  # the set was deleted meanwhile
            return shown("")
        return shown(join([tag("h4", self.w.t("data_page.tokens")), said]))

    # ---- what is done ---------------------------------------------------------------------------------------------
    def saved(self, given: Any, first: Any, second: Any) -> Updates:
        """Inputs: opened, first, second. A row that another page has changed is shown, not overwritten."""
        store, texts = self.services.datasets, (str(first or ""), str(second or ""))

        def act(id: str, number: int, kind: Kind, seen: Any) -> Change:
            if not number:
                return working.edit_rows(store, id, add=[written(NEW.get(kind, {}), kind, *texts)])
            return rewritten(store, id, number, seen, lambda row, now: written(row, now, *texts))

        return self._done(given, act)

    def deleted(self, given: Any) -> Updates:
        """Inputs: opened."""

        def act(id: str, number: int, kind: Kind, seen: Any) -> Change:
            as_seen(self.services.datasets, id, number, seen)
            return working.edit_rows(self.services.datasets, id, remove=[number])

        return self._done(given, act)

    def _done(self, given: Any, act: Callable[[str, int, Kind, Any], Change]) -> Updates:
        known: dict[str, Any] = given if isinstance(given, dict) else {}
        id, number, kind = known.get("set"), known.get("number"), cast(Kind, str(known.get("kind")))
        if not isinstance(id, str) or not isinstance(number, int):
            return self.closed()
        try:
            change = act(id, number, kind, known.get("mark"))
        except ChangedMeanwhileError as error:
            return {self.notice: shown(notice(self.w.render(error.message), "warn")), **self.open_row(id, number)}
        except GarageError as error:
            gone = error.message.key == "data_page.row_gone"
            said = notice(self.w.render(error.message), "warn" if gone else "bad")
            return {self.notice: shown(said), **(self.closed() if gone else {})}
        done = self.w.t("data_page.done", version=change.version, what=self.w.render(change.what))
        return {self.notice: shown(notice(done, "ok")), **self.closed()}
