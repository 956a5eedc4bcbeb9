"""Training speed on this PC, from its earlier runs. No torch here."""

from __future__ import annotations

from core.data.preview import Counts
from core.errors import GarageError
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.values import Frozen

MIN_STEPS = 5


class Pace(Frozen):
    """The speed of a run. tokens_per_second: all tokens of the rows without padding; time for measuring and saving
    included."""

    tokens_per_second: float
    source: Message


def seconds(tokens: float, pace: Pace) -> float:
    """Return the time for so many tokens; loading the model and the libraries is not included."""
    return tokens / pace.tokens_per_second


def planned_tokens(recipe: Recipe, steps: int, counts: Counts) -> float:
    """Return the tokens that so many steps read, after max_length has cut or split long rows. counts: of the
    dataset."""
    train = recipe.train
    examples = steps * train.per_device_train_batch_size * train.gradient_accumulation_steps
    return examples * counts.tokens / max(1, counts.pieces)


def from_runs(runs: Runs, recipe: Recipe, on_card: bool | None = None, device: str | None = None) -> Pace | None:
    """Return the pace of the newest completed or stopped run with recipe's base model and kind of adapter, or None.
    on_card: only of a run that trained on a GPU (True) or not (False). device: not of a run known to have trained on
    another GPU."""
    for run in runs.list():
        if run.status().state in (State.COMPLETED, State.STOPPED) and _is_alike(run, recipe, on_card, device):
            measured = tokens_per_second(run)
            if measured is not None:
                return Pace(tokens_per_second=measured, source=msg("pace.from_run", run=run.name))
    return None


def _is_alike(run: RunFolder, recipe: Recipe, on_card: bool | None, device: str | None) -> bool:
    """Return whether the run has the base model and kind of adapter of recipe, batches at least half full, and its
    device fits on_card and device; False if its recipe cannot be read."""
    facts = run.facts()
    if on_card is not None and (facts.device != "cpu") != on_card:
        return False
    if on_card and device and facts.device_uuid not in (None, device):
        return False
    try:
        other = run.recipe()
    except GarageError:
        return False
    # Seen: one correction in 20 steps, a third of the usual pace, from which 35 seconds became six minutes.
    is_full = facts.rows_trained is None or 2 * facts.rows_trained >= other.train.per_device_train_batch_size
    return is_full and _kind(other) == _kind(recipe)


def _kind(recipe: Recipe) -> tuple[str | int, ...]:
    """Return the settings that a step's time depends on most: model, method, ranks, sharding, offloading, rewards."""
    adapter, train = recipe.adapter, recipe.train
    kind = recipe.model.id, adapter.method, adapter.load_in_8bit, adapter.use_dora, adapter.trains_experts
    return *kind, train.ranks, train.fsdp, train.offload_layers, bool(recipe.rewards)


def tokens_per_second(run: RunFolder) -> float | None:
    """Return tokens per second between the ends of the first and the last step of the last attempt; None for fewer than
    MIN_STEPS steps; the first step, a warm-up, is left out."""
    lines = [line for line in run.all_metrics() if line.get("kind") == "train"]
    lines = [line for line in lines if line.get("attempt") == lines[-1].get("attempt")]
    if len(lines) < MIN_STEPS:
        return None
    try:
        tokens = lines[-1]["tokens_seen"] - lines[0]["tokens_seen"]
        elapsed_s = lines[-1]["time"] - lines[0]["time"]
    except (KeyError, TypeError):
        return None
    return tokens / elapsed_s if tokens > 0 and elapsed_s > 0 else None


def with_bus(seconds: float, pace: Pace, bus_seconds: float | None) -> float:
    """Return the seconds of a run whose layers are copied to the GPU beside the computation: those of the slower of
    both. bus_seconds: of the copies; None: no copies. An earlier run's pace includes them already."""
    return seconds if bus_seconds is None or pace.source.key == "pace.from_run" else max(seconds, bus_seconds)
