"""The import of a file, at the drop zone of Train and on the Data page: its progress, and a button that cancels it and
leaves everything unchanged.

What takes less than a second shows nothing of it. The clock alone shows and hides, so that no late answer leaves it
standing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from core.progress import Check
from webui.form.handle import Given, Listen, Parts, Take, Taken
from webui.kit.format import grouped
from webui.kit.html import muted, notice
from webui.kit.live import AT_ONCE, EACH, TICK_S, Update, shown
from webui.kit.wording import Wording


class ImportCancelled(Exception):
    """Raised where a file is read, so that no `except` for files that cannot be read takes it for one."""


class Import:
    """One of one page; the `check` of whoever reads. dropped: where gradio has what was dropped. before: the one that
    it followed."""

    def __init__(self, dropped: Any = None, before: Import | None = None):
        self.dropped, self.before, self.rows = dropped, before, 0
        self.is_begun = self.is_cancelled = self.is_over = False

    def __call__(self, rows: int = 0) -> None:
        self.rows = max(self.rows, rows)
        if self.is_cancelled:
            raise ImportCancelled


def unfinished(now: Any) -> list[Import]:
    """Those of a page, the newest first. now: its newest, or None."""
    found = []
    while isinstance(now, Import):
        found += [] if now.is_over else [now]
        now = now.before
    return found


class ImportPart:
    def __init__(self, wording: Wording, elem_id: str = "import"):
        self.w, self.elem_id = wording, elem_id

    def build(self) -> None:
        self.now = gr.State(None)  # the Import that the page waits for
        with gr.Row(elem_classes="lg-tight", visible=False, elem_id=self.elem_id) as self.row:
            self.said = gr.HTML("", elem_id=f"{self.elem_id}-progress")
            self.cancel = gr.Button(self.w.t("wizard.import_cancel"), size="sm", elem_id=f"{self.elem_id}-cancel")
        self.clock = gr.Timer(TICK_S, active=False)

    def wire(self) -> None:
        drawn = [self.row, self.said, self.clock]
        self.clock.tick(self.look, [self.now], drawn, **AT_ONCE)
        self.cancel.click(self.cancelled, [self.now], drawn, **AT_ONCE)

    def before(self, listen: Listen, file: gr.File | None = None) -> Listen:
        """The same event, once this part knows that a file is about to be read. file: is empty by then, and may be
        dropped on again."""

        def begin(now: Any, dropped: Any = None) -> list[Any]:
            begins = dropped or not file
            now = Import(dropped, next(iter(unfinished(now)), None)) if begins else now
            return [now, gr.Timer(active=True), *([None] if file else [])]

        def begun(fn: Callable[..., Any], inputs: Parts, outputs: Parts, **options: Any) -> Any:
            files = [file] if file else []
            first = listen(begin, [self.now, *files], [self.now, self.clock, *files], **EACH, **AT_ONCE)
            return first.then(fn, inputs | {self.now}, outputs, **EACH, **options)

        return begun

    def taking(self, take: Callable[[Given, Check], Taken], told: gr.HTML, file: gr.File | None = None) -> Take:
        """take with what it reads under this page's eye: cancelled, it fills nothing in. file: what was dropped there
        is given to it."""

        def taken(given: Given) -> Taken:
            due = (
                one
                for one in reversed(unfinished(given[self.now]))
                if not one.is_begun and (one.dropped is None) == (file is None)
            )
            now = next(due, Import())
            now.is_begun = True
            try:
                return take({**given, file: now.dropped} if file else given, now)
            except ImportCancelled:
                return None, {told: shown(notice(self.w.t("wizard.import_cancelled"), "ok"))}
            finally:
                now.is_over = True

        return taken

    # ---- handlers -------------------------------------------------------------------------------------------------
    def look(self, now: Any) -> list[Update]:
        """Inputs: now. Outputs: row, said, clock."""
        reading = self.shown(now)
        if reading is None:
            return [gr.update(visible=False), gr.skip(), gr.Timer(active=False)]
        key = "import_ends" if reading.is_cancelled else "import_rows" if reading.rows else "import_looks"
        return [
            gr.update(visible=True),
            muted(self.w.t(f"wizard.{key}", rows=grouped(self.w, reading.rows))),
            gr.skip(),
        ]

    def cancelled(self, now: Any) -> list[Update]:
        """Inputs: now. Outputs: row, said, clock."""
        if reading := self.shown(now):
            reading.is_cancelled = True
        return self.look(now)

    def shown(self, now: Any) -> Import | None:
        """Of several, which the store adds one after the other, the first that nobody cancelled."""
        return min(reversed(unfinished(now)), key=lambda one: one.is_cancelled, default=None)
