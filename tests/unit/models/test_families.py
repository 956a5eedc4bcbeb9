"""A family that the installed transformers does not know is refused from its config.json, before a byte of weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import ModelError
from core.hub import download, peek
from core.messages import LANGUAGES
from core.models import families
from core.models.library import Models
from tests.kit.hub import FakeHub, tiny_model


def model(**config: object) -> dict[str, bytes]:
    return tiny_model() | {"config.json": json.dumps(config).encode()}


def test_the_list_of_transformers_is_read_without_it() -> None:
    assert {"llama", "qwen3_5", "qwen3_5_text", "gemma4", "mistral3", "gpt_oss", "granitemoehybrid"} <= families.known()
    assert len(families.known()) > 500 and "auto_model" not in families.known()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model_type": "qwen9_omni", "transformers_version": "9.1.0"}, "model.unknown_family"),
        ({"model_type": "qwen9_omni"}, "model.unknown_family_unsaid"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "model.encoder_decoder"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "model.encoder_decoder"),
        ({"model_type": "qwen2_5_omni"}, "model.no_text"),
        ({"model_type": "clip"}, "model.no_text"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "model.no_text"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "model.no_text"),
        ({"model_type": "strange", "auto_map": {"AutoConfig": "a.B"}}, "model.own_code"),
    ],
)
def test_no_byte_of_weights_is_fetched_of_a_family_that_cannot_be_trained(
    config: dict[str, object], key: str, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = download.fetch
    with FakeHub({"o/m": model(**config)}) as server:
        monkeypatch.setattr(download, "fetch", lambda *asked, **more: fetch(*asked, endpoint=server.url, **more))
        with pytest.raises(ModelError) as caught:
            models.obtain("o/m", None, lambda stage, progress: None, lambda: None)
        assert server.file_requests(".safetensors") == [] and server.file_requests("config.json")
    message = caught.value.message
    assert message.key == key and all("o/m" in message.render(language) for language in LANGUAGES)
    assert ("9.1.0" in message.render("en")) == (key == "model.unknown_family")


@pytest.mark.parametrize("content", [None, "not json", "[]"])
def test_a_config_that_is_none_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError) as caught:
        families.refuse("o/m", tmp_path)
    assert caught.value.message.key == "hub.bad_config"


def test_the_page_is_told_the_same_beforehand(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told by the run, after Start; and of T5 that its config.json lacks a width."""
    repos = []
    monkeypatch.setattr(
        peek,
        "fetch_config",
        lambda repo, revision: repos.append(repo) or {"model_type": "t5", "is_encoder_decoder": True},
    )
    refusal = models.refusal("o/m")
    assert refusal is not None and refusal.key == "model.encoder_decoder" and repos == ["o/m"]
    assert models.refusal("Qwen/Qwen3-4B") is None and repos == ["o/m"]  # one of the catalogue


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "qwen3_5"},
        {"model_type": "llama", "auto_map": {"AutoConfig": "a.B"}},  # its own code is not needed, and not run
        {"hidden_size": 8},
    ],
)
def test_a_known_family_is_not_refused(config: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    families.refuse("o/m", tmp_path)
