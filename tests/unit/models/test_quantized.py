"""Repositories that are quantised already: bitsandbytes', FP8 and MXFP4 are trained, others are refused before a byte
of their weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import ModelError
from core.hub import download, peek
from core.messages import LANGUAGES
from core.models import quantized
from core.models.library import Models
from core.models.shapes.shape import ModelShape
from core.workspace.folder import Workspace
from tests.kit.hub import FakeHub, tiny_model

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 1000,
}  # fmt: skip
CARD = "---\nlicense: mit\nbase_model:\n- {base}\nbase_model_relation: quantized\n---\n# A model\n"


def repository(method: str | None, card: str = "# A model", **more: object) -> dict[str, bytes]:
    config = LLAMA | ({"quantization_config": {"quant_method": method} | more} if method else {})
    return tiny_model() | {"config.json": json.dumps(config).encode(), "README.md": card.encode()}


def asking(models: Models, server: FakeHub, model_id: str, monkeypatch: pytest.MonkeyPatch) -> Path | ModelError:
    """What `obtain` answers, from that hub."""
    fetch, start = download.fetch, peek.fetch_start
    monkeypatch.setattr(download, "fetch", lambda *asked, **more: fetch(*asked, endpoint=server.url, **more))
    monkeypatch.setattr(
        peek,
        "fetch_start",
        lambda repo, name, revision=None, _=None, first=None: start(repo, name, revision, server.url, first),
    )
    monkeypatch.setattr("core.models.library.check_folder", lambda folder, model_id: folder)
    try:
        return models.obtain(model_id, None, lambda stage, progress: None, lambda: None)
    except ModelError as error:
        return error


@pytest.mark.parametrize("method", ["gptq", "awq", "fbgemm_fp8", "compressed-tensors", "hqq", "something-new"])
def test_no_byte_of_weights_that_cannot_be_trained_is_fetched(
    method: str, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in the code: gigabytes for hours, then "cannot be loaded"; or 20 GB that became 40 on the card."""
    with FakeHub({"o/m": repository(method, CARD.format(base="maker/Model-7B"))}) as server:
        error = asking(models, server, "o/m", monkeypatch)
        assert server.file_requests(".safetensors") == [] and server.file_requests("config.json")
    assert (error.message.key, error.message.params["base"]) == ("model.quantised_of", "maker/Model-7B")
    assert all(
        word in error.message.render(language) for language in LANGUAGES for word in (method, "maker/Model-7B", "QLoRA")
    )


@pytest.mark.parametrize(
    "config",
    [{"load_in_4bit": True}, {"load_in_8bit": True}, {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "fp8"},
     {"quant_method": "mxfp4"}],
)  # fmt: skip
def test_what_can_be_trained_is_fetched(config: dict, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny_model() | {"config.json": json.dumps(LLAMA | {"quantization_config": config}).encode()}
    with FakeHub({"o/m": files}) as server:
        assert (asking(models, server, "o/m", monkeypatch) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "card",
    ["", "---", "---\n: [\n---\n", "---\n- a list\n---\n", "text\n---\nbase_model: maker/Model\n---\n",
        "---\nbase_model: 7\n---\n",
     "---\nbase_model: ../../etc\n---\n", "---\nbase_model: o/m\n---\n", "---\nbase_model: maker/Model-AWQ\n---\n"],
)  # fmt: skip
def test_a_card_that_tells_nothing_names_nothing(card: str) -> None:
    assert quantized.original_of("o/m", {}, card) is None


@pytest.mark.parametrize(
    ("relation", "base", "expected"),
    [
        ("quantized", "maker/Model", "maker/Model"),
        ("quantized", "maker/Packed-AWQ", None),  # quantised itself: it would be refused next
        ("quantized", "maker/Gone", "maker/Gone"),
        ("finetune", "maker/Model", None),  # its parent, another model
        ("merge", "maker/Model", None),
    ],
)
def test_what_a_card_names_is_looked_at(
    relation: str, base: str, expected: str | None, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CARD.format(base=base).replace("relation: quantized", f"relation: {relation}")
    with FakeHub({"o/m": repository("gptq", card)}) as server:
        error = asking(models, server, "o/m", monkeypatch)
    assert error.message.params.get("base") == expected


def test_an_older_config_names_what_it_was_made_of() -> None:
    assert quantized.original_of("library:m", {"_name_or_path": "maker/Model"}, "") == "maker/Model"
    assert quantized.original_of("library:m", {"_name_or_path": "/home/somebody/model"}, "") is None


def test_a_folder_of_the_library_is_refused_and_its_card_read(tmp_path: Path, models: Models) -> None:
    folder = tmp_path / "library" / "packed"
    folder.mkdir(parents=True)
    for name, content in repository("awq", CARD.format(base="maker/Model-7B")).items():
        (folder / name).write_bytes(content)
    (models.workspace.root / "settings.yaml").write_text(json.dumps({"library_folders": [str(folder.parent)]}), "utf-8")
    models = Models(Workspace.open(models.workspace.root))
    with pytest.raises(ModelError) as caught:
        models.obtain("library:packed", None, lambda stage, progress: None, lambda: None)
    assert (
        caught.value.message.params["base"] == "maker/Model-7B"
        and models.refusal("library:packed") == caught.value.message
    )
    # a chat
    assert models.obtain("library:packed", None, lambda stage, progress: None, lambda: None, to_train=False) == folder


@pytest.mark.parametrize(("method", "trained"), [(None, True), ("bitsandbytes", True), ("fp8", True), ("gptq", False)])
def test_a_shape_tells_how_its_repository_is_quantised(method: str | None, trained: bool) -> None:
    config = LLAMA | ({"quantization_config": {"quant_method": method}} if method else {})
    shape = ModelShape.from_config(config)
    assert shape.quantized == method and quantized.can_train(shape.quantized) is trained
