"""The two models of a blind A/B test: by default the chat's model and its base, or any two, each with a checkpoint,
strength and precision."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from core.chat.answer import STRENGTHS
from core.chat.comparison import Contestant
from core.errors import ChatError
from webui.kit import format
from webui.kit.following import FollowingDropdown
from webui.kit.live import AT_ONCE, LivePart, Updates
from webui.kit.wording import Wording
from webui.pages.chat_choices import (
    LATEST,
    PRECISIONS,
    checkpoint_choices,
    is_there,
    run_id_of,
    strength_of,
    target_choices,
)
from webui.state.services import Services
from webui.state.snapshot import RunRow

AS_USUAL = ""  # first: the base of the second; second: the model chosen above


class Contender:
    """The fields of one of the two models. side: first or second."""

    def __init__(self, services: Services, wording: Wording, side: str):
        self.services, self.w, self.side = services, wording, side

    def build(self, rows: tuple[RunRow, ...]) -> None:
        """Build the fields: model, checkpoint, strength and precision."""
        w, low, high = self.w, *(round(100 * limit) for limit in STRENGTHS)
        with gr.Column(min_width=260, elem_classes="lg-tight"):
            options = {
                name: w.named(f"contenders.{name}", f"duel-{self.side}-{name}") for name in ("strength", "precision")
            }
            self.model = FollowingDropdown(self._choices(rows), value=AS_USUAL,
                **w.named(f"contenders.{self.side}", f"duel-{self.side}"))  # fmt: skip
            checkpoint = w.named("chat_page.checkpoint", f"duel-{self.side}-checkpoint") | {"info": None}
            latest = [(w.t("chat_page.checkpoint_latest"), LATEST)]
            self.checkpoint = FollowingDropdown(latest, value=LATEST, visible=False, **checkpoint)
            has_one = self.side == "second"  # by default the first is a base
            self.strength = gr.Number(100, minimum=low, maximum=high, step=5, visible=has_one, **options["strength"])
            precisions = [(w.t(f"chat_page.precision_{name}"), name) for name in PRECISIONS]
            self.precision = gr.Dropdown(precisions, value="trained", **options["precision"])

    def _choices(self, rows: tuple[RunRow, ...]) -> list[tuple[str, str]]:
        """Return (label, id) of the models to choose from. The first entry, AS_USUAL, is for the first side the base of
        the second model, for the second side the model chosen at the top of the page."""
        return [(self.w.t(f"contenders.{self.side}_usual"), AS_USUAL), *target_choices(self.services, self.w, rows)]

    def part(self) -> LivePart:
        return LivePart(self.model, lambda context: gr.update(choices=self._choices(context.snapshot.rows)))

    def wire(self) -> None:
        self.model.change(self.chosen, self.model, [self.checkpoint, self.strength], **AT_ONCE)

    def chosen(self, model: object) -> Updates:
        """Offer the chosen model's checkpoints and, if it has an adapter, its strength."""
        checkpoints = checkpoint_choices(self.services, self.w, model)
        has_one = self.side == "second" if model == AS_USUAL else run_id_of(model) is not None
        checkpoint = gr.update(choices=checkpoints, value=LATEST, visible=run_id_of(model) is not None)
        return {self.checkpoint: checkpoint, self.strength: gr.update(visible=has_one)}

    @property
    def fields(self) -> list[Component]:
        return [self.model, self.checkpoint, self.strength, self.precision]


def two_of(
    services: Services, w: Wording, above: tuple[object, object], first: tuple[object, ...], second: tuple[object, ...]
) -> tuple[Contestant, Contestant]:
    """Return the two contestants of a blind test: by default the chat's model as the second, and its base as the first.

    above: target and checkpoint of the chat. first, second: values of a Contender's fields. Raises GarageError if a
    model is gone, or if the second is a base model and no first one was chosen.
    """
    if [one for one, *_ in (first, second) if one not in (AS_USUAL, None) and not is_there(services, w, one)]:
        raise ChatError("contenders.gone")
    model, checkpoint, *how = second
    two = _contestant(services, w, *(above if model in (AS_USUAL, None) else (model, checkpoint)), *how)
    model, checkpoint, *how = first
    if model not in (AS_USUAL, None):
        return _contestant(services, w, model, checkpoint, *how), two
    if two.column == "base":
        raise ChatError("blind_duel.no_run")
    base = services.runs.get(two.run).recipe().model.id
    precision = two.precision if how[1] == "trained" else how[1]
    one = _named(w, format.model_name(base), None, 1.0, precision, run=two.run, column="base")
    return one.model_copy(update={"checkpoint": two.checkpoint}), two  # so that one loaded model answers for both


def _contestant(
    services: Services, w: Wording, model: Any, checkpoint: object, percent: object, precision: object
) -> Contestant:
    """Return the contestant that the fields describe. Raises GarageError if its model is gone."""
    if not is_there(services, w, model):
        raise ChatError("chat_page.gone")
    strength, run_id = strength_of(percent), run_id_of(model)
    if run_id is not None:
        run = services.runs.get(run_id)
        step = (
            run.checkpoint(checkpoint).name
            if isinstance(checkpoint, str) and checkpoint.startswith("checkpoint")
            else None
        )
        return _named(w, run.name, step, strength, precision, run=run.id)
    base = model.removeprefix("base:")
    return _named(w, format.model_name(base), None, 1.0, precision, other=f"base:{base}", column="base")


def _named(
    w: Wording, name: str, checkpoint: str | None, strength: float, precision: object, **whose: object
) -> Contestant:
    """Return a contestant whose label contains its distinguishing settings. whose: further fields. Raises ChatError for
    an unknown precision."""
    if precision not in PRECISIONS:
        raise ChatError("wizard.bad_number", field="precision", found=str(precision)[:40], low=4, high=16)
    how = [w.t("chat_page.checkpoint_step", step=int(checkpoint.rsplit("-", 1)[-1]))] if checkpoint else []
    how += [f"{round(100 * strength)} %"] if strength != 1 else []
    how += [w.t(f"chat_page.precision_{precision}")] if precision != "trained" else []
    label = ", ".join([name, *how])
    return Contestant(label=label, checkpoint=checkpoint, strength=strength, precision=precision, **whose)
