"""One file of a run for another PC, and what is said of it there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from core.commands.__main__ import main
from core.errors import RecipeError
from core.messages import msg
from core.recipe import Recipe
from core.runs.cards import picture, recipe_card
from core.runs.folder import RunFolder
from core.runs.run_json import MemoryFacts, Parent, RunFacts, TimeFacts
from core.runs.states import State
from core.values import width
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from webui.form.reading.card_report import CardReport
from webui.kit.wording import Wording
from webui.state.services import Services


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


def test_a_card_holds_what_another_pc_needs_and_no_row_of_the_data(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "pirate.card.yaml"
    assert main(["recipe", run.id, "--card", str(file), "--workspace", str(run.path.parents[1])]) == 0
    recipe, card = recipe_card.read(file)
    assert card is not None and recipe == run.recipe().model_copy(update={"name": "Pirate <b>"}) == card.recipe
    assert (card.data.rows, card.data.learned, card.outcome.memory_gib, card.outcome.seconds) == (68, 64, 3.25, 720.0)
    assert [each.asked for each in card.film] == ["Write two sentences about the moon."], (
        "the other question is a row of the data"
    )
    said = file.read_text("utf-8")
    assert "lantern" not in said and "anna" not in said and str(tmp_path) not in said
    assert main(["recipe", run.id, "--card", str(file), "--workspace", str(run.path.parents[1])]) == 2, (
        "it writes over no file"
    )
    assert Recipe.parse(recipe_card.recipe_in(yaml.safe_load(said))) == recipe, "what `train` takes"


def test_its_picture_shows_the_numbers_and_answers_and_no_row_of_the_data(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "pirate.svg"
    assert main(["recipe", run.id, "--card", str(file), "--workspace", str(run.path.parents[1])]) == 0
    drawn = ElementTree.fromstring(file.read_bytes())
    said = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert said[0] == "Pirate <b>" and "Validation loss 0.81" in said and "12 min, 3.2 GiB of memory" in said
    assert "Write two sentences about the moon." in said and "lantern" not in " ".join(said)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) >= 1
    assert "训练前" in picture.of_run(run, lambda words: words.render("zh"))


def test_a_long_answer_ends_in_an_ellipsis_and_no_line_is_wider_than_the_picture() -> None:
    for said in ("a word " * 99, "字" * 300, "x" * 300):
        lines = picture._clipped(said, 3)
        assert len(lines) == 3 and lines[-1].endswith(" …") and max(map(width, lines)) <= picture.COLUMNS + 2
    assert picture._clipped("Arr,  matey!\n", 3) == ["Arr, matey!"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"lora_garage_card": 2}, "recipe.newer_card"),
        ({"lora_garage_card": [1]}, "recipe.damaged_card"),
        ({"film": [{"asked": "x" * 5000, "before": "", "after": ""}]}, "recipe.damaged_card"),
        ({"film": [[]] * 5}, "recipe.damaged_card"),
        ({"outcome": {"memory_gib": float("inf")}}, "recipe.damaged_card"),
        ({"versions": {str(n): "1" for n in range(99)}}, "recipe.damaged_card"),
        ({"recipe": {"data": {"source": "x"}, "run_this": "rm"}}, "recipe.invalid"),
        ({"recipe": "text"}, "recipe.not_a_mapping"),
    ],
)
def test_a_hostile_card_is_refused_with_a_sentence(
    run: RunFolder, tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(recipe_card.of_run(run).dump()) | change), "utf-8")
    with pytest.raises(RecipeError) as refused:
        recipe_card.read(file)
    assert refused.value.message.key == key


def test_another_pc_is_told_what_it_lacks_and_finds_the_same_rows_by_their_fingerprint(
    run: RunFolder, tmp_path: Path
) -> None:
    services, w = Services.open(Workspace.open(tmp_path / "other")), Wording("en")
    (tmp_path / "mine.jsonl").write_text('{"question": "Who?", "answer": "Me."}\n', "utf-8")
    info = services.datasets.import_file(tmp_path / "mine.jsonl", "mine")
    card = recipe_card.of_run(run)
    foreign = card.recipe.model_copy(
        update={
            "data": card.recipe.data.model_copy(update={"source": "their-set", "version": 3}),
            "model": card.recipe.model.model_copy(update={"id": "owner/name"}),
        }
    )
    told = CardReport(services, card, w)
    lacks = " ".join(told.missing_parts(foreign, has_data=False))
    assert "owner/name" in lacks and "68 rows" in lacks and "the first" in lacks
    assert told.with_same_rows(foreign) == foreign
    assert "3.2 GiB, 12 min" in told.outcome() and "0.812" in told.outcome()
    same = CardReport(
        services, card.model_copy(update={"data": card.data.model_copy(update={"sha256": info.sha256})}), w
    )
    assert (same.with_same_rows(foreign).data.source, same.with_same_rows(foreign).data.version) == (info.id, None)
    services.close()
    shutil.rmtree(services.workspace.root)
