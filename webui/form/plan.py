"""The plan beside the open step, and the plan step, which changes it: the hardware it is for, and every setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from core.advice.wish import cards_of
from core.errors import GarageError
from core.files import JsonObject
from core.recipe import OBJECTIVES_OF, OF_PREFERENCES
from core.system import devices
from core.system.machine import Machine
from webui.form import settings_view
from webui.form.fields import CARDS, name_of
from webui.form.findings import PlanFindings
from webui.form.planner import HERE, PROCESSOR, SIZE, FormResult
from webui.kit import hardware
from webui.kit.html import Html, tag
from webui.kit.wording import Wording, field_of
from webui.state.services import Services

FOLLOW_S = 2.0  # as often as the hardware is measured
RANKS_OFFERED = (4, 8, 16, 32, 64)
SIZES = (6, 8, 10, 12, 16, 24, 32, 48, 80)


class PlanStep:
    """The plan's card, and the plan step with its settings."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.findings = PlanFindings(wording, ("few_steps", "hot_plan"))

    def build_beside(self) -> None:
        """Build the card beside the steps: plan, findings, programs that use the memory, and folded details."""
        w = self.w
        with gr.Column(elem_id="plan-beside", elem_classes="lg-card") as self.beside:
            gr.HTML(tag("h2", w.t("wizard.plan_beside")))
            self.card = gr.HTML(tag("p", w.t("plan_view.no_plan"), class_="lg-quiet"), elem_id="plan-card")
            self.findings.build()
            self.holders = gr.HTML("", visible=False, elem_id="memory-holders")
            self.recheck = gr.Button(w.t("free_memory.recheck"), size="sm", visible=False, elem_id="recheck-memory")
            with gr.Accordion(w.t("wizard.plan_more"), open=False, elem_id="plan-more"):
                self.more = gr.HTML("")
        self.drawn_from = gr.JSON({}, visible=False)  # the memory figures of the card's verdict
        self.clock = gr.Timer(FOLLOW_S)

    def build(self) -> None:
        """Build the step: the memory and GPUs to plan for, method, rank, all settings, and the reset button."""
        w = self.w
        self.memory = gr.Dropdown(
            self.memory_choices(self.services.monitor.newest()),
            value=HERE,
            label=w.t("wizard.memory"),
            info=w.t("wizard.memory_info"),
            elem_id="plan-for",
        )
        machine = self.services.monitor.newest()
        choices = self.card_choices(machine)
        with gr.Column(visible=len(choices) > 1, elem_id="choice-of-cards") as self.choice_of_cards:
            # Disabled until the first look has filled it: a box ticked before would choose only that GPU.
            self.cards = gr.CheckboxGroup(
                choices, label=w.t("wizard.cards"), info=w.t("wizard.cards_info"), elem_id="cards", interactive=False
            )
            self.cards_now = gr.HTML(self.current_cards(machine), elem_id="cards-now")
        self.method = gr.Radio(
            [(w.t("wizard.lora"), "lora"), (w.t("wizard.qlora"), "qlora")],
            value=field_of("adapter", "method").default,
            label=w.t("wizard.method"),
            info=w.t("wizard.method_info"),
            elem_id="method",
        )
        self.r = gr.Radio(
            rank_choices(8),
            value=field_of("adapter", "r").default,
            label=w.t("wizard.field_r"),
            info=w.setting_help("adapter", "r"),
            elem_id="rank",
        )
        settings_view.at_hand(w)
        with gr.Accordion(w.t("wizard.all_settings"), open=False, elem_id="all-settings"):
            settings_view.all_settings(w)
        self.reset = gr.Button(w.t("wizard.reset"), size="sm", visible=False, elem_id="reset-settings")
        self.next = gr.Button(w.t("wizard.next"), elem_id="next-plan", elem_classes="lg-next")

    def hidden(self, result: FormResult, explicit: Mapping[str, object], data: object, memory: object) -> list[str]:
        """Return the names ("section.name") of the settings that the form hides because they do not apply.

        These are the settings of preference training that the chosen objective does not use, the objective unless rows
        have a worse answer or are marked good and bad, and the setting for experts unless the model has some. A setting
        with a value stays visible, so that it can be reset. The number of GPUs is hidden where a person chooses the
        GPUs. data, memory: as chosen in the form.
        """
        train = {name: explicit.get(f"train.{name}") for name in OF_PREFERENCES}
        objective = train["objective"]
        applies = {name: objective in objectives for name, objectives in OBJECTIVES_OF.items()}
        applies["objective"] = bool(result.preview and result.preview.has_pairs) or self._has_bad(data)
        applies["label_smoothing"] &= objective == "simpo" or train["loss_type"] == "robust"
        names = {f"train.{name}": applies[name] for name in OF_PREFERENCES}
        names[name_of(settings_view.EXPERTS)] = bool(result.shape and result.shape.num_experts)
        hidden = [name for name, is_shown in names.items() if not is_shown and explicit.get(name) is None]
        return [*hidden, "train.ranks"] if self._may_choose(memory, self.services.monitor.newest()) else hidden

    def _has_bad(self, data: Any) -> bool:
        """Return whether rows of the chosen dataset are left out because their answer is marked bad; False without a
        dataset."""
        try:
            return any(left.why.key == "left_out.why_row" for left in self.services.datasets.report(data).left_out)
        except (GarageError, TypeError):  # no dataset is chosen, or invalid JSON from a browser
            return False

    def memory_choices(self, machine: Machine) -> list[tuple[str, str]]:
        """Return the choices (label, value): this PC, its processor if it has a usable GPU, and GPU sizes to plan
        for."""
        w = self.w
        has_card = any(card.uuid and card.usable for card in machine.nvidia.cards)
        processor = [(w.t("wizard.memory_cpu"), PROCESSOR)] if has_card else []
        sizes = [(self._size(size), f"{SIZE}{size}") for size in SIZES]
        return [(w.t("wizard.memory_here"), HERE), *processor, *sizes]

    def _size(self, gb: int) -> str:
        """Return a size of GPU memory with the names of common cards, because people type those."""
        names = cards_of(gb)
        if not names:
            return self.w.t("wizard.memory_size", gb=gb)
        return self.w.t("wizard.memory_size_as", gb=gb, cards=self.w.t("shelf_view.comma").join(names))

    def card_choices(self, machine: Machine) -> list[tuple[str, str]]:
        """Return (title, uuid) of this PC's GPUs that can be chosen; "" for an unknown uuid."""
        return [(hardware.title_of(card, self.w), card.uuid or "") for card in devices.may_be_chosen(machine.nvidia)]

    def current_cards(self, machine: Machine) -> Html:
        """Return a list of the present state of this PC's GPUs that can be chosen."""
        lines = [tag("li", hardware.current_state(card, self.w)) for card in devices.may_be_chosen(machine.nvidia)]
        return tag("ul", *lines, class_="lg-quiet lg-holders")

    def draw_cards(self, choice: object, machine: Machine) -> dict[Component, object]:
        """Return the updates that show the choice of GPUs if this PC has several and the plan is for it; it replaces
        the number of GPUs. choice: the memory to plan for."""
        is_shown = self._may_choose(choice, machine)
        return {
            self.choice_of_cards: gr.update(visible=is_shown),
            self.cards_now: self.current_cards(machine) if is_shown else gr.skip(),
        }

    def _may_choose(self, memory: object, machine: Machine) -> bool:
        """True if the plan is for this PC and it has several GPUs."""
        return memory == HERE and len(devices.may_be_chosen(machine.nvidia)) > 1

    def card_values(self, result: FormResult, machine: Machine) -> JsonObject:
        """Return the choice of GPUs with those of the plan chosen, for the form's fields; {} for a plan without a
        GPU."""
        if result.plan is None or (budget := result.plan.advice.budget).card_uuid is None:
            return {}
        choices, planned = self.card_choices(machine), {budget.card_uuid, *(uuid for uuid, _ in budget.beside)}
        return {
            CARDS: {"value": [uuid for _, uuid in choices if uuid in planned], "choices": choices, "interactive": True}
        }


def rank_choices(value: int) -> list[tuple[str, int]]:
    """Return (text, rank) of RANKS_OFFERED and value, in order."""
    return [(str(r), r) for r in sorted({*RANKS_OFFERED, value})]
