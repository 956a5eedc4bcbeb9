"""Choices about the file itself: the sheet of a workbook, whether a table's first row names its columns if that is in
doubt, and the encoding of a text if it had to be guessed."""

from __future__ import annotations

import gradio as gr

from core.data.reading.choices import Choices
from core.data.reading.encodings import LIKELY
from core.data.sets.inspection import DataReport
from webui.form.handle import Components, FieldValues
from webui.kit.live import Updates
from webui.kit.wording import Wording


class FilePart:
    """The fields for sheet, first row and encoding of a file."""

    def __init__(self, wording: Wording):
        self.w = wording

    def build(self) -> None:
        """Build the fields for sheet, first row and encoding, hidden at first."""
        w = self.w
        encodings = [(w.t(f"data.encoding_{name}"), name) for name in LIKELY]
        self.sheet = gr.Dropdown([], visible=False, **w.named("reading_choices.sheet", "file-sheet"))
        first_row = [(w.t("reading_choices.header_true"), "yes"), (w.t("reading_choices.header_false"), "no")]
        self.header = gr.Radio(first_row, visible=False, **w.named("reading_choices.header", "file-header"))
        self.encoding = gr.Dropdown(encodings, visible=False, **w.named("reading_choices.encoding", "file-encoding"))

    @property
    def parts(self) -> Components:
        return {self.sheet, self.header, self.encoding}

    def sheet_choices(self, values: FieldValues, stored: Choices) -> Choices:
        """Return stored with the sheet of the field, and without column choices, which were made for another sheet."""
        sheet = values[self.sheet]
        return stored.model_copy(update={"sheet": sheet if isinstance(sheet, str) and sheet else None, "columns": None})

    def header_choices(self, values: FieldValues, stored: Choices) -> Choices:
        """Return stored with the field's choice whether the first row has names, and without column choices, as the
        names change."""
        return stored.model_copy(update={"header": values[self.header] != "no", "columns": None})

    def encoding_choices(self, values: FieldValues, stored: Choices) -> Choices:
        """Return stored with the encoding of the field, and without column choices, as the names may change."""
        encoding = values[self.encoding]
        return stored.model_copy(update={"encoding": encoding if encoding in LIKELY else None, "columns": None})

    def draw(self, report: DataReport | None) -> Updates:
        """Return the updates that show the fields in doubt for this report: the sheet if there are several, whether the
        first row has names, and a guessed encoding. All are hidden for None, a dataset that is read without such
        choices."""
        updates: Updates = {field: gr.update(visible=False) for field in self.parts}
        if report and len(report.sheets) > 1:
            updates[self.sheet] = gr.update(visible=True, choices=[*report.sheets], value=report.sheet)
        if report and report.header is not None:
            updates[self.header] = gr.update(visible=True, value="yes" if report.header else "no")
        if report and report.encoding in LIKELY:
            updates[self.encoding] = gr.update(visible=True, value=report.encoding)
        return updates
