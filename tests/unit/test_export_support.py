"""How a model leaves, told from its config.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import files
from core.errors import ExportError
from core.export.llamacpp import child, convert, tools
from core.export.llamacpp.export_support import export_support, support_of_known
from core.export.llamacpp.hub_config import to_hub_config
from core.messages import LANGUAGES
from core.models.known import known_models
from core.workspace.folder import Workspace


def test_none_of_the_catalogue_is_without_gguf_and_without_its_reason() -> None:
    ways = {model.id: support_of_known(model) for model in known_models()}
    assert all((way.best == "gguf") == (way.why is None) for way in ways.values())
    assert [name for name, way in ways.items() if way.best != "gguf"] == ["lfm3-1.7b"]
    why = ways["lfm3-1.7b"].why
    assert why and all("b11960" in why.render(language) and "{" not in why.render(language) for language in LANGUAGES)


@pytest.mark.parametrize(
    ("config", "best"),
    [
        ({"model_type": "muse_glimmer_text"}, "gguf"),
        ({"model_type": "zamba2"}, "merged"),
        ({"model_type": ["llama"]}, "merged"),
        ({}, "merged"),
    ],
)
def test_a_family_is_known_or_its_reason_is_said(config: dict, best: str) -> None:
    way = export_support(config)
    assert way.best == best and (way.why is None) == (best == "gguf")


def test_what_llama_cpp_does_not_know_is_said_before_anything_is_fetched_or_merged(tmp_path: Path) -> None:
    """Seen: a family was refused only once it had been merged, minutes later."""
    workspace = Workspace.open(tmp_path / "w")
    (tmp_path / "config.json").write_text('{"model_type": "lfm3"}', "utf-8")
    with pytest.raises(ExportError) as error:
        tools.check_family(tmp_path)
    assert error.value.message.key == "gguf.newer" and not (workspace.root / "tools").exists()


def test_a_config_that_transformers_5_has_read_is_said_in_the_hubs_words() -> None:
    """Seen: Nemotron-H's state spaces were looked for in layers of attention, Command R7B and Gemma 4 12B ended in a
    KeyError."""
    kinds = ["linear_attention", "moe", "full_attention", "mlp"]
    assert to_hub_config({"model_type": "nemotron_h", "layers_block_type": kinds})["hybrid_override_pattern"] == "ME*-"
    dense = to_hub_config(
        {"model_type": "nemotron_h", "layers_block_type": ["linear_attention", "mlp"], "num_experts_per_tok": 2}
    )
    assert dense["hybrid_override_pattern"] == "M-" and "num_experts_per_tok" not in dense
    granite = {"model_type": "granitemoehybrid", "layer_types": ["linear_attention", "attention"]}
    assert to_hub_config(granite)["layer_types"] == ["mamba", "attention"]
    assert to_hub_config({"architectures": ["PhimoeForCausalLM"]})["architectures"] == ["PhiMoEForCausalLM"]
    assert to_hub_config({"model_type": "cohere2"})["rotary_pct"] == 1.0
    assert to_hub_config({"text_config": {"model_type": "gemma4_text"}})["text_config"]["moe_intermediate_size"] is None
    assert to_hub_config({"model_type": "gemma4_text", "moe_intermediate_size": 32})["moe_intermediate_size"] == 32


def test_code_that_a_config_names_and_that_is_not_there_is_taken_out_of_it(tmp_path: Path) -> None:
    """Seen: Phi-4-mini, a family of transformers' own by now, was refused for the code that its config.json still
    names."""
    (tmp_path / "config.json").write_text(
        '{"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "model_type": "phi3"}', "utf-8"
    )
    convert._refuse_code(tmp_path)
    assert files.read_object(tmp_path / "config.json") == {"model_type": "phi3"}
    (tmp_path / "config.json").write_text('{"text_config": {"auto_map": {}}}', "utf-8")
    with pytest.raises(child.Refused):
        convert._refuse_code(tmp_path)
