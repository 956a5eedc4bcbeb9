"""The interface of the form for the parts around it, which do not know how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gradio.components import Component
from gradio.events import Dependency

from core.recipe import Recipe
from webui.form.planner import Form, FormResult

Given = Mapping[Any, Any]  # what arrived, by component; of `fills` these two beside
IS_HERE = "is_here"  # whether the browser is on this PC
READING = "reading"  # fields.FormAnswers.reading
Updates = dict[Any, Any]  # what is to be shown, by component
Parts = set[Component]
Listen = Callable[..., Dependency]


@dataclass(frozen=True)
class Filling:
    """What is to be put into the form in answer to a press, but for what a person has set since (assets/form.js).

    values: of goal, model, data, name, and the notice that says so. answers: of "explicit", "parent" and "reading"
    (fields.FormAnswers) those that become others.
    """

    values: dict[str, Any] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)


Taken = tuple[Filling | None, Updates]
Take = Callable[[Given], Taken]


class FormHandle(Protocol):
    @property
    def inputs(self) -> Parts:
        """All that `read` reads."""

    def read(self, given: Given) -> Form: ...

    def result_of(self, form: Form) -> FormResult: ...

    def filling(self, recipe: Recipe, title: str, parent: str | None = None) -> tuple[Filling, Updates]:
        """The form as a recipe wants it, saying so; what the recipe leaves out stays with the plan."""

    def redraw_after(self, event: Dependency) -> Dependency:
        """Look at the form anew once an event has ended."""

    def fills(self, listen: Listen, take: Take, inputs: Parts, outputs: Parts, **options: Any) -> Dependency:
        """On an event, fill the form with what take gives, and look at it anew. inputs: what take reads; outputs: what
        it updates."""
