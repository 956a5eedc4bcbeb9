"""Fills the whole form from an opened or dropped recipe, or a run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import gradio as gr

from core.advice.goals import goal_shown_by
from core.data.reading.choices import NO_CHOICES
from core.errors import DataError, GarageError
from core.files import JsonObject
from core.messages import msg
from core.progress import Check, go_on
from core.recipe import NO_DATA, Recipe
from core.workspace import foreign_recipes
from webui.form.data import DataStep, is_recipe
from webui.form.fields import explicit_values
from webui.form.goal import FIRST, GoalStep
from webui.form.handle import READING, FieldValues, Filled, Filling
from webui.form.reading.recipe_reading import RecipeReading
from webui.kit.html import Html, join, notice, success, tag
from webui.kit.live import Updates, shown
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.state.services import Services


def foreign_view(recipe: foreign_recipes.ForeignRecipe, w: Wording) -> Html:
    """Return what became of each key of another tool's recipe, as HTML: a notice for each one that a person still has
    to decide, and in folds the changed, left out and taken keys."""
    folds = []
    for kind in ("changed", "left_out", "taken"):
        if notes := recipe.texts(kind):
            items = (tag("li", w.render(note)) for note in notes)
            summary = tag("summary", w.render(msg(f"foreign_recipe.list_{kind}", count=len(notes))))
            folds.append(tag("details", summary, tag("ul", *items), class_="lg-fold", open=kind == "changed"))
    head = notice(w.render(recipe.head), "ok")
    return join([head, *(notice(w.render(note), "warn") for note in recipe.texts("open")), *folds])


class Fillings:
    """The handlers that fill the form."""

    def __init__(self, services: Services, goal: GoalStep, data: DataStep, wording: Wording):
        self.services, self.goal, self.data, self.w = services, goal, data, wording

    def add_file(self, values: FieldValues, check: Check = go_on) -> Filled:
        """Make one dataset of the dropped files and choose it, with a notice on problems, and the goal that its rows
        show, if the form still has the first one; a dropped recipe fills the form instead. Nothing is chosen if no file
        can be read."""
        data, paths = self.data, values[self.data.file]
        if not paths:
            return None, {}
        if len(paths) == 1 and is_recipe(paths[0]):
            return self._open_file(paths[0], values, is_dropped=True)
        reading = values.get(READING)
        added, problem = data.adding.add(
            paths, reading.choices if reading and len(paths) == 1 and reading.means(paths[0]) else NO_CHOICES, check
        )
        notices: Updates = {data.notice: shown(problem)}
        if added is None:
            return None, notices
        shown_by_rows, store = {}, self.services.datasets
        if values.get(self.goal.goal, FIRST) == FIRST:  # else a person has chosen it
            with suppress(DataError):  # of unreadable rows the data step tells
                if goal := goal_shown_by(store.report(added).format, store.rows(added)):
                    shown_by_rows = {"goal": goal}
        return Filling({"data": added, **shown_by_rows}), {**notices, data.data: gr.update(choices=data.choices())}

    def open_recipe(self, values: FieldValues) -> Filled:
        """Return the form filled from the chosen file, and the file's field emptied; nothing without a file."""
        file = self.goal.recipe
        if not values[file]:
            return None, {}
        filling, updates = self._open_file(values[file], values)
        return filling, {file: None, **updates}

    def _open_file(self, path: str, values: FieldValues, is_dropped: bool = False) -> tuple[Filling, Updates]:
        """Return the form filled from a recipe, ours or another tool's, and a notice of what was filled in; only a
        notice if it cannot be read. Both are among the Filling's values. is_dropped: the notice stands beside the drop
        zone. Deletes the uploaded file."""
        file, foreign = Path(path), None
        try:
            value, foreign = foreign_recipes.read(file)
            recipe = Recipe.parse(value, where=file.name)
            filling, updates = self.from_recipe(
                recipe, file.name, is_local=values.get(IS_LOCAL) is True, foreign=foreign
            )
        except GarageError as error:
            filling, updates = Filling({"notice": shown(notice(self.w.render(error.message)))}), {}
        finally:
            file.unlink(missing_ok=True)  # gradio's own copy
        if is_dropped:
            message = filling.values.pop("notice")
            # of a recipe whose dataset alone is missing, the data step says so
            filling.values["file_notice"] = message if foreign or filling.values.get("data", True) else shown("")
        return filling, updates

    def from_recipe(
        self,
        recipe: Recipe,
        title: str,
        parent: str | None = None,
        is_local: bool = False,
        foreign: foreign_recipes.ForeignRecipe | None = None,
    ) -> tuple[Filling, Updates]:
        """Return the form's values and answers for a recipe, and a notice on how many settings were filled in and what
        is missing. title: of the recipe or run. parent: id of the run to continue. is_local: true if the browser runs
        on this PC. foreign: the recipe of another tool that it was read from. Without its dataset, data is empty and
        the recipe's reading is kept."""
        explicit = explicit_values(recipe)
        values: JsonObject = {"model": recipe.model.id}
        answers: JsonObject = {"explicit": explicit, "parent": parent}
        updates: Updates = {}
        taken = foreign_view(foreign, self.w) if foreign else None
        message = taken or success(self.w.t("wizard.filled", title=title, count=len(explicit)))
        if recipe.goal:
            values["goal"] = recipe.goal
        if recipe.name:
            values["name"] = recipe.name[:60]
        if recipe.data.source != NO_DATA:
            try:
                values["data"] = self.services.datasets.get(recipe.data.source).id
                reading = RecipeReading.from_data(recipe.data, values["data"], title)
                answers["reading"] = reading.state() if reading else None
                updates[self.data.data] = gr.update(choices=self.data.choices())
            except GarageError:
                values["data"] = None
                answers["reading"] = RecipeReading.missing(recipe.data, title, is_local).state()
                without = self.w.t("wizard.filled_without_data", title=title, data=recipe.data.source)
                message = join([notice(without, "warn"), taken])
        values["notice"] = shown(message)
        return Filling(values, answers), updates
