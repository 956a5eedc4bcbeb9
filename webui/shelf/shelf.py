"""The model search of the model step: a text field, filters, and the matching models; a press on a row chooses it.

No request goes to a hub while a person types: the rows are the catalogue's (core/advice/shelf).
"""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr
from gradio.events import Dependency

from core.advice import shelf
from core.advice.wish import LONGEST, Wish, language_name
from core.models.known import known_models
from webui.kit.html import Html
from webui.kit.live import AT_ONCE, LAST, QUIET
from webui.kit.wording import Wording
from webui.shelf import rows
from webui.shelf.hub_search import HubSearch
from webui.shelf.rows import CHOOSE, CHOSEN, BudgetOf, Marks
from webui.state.services import Services

MARK = "(model) => loraGarageForm.mark(model)"
ANY = ""  # language


def languages(w: Wording) -> list[tuple[str, str]]:
    """Return (name, code) of the catalogue's languages, any language first, then the most common."""
    spoken = [code for model in known_models() for code in model.languages]
    codes = sorted(set(spoken), key=lambda code: (-spoken.count(code), code))
    return [(w.t("shelf_view.any_language"), ANY), *((w.render(language_name(code)), code) for code in codes)]


class ModelShelf:
    """The model search in the form: a text field, filters, the catalogue's matching models as rows, and the Hub's; a
    press on a row chooses its model."""

    def __init__(self, services: Services, budget_of: BudgetOf, wording: Wording):
        """budget_of: the memory for a choice of "plan for" (None: this PC); it never raises."""
        self.services, self.budget_of, self.w = services, budget_of, wording
        self.hub = HubSearch(services, budget_of, wording)

    def build(self) -> None:
        """Build the search field, the filters, the rows and the hub's search."""
        w = self.w
        self.words = gr.Textbox(max_lines=1, max_length=LONGEST, **w.named("shelf_view.words", "shelf-words"))
        with gr.Row(elem_id="shelf-filters"):
            self.fitting = gr.Checkbox(True, container=False, **w.named("shelf_view.fitting", "shelf-fitting"))
            self.sell = gr.Checkbox(False, container=False, **w.named("shelf_view.may_sell", "shelf-sell"))
            self.language = gr.Dropdown(
                languages(self.w), value=ANY, **w.named("shelf_view.language", "shelf-language")
            )
        self.shown = gr.HTML(
            self.draw(None, "", True, False, ANY, "starter"),
            elem_id="shelf",
            js_on_load=CHOOSE,
            apply_default_css=False,
        )
        self.hub.build()

    def wire(
        self, page: gr.Blocks, memory: gr.Dropdown, cards: gr.CheckboxGroup, model: gr.Dropdown
    ) -> Sequence[Dependency]:
        """Connect search and filters to the rows. memory, cards: the hardware that is planned for. model: the field
        that a press fills. Returns the events of pressed rows."""
        inputs = [memory, self.words, self.fitting, self.sell, self.language, model, cards]
        # Before the event that draws the list: gradio runs the listeners of one event in turn, and a result of the hub
        # would be cleared.
        pressed = self.hub.wire(memory, cards, self.words, model)
        # One event for all: two events answer in any order, and an older list could stay.
        # A text box of gradio 6.31 has `input` at a key press alone: none at Backspace, at a paste, or from a Chinese
        # input method.
        triggers = [
            page.load,
            self.words.change,
            *(field.change for field in (memory, self.language)),  # buttons fill them too
            *(field.input for field in (cards, self.fitting, self.sell)),
        ]
        gr.on(triggers, self.draw, inputs, [self.shown], preprocess=False, **LAST, **AT_ONCE)
        model.change(None, [model], None, js=MARK, **QUIET)
        return self.shown.select(None, None, [model], js=CHOSEN, **QUIET), pressed

    def draw(
        self,
        memory: object,
        words: object,
        fitting: object,
        sell: object,
        language: object,
        model: object,
        cards: object = (),
    ) -> Html:
        """Return the catalogue's models that fit these wishes, as rows of HTML; wishes are dropped one by one, which a
        remark says, while no model matches. All values come from a browser.

        memory, cards: the hardware that is planned for. words: of the search field. fitting: true for models that fit
        it alone, sell: for those of commercial use, language: its code. model: the chosen one.
        """
        wish = Wish(
            fits=fitting is True,
            sell=sell is True,
            language=language if isinstance(language, str) and language else None,
        )
        text = words[:LONGEST] if isinstance(words, str) else ""
        matches = shelf.find(text, self.budget_of(memory, cards), wish)
        marks = Marks(model if isinstance(model, str) else None, self.services.models.local_ids(), matches.budget)
        return rows.shelf(matches, wish, marks, self.w)
