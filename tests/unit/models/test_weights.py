"""How weights are read: through one door, which maps nothing copy-on-write on Windows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.models import weights
from core.presets import PROJECT
from tests.kit.source import tree_of


def test_windows_reserves_no_page_file_for_weights_that_are_read() -> None:
    """Seen in the code: 5 GB of page file for a shard of 5 GB, and "os error 1455" where there was none left."""
    assert (weights.backend("nt"), weights.backend("posix")) == ("pread", "mmap")


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_what_is_read_is_what_was_written_on_both(tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"a": torch.arange(12, dtype=torch.bfloat16).reshape(4, 3), "b": torch.tensor(3.5)}
    save_file(tensors, tmp_path / "x.safetensors")
    monkeypatch.setattr(weights, "backend", lambda backend=weights.backend: backend(system))
    with weights.open_tensors(tmp_path / "x.safetensors") as file:
        assert torch.equal(file.get_tensor("a"), tensors["a"]) and torch.equal(
            file.get_slice("a")[1:3], tensors["a"][1:3]
        )
        assert file.get_tensor("b") == 3.5
    assert torch.equal(load_file(tmp_path / "x.safetensors", backend=weights.backend())["a"], tensors["a"])


def test_every_file_of_weights_is_opened_that_way() -> None:
    opened = []
    for path in (PROJECT / "core").rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("safe_open", "load_file"):
                opened.append(path)
                assert [keyword.arg for keyword in node.keywords] == ["backend"], path
    assert len(opened) > 3, "the search finds them"
