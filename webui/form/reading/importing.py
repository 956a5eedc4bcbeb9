"""The import of a file, at the drop zone of Train and on the Data page: its progress, and a button that cancels it and
leaves everything unchanged.

Imports of less than a second show no progress. Only the clock shows and hides it, so that a late answer cannot leave it
visible.
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
from gradio.events import Dependency

from core.progress import Check
from webui.form.handle import Components, FieldValues, Fill, Filled, Listen
from webui.kit.format import grouped
from webui.kit.html import muted, success
from webui.kit.live import AT_ONCE, EACH, TICK_S, Updates, shown
from webui.kit.wording import Wording


class ImportCancelled(Exception):
    """Raised within the reading of a file; no GarageError, so that no `except` for unreadable files catches it."""


class Import:
    """One import of one page; called as the `check` of the reader. dropped: paths of the dropped files. previous: the
    page's import before."""

    def __init__(self, dropped: object = None, previous: Import | None = None):
        self.dropped, self.previous, self.rows = dropped, previous, 0
        self.is_begun = self.is_cancelled = self.is_over = False

    def __call__(self, rows: int = 0) -> None:
        """Note the rows read so far. Raises ImportCancelled if cancelled."""
        self.rows = max(self.rows, rows)
        if self.is_cancelled:
            raise ImportCancelled


def unfinished(newest: object) -> list[Import]:
    """Return the imports of a page that are not over, the newest first. newest: the page's last Import, or None."""
    imports = []
    while isinstance(newest, Import):
        imports += [] if newest.is_over else [newest]
        newest = newest.previous
    return imports


class ImportPart:
    """The line with the progress of an import, and the button that cancels it."""

    def __init__(self, wording: Wording, elem_id: str = "import"):
        self.w, self.elem_id = wording, elem_id

    def build(self) -> None:
        self.newest = gr.State(None)  # the page's newest Import
        with gr.Row(elem_classes="lg-tight", visible=False, elem_id=self.elem_id) as self.row:
            self.progress = gr.HTML("", elem_id=f"{self.elem_id}-progress")
            self.cancel = gr.Button(self.w.t("wizard.import_cancel"), size="sm", elem_id=f"{self.elem_id}-cancel")
        self.clock = gr.Timer(TICK_S, active=False)

    def wire(self) -> None:
        drawn = [self.row, self.progress, self.clock]
        self.clock.tick(self.progress_update, [self.newest], drawn, **AT_ONCE)
        self.cancel.click(self.cancelled, [self.newest], drawn, **AT_ONCE)

    def announced(self, listen: Listen, file: gr.File | None = None) -> Listen:
        """Return `listen` with an event before it that begins an Import and shows its progress. file: the drop zone;
        emptied first, so that it accepts further files."""

        def begin(newest: object, dropped: object = None) -> Updates:
            """Note a new import, start the clock that shows its progress, and empty the drop zone if there is one. An
            upload event of an empty drop zone begins none."""
            begins = dropped or not file
            newest = Import(dropped, next(iter(unfinished(newest)), None)) if begins else newest
            return {self.newest: newest, self.clock: gr.Timer(active=True), **({file: None} if file else {})}

        def begun(fn: Callable[..., object], inputs: Components, outputs: Components, **options: object) -> Dependency:
            """Call fn after `begin` has noted the import."""
            files = [file] if file else []
            first = listen(begin, [self.newest, *files], [self.newest, self.clock, *files], **EACH, **AT_ONCE)
            return first.then(fn, inputs | {self.newest}, outputs, **EACH, **options)

        return begun

    def cancellable(
        self, fill: Callable[[FieldValues, Check], Filled], notice_html: gr.HTML, file: gr.File | None = None
    ) -> Fill:
        """Return a handler that calls `fill` with the next import as its check: the oldest one of the page that has not
        begun. A cancelled import fills in nothing and shows a notice.

        file: the drop zone, if its imports are meant, whose files are then passed to fill; None for imports without
        dropped files.
        """

        def filled(values: FieldValues) -> Filled:
            """Call fill for the import that is due; a cancelled one gives a notice alone."""
            due = (
                one
                for one in reversed(unfinished(values[self.newest]))
                if not one.is_begun and (one.dropped is None) == (file is None)
            )
            newest = next(due, Import())
            newest.is_begun = True
            try:
                return fill({**values, file: newest.dropped} if file else values, newest)
            except ImportCancelled:
                return None, {notice_html: shown(success(self.w.t("wizard.import_cancelled")))}
            finally:
                newest.is_over = True

        return filled

    # ---- handlers -------------------------------------------------------------------------------------------------
    def progress_update(self, newest: object) -> Updates:
        """Return the updates that show the rows read so far; once no import of the page is at work, they hide the line
        and stop the clock that calls this. newest: the page's last Import, or None."""
        reading = self.current(newest)
        if reading is None:
            return {self.row: gr.update(visible=False), self.clock: gr.Timer(active=False)}
        key = "import_ends" if reading.is_cancelled else "import_rows" if reading.rows else "import_looks"
        text = muted(self.w.t(f"wizard.{key}", rows=grouped(self.w, reading.rows)))
        return {self.row: gr.update(visible=True), self.progress: text}

    def cancelled(self, newest: object) -> Updates:
        """Cancel the import that is shown, if there is one, and show that it ends."""
        if reading := self.current(newest):
            reading.is_cancelled = True
        return self.progress_update(newest)

    def current(self, newest: object) -> Import | None:
        """Return the page's import to show; None if none is at work. Imports run one after the other: it is the
        earliest unfinished one that was not cancelled, or the earliest if all were. newest: the page's last Import, or
        None."""
        return min(reversed(unfinished(newest)), key=lambda one: one.is_cancelled, default=None)
