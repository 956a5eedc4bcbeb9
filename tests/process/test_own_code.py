"""Python that a model brings with it never runs: neither before a download, nor in a load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import ModelError
from core.hub import cached, hub_errors
from core.models.library import Models
from core.presets import PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.hub import FakeHub, tiny_model

MODEL = "library:strange"
CODE = """
import os, pathlib
from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path(os.environ["RAN"]).write_text("ran")

class StrangeConfig(LlamaConfig):
    model_type = "garage_strange"

class StrangeForCausalLM(LlamaForCausalLM):
    config_class = StrangeConfig
"""
AUTO_MAP = {
    "AutoConfig": "modeling_strange.StrangeConfig",
    "AutoModelForCausalLM": "modeling_strange.StrangeForCausalLM",
}


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A library with a model that works by its own Python alone; that Python leaves a file behind when it runs."""
    folder = tmp_path / "library" / "strange"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "garage_strange", "architectures": ["StrangeForCausalLM"], "auto_map": AUTO_MAP}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "modeling_strange.py").write_text(CODE, "utf-8")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(
        json.dumps({"library_folders": [str(tmp_path / "library")]}), "utf-8"
    )
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return Workspace.open(tmp_path / "ws")


def refusal(workspace: Workspace, model: str = MODEL) -> str:
    with pytest.raises(ModelError) as caught:
        Models(workspace).obtain(model, None, lambda stage, progress: None, lambda: None)
    return caught.value.message.key


def test_a_run_with_a_model_that_needs_its_own_python_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    assert refusal(workspace) == "model.own_code"
    recipe = {
        "model": {"id": MODEL},
        "data": {"source": "sample:pirate_answers"},
        "train": {"max_steps": 1, "sample_seconds": 0},
    }
    run = Runs(workspace).create(Recipe.parse(recipe), "test")
    assert spawn_worker(workspace, run).wait(600) != 0
    status = run.status()
    assert status.state == State.FAILED and status.message and status.message.key == "model.own_code"
    assert not (tmp_path / "ran").exists()


def test_the_same_python_runs_where_transformers_is_told_to(workspace: Workspace, tmp_path: Path) -> None:
    """The attack of the test above without a defence: else that one would hold nothing back."""
    from transformers import AutoConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        AutoConfig.from_pretrained(tmp_path / "library" / "strange", trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_a_load_runs_no_python_of_a_folder_that_passed_every_check(workspace: Workspace, tmp_path: Path) -> None:
    import torch

    from core.engine import base_model
    from core.engine.device import Compute
    from core.messages import msg

    compute = Compute(torch.device("cpu"), torch.float32, msg("device.cpu_fp32"))
    with pytest.raises(ModelError):
        base_model.load(tmp_path / "library" / "strange", compute, four_bit=False)
    assert not (tmp_path / "ran").exists()


def test_on_the_hub_it_is_refused_before_its_weights(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_type": "garage_strange", "auto_map": AUTO_MAP}
    files = tiny_model() | {"config.json": json.dumps(config).encode(), "modeling_strange.py": CODE.encode()}
    with FakeHub({"owner/model": files}) as server:
        # Not the library's own constants: hf_hub_url has a template of the real address from its import.
        values = vars(hub_errors.constants) | {"ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        for module in (hub_errors, cached):
            monkeypatch.setattr(module, "constants", SimpleNamespace(**values))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert refusal(workspace, "owner/model") == "model.own_code"
        assert not any("safetensors" in asked or asked.endswith(".py") for asked in server.file_requests())
    assert not (tmp_path / "ran").exists()


def test_the_page_and_recipes_have_no_way_to_allow_it() -> None:
    for room in ("webui", "core"):
        for path in (PROJECT / room).rglob("*.py"):
            assert "trust_remote_code=True" not in path.read_text("utf-8").replace(" ", ""), path.name
    assert "trust" not in json.dumps(Recipe.model_json_schema()).lower()
