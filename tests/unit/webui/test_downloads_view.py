"""The list of downloads on the page: all words, the right buttons for each state, any JSON from a browser, and the room
said before."""

from __future__ import annotations

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any, get_args

import pytest

from core.hub.downloads import Download, State
from core.messages import msg
from core.models.known import known_models
from core.workspace.folder import Workspace
from webui.kit.wording import Wording
from webui.shelf import downloads
from webui.shelf.download_button import DownloadButton
from webui.shelf.downloads import DownloadsCard
from webui.state.services import Services

EN = Wording("en")
QWEN = next(model for model in known_models() if model.id == "qwen3-4b")


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return Services.open(Workspace.open(tmp_path / "workspace"))


def download(**changes: Any) -> Download:
    known = {"repo": "o/m", "revision": "main", "state": "running", "done": 2_700_000_000, "total": 8_100_000_000}
    return Download(**known | {"bytes_per_s": 12e6, "message": None, "asked": 1.0} | changes)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("state", get_args(State))
def test_every_state_has_its_words_and_buttons(state: State, language: str) -> None:
    message = msg("hub.missing", repo="<b>", host="h") if state == "failed" else None
    drawn = downloads.rows((download(state=state, message=message),), Wording(language))
    assert "{" not in drawn and "downloads_view." not in drawn and "<b>" not in drawn
    assert re.findall(r'data-act="(\w+)"', drawn) == [*downloads.ACTS[state]]


def test_progress_is_said_in_numbers() -> None:
    drawn = downloads.row(download(), EN)
    assert "2.7 GB of 8.1 GB · 33 % · 12 MB/s · about 8 min left" in drawn and 'aria-valuenow="33"' in drawn
    paused = downloads.row(download(state="paused", bytes_per_s=None), EN)
    assert "33 %" in paused and "left" not in paused
    assert "progressbar" not in downloads.row(download(total=0, done=0), EN)


@pytest.mark.parametrize("junk", [None, 7, "", "[", "[1]", "{}", "[" * 100_000, json.dumps({"act": "rm", "repo": "o/m",
    "revision": "main"}),
                                  json.dumps({"act": "pause", "repo": "../..", "revision": "main"}),
                                  json.dumps({"act": "pause", "repo": [], "revision": 1})])  # fmt: skip
def test_any_json_of_a_browser_is_a_sentence_or_nothing(services: Services, junk: object) -> None:
    update = DownloadsCard(services, EN).act(junk)
    assert isinstance(update, dict) and "Traceback" not in update["value"]
    assert services.downloads.rows() == []


def test_a_press_pauses_goes_on_and_takes_off(services: Services) -> None:
    services.downloads.start("o/m")  # nothing works on it: the app is not begun
    card = DownloadsCard(services, EN)

    def press(act: str) -> str:
        card.act(json.dumps({"act": act, "repo": "o/m", "revision": "main"}))
        rows = services.snapshots.now(fresh=True).downloads
        return rows[0].state if rows else "gone"

    assert [press("pause"), press("resume"), press("cancel")] == ["paused", "waiting", "gone"]


def test_the_button_is_there_for_what_is_not_here_and_says_the_room_first(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = DownloadButton(services, EN)
    part.build()

    def drawn(model: object) -> tuple[bool, str]:
        updates = part.draw(model, 8_000_000_000)
        return updates[part.button]["visible"], updates[part.room]["value"]

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 2_000_000_000))
    assert drawn(QWEN.hub)[0] and "only 2.0 GB are free" in drawn(QWEN.hub)[1]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 200_000_000_000))
    assert drawn(QWEN.hub) == (True, '<p class="lg-quiet">200 GB free on the target drive.</p>')
    for other in ("starter", "library:x", "../..", None, 7):
        assert drawn(other) == (False, ""), other
    assert "lg-ok" in part.begin(QWEN.hub, None)["value"]
    assert drawn(QWEN.hub)[0] is False  # it is on its way
    assert "lg-bad" in part.begin("no name", None)["value"] and "lg-bad" in part.begin(QWEN.hub, "../..")["value"]
