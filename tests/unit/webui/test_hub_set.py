"""The data step's search of the hub for data sets, without a browser: what each press answers, against a hub of our
own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.hub.downloads import part_folder
from core.hub.sets.name import PartName
from core.workspace.folder import Workspace
from tests.kit import hub_sets as kit
from tests.kit.fetching import fetch_here
from tests.kit.hub import FakeHub
from tests.kit.waits import wait_until
from tests.unit.hub.conftest import quiet_hub  # noqa: F401 - a fixture
from webui.form.data import DataStep
from webui.form.hub_set.panel import HubSetPanel
from webui.kit.wording import Wording
from webui.state.services import Services

NAME = "owner/pirate-talk"
HIDDEN = {"visible": False}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fetch_here(monkeypatch)
    with kit.hub_of_sets(monkeypatch, tmp_path) as server:
        parts = {"en/train": [kit.pirates(150)], "de/train": [kit.pirates(3)]}
        kit.put_parts(server, NAME, parts, counted={"de/train": 9_000_000}, cardData={"license": "mit"})
        yield server


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = Services.open(Workspace.open(tmp_path / "ws"))
    opened.downloads.begin()
    yield opened
    opened.downloads.close()


@pytest.fixture
def panel(services: Services) -> HubSetPanel:
    made = HubSetPanel(services, Wording("zh"))
    with gr.Blocks():
        made.build()
        made._data = gr.Radio([])
    return made


def value(update: Any) -> str:
    return update["value"] if isinstance(update, dict) else update


def test_words_become_rows_and_a_name_becomes_the_set(hub: FakeHub, panel: HubSetPanel) -> None:
    kit.put(hub, "owner/pirate-pictures", {}, tags=["modality:image"])
    markup = value(panel.search("pirate")[panel.results])
    assert f'data-set="{NAME}"' in markup and 'data-set="owner/pirate-pictures"' not in markup and "mit" in markup
    drawn = panel.search(f"https://hub.example/datasets/{NAME}/viewer")
    assert value(drawn[panel.failure]) == "" and drawn[panel.one]["visible"]
    assert NAME in drawn[panel.about] and drawn[panel.dataset].repo == NAME
    part = drawn[panel.part]
    assert [key for _, key in part["choices"]] == ["en:train", "de:train"] and part["value"] == "en:train"
    assert "<td>What is thing number 0?</td>" in value(drawn[panel.head])
    assert "&lt;script&gt;" in value(panel.search("<script>")[panel.results]) and value(panel.search("")[panel.failure])


def test_a_part_is_added_chosen_and_says_where_it_is_from(hub: FakeHub, panel: HubSetPanel, services: Services) -> None:
    begun = panel.begin(0)(panel.open(NAME)[panel.dataset], "en:train", None, None)
    name = begun[panel.download]
    assert name == f"datasets/{NAME}:en:train" and begun[panel.clock].active and NAME in value(begun[panel.progress])
    wait_until(lambda: services.downloads.row(name).state == "done")
    ended = panel.poll(name)
    assert not ended[panel.clock].active and value(ended[panel.progress]) == ""
    filling, updates = panel.fill({panel.arrived: ended[panel.arrived]})
    assert filling.values == {"data": "pirate-talk-en-train"} and "pirate-talk-en-train" in [
        id for _, id in updates[panel._data]["choices"]
    ]
    report = DataStep(services, panel.w).report_of("pirate-talk-en-train")
    assert f"{NAME}:en:train" in report and "mit" in report
    assert panel.fill({panel.arrived: {"id": "gone"}}) == (None, {}) == panel.fill({panel.arrived: None})


def test_another_part_shows_its_rows_and_what_is_too_large_only_its_first(hub: FakeHub, panel: HubSetPanel) -> None:
    dataset = panel.open(NAME)[panel.dataset]
    part = panel.choose_part(dataset, "en:train")
    assert value(part[panel.message]) == "" and part[panel.add]["visible"]
    assert not part[panel.take]["visible"], "150 rows are fewer than are offered"
    part = panel.choose_part(dataset, "de:train")
    assert value(part[panel.message]) and not part[panel.add]["visible"] and part[panel.take]["visible"]
    begun = panel.begin(0)(dataset, "de:train", "", "")
    assert begun[panel.download] is None and not begun[panel.clock].active
    assert "9,000,000" in value(begun[panel.failure])
    assert "en:train" in value(panel.choose_part(dataset, "fr:train")[panel.message])


def test_columns_whose_names_tell_nothing_are_asked_for_and_read_as_was_said(
    hub: FakeHub, panel: HubSetPanel, services: Services
) -> None:
    rows = [{"alpha": row["question"], "beta": "x y z w", "gamma": row["answer"]} for row in kit.pirates(30)]
    kit.put_parts(hub, "owner/odd", {"default/train": [rows]})
    assert panel.open(NAME)[panel.columns]["visible"] is False
    answered = panel.open("owner/odd")
    dataset, names = answered[panel.dataset], ["", "alpha", "beta", "gamma"]
    assert answered[panel.columns]["visible"]
    assert answered[panel.question]["choices"] == answered[panel.answer]["choices"] == names
    name = panel.begin(0)(dataset, "default:train", "alpha", "gamma")[panel.download]
    wait_until(lambda: services.downloads.row(name).state == "done")
    info = services.datasets.get(services.downloads.row(name).result)
    assert info.choices.columns == {"alpha": "question", "gamma": "answer"} and info.good_rows == 30
    name = panel.begin(20_000)(dataset, "default:train", "", "gamma")[panel.download]
    wait_until(lambda: services.downloads.row(name).state == "done")
    row = services.downloads.row(name)
    assert services.datasets.get(row.result).choices.columns == {"gamma": "text"} and (row.done, row.total) == (30, 30)


def test_a_hub_that_refuses_is_a_sentence_at_each_press(hub: FakeHub, panel: HubSetPanel) -> None:
    for hub.status in (429, 500, 403):
        for drawn in (panel.search("pirate"), panel.open(NAME)):
            failure = value(drawn[panel.failure])
            assert "lg-notice" in failure and "{" not in failure


def test_what_holds_no_text_and_what_is_gated_cannot_be_added(hub: FakeHub, panel: HubSetPanel) -> None:
    rows = kit.parquet([{"image": {"bytes": b"x", "path": "a.png"}}])
    features = {"features": [{"name": "image", "dtype": "image"}]}
    kit.put(hub, "owner/pictures", {"train.parquet": rows}, cardData={"dataset_info": features})
    closed = (panel.add, panel.take, panel.columns)
    drawn = panel.open("owner/pictures")
    assert not any(drawn[part]["visible"] for part in closed)
    dataset = panel.open(NAME)[panel.dataset]
    hub.gated = True
    drawn = panel.choose_part(dataset, "en:train")
    assert value(drawn[panel.head]) == "" and hub.url in value(drawn[panel.message])
    assert not any(drawn[part]["visible"] for part in closed)
    kit.put_parts(hub, "owner/gated", {"en/train": [kit.pirates(3)]}, gated="manual")
    assert hub.url in value(panel.open("owner/gated")[panel.failure])


def test_a_download_that_fails_or_is_cancelled_ends_the_clock(
    hub: FakeHub, panel: HubSetPanel, services: Services
) -> None:
    dataset = panel.open(NAME)[panel.dataset]
    hub.corrupt = True
    name = panel.begin(0)(dataset, "en:train", None, None)[panel.download]
    wait_until(lambda: services.downloads.row(name).state == "failed")
    ended = panel.poll(name)
    assert not ended[panel.clock].active and "sha256" in value(ended[panel.failure])
    services.downloads.cancel(name)
    wait_until(lambda: not part_folder(services.workspace, PartName.parse(name)).exists())
    assert panel.poll(name)[panel.clock].active is False


def test_anything_from_a_browser_is_answered(hub: FakeHub, panel: HubSetPanel) -> None:
    for sent in (None, 3, [], {"a": 1}, "a", "a/b/c", "owner/name:\x00"):
        for answered in (
            panel.search(sent),
            panel.open(sent),
            panel.choose_part(sent, sent),
            panel.begin(0)(sent, sent, sent, sent),
            panel.poll(sent),
        ):
            assert isinstance(answered, dict)
        assert panel.fill({panel.arrived: sent}) == (None, {})
