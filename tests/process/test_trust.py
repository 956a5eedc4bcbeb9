"""Python that a model brings with it: never run unasked, and only exactly as it was trusted on the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.commands import trust as trust_command
from core.errors import ModelError
from core.hub import cached, hub_errors, peek
from core.models.library import Models
from core.models.trust import Trust
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


def command(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "core.commands", "trust", *arguments, "--workspace", str(workspace.root)]
    environment = os.environ | {"LORA_GARAGE_LANG": "en"}
    # what a worker needs: a command is forked (tests/kit/warm) where it reads no such setting
    del environment["HF_MODULES_CACHE"]
    return subprocess.run(
        line, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


def refusal(workspace: Workspace, model: str = MODEL) -> str:
    with pytest.raises(ModelError) as caught:
        Models(workspace).obtain(model, None, lambda stage, progress: None, lambda: None)
    return caught.value.message.key


class NullDeviceOfWindows(io.StringIO):
    """Empty, and a terminal: what isatty says of NUL (Microsoft's documentation of _isatty: a character device)."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_on_windows_it_says_how_to_trust(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It asked, met the end of the input and ended with 130, as if somebody had broken off."""
    monkeypatch.setattr(sys, "stdin", NullDeviceOfWindows())
    assert trust_command._confirmed(MODEL) is False
    assert "--yes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_models_own_python_runs_only_as_it_was_trusted(workspace: Workspace, tmp_path: Path) -> None:
    code = tmp_path / "library" / "strange" / "modeling_strange.py"
    assert refusal(workspace) == "trust.needed"
    asked = command(workspace, MODEL)
    assert asked.returncode == 1 and "modeling_strange.py" in asked.stdout and refusal(workspace) == "trust.needed"
    assert command(workspace, MODEL, "--yes").returncode == 0
    assert not (tmp_path / "ran").exists(), "showing it ran it"

    recipe = {
        "model": {"id": MODEL},
        "data": {"source": "sample:pirate_answers"},
        "train": {"max_steps": 1, "sample_seconds": 0},
    }
    run = Runs(workspace).create(Recipe.parse(recipe), "test")
    assert spawn_worker(workspace, run).wait(600) == 0, run.log_tail()
    assert (tmp_path / "ran").read_text() == "ran" and run.status().state == State.COMPLETED

    (tmp_path / "ran").unlink()
    good = code.read_text("utf-8")
    code.write_text(good + "\n# one more line\n", "utf-8")
    assert refusal(workspace) == "trust.changed"
    code.write_text(good, "utf-8")
    (code.parent / "more").mkdir()
    (code.parent / "more" / "helper.py").write_text("", "utf-8")
    assert refusal(workspace) == "trust.added"
    shutil.rmtree(code.parent / "more")
    code.unlink()
    assert refusal(workspace) == "trust.gone"
    code.write_text(good, "utf-8")
    assert command(workspace, MODEL, "--forget").returncode == 0 and refusal(workspace) == "trust.needed"
    assert not (tmp_path / "ran").exists()


def test_the_same_model_runs_its_python_where_transformers_is_simply_told_to(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The attack of the test above, where nobody stands in its way: else that one would hold nothing back."""
    from transformers import AutoConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        AutoConfig.from_pretrained(tmp_path / "library" / "strange", trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_python_of_yet_another_repository_is_refused_even_when_trusted(workspace: Workspace, tmp_path: Path) -> None:
    config = tmp_path / "library" / "strange" / "config.json"
    elsewhere = {"AutoModelForCausalLM": "other/repository--modeling.Strange"}
    config.write_text(json.dumps({"model_type": "garage_strange", "auto_map": elsewhere}), "utf-8")
    Trust(workspace).pin(MODEL, {"modeling_strange.py": "0"})
    assert refusal(workspace) == "trust.foreign"


def test_on_the_hub_it_is_refused_before_its_weights_and_trusted_by_the_files_of_its_commit(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_type": "garage_strange", "auto_map": AUTO_MAP}
    files = tiny_model() | {
        "config.json": json.dumps(config).encode(),
        "modeling_strange.py": CODE.encode(),
        "setup.sh": b"rm",
    }
    with FakeHub({"owner/model": files}) as server:
        # Not the library's own constants: hf_hub_url has a template of the real address from its import.
        here = vars(hub_errors.constants) | {"ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        for module in (hub_errors, cached):
            monkeypatch.setattr(module, "constants", SimpleNamespace(**here))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert refusal(workspace, "owner/model") == "trust.needed"
        assert not any("safetensors" in asked for asked in server.file_requests())
        found, commit = peek.python_files("owner/model", None)
        assert list(found) == ["modeling_strange.py"] and len(commit) == 40
        Trust(workspace).pin("owner/model", {name: "0" * 64 for name in found})
        assert refusal(workspace, "owner/model") == "trust.changed"
        from core.models.trust import sha256

        Trust(workspace).pin("owner/model", {name: sha256(content) for name, content in found.items()})
        folder = Models(workspace).obtain("owner/model", None, lambda stage, progress: None, lambda: None)
        assert (
            Trust(workspace).allows("owner/model", folder)
            and (folder / "modeling_strange.py").read_bytes() == CODE.encode()
        )
    assert not (tmp_path / "ran").exists()


def test_there_is_no_way_to_trust_from_the_page() -> None:
    webui = PROJECT / "webui"
    for path in webui.rglob("*.py"):
        source = path.read_text("utf-8")
        assert "trust_remote_code" not in source and "core.models.trust" not in source and "own_code" not in source, (
            path.name
        )
    assert "trust" not in json.dumps(Recipe.model_json_schema()).lower()


@pytest.mark.parametrize(
    "arguments", [["starter"], ["../x", "--yes"], ["library:nothing", "--yes"], ["http://x/y", "--yes"]]
)
def test_what_cannot_be_trusted_is_said_in_a_sentence(workspace: Workspace, arguments: list[str]) -> None:
    result = command(workspace, *arguments)
    assert (
        result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1 and not Trust(workspace).file.exists()
    )
