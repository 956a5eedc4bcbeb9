"""The location of the data that ships with the app (presets/); each room reads its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from core.messages import YAML_LOADER

PROJECT = Path(__file__).resolve().parent.parent
PRESETS = PROJECT / "presets"


def load(name: str) -> Any:
    """Parse presets/<name>.yaml."""
    return yaml.load((PRESETS / f"{name}.yaml").read_text("utf-8"), YAML_LOADER)
