"""LoRA Garage in Python: `inspect`, `plan`, `train`, `load` and `evaluate` (docs/python.md), which core/api holds.

In a checkout this is a module beside `core`. In the wheel it is the package lora_garage itself, in which core, webui,
presets and launch.py lie side by side as in a checkout; by it they know that pip or uv made their environment
(`core.INSTALLED`, launch.py). The command is `lora-garage`.

Nothing of ours is loaded before a function is asked for, and no torch then: that stays in processes of their own.
"""

import sys
from importlib import import_module, util
from pathlib import Path

_PLACES = {
    "inspect": "core.api.inspecting",
    "plan": "core.api.planning",
    "train": "core.api.training",
    "load": "core.api.loading",
    "evaluate": "core.api.evaluating",
    "Choices": "core.data.reading.choices",
    "GarageError": "core.errors",
}
__all__ = [*_PLACES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """Return what is offered under name, and load it first. Raises ImportError where another package is named core."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = Path(__file__).resolve().parent / "core" / "__init__.py"
    if "core" not in sys.modules:  # not by sys.path, on which our other folders would come too
        spec = util.spec_from_file_location("core", place)
        sys.modules["core"] = util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["core"])
    elif (found := sys.modules["core"].__file__) is None or Path(found).resolve() != place:
        raise ImportError(
            f"lora_garage has a package named core, and {found} is loaded as core: import lora_garage first"
        )
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
