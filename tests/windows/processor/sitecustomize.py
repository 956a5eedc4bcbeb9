"""Imported by each Python whose PYTHONPATH names this folder: there torch says that the processor has the instructions
AVX512_BF16 ("1") or has not ("0"), as the variable LORA_GARAGE_TEST_BF16 wants it."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class Processor:
    """Finds torch.cpu, and changes it once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: list[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "torch.cpu" else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            module.__dict__["_is_avx512_bf16_supported"] = lambda: os.environ["LORA_GARAGE_TEST_BF16"] == "1"
            module.__dict__["_is_amx_tile_supported"] = lambda: False

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Processor)
