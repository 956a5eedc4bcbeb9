"""How weights are read from safetensors files. Imports neither torch nor transformers by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import safe_open


def backend(system: str = os.name) -> str:
    """Windows reserves page file for the whole of a file that is mapped copy-on-write, 5 GB for a shard of 5 GB, and where there is
    none left every allocation of the process fails (os error 1455). There a tensor is read when it is asked for."""
    return "pread" if system == "nt" else "mmap"


def open_tensors(file: Path, framework: str = "pt") -> Any:
    """A safetensors file, to be used in `with`: keys(), get_tensor(name), get_slice(name)."""
    return safe_open(file, framework, backend=backend())
