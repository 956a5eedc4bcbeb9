"""The model step: the base model, chosen from the catalogue, from this PC, or by name; and its needs on this PC."""

from __future__ import annotations

import gradio as gr

from core.advice import recommend
from core.advice.case import Grounds, open_recipe
from core.advice.family import family_of
from core.errors import GarageError
from core.export.llamacpp.export_support import export_support
from core.memory.budget import Budget
from core.models import starter
from core.models.known import with_hub_id
from core.models.library import ModelRef
from core.models.shapes.shape import ModelShape
from webui.form.planner import FormResult, Planner
from webui.kit import format
from webui.kit.format import METHODS
from webui.kit.html import Html, join, notice, tag
from webui.kit.wording import Wording
from webui.shelf.download_button import DownloadButton
from webui.shelf.shelf import ModelShelf
from webui.state.services import Services


class ModelStep:
    """The model step: search, list of models, facts about the chosen one, and its download."""

    def __init__(self, services: Services, planner: Planner, wording: Wording):
        self.services, self.w = services, wording
        self.download = DownloadButton(services, wording)
        self.shelf = ModelShelf(services, planner.budget_or_here, wording)

    def build(self, budget: Budget) -> None:
        """Build the step: the model search, the list of models, what is known of the chosen one, and its download."""
        w = self.w
        self.shelf.build()
        self.model = gr.Dropdown(
            self.choices(budget),
            value="starter",
            allow_custom_value=True,
            label=w.t("wizard.model"),
            info=w.t("wizard.model_info"),
            elem_id="model",
        )
        self.about = gr.HTML("", elem_id="model-about")
        self.download.build()
        self.next = gr.Button(w.t("wizard.next"), elem_id="next-model", elem_classes="lg-next")

    def choices(self, budget: Budget) -> list[tuple[str, str]]:
        """Return (line, id) of the models that load without a download; others are on the shelf, or typed. budget: of
        the verdict in the line."""
        return [(self._label(model_id, budget), model_id) for model_id in self.services.models.choices()]

    def _label(self, model_id: str, budget: Budget) -> str:
        """Return a model's line in the list: "Qwen3 4B · 4.0B parameters · QLoRA fits"; the name alone for a model that
        is not in the catalogue."""
        w, model = self.w, with_hub_id(model_id)
        if model is None:
            return format.model_name(model_id)
        recipe, verdict, _ = recommend.fill_memory_settings(open_recipe(), Grounds(budget, model.shape))
        fit = w.t(
            "wizard.model_verdict", method=METHODS[recipe.adapter.method], verdict=w.t(f"plan_view.verdict_{verdict}")
        )
        return " · ".join([model.title, format.parameters(w, model.shape.params), fit])


def about(model_id: object, result: FormResult, services: Services, w: Wording) -> Html:
    """Return the facts of a model as HTML: licence, size, download, notes on its family, why it cannot become GGUF (if
    so), and why its size is unknown. The error for an invalid id, "" without one."""
    if not isinstance(model_id, str) or not model_id.strip():
        return Html("")
    model_id = model_id.strip()
    try:
        ref = ModelRef.parse(model_id)
    except GarageError as error:
        return notice(w.render(error.message))
    lines: list[Html | None] = []
    model = with_hub_id(model_id)
    if model_id == "starter":
        lines.append(tag("p", w.t("wizard.starter_about")))
    elif model is not None:
        gated = w.t("wizard.gated") if model.gated else w.t("wizard.open_licence")
        lines.append(tag("p", w.t("wizard.model_about", licence=model.licence, access=gated)))
        lines.append(tag("p", w.preset(model.note, f"model_{model.id}_note")) if model.note else None)
    if result.shape is not None:
        size = format.parameters(w, result.shape.params)
        download = format.bytes_used(w, download_bytes(model_id, result.shape))
        key = "wizard.model_size_here" if services.models.local_folder(model_id) else "wizard.model_size"
        lines.append(tag("p", w.t(key, size=size, download=download), class_="lg-quiet"))
        family = family_of(result.shape.model_type)
        why = export_support({"model_type": result.shape.model_type}).why  # not as GGUF
        lines += [
            tag("p", w.render(note), class_="lg-quiet")
            for note in [*(family.note_messages() if family else []), *([why] if why else [])]
        ]
    if result.shape_problem is not None:
        lines.append(notice(w.render(result.shape_problem), "warn"))
    if ref.kind == "hub" and services.models.local_folder(model_id) is None:
        lines.append(tag("p", w.t("wizard.will_download"), class_="lg-quiet"))
    return join(lines)


def download_bytes(model_id: object, shape: ModelShape) -> int:
    """Return the bytes to download for a model: two per parameter, with its towers if the catalogue has counted them;
    the starter's own."""
    if model_id == "starter":
        return starter.WHEEL_BYTES
    model = with_hub_id(model_id.strip()) if isinstance(model_id, str) else None
    return 2 * ((model.in_files if model else None) or shape.in_files)


def summary(model_id: object, result: FormResult, w: Wording) -> tuple[str, str]:
    """Return (name, size) of the chosen model, "none" without one; "" for an unknown size."""
    if not isinstance(model_id, str) or not model_id.strip():
        return w.t("wizard.none_yet"), ""
    model = with_hub_id(model_id.strip())
    name = model.title if model else format.model_name(model_id.strip())
    return name, format.parameters(w, result.shape.params) if result.shape else ""
