"""What the page knows of the runs is what stands in their folders, also where a worker writes while they are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from webui.kit.wording import Wording
from webui.run import card
from webui.state.services import Services


def test_what_is_written_while_a_run_is_read_is_seen_by_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not until the run wrote again, which one that is over never does."""
    services = Services.open(Workspace.open(tmp_path))
    with ScriptedRun(services.workspace, "quick") as scripted:
        scripted.to(State.RUNNING).train(3)
        read = Runs.status

        def late(runs: Runs, run: RunFolder) -> Status:
            status = read(runs, run)
            if status.step == 3:
                scripted.train(2)
            return status

        monkeypatch.setattr(Runs, "status", late)
        assert [services.snapshots.now(fresh=True).rows[0].status.step for _ in range(2)] == [3, 5]


def test_a_run_that_an_export_keeps_waiting_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its card said "Waiting to start" for as long as the export took."""
    services, w = Services.open(Workspace.open(tmp_path)), Wording("en")
    with ScriptedRun(services.workspace, "behind") as scripted:
        for is_exporting, phase in ((True, "train_page.waits_for_export"), (False, "stage.waiting")):
            monkeypatch.setattr(services.exports, "has_live_worker", lambda is_exporting=is_exporting: is_exporting)
            view = services.snapshots.view(scripted.run.id)
            assert view is not None and w.t(phase) in card.card(view, w)


def test_a_checkpoint_that_a_person_copied_is_none(tmp_path: Path) -> None:
    """ "checkpoint-000020 - Copy" ended every look of every page, and the next start."""
    services = Services.open(Workspace.open(tmp_path))
    with ScriptedRun(services.workspace, "precious") as scripted:
        scripted.to(State.RUNNING).train(30).save(20)
    [saved] = scripted.run.checkpoints()
    shutil.copytree(saved, saved.with_name(f"{saved.name} - Copy"))
    shutil.copytree(saved, saved.with_name("checkpoint-"))
    assert [left.saved for left in services.snapshots.now(fresh=True).left] == [20] and scripted.run.saved_step() == 20
