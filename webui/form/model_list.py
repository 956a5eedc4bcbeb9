"""All models that are known, each with whether it fits here by LoRA, QLoRA and full fine-tuning; a press chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.events import Dependency

from core.advice import catalogue
from core.advice.catalogue import CatalogueEntry
from core.errors import GarageError
from core.memory.budget import Budget
from core.memory.documented import TableMethod
from core.models.known import known_models
from webui.form.plan_view import where
from webui.form.planner import HERE, Planner
from webui.kit import format
from webui.kit.format import METHODS, badge, gib
from webui.kit.html import Html, tag
from webui.kit.live import QUIET
from webui.kit.wording import Wording

# The press of a row's button, with the model's hub id; the script of the event gets no data, so the form keeps it.
CHOOSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-model]");
  if (!button) return;
  window.loraGarageForm.choose(button.dataset.model);
  trigger("select", { value: button.dataset.model });
});
"""
CHOSEN = "() => loraGarageForm.chosen()"


class ModelList:
    def __init__(self, planner: Planner, wording: Wording):
        self.planner, self.w = planner, wording

    def build(self) -> None:
        w = self.w
        with gr.Accordion(w.t("model_list.title", count=len(known_models())), open=False, elem_id="model-list"):
            self.search = gr.Textbox(label=w.t("model_list.search"), max_lines=1, max_length=60, elem_id="model-search")
            self.fitting = gr.Checkbox(value=True, label=w.t("model_list.only_fitting"), elem_id="model-fitting")
            self.table = gr.HTML(self.draw(HERE, "", True), elem_id="models-table", js_on_load=CHOOSE, apply_default_css=False)

    def wire(self, page: gr.Blocks, memory: gr.Dropdown, model: gr.Dropdown) -> Dependency:
        """memory: what is planned for; model: the field that a press fills. Gives the press."""
        asked = [memory, self.search, self.fitting]
        page.load(self.draw, asked, [self.table], queue=False, **QUIET)
        for changed in (memory.input, self.search.input, self.fitting.input):
            changed(self.draw, asked, [self.table], trigger_mode="always_last", queue=False, **QUIET)
        return self.table.select(None, None, [model], js=CHOSEN, **QUIET)

    def draw(self, memory: Any, words: Any, only_fitting: Any) -> Html:
        """Inputs: plan-for, model-search, model-fitting. Outputs: models-table."""
        try:
            budget = self.planner.budget(memory)
        except GarageError:  # a size that cannot be, which the plan's card says
            budget = self.planner.budget(HERE)
        found = catalogue.matching(catalogue.entries(budget), words[:60] if isinstance(words, str) else "", only_fitting is True)
        return table(found, budget, self.w)


def table(entries: Sequence[CatalogueEntry], budget: Budget, w: Wording) -> Html:
    """A row a model: name with licence and download, then a badge with GiB for each method."""
    if not entries:
        return tag("p", w.t("model_list.none"), class_="lg-quiet", role="status")
    names = {**METHODS, "full": w.t("plan_view.full")}
    head = tag(
        "tr",
        tag("th", w.t("model_list.model"), scope="col"),
        *(tag("th", names[method], scope="col") for method in catalogue.METHODS),
    )
    rows = [
        tag(
            "tr", tag("th", _name(entry, w), scope="row"), *(_cell(entry, method, names[method], w) for method in catalogue.METHODS)
        )
        for entry in entries
    ]
    inside = tag("table", tag("thead", head), tag("tbody", *rows), class_="lg-table lg-models")
    region = tag("div", inside, class_="lg-scroll lg-tall", tabindex=0, role="region", aria_label=w.t("model_list.region"))
    return tag("div", tag("p", said(len(entries), budget, w), class_="lg-quiet", role="status"), region)


def said(count: int, budget: Budget, w: Wording) -> str:
    return w.t("model_list.shown", count=count, place=where(budget, w))


def _name(entry: CatalogueEntry, w: Wording) -> Html:
    model = entry.model
    facts = [format.parameters(w, model.shape.params), model.licence]
    if model.gated:
        facts.append(w.t("model_list.gated"))
    button = tag("button", model.title, type="button", data_model=model.hub, class_="lg-pick", title=w.t("model_list.choose"))
    return tag("div", button, tag("span", " · ".join(facts), class_="lg-quiet"))


def _cell(entry: CatalogueEntry, method: TableMethod, name: str, w: Wording) -> Html:
    fit = entry.fits[method]
    needs = tag("span", w.t("model_list.gib", gib=gib(fit.needed_gib)), class_="lg-quiet")
    return tag("td", tag("div", badge(fit.verdict, w), needs), data_label=name)
