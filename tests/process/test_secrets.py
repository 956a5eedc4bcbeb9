"""A token of the hub is used and written nowhere: every file that the app and its workers leave is searched for it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from core.advice import plan
from core.errors import ModelError
from core.export.exports import Exports
from core.hub.token import HubToken
from core.queue.queue import Queue
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import TERMINAL, State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import hub, tabs
from tests.kit.waits import wait_until

FROM_SHELL, FROM_BOX = "hf_plantedInTheShellOfTheTest", "hf_plantedInTheBoxOfThePage"


def predict(app: kit.App, fn: int, data: list[Any]) -> str:
    body = json.dumps({"fn_index": fn, "data": data, "session_hash": "secrets"}).encode()
    request = urllib.request.Request(app.url + "/gradio_api/run/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def test_a_token_reaches_the_hub_and_no_file(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "settings.yaml").write_text(
        json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8"
    )
    workspace = Workspace.open(tmp_path / "workspace")
    with hub.FakeHub({"owner/gated": hub.tiny_model()}) as server:
        server.gated = True
        places = {name: str(tmp_path / "tmp") for name in ("TMPDIR", "TEMP", "TMP")} | {"HF_HOME": str(tmp_path / "hf")}
        (tmp_path / "tmp").mkdir()
        endpoints = {"HF_ENDPOINT": server.url, "NO_PROXY": "127.0.0.1,localhost", "HF_TOKEN": FROM_SHELL}
        app = kit.start_app(workspace.root, **places, **endpoints, **kit.ENGLISH)
        try:
            refused(workspace)
            assert any(FROM_SHELL in str(token) for token in server.tokens), (
                "the shell's token was not used: nothing is tested"
            )
            page = tabs.draw(app.url, "secrets")
            box = next(part["id"] for part in page.components if part["props"].get("elem_id") == "hub-token")
            take = next(fn["id"] for fn in page.fns if fn["inputs"] == [box] and fn["backend_fn"])
            assert "hf_" not in predict(app, take, [FROM_BOX])
            refused(workspace)
            assert any(FROM_BOX in str(token) for token in server.tokens), "the box's token did not reach the worker"
            assert FROM_BOX not in urllib.request.urlopen(app.url + "/config").read().decode()
            run = begun(workspace, "library:tiny")
            wait_until(lambda: run.status().state in TERMINAL, 120)
            assert run.status().state == State.COMPLETED, run.log_tail()
        finally:
            app.stop()
        with monkeypatch.context() as shell:
            for name, value in (places | endpoints).items():
                shell.setenv(name, value)
            for kind in ("merged", "adapter") if full else ("merged",):
                assert Exports(workspace).start(run, kind).wait(600).state == "done"
    assert "serving" in workspace.log.read_text("utf-8"), "the log is one of the files that are searched"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert FROM_SHELL.encode() not in content and FROM_BOX.encode() not in content, path
            assert b"plantedIn" not in str(path).encode()


def begun(workspace: Workspace, model: str) -> RunFolder:
    """A run whose turn it is, for the app to find."""
    recipe = {"model": {"id": model}, "data": {"source": "sample:pirate_answers"}, "train": {"max_steps": 2}}
    run = Runs(workspace).create(plan.resolve(Recipe.parse(recipe), model, has_card=False), "app")
    line = Queue(workspace)
    with line.locked():
        line.add(run.id, [], None, now=True)
    return run


def refused(workspace: Workspace) -> None:
    """A run that asks the hub for a gated model, to its end: this hub accepts nobody."""
    run = begun(workspace, "owner/gated")
    wait_until(lambda: run.status().state in TERMINAL, 120)
    assert "hub.gated_token" in (run.path / "state.json").read_text("utf-8")


@pytest.mark.parametrize(
    "given",
    ["", " ", None, 7, ["hf_abcdefgh"], "short", "two words here", "x" * 600, "hf_ab\ncdefgh", "令牌令牌令牌令牌"],
)
def test_what_is_no_token_is_refused_without_being_repeated(monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", FROM_SHELL)
    token = HubToken()
    with pytest.raises(ModelError) as caught:
        token.give(given)
    assert (
        not (isinstance(given, str) and len(given) > 4 and given in str(caught.value))
        and token.source() == "environment"
    )


def test_forgetting_brings_back_what_the_shell_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("HF_TOKEN", FROM_SHELL)
    token = HubToken()
    token.give(FROM_BOX)
    assert os.environ["HF_TOKEN"] == FROM_BOX and token.source() == "given"
    token.forget()
    assert os.environ["HF_TOKEN"] == FROM_SHELL and token.source() == "environment"
