"""A run as a download: what arrives is opened elsewhere as it was, and nothing of it stays here."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from core.data.store import DatasetStore
from core.presets import PRESETS
from core.runs.away import packed
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts, TrainedOn
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun, trained
from webui.server.guard import LOOPBACK, Guard
from webui.server.run_file import ASIDE, RunFile, address

ROWS = '{"question": "Where is the key?", "answer": "Below the mat."}\n' * 3


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


@pytest.fixture
def store(space: Workspace) -> DatasetStore:
    return DatasetStore(space.datasets, PRESETS, space.library_folders)


@pytest.fixture
def client(space: Workspace, store: DatasetStore) -> TestClient:
    layers = [Middleware(Guard, hosts=(*LOOPBACK, "testserver")), Middleware(RunFile, store=store, workspace=space)]
    return TestClient(Starlette(middleware=layers))


@pytest.fixture
def run(space: Workspace, store: DatasetStore) -> RunFolder:
    """Of a set of the person's own."""
    file = space.root / "mine.jsonl"
    file.write_text(ROWS, "utf-8")
    made = trained(space, "Pirat ä 1")
    made.add_facts(RunFacts(data=TrainedOn(id=store.import_file(file).id, name="mine", rows=3)))
    return made


@pytest.mark.parametrize("with_data", [True, False])
def test_it_is_opened_elsewhere_and_nothing_of_it_stays(
    with_data: bool, run: RunFolder, space: Workspace, client: TestClient, tmp_path: Path
) -> None:
    answer = client.get(address(run.id, "en", with_data))
    assert answer.status_code == 200 and ".zip" in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store" and list((space.root / ASIDE).iterdir()) == []
    file, elsewhere = tmp_path / "taken.zip", Workspace.open(tmp_path / "elsewhere")
    file.write_bytes(answer.content)
    opened = packed.unpack(elsewhere, file)
    assert (
        opened.id == run.id
        and (opened.adapter / "adapter_model.safetensors").read_bytes()
        == (run.adapter / "adapter_model.safetensors").read_bytes()
    )
    assert any(elsewhere.datasets.iterdir()) == with_data


def test_what_is_not_here_is_at_work_or_asked_by_a_stranger_is_a_sentence(
    run: RunFolder, space: Workspace, client: TestClient
) -> None:
    for id in ("../../secret", "2026-01-01_none_abcdef", ""):
        answer = client.get(address(id, "zh", True))
        assert answer.status_code == 404 and answer.text
    assert client.get(address(run.id, "en", True), headers={"origin": "http://evil.example"}).status_code == 403
    with ScriptedRun(space, "at work") as other:
        other.to(State.RUNNING)
        answer = client.get(address(other.run.id, "en", True))
    assert answer.status_code == 404 and "cannot be packed" in answer.text
    assert not list((space.root / ASIDE).glob("*"))


def test_what_a_killed_app_was_sending_is_gone_at_the_next_start(space: Workspace, store: DatasetStore) -> None:
    (space.root / ASIDE / "a").mkdir(parents=True)
    (space.root / ASIDE / "a" / "run.zip").write_bytes(b"half")
    RunFile(Starlette(), store, space)
    assert not (space.root / ASIDE).exists()
