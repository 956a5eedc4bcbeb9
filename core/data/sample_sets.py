"""The sample datasets that come with the app: presets/samples/<name>.yaml, beside their rows."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import islice

import yaml

from core.files import JsonObject
from core.presets import PRESETS
from core.values import Frozen


class Sample(Frozen):
    """Contents of presets/samples/<name>.yaml.

    title and description by language; shown: number of the row that introduces it; on_start: it has a card at the
    start of the page; adapter and train as in a recipe, rewards too, for training by rewards.
    """

    title: dict[str, str] = {}
    description: dict[str, str] = {}
    goal: str | None = None
    shown: int = 1
    on_start: bool = True
    adapter: JsonObject = {}
    train: JsonObject = {}
    rewards: JsonObject | None = None


def sample_of(dataset_id: str | None) -> Sample | None:
    """Return the Sample of the dataset `sample:<name>`, or None for any other dataset."""
    match = re.fullmatch(r"sample:([A-Za-z0-9_-]{1,60})", dataset_id or "")
    path = match and PRESETS / "samples" / f"{match[1]}.yaml"
    if not path or not path.is_file():
        return None
    return Sample.model_validate(yaml.safe_load(path.read_text("utf-8")))


@cache
def introduction(dataset_id: str) -> tuple[str, str]:
    """Return the question and the answer of the row that introduces a sample dataset (its `shown`, else the first).
    Raises KeyError if it is no pair."""
    sample = sample_of(dataset_id)
    name = dataset_id.removeprefix("sample:")
    with open(PRESETS / "samples" / f"{name}.jsonl", encoding="utf-8") as rows:
        row = json.loads(next(islice(rows, (sample.shown if sample else 1) - 1, None)))
    if "messages" in row:
        return row["messages"][0]["content"], row["messages"][-1]["content"]
    question, answer = ("question", "answer") if "question" in row else ("text", "label")
    return row[question], row[answer]
