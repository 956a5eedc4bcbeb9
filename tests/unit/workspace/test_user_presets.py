"""Presets of a person's own: kept whole, found again, and no way out of their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import RecipeError
from core.recipe import Recipe
from core.workspace.saved_recipes import UserPresets


@pytest.fixture
def presets(tmp_path: Path) -> UserPresets:
    return UserPresets(tmp_path / "recipes")


def recipe(**sections: dict) -> Recipe:
    return Recipe.parse({"name": "a run", "goal": "style", "data": {"source": "sample:pirate_answers"}, **sections})


def test_what_was_saved_comes_back_without_data_or_name(presets: UserPresets) -> None:
    saved = presets.save("海盗 / pirate", recipe(adapter={"r": 32}, train={"learning_rate": 1e-3}))
    again = presets.get(saved.id).recipe
    assert (again.goal, again.adapter.r, again.train.learning_rate) == ("style", 32, 1e-3)
    assert again.train.model_fields_set == {"learning_rate"} and again.name == "" and again.data.source == "-"
    assert [preset.title for preset in presets.list()] == ["海盗 / pirate"]


def test_the_same_title_replaces_and_another_one_does_not(presets: UserPresets) -> None:
    presets.save("mine", recipe(adapter={"r": 4}))
    presets.save("mine", recipe(adapter={"r": 16}))
    presets.save("Mine!", recipe())  # the same slug
    assert sorted((preset.title, preset.recipe.adapter.r) for preset in presets.list()) == [("Mine!", 8), ("mine", 16)]


def test_a_deleted_preset_is_gone(presets: UserPresets) -> None:
    presets.delete(presets.save("mine", recipe()).id)
    assert presets.list() == []


@pytest.mark.parametrize("preset_id", ["../secret", "", "a/b", "A", "x" * 100, None, 5, "secret.yaml", "nothing"])
def test_an_id_that_is_no_preset_is_refused(presets: UserPresets, preset_id: object) -> None:
    presets.save("mine", recipe())
    (presets.folder.parent / "secret.yaml").write_text("title: x\n", "utf-8")
    for ask in (presets.get, presets.delete):
        with pytest.raises(RecipeError, match="no preset"):
            ask(preset_id)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["[1, 2]", "adapter: {r: -5}", "{{{", "data: [x]", b"\xff\xfe\x00"])
def test_a_file_that_is_no_preset_is_shown_with_its_problem(presets: UserPresets, content: str | bytes) -> None:
    presets.folder.mkdir()
    (presets.folder / "odd.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    [odd] = presets.list()
    assert odd.recipe is None and odd.problem is not None and odd.title == "odd"


def test_a_name_without_a_visible_character_is_refused(presets: UserPresets) -> None:
    with pytest.raises(RecipeError, match="visible"):
        presets.save(" \n\u200e ", recipe())
    assert not presets.folder.exists()
