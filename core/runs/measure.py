"""The number by which a run is followed in each line of metrics.jsonl: the loss, in training by rewards the reward. The
loss of a policy says nothing about its progress."""

from __future__ import annotations

import math
from collections.abc import Iterable

from core.files import JsonObject


def is_of_rewards(line: JsonObject) -> bool:
    """Return whether a line of metrics.jsonl has the reward of a step or an evaluation."""
    return "reward" in line or "eval_reward" in line


def measure(line: JsonObject) -> float | None:
    """Return the reward of a step or an evaluation, or its loss if none was drawn; None if it is missing or not
    finite."""
    before = "eval_" if line.get("kind") == "eval" else ""
    value = line.get(f"{before}reward", line.get(f"{before}loss"))
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer beyond all floats
        return None
    return number if math.isfinite(number) else None


def measures(lines: Iterable[JsonObject], kind: str, until: int | None = None) -> list[float]:
    """Return the known measures of the lines of a kind ("train" or "eval"), up to step `until`."""
    values = (measure(line) for line in lines if line.get("kind") == kind and (until is None or line["step"] <= until))
    return [value for value in values if value is not None]
