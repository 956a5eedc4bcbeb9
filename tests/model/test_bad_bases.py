"""Bases whose files are not what they seem: a sentence each, before a byte of weights where headers and config.json
tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.advice import plan
from core.data.tokenizer import Tokenizer
from core.engine import base_model
from core.errors import ModelError
from core.models.library import Models
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.process import Launcher
from core.runs.reporter import Reporter
from core.runs.states import State
from core.training import worker
from core.workspace.folder import Workspace
from tests.kit import families
from tests.kit.trainer import FP32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path) -> Path:
    return families.make("qwen3", tmp_path_factory.mktemp("bad") / "base", starter_folder)


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "library" / "base"))


def models(base: Path) -> Models:
    space = base.parent.parent
    (space / "settings.yaml").write_text(json.dumps({"library_folders": [str(base.parent)]}), "utf-8")
    return Models(Workspace.open(space))


def say(base: Path, **values: Any) -> None:
    config = json.loads((base / "config.json").read_text("utf-8"))
    (base / "config.json").write_text(json.dumps(config | values), "utf-8")


def obtain(base: Path) -> Path:
    return models(base).obtain("library:base", None, lambda stage, progress: None, lambda: None)


@pytest.mark.parametrize(
    ("field", "said"), [("num_hidden_layers", 6), ("num_hidden_layers", 2), ("hidden_size", 128), ("vocab_size", 50000)]
)
def test_a_config_that_lies_about_its_shape_is_refused_by_the_headers(base: Path, field: str, said: int) -> None:
    """Six layers were trained of which two were random, and two of which the rest was thrown away, without a word."""
    say(base, **{field: said})
    for ask in (obtain, lambda base: models(base).shape("library:base")):
        with pytest.raises(ModelError) as refused:
            ask(base)
        assert refused.value.message.key == "shape.untrue" and f"{field} is {said}" in str(refused.value)


@pytest.mark.parametrize(("field", "said"), [("intermediate_size", 128), ("tie_word_embeddings", False)])
def test_weights_that_are_not_there_are_not_made_up(base: Path, field: str, said: Any) -> None:
    """A head that no file holds was random."""
    say(base, **{field: said})
    with pytest.raises(ModelError) as refused:
        base_model.load(base, FP32, four_bit=False)
    assert refused.value.message.key == "model.lacks_weights"


def test_half_a_file_and_half_a_model_are_refused_by_the_headers(base: Path) -> None:
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError) as cut:
        obtain(base)
    assert cut.value.message.key == "shape.cut_short" and str(len(content)) in str(cut.value)
    (base / "model.safetensors").unlink()
    (base / "model-00001-of-00002.safetensors").write_bytes(content)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(ModelError) as half:
        obtain(base)
    assert half.value.message.key == "shape.missing_file" and "model-00002-of-00002.safetensors" in str(half.value)


def test_other_formats_beside_the_weights_change_nothing(base: Path) -> None:
    for name in ("pytorch_model.bin", "model-Q4_K_M.gguf", "consolidated.safetensors", "adapter_model.safetensors"):
        (base / name).write_bytes(b"no weights at all")
    before = models(base).shape("library:base")
    assert before.params == sum(p.numel() for p in base_model.load(obtain(base), FP32, four_bit=False).parameters())


def test_a_tokenizer_without_a_template_speaks_in_a_plain_one(base: Path) -> None:
    (base / "chat_template.jinja").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    assert Tokenizer(obtain(base)).prompt([{"role": "user", "content": "Hi"}])


def test_a_template_that_writes_nothing_ends_a_run_before_its_weights_are_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "chat_template.jinja").write_text("{# nothing #}", "utf-8")
    monkeypatch.setattr(base_model, "load_finite", lambda *_, **__: pytest.fail("weights were read"))
    space = models(base).workspace
    value = {"model": {"id": "library:base"}, "data": {"source": "sample:pirate_answers"}, "train": {"max_steps": 1}}
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command")
    with run.lock().acquire(timeout=10), Reporter(run, Launcher(run, space)) as reporter:
        worker.carry_out(run, space, reporter)
    status = run.status()
    assert status.state == State.FAILED and status.message is not None and "template" in status.message.render("en")
    assert status.message.key == "template.renders_nothing"
