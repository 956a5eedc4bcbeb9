"""Estimates the pace of models never tried on this PC from the paces that are known. No torch; nothing is measured.

Known are the steps that were timed for earlier plans (cache/pace.json, core/trial/pace) and the runs that ended. For a
model that was trained here its own run counts. For any other the nearest step or run of the same method on the same
device counts, scaled by the products of a token, and only if the two differ by at most APART times: small models wait
for their launches and large ones for their sums, so neither predicts the other. If none is near enough, there is no
estimate.
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
    """The known pace of a model. products: multiplications of a token, forward. model: of a run; None for a timed
    step."""

    method: str
    products: float
    tokens_per_second: float
    model: str | None = None


@dataclass(frozen=True)
class Paces:
    """The known paces of one device."""

    known: tuple[Known, ...] = ()

    def seconds(self, tokens: float, model: str, shape: ModelShape, method: str) -> float | None:
        """Estimate the time for so many tokens; loading and saving are not included. None if no known pace is near
        enough."""
        alike = [each for each in self.known if each.method == method]
        own = next((each for each in alike if each.model == model), None)
        products = products_of(shape)
        near = own or min(alike, key=lambda each: _factor_between(products, each.products), default=None)
        if near is None or (own is None and _factor_between(products, near.products) > APART):
            return None
        return tokens / near.tokens_per_second * (1.0 if own else products / near.products)


class KnownPaces:
    """The known paces of a workspace. Each ended run is read once."""

    def __init__(self, runs: Runs):
        self._runs = runs
        self._read: dict[tuple[str, float], Known | None] = {}

    def on(self, budget: Budget) -> Paces:
        """Return the paces of a device; none for a GPU that is only planned."""
        return (
            Paces()
            if budget.planned or not budget.name
            else Paces((*self._of_runs(budget), *self._of_steps(budget.name)))
        )

    def _of_steps(self, device: str) -> Iterator[Known]:
        """Yield the speeds that were timed on this device, the newest first; not those of LoRA in 8 bits or of DoRA."""
        speeds = files.read_object(pace.pace_file(self._runs.workspace))
        for key, speed in reversed(speeds.items()):
            step_json = key.removeprefix(pace.rig_prefix(device))
            if step_json == key or not isinstance(speed, float) or speed <= 0:
                continue
            try:
                step = StandIn.model_validate_json(step_json)
            except ValidationError:  # of an older version of this app
                continue
            if not (step.eight_bit or step.use_dora):
                yield Known("qlora" if step.four_bit else "lora", products_of(step), speed)

    def _of_runs(self, budget: Budget) -> Iterator[Known]:
        """Yield the ended runs of models of the catalogue, the newest first."""
        for run in self._runs.list()[:NEWEST]:
            status = run.status()
            if status.state not in (State.COMPLETED, State.STOPPED) or not _ran_on(run, budget):
                continue
            key = run.id, status.since
            if key not in self._read:
                self._read[key] = _pace_of_run(run)
            if (known := self._read[key]) is not None:
                yield known


def products_of(step: StandIn | ModelShape) -> float:
    """Return the multiplications of a token through the layers and, weighted by the share of learned tokens, the
    head."""
    width = step.intermediate_size if isinstance(step, StandIn) else step.active_width
    heads = 2 * (step.num_attention_heads + step.num_key_value_heads) * step.head_dim
    layers = step.num_hidden_layers * step.hidden_size * (3 * width + heads)
    return float(layers + LEARNED * step.hidden_size * step.vocab_size)


def _factor_between(one: float, other: float) -> float:
    return math.exp(abs(math.log(one / other)))


def _ran_on(run: RunFolder, budget: Budget) -> bool:
    facts = run.facts()
    if (facts.device == "cpu") != (budget.kind == "cpu"):
        return False
    return budget.kind == "cpu" or facts.device_uuid in (None, budget.card_uuid)


def _pace_of_run(run: RunFolder) -> Known | None:
    """Return a run's speed; None for a model of unknown shape, and for methods that are not compared."""
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
