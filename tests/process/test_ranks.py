"""A run on two ranks as the app starts it: torchrun's agent, two workers, one result (kills: tests/faults)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.advice import plan
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.trainer import losses
from tests.kit.waits import PATIENCE
from tests.kit.workers import at_work

LONG_S = 300 * PATIENCE


@pytest.mark.gate
def test_a_run_on_two_ranks_learns_what_one_process_learns(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    library = Workspace.open(tmp_path)

    def trained(**more: Any) -> RunFolder:
        value = {
            "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers", "max_length": 128},
            "adapter": {"r": 4},
            "train": {"max_steps": 4, "learning_rate": 1e-2, "sample_seconds": 0, **more},
        }  # fmt: skip
        run = Runs(library).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command")
        assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
        assert run.status().state == State.COMPLETED and run.has_adapter()
        return run

    one, two = trained(), trained(ranks=2)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    assert not at_work("core.training.ranks.rank_process", two.id) and not (two.path / "ranks.store").exists()
