"""Which model a GGUF file was made from, by what its store calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ModelError
from core.models.gguf_names import made_from
from core.models.library import Models
from core.workspace.folder import Workspace


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("Qwen3-4B-GGUF", "Qwen/Qwen3-4B"),  # LM Studio: lmstudio-community, unsloth
        ("Qwen_Qwen3-4B-GGUF", "Qwen/Qwen3-4B"),  # bartowski
        ("qwen3-4b-q4_k_m.gguf", "Qwen/Qwen3-4B"),
        ("Llama-3.2-3B-Instruct-Q8_0", "meta-llama/Llama-3.2-3B-Instruct"),
        ("llama3.2:3b", "meta-llama/Llama-3.2-3B-Instruct"),  # Ollama
        ("gemma3:4b", "google/gemma-3-4b-it"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "starter"),
        ("qwen3:latest", None),
        ("my-own-merge-GGUF", None),
        ("", None),
    ],
)
def test_a_name_tells_what_a_gguf_file_was_made_from(name: str, base: str | None) -> None:
    assert made_from(name) == base


@pytest.mark.parametrize("named", ["library:Qwen3-4B-Q8_0.gguf", "library:Qwen3-4B-Q8_0", "library:Qwen3-4B-GGUF"])
def test_a_gguf_file_of_the_library_names_what_is_trained_instead(tmp_path: Path, named: str) -> None:
    """It was "no model of the library", as if it were not there."""
    library = tmp_path / "library"
    (library / "Qwen3-4B-GGUF").mkdir(parents=True)
    for file in (library / "Qwen3-4B-Q8_0.gguf", library / "Qwen3-4B-GGUF" / "x.gguf"):
        file.write_bytes(b"GGUF")
    models = Models(Workspace(Workspace.open(tmp_path / "ws").root, (library,)))
    with pytest.raises(ModelError) as caught:
        models.shape(named)
    assert caught.value.message.key == "model.gguf_of" and "Qwen/Qwen3-4B" in caught.value.message.render("zh")
    for name in ("library:../library/Qwen3-4B-Q8_0.gguf", "library:none.gguf"):
        with pytest.raises(ModelError) as caught:
            models.shape(name)
        assert caught.value.message.key == "model.not_in_library"
