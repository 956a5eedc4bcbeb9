"""Models on this PC, on the Settings page: all words, no button where none may be, deleted from the hub's cache and
from the list of downloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from core.models.on_disk import Store, StoredModel, Use
from core.recipe import Recipe
from core.workspace.folder import Workspace
from webui.kit.live import ViewContext
from webui.kit.wording import Wording
from webui.shelf import disk
from webui.shelf.disk import DiskCard
from webui.state.services import Services

EN = Wording("en")
KEPT = StoredModel("hub", "o/m", Path("x"), 8_100_000_000, 1_790_000_000.0)


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCard:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    blob = tmp_path / "cache" / "models--o--m" / "blobs" / "b"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(5000))
    return DiskCard(Services.open(Workspace.open(tmp_path / "workspace")), EN)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("store", get_args(Store))
def test_every_store_has_its_words_and_the_hub_alone_a_button(store: Store, language: str) -> None:
    kept = replace(KEPT, store=store, id="<b>/m", uses=(Use("<i>", False),), is_complete=False)
    drawn = disk.rows([kept], Wording(language))
    assert "{" not in drawn and "disk_view." not in drawn and "<b>" not in drawn and "<i>" not in drawn
    assert ("data-kept" in drawn) == (store == "hub")


def test_what_a_run_needs_has_no_button_and_names_it() -> None:
    uses = tuple(Use(name, name == "night") for name in ("one", "two", "three", "night"))
    drawn = disk.row(replace(KEPT, uses=uses), EN)
    assert "needed by night, one, two and 1 more" in drawn and "data-kept" not in drawn
    assert "8.1 GB" in drawn and "used by one" in disk.row(replace(KEPT, uses=uses[:1]), EN)


def test_many_stay_in_a_fold() -> None:
    drawn = disk.rows([replace(KEPT, id=f"o/m{n}") for n in range(12)], EN)
    assert "4 more models" in drawn and drawn.count("<li") == 12


def test_a_model_is_deleted_and_leaves_the_list_of_downloads(card: DiskCard, tmp_path: Path) -> None:
    assert "o/m" in card.drawn()
    list_, said = card.act("delete", "o/m")
    assert isinstance(said, dict) and "5 kB freed" in said["value"]
    assert "o/m" not in list_ and not (tmp_path / "cache" / "models--o--m").exists()
    assert "nothing to delete" in card.act("delete", "o/m")[1]["value"]


def test_the_clock_does_not_take_back_what_the_opened_page_has_drawn(card: DiskCard) -> None:
    """Seen under load: the clock's first update came after the list and put "Open this page to see them" over it."""
    listed = card.drawn()
    context = ViewContext(card.services.snapshots.now(fresh=True), None)
    assert card._newest(context)["value"] == listed and "o/m" in listed


def test_a_page_that_nobody_touches_shows_what_another_one_brought_or_deleted(card: DiskCard, tmp_path: Path) -> None:
    """Looked at once for each thing that happened, not by the clock: the list was as old as the last press on its
    tab."""
    services, looks = card.services, []

    def shown() -> str:
        return card._newest(ViewContext(services.snapshots.now(fresh=True), None))["value"]

    drawn = card.drawn
    card.drawn = lambda: looks.append(1) or drawn()
    assert EN.t("disk_view.looking") in shown() and not looks
    services.downloads.start("o/m")  # nothing works on it: the app is not begun
    assert "o/m" not in shown()
    row = services.downloads._rows["o/m@main"]
    services.downloads._rows["o/m@main"] = row.model_copy(update={"state": "done", "done": 5000, "total": 5000})
    assert "o/m" in shown() and "o/m" in shown() and len(looks) == 1
    services.downloads.cancel("o/m")  # off the list of downloads, not off the disk
    assert "o/m" in shown() and len(looks) == 2
    DiskCard(services, EN).act("delete", "o/m")
    assert "o/m" not in shown() and len(looks) == 3


@pytest.mark.parametrize("junk", [None, "", 7, [], "../..", "library:x"])
def test_any_json_of_a_browser_deletes_nothing(card: DiskCard, junk: object) -> None:
    card.act("delete", junk)
    card.act(junk, "o/m")
    assert "o/m" in card.drawn()


def test_what_a_waiting_run_needs_is_refused_by_its_name(card: DiskCard) -> None:
    recipe = {"name": "Night run", "model": {"id": "o/m"}, "data": {"source": "sample:pirate_answers"}}
    card.services.runs.create(Recipe.parse(recipe), "test")
    assert "needed by Night run" in card.drawn() and "data-kept" not in card.drawn()
    assert "Night run" in card.act("delete", "o/m")[1]["value"] and "o/m" in card.drawn()
