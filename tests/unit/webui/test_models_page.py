"""The Models page: what is on this PC, downloads, the search, and further folders; any JSON from a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from core.errors import GarageError
from core.hub.search import FoundModel
from core.models.on_disk import Store, StoredModel, Use, on_disk
from core.recipe import Recipe
from core.workspace.folder import Workspace
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.pages import models
from webui.pages.models import ModelsPage
from webui.shelf import disk
from webui.state.services import Services

EN = Wording("en")
KEPT = StoredModel("hub", "o/m", Path("x"), 8_100_000_000, 1_790_000_000.0)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelsPage:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    blob = tmp_path / "cache" / "models--o--m" / "blobs" / "b"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(5000))
    return ModelsPage(Services.open(Workspace.open(tmp_path / "workspace")), EN)


def press(page: ModelsPage, act: object, is_local: bool = True, **values: Any) -> str:
    """Press a button, and return what is said."""
    try:
        return str(page.press({"act": act, IS_LOCAL: is_local, **values})["notice"])
    except GarageError as error:
        return page.w.render(error.message)


def here(page: ModelsPage, **fields: object) -> str:
    """Return the card of models on this PC."""
    return page.drawn({"fields": fields}).partition('id="models-find"')[0]


def search_card(page: ModelsPage, **fields: object) -> str:
    return page.drawn({"fields": fields}).partition('id="models-find"')[2]


@pytest.mark.parametrize("language", ["en", "zh", "de"])
@pytest.mark.parametrize("store", get_args(Store))
def test_every_store_has_its_words_and_the_hub_alone_a_button_that_deletes(store: Store, language: str) -> None:
    kept = replace(KEPT, store=store, id="<b>/m", uses=(Use("<i>", False, 0),), is_complete=False)
    drawn = disk.rows([kept], Wording(language))
    assert "{" not in drawn and "disk_view." not in drawn and "<b>" not in drawn and "<i>" not in drawn
    assert ("data-kept" in drawn) == (store == "hub")


def test_what_a_run_needs_cannot_be_deleted_and_names_it() -> None:
    uses = tuple(Use(name, name == "night", 0) for name in ("one", "two", "three", "night"))
    drawn = disk.row(replace(KEPT, uses=uses), EN)
    assert "needed by night, one, two and 1 more" in drawn and "data-kept" not in drawn
    assert "8.1 GB" in drawn and "used by one" in disk.row(replace(KEPT, uses=uses[:1]), EN)


def test_many_stay_in_a_fold() -> None:
    drawn = disk.rows([replace(KEPT, id=f"o/m{n}") for n in range(12)], EN)
    assert "4 more models" in drawn and drawn.count("<li") == 12


@pytest.mark.parametrize("language", ["en", "zh", "de"])
def test_the_page_has_all_words_in_every_language_also_without_a_model(page: ModelsPage, language: str) -> None:
    page.w = Wording(language)
    page.services.downloads.start("o/other")
    drawn = page.drawn({})
    assert "models_page." not in drawn and "disk_view." not in drawn and "{" not in drawn
    assert page.w.t("downloads_view.state_waiting") in drawn
    assert page.w.t("disk_view.none") in disk.rows([], page.w)


def test_a_model_is_deleted_after_a_question_and_leaves_the_list_of_downloads(page: ModelsPage, tmp_path: Path) -> None:
    assert "Delete o/m from this PC?" in here(page)
    assert "5 kB freed" in press(page, "delete", kept="o/m")
    assert "o/m" not in here(page) and not (tmp_path / "cache" / "models--o--m").exists()
    assert "nothing to delete" in press(page, "delete", kept="o/m")


def test_a_page_that_nobody_touches_shows_what_another_one_brought_or_deleted(
    page: ModelsPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is read once for each thing that happened, not at each poll."""
    services, looks = page.services, []
    monkeypatch.setattr(models, "on_disk", lambda *arguments: looks.append(1) or on_disk(*arguments))
    assert "o/m" in here(page) and "o/m" in here(page) and len(looks) == 1
    services.downloads.start("o/m")  # nothing works on it: the app is not begun
    here(page)
    assert len(looks) == 1
    row = services.downloads._rows["o/m@main"]
    services.downloads._rows["o/m@main"] = row.model_copy(update={"state": "done", "done": 5000, "total": 5000})
    here(page)
    assert len(looks) == 2
    press(ModelsPage(services, EN), "delete", kept="o/m")
    assert "o/m" not in here(page) and len(looks) == 3


