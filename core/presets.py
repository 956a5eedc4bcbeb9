"""The location of the data that ships with the app (presets/); each room reads its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.messages import PACKED, unpacked_yaml

PROJECT = Path(__file__).resolve().parent.parent
PRESETS = PROJECT / "presets"


def load(name: str) -> Any:
    """Parse presets/<name>.yaml, which a release may have packed."""
    file = PRESETS / f"{name}.yaml"
    return unpacked_yaml(file if file.exists() else file.with_name(file.name + PACKED))
