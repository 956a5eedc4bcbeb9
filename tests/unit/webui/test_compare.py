"""The table of runs and what lays some over each other: no browser."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.messages import msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import Parent, RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from webui.kit.wording import Wording
from webui.run import compare
from webui.state.curves import Curves
from webui.state.services import Services
from webui.state.snapshot import COURSE_POINTS, course

EN, ZH = Wording("en"), Wording("zh")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    with ScriptedRun(Workspace.open(tmp_path / "workspace"), "one") as made:
        made.to(State.RUNNING)
    return made.run


def write(run: RunFolder, *records: dict[str, Any]) -> None:
    lines = [json.dumps({"v": 1, "kind": "train", "attempt": 1} | record) for record in records]
    (run.path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8")


def test_a_course_has_a_few_points_of_a_long_run_its_first_and_its_last(run: RunFolder) -> None:
    write(run, *({"step": step, "loss": float(step), "grad_norm": 1.0, "time": 0} for step in range(1, 20_001)))
    points = course(run)
    assert len(points) == COURSE_POINTS and list(points) == sorted(points)
    assert points[0] == 1 and points[-1] > 19_900


def test_a_course_of_a_short_run_has_each_step_once_and_leaves_out_what_is_no_loss(run: RunFolder) -> None:
    write(
        run,
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": None},
        {"step": 3, "kind": "eval", "eval_loss": 9.0},
        {"step": 4, "loss": 2.0},
    )
    with open(run.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('[]\n{"kind": "train", "step": 5, "lo')
    assert course(run)[0] == 3.0 and set(course(run)) <= {3.0, 2.0}
    (run.path / "metrics.jsonl").unlink()
    assert course(run) == ()


def test_laid_over_each_other_a_run_has_the_minutes_that_it_trained_and_its_tokens(run: RunFolder) -> None:
    """A pause of an hour between the attempts is no training."""
    write(
        run,
        {"step": 1, "loss": 2.0, "time": 0.0, "tokens_seen": 100},
        {"step": 2, "loss": 2.0, "time": 60.0, "tokens_seen": 200},
        {"step": 2, "kind": "eval", "eval_loss": 1.5},
        {"step": 3, "loss": 2.0, "time": 3660.0, "tokens_seen": 300, "attempt": 2},
        {"step": 4, "loss": 2.0, "time": 3780.0, "tokens_seen": None, "attempt": 2},
    )
    overlay = Curves(Runs(Workspace.open(run.path.parent.parent))).overlaid(run.id)
    assert overlay["step"] == [1, 2, 3, 4] and overlay["time"] == [0, 1, 1, 3]
    assert overlay["tokens"] == [100, 200, 300, None]
    assert (overlay["eval_step"], overlay["eval_loss"]) == ([2], [1.5])


def test_what_differs_is_named_with_each_value_and_nothing_else() -> None:
    one = Recipe.parse({"data": {"source": "x"}, "train": {"learning_rate": 2e-4, "seed": 1}})
    other = Recipe.parse(
        {"data": {"source": "x"}, "train": {"learning_rate": 1e-3, "seed": 1}, "adapter": {"use_dora": True}}
    )
    assert compare.differing([one, one], EN) == []
    differences = {name: values for name, *values in compare.differing([one, other], EN)}
    assert differences == {"Learning rate (learning_rate)": ["0.0002", "0.001"], "DoRA (use_dora)": ["no", "yes"]}


@pytest.mark.parametrize("w", [EN, ZH], ids=["en", "zh"])
def test_a_row_is_all_words_and_is_json(tmp_path: Path, w: Wording) -> None:
    services = Services.open(Workspace.open(tmp_path / "workspace"))
    with ScriptedRun(services.workspace, "<b>x</b>") as made:
        made.to(State.RUNNING).train(20).to(State.COMPLETED, msg("run.completed", step=20))
    data = compare.row_data(services.snapshots.now(fresh=True).rows[0], w)
    assert data["name"] == "<b>x</b>" and len(data["course"]) > 10 and data["eval"] == "1.578"  # 2.4 e^(-20/25) + 0.5
    assert "runs_page." not in json.dumps(data, ensure_ascii=False)
    [row] = services.snapshots.now().rows
    rows = [
        replace(row, name=name, spare_bytes=size * 1_000_000) for name, size in (("few", 1), ("most", 30), ("none", 0))
    ]
    assert "31" in compare.disk_line(rows, 0, w) and "“most”" in compare.disk_line(rows, 0, w), (
        "of which nobody knew in which run"
    )
    over = compare.overlay(services, [made.run.id, "gone"], w)
    assert [run["name"] for run in over["runs"]] == ["<b>x</b>"] and over["differ"] == []
    with ScriptedRun(services.workspace, "y") as further:
        further.run.add_facts(RunFacts(parent=Parent(run=made.run.id, name="<b>x</b>", step=20)))
    [_, none, parent], *_ = compare.overlay(services, [made.run.id, further.run.id], w)["differ"]
    assert none == "–" and "<b>x</b>" in parent and "20" in parent, "its curve begins where the other's ended"
