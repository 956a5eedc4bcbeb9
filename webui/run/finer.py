"""Rarely used export options, folded below the forms: the adapter's strength, and the base that a LoRA in GGUF is
tested with."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from core.errors import ExportError
from core.export.records import MAX_STRENGTH, QUANTS
from webui.kit.live import Options, Update
from webui.kit.wording import Wording

ANY, OWN = "any", "own"  # else the type of the base file to make beside the adapter


class Finer:
    def __init__(self, wording: Wording):
        self.w = wording

    def build(self) -> None:
        w = self.w
        with gr.Accordion(w.t("way_out.finer"), open=False, visible=False, elem_id="export-finer-fold") as self.fold:
            limits: Options = {"minimum": 0.1, "maximum": MAX_STRENGTH, "step": 0.1}
            self.strength = gr.Number(1, **limits, **w.named("way_out.strength", "export-strength"))
            bases = [(w.t("way_out.base_any"), ANY), (w.t("way_out.base_own"), OWN)]
            bases += [(w.t("way_out.base_made", form=w.t(f"way_out.form_gguf_{quant}")), quant) for quant in QUANTS]
            self.base = gr.Dropdown(bases, value=ANY, visible=False, **w.named("way_out.base", "export-base"))
            place = {"max_lines": 1, "max_length": 4000, "placeholder": w.t("way_out.base_file_like")}
            self.file = gr.Textbox(visible=False, **place, **w.named("way_out.base_file", "export-base-file"))

    @property
    def inputs(self) -> list[object]:
        return [self.strength, self.base, self.file]

    @property
    def outputs(self) -> list[object]:
        return [self.fold, self.base, self.file]

    def show(self, form: str | None, base: object) -> tuple[Update, Update, Update]:
        """Return which of `outputs` are visible for a form of export."""
        is_lora = form == "gguf-lora"
        return (
            gr.update(visible=form is not None),
            gr.update(visible=is_lora),
            gr.update(visible=is_lora and base == OWN),
        )

    def read(self, form: str, strength: object, base: object, file: object) -> Options:
        """Return the arguments of `Exports.start` from the fields. Raises ExportError."""
        if not isinstance(strength, int | float):
            raise ExportError("export.strength", found="-", most=MAX_STRENGTH)
        options: Options = {"strength": float(strength)}
        if form != "gguf-lora" or base == ANY:
            return options
        if base in QUANTS:
            return options | {"quant": base}
        name = file.strip().strip('"') if isinstance(file, str) else ""  # Windows copies a path with its quotes
        if not Path(name).is_absolute() or not Path(name).is_file():
            raise ExportError("export.no_base_file", found=name[:200] or "-")
        return options | {"base_gguf": Path(name)}
