"""What a person does with runs that are there; no browser, no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import RunError
from core.messages import msg
from core.runs.all import Runs
from core.runs.kept import freeing, label
from core.runs.kept.label import LONGEST_NOTE, MAX_TAGS, Label
from core.runs.run_json import Parent
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun, trained, with_settings


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def test_tags_note_archive_and_name_do_not_write_over_each_other(workspace: Workspace) -> None:
    run = trained(workspace, "one")
    label.annotate(run, " 海盗，voice, voice,, \u202eevil ", "keep  this\none")
    label.archive(run, True)
    Runs(workspace).rename(run, "two")
    assert (
        Label.from_run(run) == Label(tags=("海盗", "voice", "evil"), note="keep this one", archived=True)
        and run.name == "two"
    )
    label.archive(run, False)
    label.annotate(run, "", "")
    assert Label.from_run(run) == Label() and run.name == "two"


def test_two_runs_of_one_name_are_told_apart_and_keep_their_recipes(workspace: Workspace) -> None:
    """The queue said “Pirate answers” starts when “Pirate answers” completes, and both curves of a comparison had one
    name."""
    runs = [trained(workspace, "Pirate answers") for _ in range(3)]
    assert [run.name for run in runs] == ["Pirate answers", "Pirate answers · 2", "Pirate answers · 3"]
    assert {run.recipe().name for run in runs} == {"Pirate answers"}
    Runs(workspace).delete(runs[1])
    assert trained(workspace, "Pirate answers").name == "Pirate answers · 2"


def test_runs_of_one_name_are_told_apart_by_what_differs(workspace: Workspace) -> None:
    """All were told apart by a number, which says nothing about them."""
    recipe = trained(workspace, "Pirate answers").recipe()

    def name(of: str = "", *settings: str) -> str:
        other = with_settings(recipe.model_copy(update={"name": of or recipe.name}), *settings)
        return Runs(workspace).create(other, "test").name

    hotter = name("", "adapter.r=16", "train.learning_rate=5e-4")
    assert hotter == "Pirate answers · r 16 · 5e-4"
    assert name("", "adapter.r=16", "train.learning_rate=5e-4") == f"{hotter} · 2"
    assert name(hotter, "train.max_steps=7", "train.warmup_steps=3") == "Pirate answers · steps 7"
    assert name("", "train.num_train_epochs=2") == "Pirate answers · epochs 2"
    assert name("", "train.warmup_steps=3") == "Pirate answers · warmup_steps 3"
    assert name("", "train.max_steps=-1") == "Pirate answers · 2"  # of the recipe of 100 steps: by epochs
    assert name("", "model.id=Qwen/Qwen3-8B") == "Pirate answers · Qwen3-8B"
    trained(workspace, "x" * 60)
    assert name("x" * 60, "adapter.r=16") == "x" * 53 + " · r 16"


@pytest.mark.parametrize(
    "held",
    [
        [],
        {"tags": "x", "note": 3, "archived": "yes"},
        {"tags": [1, "t" * 99, *map(str, range(99))], "note": "n" * 9999},
    ],
)
def test_a_damaged_label_is_as_if_it_was_not_there(workspace: Workspace, held: object) -> None:
    run = trained(workspace, "one")
    (run.path / "label.json").write_text(json.dumps(held), "utf-8")
    label = Label.from_run(run)
    assert len(label.tags) <= MAX_TAGS and len(label.note) <= LONGEST_NOTE and not label.archived and run.name == "one"


def test_checkpoints_go_only_where_nothing_goes_on_from_them(workspace: Workspace) -> None:
    with ScriptedRun(workspace, "paused") as paused:
        paused.to(State.RUNNING).train(5).save(5)
        paused.to(State.PAUSED, msg("run.paused", step=5))
    assert freeing.spare_bytes(paused.run) == 0
    with pytest.raises(RunError):
        freeing.drop_checkpoints(paused.run)
    assert paused.run.checkpoints()
    run = trained(workspace, "over")
    (run.path / "checkpoints" / "checkpoint-000060").mkdir()
    (run.path / "checkpoints" / "checkpoint-000060" / "adapter.bin").write_bytes(bytes(1000))
    before = run.bytes_used()
    assert freeing.spare_bytes(run) == 1000
    (run.path / ".checkpoints.deleted" / "checkpoint-000030").mkdir(parents=True)  # of a time that was cut off
    freeing.drop_checkpoints(run)
    assert run.bytes_used() == before - 1000 and run.has_adapter() and freeing.spare_bytes(run) == 0
    assert [path.name for path in run.path.glob(".checkpoints*")] == []


def test_the_runs_that_were_trained_further_are_named(workspace: Workspace) -> None:
    parent = trained(workspace, "parent")
    with ScriptedRun(workspace, "child", parent=Parent(run=parent.id, name="parent", step=60)):
        pass
    assert freeing.continued_by(Runs(workspace), parent) == ["child"]
