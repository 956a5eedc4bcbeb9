"""Reading of weights from safetensors files. Imports neither torch nor transformers by itself."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from safetensors import safe_open

from core import files

INDEX = "model.safetensors.index.json"
SAMPLES, SAMPLE_BYTES = 64, 1 << 16


def backend(system: str = os.name) -> str:
    """Return the backend with which safetensors opens files: "pread" on Windows (system "nt"), else "mmap".

    On Windows a file mapped copy-on-write reserves page file for its full size, 5 GB for a shard of 5 GB, and without
    page file every allocation of the process fails (os error 1455). There each tensor is read when needed.
    """
    return "pread" if system == "nt" else "mmap"


def open_tensors(file: Path, framework: str = "pt") -> safe_open:
    """Open a safetensors file for `with`: keys(), get_tensor(name), get_slice(name)."""
    return safe_open(file, framework, backend=backend())


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers would load, by the index, else model.safetensors, else all; a hub
    folder may hold a second copy under other names."""
    index = files.read_json(folder / INDEX)
    if isinstance(index, dict) and index.get("weight_map"):
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    one = folder / "model.safetensors"
    return [one] if one.exists() else sorted(folder.glob("*.safetensors"))


def sampled_fingerprint(folder: Path) -> str:
    """Return a fingerprint of a folder's weights: size, header and samples all over each file, 4 MiB of it; "" without
    files.

    Another fine-tune of the same shape differs at nearly every sample; a single changed number may go unnoticed.
    """
    digest, weights = hashlib.sha256(), weight_files(folder)
    for path in weights:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with open(path, "rb") as file:
            for i in range(SAMPLES):
                file.seek(i * size // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32] if weights else ""
