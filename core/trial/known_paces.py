"""Estimates the pace of models never tried on this PC from the paces it knows. No torch; nothing is measured.

Known are the steps that were timed for earlier plans (cache/pace.json, core/trial/pace) and the runs that ended. A
model that was trained here is told by its own run. Any other is told by the nearest step or run of the same method on
the same device, scaled by the products that a token takes, and only where the two are at most APART: small models wait
for their launches and large ones for their sums, so neither tells much of the other. Where nothing is near enough
nothing is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from core import files
from core.errors import GarageError
from core.memory.budget import Budget
from core.models.known import known_models
from core.models.shapes.shape import ModelShape
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.trial import pace
from core.trial.pace import StandIn

APART = 3.0  # times the products of a token
LEARNED = 0.5  # of a row's tokens, which go through the head: usual for a chat
NEWEST = 40  # runs that are looked at


@dataclass(frozen=True)
class Known:
    """products: multiplications of a token, forward. model: of a run; None of a step that was timed."""

    method: str
    products: float
    tokens_per_second: float
    model: str | None = None


@dataclass(frozen=True)
class Paces:
    """Of one device."""

    known: tuple[Known, ...] = ()

    def seconds(self, tokens: float, model: str, shape: ModelShape, method: str) -> float | None:
        """How long so many tokens take; loading and saving are not in it. None where this PC's paces do not tell."""
        alike = [each for each in self.known if each.method == method]
        own = next((each for each in alike if each.model == model), None)
        wanted = products_of(shape)
        near = own or min(alike, key=lambda each: _apart(wanted, each.products), default=None)
        if near is None or (own is None and _apart(wanted, near.products) > APART):
            return None
        return tokens / near.tokens_per_second * (1.0 if own else wanted / near.products)


class KnownPaces:
    """Of a workspace. What an ended run says is read once."""

    def __init__(self, runs: Runs):
        self._runs = runs
        self._read: dict[tuple[str, float], Known | None] = {}

    def on(self, budget: Budget) -> Paces:
        """Nothing of a card that is only planned for."""
        return (
            Paces()
            if budget.planned or not budget.name
            else Paces((*self._of_runs(budget), *self._of_steps(budget.name)))
        )

    def _of_steps(self, device: str) -> Iterator[Known]:
        """The newest first."""
        kept = files.read_object(pace.kept_in(self._runs.workspace))
        for key, speed in reversed(kept.items()):
            told = key.removeprefix(pace.rig_named(device))
            if told == key or not isinstance(speed, float) or speed <= 0:
                continue
            try:
                step = StandIn.model_validate_json(told)
            except ValidationError:  # of an older version of this app
                continue
            if not (step.eight_bit or step.use_dora):
                yield Known("qlora" if step.four_bit else "lora", products_of(step), speed)

    def _of_runs(self, budget: Budget) -> Iterator[Known]:
        """The newest first, of models of the catalogue."""
        for run in self._runs.list()[:NEWEST]:
            status = run.status()
            if status.state not in (State.COMPLETED, State.STOPPED) or not _is_of(run, budget):
                continue
            key = run.id, status.since
            if key not in self._read:
                self._read[key] = _of_run(run)
            if (found := self._read[key]) is not None:
                yield found


def products_of(step: StandIn | ModelShape) -> float:
    """Multiplications of a token through the layers and, as often as it is learned, through the head."""
    width = step.intermediate_size if isinstance(step, StandIn) else step.active_width
    heads = 2 * (step.num_attention_heads + step.num_key_value_heads) * step.head_dim
    layers = step.num_hidden_layers * step.hidden_size * (3 * width + heads)
    return float(layers + LEARNED * step.hidden_size * step.vocab_size)


def _apart(one: float, other: float) -> float:
    return math.exp(abs(math.log(one / other)))


def _is_of(run: RunFolder, budget: Budget) -> bool:
    facts = run.facts()
    if (facts.device == "cpu") != (budget.kind == "cpu"):
        return False
    return budget.kind == "cpu" or facts.device_uuid in (None, budget.card_uuid)


def _of_run(run: RunFolder) -> Known | None:
    try:
        recipe = run.recipe()
    except GarageError:
        return None
    adapter = recipe.adapter
    shape = next((model.shape for model in known_models() if model.hub == recipe.model.id), None)
    speed = pace.tokens_per_second(run)
    if shape is None or speed is None or adapter.load_in_8bit or adapter.use_dora or adapter.trains_experts:
        return None
    return Known(adapter.method, products_of(shape), speed, recipe.model.id)
