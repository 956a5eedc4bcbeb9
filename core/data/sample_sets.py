"""The sample data sets that come with the app: presets/samples/<name>.yaml, beside their rows."""

from __future__ import annotations

import re
from typing import Any

import yaml

from core.presets import PRESETS
from core.values import Frozen


class Sample(Frozen):
    """presets/samples/<name>.yaml. title and description by language; adapter and train as in a recipe."""

    title: dict[str, str] = {}
    description: dict[str, str] = {}
    goal: str | None = None
    adapter: dict[str, Any] = {}
    train: dict[str, Any] = {}


def sample_of(dataset_id: str | None) -> Sample | None:
    """What comes along with `sample:<name>`, or None for any other data set."""
    match = re.fullmatch(r"sample:([A-Za-z0-9_-]{1,60})", dataset_id or "")
    path = match and PRESETS / "samples" / f"{match[1]}.yaml"
    if not path or not path.is_file():
        return None
    return Sample.model_validate(yaml.safe_load(path.read_text("utf-8")))
