"""How a model leaves, told from its config.json: the catalogue's, and by a llama.cpp of the person's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ExportError
from core.export.llamacpp import tools
from core.export.llamacpp.ways_out import LISTS, way_of, way_out
from core.messages import LANGUAGES
from core.models.known import known_models
from core.workspace.folder import Workspace

OWN = 'TEXT_MODEL_MAP: dict[str, str] = {"Lfm3ForCausalLM": "lfm3"}\nMMPROJ_MODEL_MAP: dict[str, str] = {"SeesForAll": "x"}\n'
LFM3 = {"model_type": "lfm3", "architectures": ["Lfm3ForCausalLM"]}


def test_none_of_the_catalogue_is_without_gguf_and_without_its_reason() -> None:
    ways = {model.id: way_of(model) for model in known_models()}
    assert all((way.best == "gguf") == (way.why is None) for way in ways.values())
    assert [name for name, way in ways.items() if way.best != "gguf"] == ["lfm3-1.7b"]
    assert ways["qwen3.5-4b"].tower and not ways["llama-3.2-1b-instruct"].tower
    why = ways["lfm3-1.7b"].why
    assert why and all("b11960" in why.render(language) and "{" not in why.render(language) for language in LANGUAGES)


@pytest.mark.parametrize(
    ("config", "own", "best"),
    [
        ({"model_type": "muse_glimmer_text"}, None, "gguf"),
        ({"model_type": "zamba2"}, None, "merged"),
        ({"model_type": ["llama"]}, None, "merged"),
        ({}, None, "merged"),
        (LFM3, OWN, "gguf"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, OWN, "merged"),
        ({"model_type": "x", "architectures": ["SeesForAll"], "text_config": {"architectures": ["Lfm3ForCausalLM"]}}, OWN, "gguf"),
        (LFM3, "raise SystemExit", "merged"),  # lists of another make: what we know stands
        (LFM3, "def (", "merged"),
    ],
)
def test_a_family_is_known_or_its_reason_is_said(config: dict, own: str | None, best: str, tmp_path: Path) -> None:
    if own:
        (tmp_path / LISTS).parent.mkdir()
        (tmp_path / LISTS).write_text(own, "utf-8")
    way = way_out(config, tmp_path if own else None)
    assert way.best == best and (way.why is None) == (best == "gguf")
    assert way.tower == ("SeesForAll" in str(config))


def test_what_llama_cpp_does_not_know_is_said_before_anything_is_fetched_or_merged(tmp_path: Path) -> None:
    """Seen: a family was refused only once it had been merged, minutes later."""
    workspace = Workspace.open(tmp_path / "w")
    (tmp_path / "config.json").write_text('{"model_type": "lfm3"}', "utf-8")
    with pytest.raises(ExportError) as error:
        tools.see_family(workspace, tmp_path)
    assert error.value.message.key == "gguf.newer" and not (workspace.root / "tools").exists()
