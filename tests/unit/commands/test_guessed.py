"""Columns that only the contents of the rows show: no command trains or packs them until the person has agreed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from core.api import training
from core.api.datasets import dataset_store
from core.commands import away, running
from core.errors import DataError
from core.recipe import Recipe
from core.runs.run_json import RunFacts
from core.workspace.folder import Workspace

GUESSED = "eins,zwei\n" + '"What is a crêpe?","It is a thin pancake from Brittany."\n' * 20


@pytest.fixture
def space(make_workspace: Callable[[], Workspace], tmp_path: Path) -> Workspace:
    (tmp_path / "mine.csv").write_text(GUESSED, "utf-8")
    (tmp_path / "recipe.yaml").write_text("data: {source: mine.csv}\n", "utf-8")
    return make_workspace()


def test_a_guess_is_refused_before_it_is_packed(space: Workspace, tmp_path: Path) -> None:
    """It was packed with the guessed columns written into the recipe, which the other PC trained without a word."""

    out = tmp_path / "job.zip"

    def pack(**options: Any) -> None:
        away.pack(tmp_path / "recipe.yaml", out, workspace=space.root, as_json=True, **options)

    with pytest.raises(DataError, match="--accept-guess"):
        pack()
    assert not out.exists()
    for options, answer in (({"accept_guess": True}, "zwei"), ({"answer": "eins"}, "eins")):
        pack(**options)
        with zipfile.ZipFile(out) as archive:
            packed = Recipe.parse(yaml.safe_load(archive.read("run/recipe.yaml")))
        out.unlink()
        assert packed.data.columns[answer] == "answer"


def test_the_person_of_a_chat_whom_nobody_chose_is_a_guess(space: Workspace, tmp_path: Path) -> None:
    """Seen: of an export with several people, the one with the most messages was trained by a headless run."""
    lines = [f"24/05/2025, 10:{n:02} - {'Ann' if n % 2 else 'Ben'}: It is {n} o'clock already." for n in range(21)]
    (tmp_path / "chat.txt").write_text("\n".join(lines), "utf-8")

    def pack(data: str, accept: bool = False) -> None:
        (tmp_path / "recipe.yaml").write_text(f"data: {{{data}}}\n", "utf-8")
        out = tmp_path / "job.zip"
        away.pack(tmp_path / "recipe.yaml", out, workspace=space.root, as_json=True, accept_guess=accept)
        out.unlink()

    with pytest.raises(DataError, match="Ben wrote most of them.*--accept-guess"):
        pack("source: chat.txt")
    pack("source: chat.txt", accept=True)
    pack("source: chat.txt, voice: Ann")


def test_a_run_continued_with_other_data_asks_again(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`further RUN --set data.source=other.csv` trained what was only guessed."""
    prepared: list[bool] = []
    recipe = Recipe.parse({"data": {"source": "sample:pirate_answers"}})
    parent = SimpleNamespace(name="before", recipe=lambda: recipe)
    monkeypatch.setattr(running, "Runs", lambda space: SimpleNamespace(find=lambda run: parent))
    monkeypatch.setattr("core.runs.further.recipe_of", lambda parent: recipe)
    monkeypatch.setattr("core.runs.further.recipe_to_continue", lambda recipe, parent: recipe)
    monkeypatch.setattr("core.runs.further.facts_of", lambda parent: RunFacts())
    monkeypatch.setattr(running, "carry_out", lambda *_: None)
    monkeypatch.setattr(training.plan, "submit", lambda *_: prepared.append(True))
    running.further("before", workspace=space.root, as_json=True)
    other = [f"data.source={tmp_path / 'mine.csv'}"]
    with pytest.raises(DataError, match="--accept-guess"):
        running.further("before", other, workspace=space.root, as_json=True)
    assert len(prepared) == 1
    running.further("before", other, workspace=space.root, as_json=True, accept_guess=True)
    running.further("before", other, workspace=space.root, as_json=True, answer="eins")
    assert len(prepared) == 3


def test_nothing_is_imported_for_a_run_that_cannot_be(space: Workspace, tmp_path: Path) -> None:
    """The data was added to the workspace before the base model was missed."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {source: mine.csv}\nmodel: {id: 'library:gone'}\n", "utf-8")
    with pytest.raises(Exception, match="gone"):
        running.train(recipe, workspace=space.root, as_json=True, accept_guess=True)
    assert not list(dataset_store(space).root.iterdir())
