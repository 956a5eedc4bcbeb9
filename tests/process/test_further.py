"""Train further: a child starts bit for bit where its parent ended, holds what it began with, and is refused in
words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.advice import plan
from core.data.store import DatasetStore
from core.errors import RecipeError, RunError
from core.models import adapters
from core.presets import PRESETS, PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs import further
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from tests.kit.waits import PATIENCE

WEIGHTS = "adapter_model.safetensors"


def open_space(root: Path, tiny_model: Path) -> Workspace:
    root.mkdir(exist_ok=True)
    (root / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(root)


def recipe(method: str = "lora", steps: int = 6, **train: object) -> Recipe:
    value = {
        "name": "Tiny", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers",
            "eval_fraction": 0.2},
        "adapter": {"r": 4, "method": method}, "train": {"max_steps": steps, "learning_rate": 1e-2,
            "lr_scheduler_type": "constant", "sample_seconds": 0} | train,
    }  # fmt: skip
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def trained(space: Workspace, wanted: Recipe, parent: RunFolder | None = None) -> RunFolder:
    run = Runs(space).create(wanted, "command", further.facts_of(parent) if parent else None)
    assert spawn_worker(space, run).wait(600 * PATIENCE) == 0, f"{run.status()}\n{run.log_tail()}"
    return run


def eval_losses(run: RunFolder) -> list[float]:
    return [line["eval_loss"] for line in run.all_metrics() if line["kind"] == "eval"]


Family = tuple[Workspace, RunFolder, RunFolder]  # a run, and one that trains it further


def make_family(root: Path, tiny_model: Path, method: str) -> Family:
    space = open_space(root, tiny_model)
    parent = trained(space, recipe(method))
    return space, parent, trained(space, further.recipe_of(parent), parent)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Family:
    return make_family(tmp_path_factory.mktemp("lora"), tiny_model, "lora")


@pytest.fixture(scope="module")
def qlora(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Family:
    return make_family(tmp_path_factory.mktemp("qlora"), tiny_model, "qlora")


@pytest.fixture
def parent(lora: Family, tmp_path: Path, tiny_model: Path) -> tuple[Workspace, RunFolder]:
    """A copy of the trained run in a workspace of the test's own, to be spoilt."""
    own = open_space(tmp_path / "own", tiny_model)
    shutil.copytree(lora[1].path, own.runs / lora[1].id)
    return own, Runs(own).get(lora[1].id)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_child_begins_with_exactly_the_loss_its_parent_ended_with(
    method: str, request: pytest.FixtureRequest
) -> None:
    _, parent, child = request.getfixturevalue(method)
    assert eval_losses(child)[0] == eval_losses(parent)[-1] < eval_losses(parent)[0]
    assert (parent.adapter / WEIGHTS).read_bytes() == (further.start_of(child) / WEIGHTS).read_bytes()
    assert (parent.adapter / WEIGHTS).read_bytes() != (child.adapter / WEIGHTS).read_bytes(), "and it learns"


