"""The interface of the form for the parts around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gradio.components import Component
from gradio.events import Dependency

from core.files import JsonObject
from core.recipe import Recipe
from webui.form.planner import Form, FormResult
from webui.kit.live import Updates

FieldValues = Mapping[Component | str, Any]  # of the browser, by component; `fill_on` adds IS_LOCAL and READING
READING = "reading"  # fields.FormAnswers.reading
Components = set[Component]
Listen = Callable[..., Dependency]


@dataclass(frozen=True)
class Filling:
    """Values to put into the form after a press, except where the person has edited since (assets/form.js).

    values: of goal, model, data, name, and a notice. answers: new values of "explicit", "parent" and "reading"
    (fields.FormAnswers).
    """

    values: JsonObject = field(default_factory=dict)
    answers: Mapping[str, object] = field(default_factory=dict)


Filled = tuple[Filling | None, Updates]
Fill = Callable[[FieldValues], Filled]


class FormHandle(Protocol):
    """The form of the Train page, as the parts around it use it. Whenever something changes, the whole form is looked
    at: planned anew, and all that depends on it drawn again."""

    @property
    def inputs(self) -> Components:
        """All components that `read` reads."""

    def read(self, values: FieldValues) -> Form: ...

    def result_of(self, form: Form) -> FormResult: ...

    def filling(self, recipe: Recipe, title: str, parent: str | None = None) -> tuple[Filling, Updates]:
        """Return the form for a recipe, with a notice. Settings that the recipe leaves out follow the plan. title: of
        the recipe or run. parent: id of the run to continue."""

    def redraw_after(self, event: Dependency) -> Dependency:
        """Plan the form anew and draw all that depends on it once an event has ended; return the event of that."""

    def fill_on(
        self, listen: Listen, fill: Fill, inputs: Components, outputs: Components, **options: Any
    ) -> Dependency:
        """Connect an event to `fill`: the values that it returns are put into the form, which is then planned and
        drawn anew. Returns the event of calling fill. inputs: the components that fill reads. outputs: those that it
        updates."""
