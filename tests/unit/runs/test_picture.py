"""A run for others: its recipe, and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from core.commands.__main__ import main
from core.messages import msg
from core.recipe import Recipe
from core.runs.cards import picture, results
from core.runs.folder import RunFolder
from core.runs.run_json import MemoryFacts, Parent, RunFacts, TimeFacts
from core.runs.states import State
from core.values import width
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    facts: dict[str, Any] = {
        "memory": MemoryFacts(measured_gib=3.25), "time": TimeFacts(took_seconds=720.0), "best_eval_loss": 0.8125,
        "versions": {"torch": "2.15.0"},
        "model_folder": "/home/anna/.cache/hub/snapshots/" + "a" * 40,
    }  # fmt: skip
    with ScriptedRun(Workspace.open(tmp_path / "workspace"), "Pirate <b>", **facts) as scripted:
        scripted.to(State.RUNNING).train(30).film(0, 30).to(State.COMPLETED, msg("run.completed", step=30))
    scripted.run.add_facts(RunFacts(parent=Parent(run="x", name="the first", step=3)))
    return scripted.run


def test_the_recipe_to_share_names_the_base_that_was_trained_and_no_place_of_this_pc(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", run.id, "--workspace", str(run.path.parents[1])]) == 0
    text = capsys.readouterr().out
    assert "anna" not in text and str(run.path.parents[2]) not in text
    shared = Recipe.parse(yaml.safe_load(text))
    assert shared == run.recipe().model_copy(update={"name": "Pirate <b>"})
    hub = run.recipe().model_copy(update={"model": shared.model.model_copy(update={"id": "owner/name"})})
    (run.path / "recipe.yaml").write_text(hub.dump(), "utf-8")
    assert results.shared_recipe(run).model.revision == "a" * 40


def test_its_picture_shows_the_numbers_and_answers_and_no_row_of_the_data(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "pirate.svg"
    assert main(["recipe", run.id, "--picture", str(file), "--workspace", str(run.path.parents[1])]) == 0
    assert main(["recipe", run.id, "--picture", str(file), "--workspace", str(run.path.parents[1])]) == 2, (
        "it writes over no file"
    )
    drawn = ElementTree.fromstring(file.read_bytes())
    texts = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "Pirate <b>" and "Validation loss 0.81" in texts and "12 min, 3.2 GiB of memory" in texts
    assert any(text.startswith("Loss ") for text in texts)
    assert "Write two sentences about the moon." in texts and "lantern" not in " ".join(texts)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) >= 1
    assert "训练前" in picture.of_run(run, lambda words: words.render("zh"))


def test_a_long_answer_ends_in_an_ellipsis_and_no_line_is_wider_than_the_picture() -> None:
    for text in ("a word " * 99, "字" * 300, "x" * 300):
        lines = picture._clipped(text, 3)
        assert len(lines) == 3 and lines[-1].endswith(" …") and max(map(width, lines)) <= picture.COLUMNS + 2
    assert picture._clipped("Arr,  matey!\n", 3) == ["Arr, matey!"]
