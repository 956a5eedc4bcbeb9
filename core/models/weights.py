"""How weights are read from safetensors files. Imports neither torch nor transformers by itself."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open

from core import files

INDEX = "model.safetensors.index.json"
SAMPLES, SAMPLE_BYTES = 64, 1 << 16


def backend(system: str = os.name) -> str:
    """Windows reserves page file for the whole of a file that is mapped copy-on-write, 5 GB for a shard of 5 GB, and
    where there is none left every allocation of the process fails (os error 1455). There a tensor is read when it is
    asked for."""
    return "pread" if system == "nt" else "mmap"


def open_tensors(file: Path, framework: str = "pt") -> Any:
    """A safetensors file, to be used in `with`: keys(), get_tensor(name), get_slice(name)."""
    return safe_open(file, framework, backend=backend())


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load; a hub folder may hold a second copy under other names."""
    index = files.read_json(folder / INDEX)
    if isinstance(index, dict) and index.get("weight_map"):
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    one = folder / "model.safetensors"
    return [one] if one.exists() else sorted(folder.glob("*.safetensors"))


def sampled(folder: Path) -> str:
    """A fingerprint of a folder's weights: the size, the header and places all over each file, 4 MiB of it. Another
    fine-tune of the same shape differs at nearly every place; one number that was changed may not be seen. "" without
    such files."""
    found, weights = hashlib.sha256(), weight_files(folder)
    for path in weights:
        size = path.stat().st_size
        found.update(str(size).encode())
        with open(path, "rb") as file:
            for i in range(SAMPLES):
                file.seek(i * size // SAMPLES)
                found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()[:32] if weights else ""
