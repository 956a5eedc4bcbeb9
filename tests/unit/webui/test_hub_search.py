"""The hub asked by a button, against one of our own on 127.0.0.1: rows sorted by what trains here, and a sentence for
each failure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from core.advice import shelf
from core.hub.search import FoundModel
from core.memory import budget
from core.workspace.folder import Workspace
from tests.kit.hub import FakeHub
from webui.form.planner import Planner
from webui.kit.wording import Wording
from webui.shelf.hub_search import HubSearch
from webui.shelf.shelf import ModelShelf
from webui.state.services import Services

EIGHT = budget.planned(8, "Linux")
BILLION = 1_000_000_000
ROWS = [
    {"id": "o/big-70b", "downloads": 90, "tags": [], "safetensors": {"parameters": {"BF16": 70 * BILLION},
        "total": 70 * BILLION}},
    {"id": "o/big-GGUF", "downloads": 80, "tags": ["gguf"], "gguf": {"total": 1}},
    {"id": "o/big-1b", "downloads": 70, "likes": 3, "tags": [], "safetensors": {"parameters": {"BF16": BILLION},
        "total": BILLION},
     "cardData": {"license": "<mit>", "language": ["en", "ja"]}},
    {"id": "o/big-gated", "downloads": 60, "gated": "auto", "tags": []},
]  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub({}) as server:
        server.rows = ROWS
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return Planner(Services.open(Workspace.open(tmp_path / "workspace")))


def search_markup(planner: Planner, words: object = "big", language: str = "en") -> str:
    update = HubSearch(planner.services, planner.budget_or_here, Wording(language)).search_hub(
        "size:8", words, "starter"
    )
    assert isinstance(update, dict) and update["visible"]
    return update["value"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_trains_here_comes_first_and_what_can_be_no_base_last_and_is_no_button(
    hub, planner, language: str
) -> None:
    markup = search_markup(planner, language=language)
    assert re.findall(r'data-model="([^"]+)"', markup) == ["o/big-1b", "o/big-gated", "o/big-70b"]
    assert markup.index("o/big-70b") < markup.index("o/big-GGUF")
    assert "{" not in markup and "None" not in markup and "<mit>" not in markup and "&lt;mit&gt;" in markup
    assert f'href="{hub.url}/o/big-gated"' in markup


def test_nothing_is_asked_of_the_hub_while_a_person_types(hub, planner) -> None:
    part = ModelShelf(planner.services, planner.budget_or_here, Wording("en"))
    part.draw("size:8", "big", True, False, "", "starter")
    assert hub.requests == []
    search_markup(planner)
    assert hub.requests == ["GET /api/models"]


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [(429, None, "limiting requests"), (500, None, "status 500"), (None, b"<html>Sign in</html>", "sign-in page")],
)
def test_a_hub_that_fails_is_a_sentence_and_no_row(
    hub, planner, status: int | None, body: bytes | None, sentence: str
) -> None:
    hub.status, hub.body = status, body
    markup = search_markup(planner)
    assert sentence in markup and "lg-warn" in markup and "<li" not in markup and "<html>" not in markup


@pytest.mark.parametrize("words", ["", "  ", None, 7, "x" * 300])
def test_words_that_cannot_be_searched_for_are_said(hub, planner, words: object) -> None:
    assert "Enter at least one word" in search_markup(planner, words) and hub.requests == []


def test_a_name_that_the_hub_does_not_know_is_said(hub, planner) -> None:
    assert "has no model matching “small japanese”" in search_markup(planner, "small japanese")


def test_packed_numbers_are_no_size() -> None:
    """An AWQ repository of 7B tells 1.2B parameters, eight of them in one."""
    (row,) = shelf.of_hub([FoundModel("o/awq", params=1_200_000_000, tags=("awq", "4-bit"))], EIGHT)
    assert row.is_packed and row.fits is None and row.verdict == "unknown"


def test_a_model_of_the_catalogue_is_weighed_by_its_own_shape() -> None:
    known, other = shelf.of_hub(
        [FoundModel("Qwen/Qwen3-4B", params=1), FoundModel("o/x-4b", params=4 * BILLION)], EIGHT
    )
    assert (known.is_about, other.is_about) == (False, True)
    assert (
        known.fits
        and other.fits
        and known.fits["qlora"].needed_gib == pytest.approx(other.fits["qlora"].needed_gib, rel=0.3)
    )