def test_a_child_that_compares_is_held_against_its_parents_adapter(qlora: Family, tmp_path: Path) -> None:
    """Its implied rewards are 0 before its first step, though the adapter is not: the reference is what the parent had
    learned."""
    space, parent, _ = qlora
    rows = [{"prompt": f"What is {i}?", "chosen": f"Arr, it be {i}!", "rejected": f"It is {i}."} for i in range(24)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    data = DatasetStore(space.datasets, PRESETS).import_file(tmp_path / "pairs.jsonl", "pairs").id
    value = further.recipe_of(parent).model_dump(mode="json")
    value |= {
        "data": value["data"] | {"source": data},
        "train": value["train"] | {"objective": "dpo", "max_steps": 4, "beta": 0.1},
    }
    child = trained(space, Recipe.parse(value), parent)
    first, *_, last = [line for line in child.all_metrics() if line["kind"] == "eval"]
    assert first["step"] == 0 and first["eval_loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert all(abs(first[f"eval_rewards/{name}"]) < 1e-5 for name in ("chosen", "rejected", "margins"))
    assert (
        last["eval_rewards/margins"] > 0
        and (parent.adapter / WEIGHTS).read_bytes() == (further.start_of(child) / WEIGHTS).read_bytes()
    )


def test_the_parent_is_named_in_the_facts_the_story_and_the_model_card(lora: Family) -> None:
    _, parent, child = lora
    assert child.facts().set_fields()["parent"] == {
        "run": parent.id, "name": "Tiny", "step": 6, "eval_loss": eval_losses(parent)[-1],
        "template": parent.facts().template,
    }  # fmt: skip
    assert child.name == "Tiny · 2" and "parent" not in (child.path / "recipe.yaml").read_text("utf-8")
    keys = [event["message"]["key"] for event in child.events() if event["kind"] == "decision"]
    assert "further.started" in keys
    card = (child.adapter / "README.md").read_text("utf-8")
    assert f"**Continues:** the adapter of run `Tiny` (`{parent.id}`) from step 6" in card


def test_a_child_goes_on_without_its_parent_even_before_its_first_checkpoint(parent: tuple) -> None:
    space, parent = parent
    runs = Runs(space)
    last = eval_losses(parent)[-1]
    child = runs.create(further.recipe_of(parent), "command", further.facts_of(parent))
    child.request("pause")
    assert spawn_worker(space, child).wait(600) == 4 and child.checkpoints() == []
    runs.delete(parent)
    runs.queue_again(child, "command")
    assert spawn_worker(space, child).wait(600) == 0, child.log_tail()
    assert eval_losses(child)[0] == last


def test_other_data_steps_and_rate_may_be_chosen(parent: tuple) -> None:
    space, run = parent
    changes = {"data": {"source": "sample:shop_messages"}, "train": {"max_steps": 2, "learning_rate": 1e-4}}
    recipe = Recipe.parse(further.recipe_of(run).model_dump(mode="json") | changes)
    further.require_alike(recipe, run.recipe(), run.name)
    child = Runs(space).create(plan.resolve(recipe, "x", has_card=False), "command", further.facts_of(run))
    assert child.recipe().data.source == "sample:shop_messages" and (further.start_of(child) / WEIGHTS).exists()


# ---- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"id": "starter"}}, "model.id starter"),
        ({"adapter": {"r": 16}}, "adapter.r 16"),
        ({"adapter": {"lora_alpha": 99}}, "adapter.lora_alpha 99"),
        ({"adapter": {"target_modules": "q_proj"}}, "adapter.target_modules q_proj"),
        ({"adapter": {"use_dora": True}}, "adapter.use_dora True"),
    ],
)
def test_what_the_adapter_is_fitted_to_cannot_change(parent: tuple, changes: dict, named: str) -> None:
    _, run = parent
    recipe = Recipe.parse({"data": {"source": "x"}} | changes)
    with pytest.raises(RecipeError, match="are fixed by the adapter") as refused:
        further.require_alike(recipe, run.recipe(), run.name)
    assert named in str(refused.value) and "Tiny" in str(refused.value)
    held = further.with_locked_settings(recipe, run.recipe())
    assert held.model.id == "library:tiny" and (held.adapter.r, held.adapter.lora_alpha) == (4, 8)


def test_left_out_is_as_the_parent_has_it_and_no_default_of_the_recipe(parent: tuple) -> None:
    _, run = parent
    further.require_alike(Recipe.parse({"data": {"source": "x"}}), run.recipe(), run.name)


def spoil_half(run: RunFolder) -> None:
    file = run.adapter / WEIGHTS
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def spoil_rank(run: RunFolder) -> None:
    file = run.adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"r": 32}), "utf-8")


def spoil_base(run: RunFolder) -> None:
    file = run.adapter / "adapter_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text("utf-8")) | {"base_model_name_or_path": "other/base"}), "utf-8"
    )


