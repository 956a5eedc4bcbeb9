"""Fills the whole form: from a recipe that is opened or dropped, a preset, a run; and saves the form as a preset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from core.data.reading.choices import NO_CHOICES
from core.errors import GarageError
from core.messages import Message
from core.progress import Check, go_on
from core.recipe import Recipe
from core.runs.cards import recipe_card
from core.runs.cards.recipe_card import RecipeCard
from core.workspace.saved_recipes import NO_DATA
from webui.form.data import DataStep, is_recipe
from webui.form.fields import explicit_of
from webui.form.goal import GoalStep
from webui.form.handle import IS_HERE, READING, Filling, FormHandle, Given, Taken, Updates
from webui.form.plan import PlanStep
from webui.form.planner import recipe_of
from webui.form.reading.brought import BroughtReading
from webui.form.reading.card_told import CardTold
from webui.kit.html import notice
from webui.kit.live import shown
from webui.kit.wording import Wording
from webui.state.services import Services


class Fillings:
    def __init__(self, services: Services, goal: GoalStep, data: DataStep, plan: PlanStep, wording: Wording):
        self.services, self.goal, self.data, self.plan, self.w = services, goal, data, plan, wording

    def add_file(self, given: Given, check: Check = go_on) -> Taken:
        """What is dropped becomes a data set, several files one; a dropped recipe fills the form."""
        data, paths = self.data, given[self.data.file]
        if not paths:
            return None, {}
        if len(paths) == 1 and is_recipe(paths[0]):
            filling, updates, card = self._opened(paths[0], given)
            told = filling.values.pop(
                "notice"
            )  # said where it was dropped, unless the data step says which file is needed, and that is all
            filling.values["file_notice"] = told if filling.values.get("data", True) or card else shown("")
            return filling, updates
        reading = given.get(READING)
        added, problem = data.adding.add(
            paths, reading.choices if reading and len(paths) == 1 and reading.means(paths[0]) else NO_CHOICES, check
        )
        said: Updates = {data.notice: shown(problem)}
        if added is None:
            return None, said
        return Filling({"data": added}), {**said, data.data: gr.update(choices=data.choices())}

    def open_recipe(self, given: Given) -> Taken:
        file = self.goal.recipe
        if not given[file]:
            return None, {}
        filling, updates, _ = self._opened(given[file], given)
        return filling, {file: None, **updates}

    def _opened(self, path: str, given: Given) -> tuple[Filling, Updates, RecipeCard | None]:
        file = Path(path)
        try:
            recipe, card = recipe_card.read(file)
            told = CardTold(self.services, card, self.w) if card else None
            is_here = given.get(IS_HERE) is True
            return *self.of(told.found(recipe) if told else recipe, file.name, is_here=is_here, told=told), card
        except GarageError as error:
            return *self._refused(error.message), None
        finally:
            file.unlink(missing_ok=True)  # gradio's own copy

    def take_preset(self, given: Given) -> Taken:
        preset_id = given[self.goal.preset]
        if not preset_id:
            return Filling({"notice": shown("")}), {}
        try:
            preset = self.services.presets.get(preset_id)
        except GarageError as error:
            return self._refused(error.message)
        if preset.recipe is None:
            return self._refused(preset.problem)
        return self.of(preset.recipe, preset.title)

    def _refused(self, why: Message | None) -> tuple[Filling, Updates]:
        return Filling({"notice": shown(notice(self.w.render(why)))}), {}

    def of(
        self, recipe: Recipe, title: str, parent: str | None = None, is_here: bool = False, told: CardTold | None = None
    ) -> tuple[Filling, Updates]:
        explicit = explicit_of(recipe)
        values: dict[str, Any] = {"model": recipe.model.id}
        answers: dict[str, Any] = {"explicit": explicit, "parent": parent}
        updates: Updates = {}
        said, tone = self.w.t("wizard.filled", title=title, count=len(explicit)), "ok"
        if recipe.goal:
            values["goal"] = recipe.goal
        if recipe.name:
            values["name"] = recipe.name[:60]
        if recipe.data.source != NO_DATA:
            try:
                values["data"] = self.services.datasets.get(recipe.data.source).id
                brought = BroughtReading.of(recipe.data, values["data"], title)
                answers["reading"] = brought.state() if brought else None
                updates[self.data.data] = gr.update(choices=self.data.choices())
            except GarageError:
                values["data"] = None
                answers["reading"] = BroughtReading.missing(recipe.data, title, is_here).state()
                said, tone = self.w.t("wizard.filled_without_data", title=title, data=recipe.data.source), "warn"
        if told:
            lacks = told.lacks(recipe, has_data=values.get("data") is not None)
            filled = self.w.t("wizard.filled", title=title, count=len(explicit))
            said, tone = " ".join([filled, *lacks, told.outcome()]), "warn" if lacks else "ok"
        values["notice"] = shown(notice(said, tone))
        return Filling(values, answers), updates

    def saving(self, form: FormHandle) -> Callable[[Given], Updates]:
        plan = self.plan

        def saved(given: Given) -> Updates:
            asked, title = form.read(given), given[plan.preset_name]
            try:
                preset = self.services.presets.save(title if isinstance(title, str) else "", recipe_of(asked))
            except GarageError as error:
                return {plan.save_notice: shown(notice(self.w.render(error.message)))}
            said = self.w.t("wizard.saved", title=preset.title, count=len(asked.answers.explicit))
            return {
                plan.save_notice: shown(notice(said, "ok")),
                self.goal.preset: gr.update(choices=self.goal.preset_choices()),
                plan.preset_name: "",
            }

        return saved
