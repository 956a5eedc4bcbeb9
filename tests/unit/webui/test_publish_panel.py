"""Publishing on the page: nothing is sent before its files were shown, and what is sent is worked out on the server."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gradio as gr
import pytest

from core.errors import BusyError
from core.export.exports import Exports
from core.export.hub.publishing import Publishing
from core.export.records import ExportCheck, ExportResult, ExportStatus
from core.messages import msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.workspace.folder import Workspace
from webui.kit.live import ViewContext
from webui.kit.wording import Wording
from webui.run.publish import PublishPanel

PROVEN = ExportCheck(proof="bytes", tensors=2, prompts_read_alike=3, prompts=3, own_prompts=True, passed=True)


@pytest.fixture
def result(workspace: Workspace) -> ExportResult:
    run = Runs(workspace).create(Recipe.parse({"name": "<b>Pirate</b>", "data": {"source": "rows"}}), "app")
    folder = workspace.exports / f"{run.id}-adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(2_000))
    record = {
        "name": folder.name,
        "run": run.id,
        "run_name": run.name,
        "kind": "adapter",
        "base": "starter",
        "dtype": "bfloat16",
    }
    made = ExportResult(
        **record, files={"adapter_model.safetensors": 2_000}, check=PROVEN, created=time.time(), seconds=1.0
    )
    (folder / "export.json").write_text(made.model_dump_json(), "utf-8")
    return made


def panel(workspace: Workspace, language: str = "en") -> PublishPanel:
    services = SimpleNamespace(publishing=Publishing(workspace), exports=Exports(workspace))
    made = PublishPanel(services, Wording(language), lambda look: services.exports.list())
    with gr.Blocks():
        made.build()
    return made


def test_the_files_are_listed_with_who_sees_them_and_only_then_there_is_a_button(
    workspace: Workspace, result: ExportResult
) -> None:
    for language, private, public in (
        ("en", "visible only to you", "visible to everyone"),
        ("zh", "只有你", "所有人可见"),
    ):
        shows = panel(workspace, language)
        drawn = shows.list(result.run, result.name, " anna/pirate ", False, "private")
        files = drawn[shows.files]["value"]
        assert "adapter_model.safetensors" in files and "README.md" in files and private in files
        assert "Apache-2.0" in files and drawn[shows.send]["visible"] and not drawn[shows.notice]["visible"]
        assert public in shows.list(result.run, result.name, "anna/pirate", False, "public")[shows.files]["value"]
        hidden = shows.hide_list()
        assert not hidden[shows.files]["visible"] and not hidden[shows.send]["visible"]


@pytest.mark.parametrize(
    ("which", "repo", "sentence"),
    [(None, "anna/pirate", "First choose"), ("../..", "anna/pirate", "First choose"), ({}, 7, "First choose"), ("own",
        None, "owner/name"),
     ("own", "<img src=x>", "&lt;img")],
)  # fmt: skip
def test_what_cannot_be_is_a_sentence_and_no_button(
    workspace: Workspace, result: ExportResult, which: object, repo: object, sentence: str
) -> None:
    shows = panel(workspace)
    drawn = shows.list(result.run, result.name if which == "own" else which, repo, [], {})
    notice = drawn[shows.notice]["value"]
    assert not drawn[shows.files]["visible"] and not drawn[shows.send]["visible"]
    assert sentence in notice and "<img" not in notice


def test_what_is_sent_is_what_the_choices_say_private_unless_public_was_chosen(
    workspace: Workspace, result: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows, started = panel(workspace), []
    monkeypatch.setattr(
        shows.services.publishing, "start", lambda result, repo, **how: started.append((result.name, repo, how))
    )
    for who in ("private", "public", None):
        chosen = (result.run, result.name, "anna/pirate", True, who)
        for listed in (None, [*chosen[:4], "other"]):
            assert shows.begin(listed, *chosen)[shows.send]["visible"], "what was chosen since is listed first"
        shows.begin([*chosen], *chosen)
    assert started == [
        (result.name, "anna/pirate", {"private": who != "public", "with_film": True})
        for who in ("private", "public", None)
    ]
    monkeypatch.setattr(
        shows.services.publishing,
        "start",
        lambda *_, **__: (_ for _ in ()).throw(BusyError("publish.at_work", name="x")),
    )
    assert "already being published" in shows.begin([*chosen], *chosen)[shows.notice]["value"]


def test_how_far_it_is_and_how_it_ended_is_told(workspace: Workspace, result: ExportResult) -> None:
    shows = panel(workspace)
    sending = shows._status_card(result, ExportStatus(state="running", stage="sending", fraction=0.4))
    assert "Sending the files" in sending and "40 %" in sending
    done = msg(
        "publish.done_private",
        repo="a/b",
        page="http://hub/a/b",
        commit="0" * 12,
        undo=msg("publish.undo_new", repo="a/b", page="http://hub/a/b"),
    )
    assert "hf repos delete a/b" in shows._status_card(result, ExportStatus(state="done", message=done))
    choices = shows._which(ViewContext(None, result.run))["choices"]
    assert [name for _, name in choices] == [result.name] and choices[0][0].startswith("Adapter · ")