@pytest.mark.parametrize("junk", [None, "", 7, [], "../..", "library:x"])
def test_any_json_of_a_browser_does_nothing(page: ModelsPage, junk: object) -> None:
    for act in ("delete", "download", "search", "add_folder", "remove_folder", "pause", junk):
        press(page, act, kept=junk, repo=junk, revision=junk, fields=junk)
    assert "o/m" in page.drawn({"fields": junk}) and "o/m" in here(page, words=junk, only=junk, language=junk)
    assert page.services.downloads.rows() == []


def test_what_a_waiting_run_needs_is_refused_by_its_name(page: ModelsPage) -> None:
    recipe = {"name": "Night run", "model": {"id": "o/m"}, "data": {"source": "sample:pirate_answers"}}
    page.services.runs.create(Recipe.parse(recipe), "test")
    page.services.snapshots.now(fresh=True)
    assert "needed by Night run" in here(page) and "data-kept" not in here(page)
    assert "Night run" in press(page, "delete", kept="o/m") and "o/m" in here(page)


def test_a_model_of_the_catalogue_is_downloaded_in_one_press_and_says_so(page: ModelsPage) -> None:
    row = 'data-repo="Qwen/Qwen3-0.6B"'
    assert row in search_card(page, words="qwen3 0.6b", only=[])
    press(page, "download", repo="Qwen/Qwen3-0.6B")
    assert [each.repo for each in page.services.downloads.rows()] == ["Qwen/Qwen3-0.6B"]
    drawn = search_card(page, words="qwen3 0.6b", only=[])
    assert row not in drawn and ">waiting</span>" in drawn
    assert 'data-act="pause"' in page.drawn({})
    press(page, "pause", repo="Qwen/Qwen3-0.6B", revision="main")
    assert page.services.downloads.rows()[0].state == "paused"


def test_only_what_fits_is_shown_until_the_filter_is_taken_off(page: ModelsPage) -> None:
    assert "70B" not in search_card(page) and 'data-train="starter"' in search_card(page)
    assert "does not fit" in search_card(page, words="llama 70b", only=[])


def test_what_the_hub_found_stays_while_its_words_do(page: ModelsPage, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [FoundModel("owner/tiny-chat", params=1_590_000)]
    monkeypatch.setattr(models, "search", lambda words: found)
    press(page, "search", fields={"words": "tiny"})
    assert 'data-repo="owner/tiny-chat"' in search_card(page, words="tiny")
    assert "owner/tiny-chat" not in search_card(page, words="tin") + search_card(page)


def test_one_visitors_search_does_not_take_away_the_results_of_another(
    page: ModelsPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "search", lambda words: [FoundModel(f"owner/{words}", params=1_590_000)])
    for words in ("tiny", "large"):
        press(page, "search", fields={"words": words})
    assert "owner/tiny" in search_card(page, words="tiny") and "owner/large" in search_card(page, words="large")


def test_a_folder_is_added_on_this_pc_alone_and_its_models_are_listed_and_trained(
    page: ModelsPage, tmp_path: Path
) -> None:
    model = tmp_path / "my models" / "mine"
    model.mkdir(parents=True)
    folder = {"fields": {"folder": str(model.parent)}}
    assert "holds no model" in press(page, "add_folder", **folder)
    (model / "config.json").write_text("{}", "utf-8")
    assert "on the PC that runs" in press(page, "add_folder", is_local=False, **folder) and "mine" not in here(page)
    assert "1 model found" in press(page, "add_folder", **folder)
    assert 'data-train="library:mine"' in here(page)
    assert "library:mine" in page.services.models.choices()
    assert Workspace.open(page.services.workspace.root).added_folders == (model.parent,)
    press(page, "add_folder", **folder)
    assert page.services.workspace.added_folders == (model.parent,)  # once
    press(page, "remove_folder", kept=str(model.parent))
    assert "library:mine" not in here(page) and (model / "config.json").is_file()
