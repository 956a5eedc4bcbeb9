"""In step 3, the import of a file: its progress, and a button that cancels it and leaves everything unchanged.

What takes less than a second shows nothing of it. The clock alone shows and hides, so that no late answer leaves it standing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from core.progress import Check
from webui.form.handle import Given, Listen, Parts, Take, Taken
from webui.kit.html import muted, notice
from webui.kit.live import AT_ONCE, TICK_S, Update, shown
from webui.kit.wording import Wording


class ImportCancelled(Exception):
    """Raised where a file is read, so that no `except` for files that cannot be read takes it for one."""


class Import:
    """One of one page; the `check` of whoever reads. dropped: where gradio has what was dropped."""

    def __init__(self, dropped: Any = None):
        self.dropped, self.rows, self.is_cancelled, self.is_over = dropped, 0, False, False

    def __call__(self, rows: int = 0) -> None:
        self.rows = max(self.rows, rows)
        if self.is_cancelled:
            raise ImportCancelled


class ImportPart:
    def __init__(self, wording: Wording):
        self.w = wording

    def build(self) -> None:
        self.now = gr.State(None)  # the Import that the page waits for
        with gr.Row(elem_classes="lg-tight", visible=False, elem_id="import") as self.row:
            self.said = gr.HTML("", elem_id="import-progress")
            self.cancel = gr.Button(self.w.t("wizard.import_cancel"), size="sm", elem_id="import-cancel")
        self.clock = gr.Timer(TICK_S, active=False)

    def wire(self) -> None:
        drawn = [self.row, self.said, self.clock]
        self.clock.tick(self.look, [self.now], drawn, **AT_ONCE)
        self.cancel.click(self.cancelled, [self.now], drawn, **AT_ONCE)

    def before(self, listen: Listen, file: gr.File | None = None) -> Listen:
        """The same event, once this part knows that a file is about to be read. file: is empty by then, and may be dropped on again."""
        begin = (
            (lambda dropped: [Import(dropped), gr.Timer(active=True), None]) if file else lambda: [Import(), gr.Timer(active=True)]
        )

        def begun(fn: Callable[..., Any], inputs: Parts, outputs: Parts, **options: Any) -> Any:
            files = [file] if file else []
            first = listen(begin, files, [self.now, self.clock, *files], **AT_ONCE)
            return first.then(fn, inputs | {self.now}, outputs, **options)

        return begun

    def taking(self, take: Callable[[Given, Check], Taken], told: gr.HTML, file: gr.File | None = None) -> Take:
        """take with what it reads under this page's eye: cancelled, it fills nothing in. file: what was dropped there is given to it."""

        def taken(given: Given) -> Taken:
            now = given[self.now] if isinstance(given[self.now], Import) else Import()
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
        if not isinstance(now, Import) or now.is_over:
            return [gr.update(visible=False), gr.skip(), gr.Timer(active=False)]
        key = "import_ends" if now.is_cancelled else "import_rows" if now.rows else "import_looks"
        return [gr.update(visible=True), muted(self.w.t(f"wizard.{key}", rows=f"{now.rows:,}")), gr.skip()]

    def cancelled(self, now: Any) -> list[Update]:
        """Inputs: now. Outputs: row, said, clock."""
        if isinstance(now, Import):
            now.is_cancelled = True
        return self.look(now)
