"""A button that searches the hub with the same words. The results are rows below the catalogue's, or a sentence why
there are none."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency
from huggingface_hub import constants

from core.advice import shelf
from core.errors import GarageError
from core.hub.hub_errors import host_of
from core.hub.search import search
from webui.kit.html import Html, notice
from webui.kit.live import QUIET, Update, shown
from webui.kit.wording import Wording
from webui.shelf import hub_rows
from webui.shelf.rows import CHOOSE, CHOSEN, BudgetOf, Marks
from webui.state.services import Services

GONE = "() => ({ __type__: 'update', value: '', visible: false })"


class HubSearch:
    """The button that searches the Hub for models with the words of the search field, and the rows of its results."""

    def __init__(self, services: Services, budget_of: BudgetOf, wording: Wording):
        """budget_of: returns the memory for values of the fields memory and cards."""
        self.services, self.budget_of, self.w = services, budget_of, wording

    def build(self) -> None:
        label = self.w.t("hub_rows_view.ask", host=host_of(constants.ENDPOINT))
        self.ask = gr.Button(label, size="sm", elem_id="ask-hub")
        self.results = gr.HTML("", visible=False, elem_id="hub-found", js_on_load=CHOOSE, apply_default_css=False)

    def wire(self, memory: Component, cards: Component, words: Component, model: Component) -> Dependency:
        """Connect the button that searches, and clear the results when other words are typed. Return the event of
        choosing a row, which fills in model."""
        words.change(None, None, [self.results], js=GONE, **QUIET)  # results for other words
        self.ask.click(
            self.search_hub, [memory, words, model, cards], [self.results], preprocess=False, show_progress="minimal",
            show_progress_on=[self.ask],
            concurrency_limit=2, api_visibility="private",
        )  # fmt: skip
        return self.results.select(None, None, [model], js=CHOSEN, **QUIET)

    def search_hub(self, memory: object, words: object, model: object, cards: object = ()) -> Update:
        """Search the Hub for words, and return the update that lists the models, or shows the error. memory, cards: the
        hardware that is planned for. model: the chosen one."""
        text = words if isinstance(words, str) else ""
        try:
            models = search(text)
        except GarageError as error:
            return shown(notice(self.w.render(error.message), "warn"))
        budget = self.budget_of(memory, cards)
        rows = shelf.of_hub(models, budget)
        marks = Marks(
            model if isinstance(model, str) else None,
            self.services.models.local_ids(),
            budget,
        )
        return shown(Html(hub_rows.results(rows, text.strip(), marks, self.w)))