@pytest.mark.parametrize(
    ("spoil", "key"),
    [
        (lambda run: shutil.rmtree(run.adapter), "further.no_adapter"),
        (spoil_half, "further.damaged"),
        (spoil_rank, "further.damaged"),
        (spoil_base, "further.other_base"),
    ],
    ids=["gone", "half", "another rank", "another base"],
)
def test_a_parent_whose_adapter_cannot_be_used_is_refused_in_words(parent: tuple, spoil: Callable, key: str) -> None:
    space, run = parent
    spoil(run)
    with pytest.raises(RunError) as refused:
        further.recipe_of(run)
    assert (
        refused.value.message.key == key
        and "Tiny" in str(refused.value)
        and "Tiny" in refused.value.message.render("zh")
    )
    with pytest.raises(RunError):
        Runs(space).create(recipe(), "command", further.facts_of(run))
    assert [run_left.id for run_left in Runs(space).list()] == [run.id], "and no half-made run is left"
    assert not list(space.runs.glob(".*"))


def test_a_parent_that_was_deleted_in_between_is_refused(parent: tuple) -> None:
    space, run = parent
    facts = further.facts_of(run)
    Runs(space).delete(run)
    with pytest.raises(RunError, match="no longer exists"):
        Runs(space).create(recipe(), "command", facts)
    assert not list(space.runs.iterdir())


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.FAILED, State.QUEUED])
def test_a_run_that_has_not_ended_is_refused(tmp_path: Path, state: State) -> None:
    run = ScriptedRun(Workspace.open(tmp_path), "half-way").to(state).run
    with pytest.raises(RunError, match="half-way"):
        further.recipe_of(run)


def test_a_start_that_was_damaged_after_submission_fails_in_words(parent: tuple) -> None:
    space, parent = parent
    child = Runs(space).create(further.recipe_of(parent), "command", further.facts_of(parent))
    (further.start_of(child) / WEIGHTS).write_bytes(b"half of it")
    assert spawn_worker(space, child).wait(600) == 1
    assert child.status().message.key == "further.start_missing" and "Traceback" not in child.log_tail()


@pytest.mark.parametrize(
    ("name", "following"),
    [("Pirate", "Pirate · 2"), ("Pirate · 9", "Pirate · 10"), ("x" * 60, "x" * 56 + " · 2"), ("海盗", "海盗 · 2")],
)
def test_the_next_name(name: str, following: str) -> None:
    assert further.next_name(name) == following


def test_a_name_cannot_break_out_of_the_model_card() -> None:
    from core.runs.cards import model_card
    from core.runs.run_json import RunFacts

    facts = RunFacts.from_json({"parent": {"run": "id", "name": "a` **bold**\n# head", "step": 3}})
    assert "run `a' **bold** # head` (`id`)" in model_card.render(recipe(), facts, [])


# ---- commands ------------------------------------------------------------------------------------


def command(space: Workspace, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "core.commands", *arguments, "--workspace", str(space.root)]
    return subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, timeout=240)


def test_further_from_a_terminal_names_its_parent_and_refuses_in_a_sentence(parent: tuple, tmp_path: Path) -> None:
    space, parent = parent
    done = command(space, "further", parent.id, "--set", "train.max_steps=1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["parent"], result["step"], result["name"]) == (parent.id, 1, "Tiny · 2")
    refused = command(space, "further", parent.id, "--set", "adapter.r=16")
    assert refused.returncode == 2 and "adapter.r 16" in refused.stderr and "Traceback" not in refused.stderr
    (tmp_path / "small.yaml").write_text(
        "data: {source: 'sample:pirate_answers'}\ntrain: {max_steps: 1, sample_seconds: 0}\n", "utf-8"
    )
    done = command(space, "train", str(tmp_path / "small.yaml"), "--from", parent.id, "--json")
    assert done.returncode == 0, done.stderr
    child = Runs(space).get(json.loads(done.stdout)["run"])
    assert child.recipe().model.id == "library:tiny" and adapters.describe(child.adapter).r == 4
