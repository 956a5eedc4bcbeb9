"""An export published to a hub of our own that takes what the real one takes: what leaves, what each refusal says, a
kill, a cancel."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from core.commands.__main__ import main
from core.errors import BusyError, ExportError
from core.export.exports import Exports
from core.export.hub import parcel, sending
from core.export.hub.publishing import Publishing
from core.export.hub.sending import Sender
from core.export.records import ExportCheck, ExportResult, ExportStatus
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.run_json import RunFacts
from core.workspace.folder import Workspace
from tests.faults.table import FaultTable
from tests.kit.hub import NO_TENSORS
from tests.kit.publishing import TakingHub
from tests.kit.waits import wait_until

TOKEN = "hf_plantedForPublishing"
REPO = "anna/pirate"
PROVEN = ExportCheck(proof="bytes", tensors=2, prompts_read_alike=3, prompts=3, own_prompts=True, passed=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TakingHub]:
    """Over plain HTTP; in this process without seconds between two tries."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time", SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    )
    with TakingHub() as server:
        places = {
            "HF_TOKEN": TOKEN,
            "HF_ENDPOINT": server.url,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        for name, value in (places | {"HF_HOME": str(tmp_path / "hf")}).items():
            monkeypatch.setenv(name, value)
        yield server


def exported(workspace: Workspace, kind: str, files: dict[str, bytes], **more: object) -> ExportResult:
    """A finished export of a run on a file of the person's, as if it had been made."""
    of = {"name": "Pirate", "model": {"id": "Qwen/Qwen3.5-4B"}, "data": {"source": str(workspace.root / "diary.jsonl")}}
    run = Runs(workspace).create(Recipe.parse(of), "command")
    run.add_facts(RunFacts(rows_trained=7, rows_measured=1))
    folder = workspace.exports / f"{run.id}-{kind}"
    folder.mkdir()
    for name, content in (files | {"README.md": b"of before"}).items():
        (folder / name).write_bytes(content)
    record = {
        "run": run.id,
        "run_name": run.name,
        "base": "Qwen/Qwen3.5-4B",
        "dtype": "bfloat16",
        "check": PROVEN,
        "created": 1.0,
        "seconds": 1.0,
    }
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    result = ExportResult.model_validate(record | {"name": folder.name, "kind": kind, "files": sizes} | more)
    (folder / "export.json").write_text(result.model_dump_json(), "utf-8")
    return result


def with_adapter(workspace: Workspace, result: ExportResult) -> None:
    """In its run, older than the export."""
    folder = Runs(workspace).get(result.run).adapter
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8}), "utf-8")
    (folder / "adapter_model.safetensors").write_bytes(NO_TENSORS)
    os.utime(folder / "adapter_model.safetensors", (0, 0))


def weights(number: int, size: int = 200_000) -> bytes:
    return random.Random(number).randbytes(size)


@pytest.fixture
def adapter(workspace: Workspace) -> ExportResult:
    config = {"base_model_name_or_path": str(workspace.root / "models" / "base"), "peft_type": "LORA", "r": 8}
    files = {
        "adapter_model.safetensors": weights(1),
        "adapter_config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
    }
    return exported(workspace, "adapter", files)


def packed(workspace: Workspace, result: ExportResult, repo: str = REPO) -> parcel.Parcel:
    return Publishing(workspace).pack(result, repo)


def sender(
    hub: TakingHub,
    what: parcel.Parcel,
    private: bool = True,
    told: Callable = lambda stage, done: None,
) -> Sender:
    return Sender(what, private, told, endpoint=hub.url)


def refusal(hub: TakingHub, what: parcel.Parcel, private: bool = True) -> str:
    with pytest.raises(ExportError) as caught:
        sender(hub, what, private).send()
    for language in ("en", "zh"):
        assert TOKEN not in caught.value.message.render(
            language
        ) and "text of the server" not in caught.value.message.render(language)
    return caught.value.message.key


def test_an_adapter_leaves_whole_in_one_private_commit_without_our_record_and_our_paths(
    hub: TakingHub, workspace: Workspace, adapter: ExportResult
) -> None:
    what, reports = packed(workspace, adapter), []
    assert hub.requests == [], "nothing is asked to see what would leave"
    sent = sender(hub, what, told=lambda stage, done: reports.append((stage, done))).send()
    there = hub.repos[REPO]
    assert set(there) == {piece.name for piece in what.pieces} == {*adapter.files}
    assert there["adapter_model.safetensors"] == weights(1) and b"of before" not in there["README.md"]
    assert json.loads(there["adapter_config.json"])["base_model_name_or_path"] == "Qwen/Qwen3.5-4B"
    for content in there.values():
        assert str(workspace.root).encode() not in content and b"diary" not in content
    assert hub.rows == [{"id": REPO, "private": True}] and len(hub.commits) == 1
    assert (sent.page, sent.is_new) == (f"{hub.url}/{REPO}", True)
    fractions = [done for stage, done in reports if stage == "sending"]
    assert [stage for stage, _ in reports][0] == "asking_hub" and reports[-1] == ("committing", None)
    shares = [piece.size / what.size for piece in what.pieces]
    assert fractions == [None, *(pytest.approx(sum(shares[:n])) for n in range(1, len(shares)))], (
        "of files that arrived"
    )
    hub.requests.clear()
    again = sender(hub, what).send()
    assert (
        not again.is_new
        and again.commit == sent.commit
        and "put" not in hub.steps()
        and hub.commits == ["Adapter by LoRA Garage"]
    )


def test_a_new_merged_model_takes_the_place_of_the_shards_of_the_one_before(
    hub: TakingHub, workspace: Workspace
) -> None:
    hub.put_repo(
        REPO,
        {"model-00001-of-00002.safetensors": b"a", "model.safetensors.index.json": b"{}", "notes.txt": b"mine"},
        True,
    )
    sender(
        hub, packed(workspace, exported(workspace, "merged", {"model.safetensors": weights(2), "config.json": b"{}"}))
    ).send()
    assert set(hub.repos[REPO]) == {"model.safetensors", "config.json", "README.md", "notes.txt"}


def test_what_a_repository_is_already_is_looked_at_before_anything_is_sent(
    hub: TakingHub, workspace: Workspace, adapter: ExportResult
) -> None:
    hub.put_repo("anna/open", {}, private=False)
    hub.put_repo("anna/gguf", {"a.gguf": b"GGUF"}, private=True)
    assert refusal(hub, packed(workspace, adapter, "anna/open")) == "publish.is_public"
    assert refusal(hub, packed(workspace, adapter, "anna/gguf"), private=False) == "publish.is_private"
    assert refusal(hub, packed(workspace, adapter, "anna/gguf")) == "publish.other_kind"
    assert hub.stored == {} and hub.commits == []


@pytest.mark.parametrize(
    ("step", "status", "key"),
    [
        ("whoami", 401, "publish.bad_token"), ("whoami", 429, "publish.rate_limit_until"), ("whoami", 500,
            "publish.server_trouble"),
        ("create", 403, "publish.may_not"), ("create", 409, "publish.conflict"), ("preupload", 403, "publish.may_not"),
        ("batch", 503, "publish.server_trouble"), ("put", 500, "publish.server_trouble"), ("verify", 404,
            "publish.gone"),
        ("validate", 400, "publish.card_refused"), ("commit", 413, "publish.refused"), ("commit", 412, "publish.moved"),
    ],
)  # fmt: skip
def test_each_refusal_of_a_hub_is_one_sentence_and_nothing_is_seen_there(
    hub: TakingHub, workspace: Workspace, adapter: ExportResult, step: str, status: int, key: str
) -> None:
    hub.failing, hub.headers = {step: status}, {"Retry-After": "40"}
    assert refusal(hub, packed(workspace, adapter)) == key
    assert not hub.repos.get(REPO) and hub.commits == []


def test_a_mirror_that_knows_nobody_is_asked_on_and_a_token_that_reads_is_refused_at_once(
    hub: TakingHub, workspace: Workspace, adapter: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.role = "read"
    assert refusal(hub, packed(workspace, adapter)) == "publish.only_reads" and hub.steps() == ["whoami"]
    hub.failing = {"whoami": 404}
    sender(hub, packed(workspace, adapter)).send()
    hub.body = b"<html>sign in</html>"
    assert refusal(hub, packed(workspace, adapter, "anna/other")) == "publish.not_a_hub"
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(hub, packed(workspace, adapter)) == "publish.no_token"
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal(hub, packed(workspace, adapter)) == "publish.offline" and hub.requests == []


def test_a_line_that_breaks_is_gone_on_with_and_one_that_stays_broken_is_said_with_what_arrived(
    hub: TakingHub, workspace: Workspace
) -> None:
    files = {
        "model-00001-of-00002.safetensors": weights(3),
        "model-00002-of-00002.safetensors": weights(4),
        "config.json": b"{}",
    }
    result = exported(workspace, "merged", files)
    hub.cut_put_after, hub.cuts_left = 100_000, 1
    sender(hub, packed(workspace, result)).send()
    assert hub.repos[REPO]["model-00001-of-00002.safetensors"] == weights(3)
    hub.stored.clear()
    hub.cuts_left = 100
    assert refusal(hub, packed(workspace, result, "anna/other")) == "publish.interrupted"
    hub.__exit__()
    assert refusal(hub, packed(workspace, result)) == "publish.no_network"


def test_another_persons_commit_is_not_overwritten(hub: TakingHub, workspace: Workspace, adapter: ExportResult) -> None:
    sender(hub, packed(workspace, adapter)).send()
    hub.repos[REPO].pop("README.md")
    hub.between = lambda: hub.repos[REPO].update({"theirs.txt": b"new"})
    assert refusal(hub, packed(workspace, adapter)) == "publish.moved" and "README.md" not in hub.repos[REPO]


@pytest.mark.parametrize(
    "repo",
    [
        "pirate",
        "anna/pirate ship",
        "安娜/海盗",
        "anna/" + "a" * 97,
        "anna/a/b",
        "",
        "../etc",
        "anna/pi--rate",
        "https://host/anna/x",
    ],
)
def test_what_is_no_name_is_refused_with_one_that_is(workspace: Workspace, adapter: ExportResult, repo: str) -> None:
    with pytest.raises(ExportError) as caught:
        packed(workspace, adapter, repo)
    assert caught.value.message.key == "publish.bad_repo"
    parcel.check_name(str(caught.value.message.params["better"]), "Pirate")


def test_an_export_that_was_changed_or_did_not_prove_itself_does_not_leave(
    workspace: Workspace, adapter: ExportResult
) -> None:
    folder = workspace.exports / adapter.name
    unproven = adapter.model_copy(update={"check": PROVEN.model_copy(update={"passed": False})})
    (folder / "tokenizer.json").write_bytes(b"{} ")
    for result, key in ((unproven, "publish.not_proven"), (adapter, "publish.changed")):
        with pytest.raises(ExportError) as caught:
            packed(workspace, result)
        assert caught.value.message.key == key


@pytest.mark.full
def test_where_xet_takes_nothing_the_file_goes_over_http(
    hub: TakingHub, workspace: Workspace, adapter: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real Xet library against a hub that has no such storage."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    sender(hub, packed(workspace, adapter)).send()
    assert hub.repos[REPO]["adapter_model.safetensors"] == weights(1)
    assert any("xet-write-token" in asked for asked in hub.requests) and "put" in hub.steps()


@pytest.mark.spawn
def test_the_command_lists_what_would_leave_and_sends_it_with_yes(
    hub: TakingHub,
    workspace: Workspace,
    adapter: ExportResult,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_adapter(workspace, adapter)
    monkeypatch.setenv("LANG", "C.UTF-8")
    arguments = ["export", adapter.run, "--to", "hub", "--workspace", str(workspace.root)]
    assert main(arguments) == 2 and "owner/name" in capsys.readouterr().err, "a name is asked for"
    assert main([*arguments, "--repo", REPO]) == 0
    listed = capsys.readouterr()
    assert hub.requests == [] and [line.split()[-1] for line in listed.out.splitlines()] == sorted(adapter.files)
    assert (
        "4 files" in listed.err
        and "visible only to you" in listed.err
        and "Apache-2.0" in listed.err
        and "--yes" in listed.err
    )
    assert main([*arguments, "--repo", REPO, "--public", "--yes", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["published"]
        and result["message"]["key"] == "publish.done_public"
        and hub.rows == [{"id": REPO, "private": False}]
    )
    assert main([*arguments, "--repo", REPO, "--yes"]) == 1
    assert "is public, but you chose private" in capsys.readouterr().err
    assert main([*arguments, "--repo", REPO, "--base-gguf", "base.gguf"]) == 2
    assert "--base-gguf" in capsys.readouterr().err
    strengths: list[float] = []
    monkeypatch.setattr(Exports, "finished", lambda _, *arguments: strengths.append(arguments[-1]) or adapter)
    assert main([*arguments, "--repo", REPO, "--strength", "0.5"]) == 0 and strengths == [0.5], (
        "it was left out without a word"
    )


@pytest.mark.spawn
def test_a_cancel_and_a_kill_leave_nothing_to_see_and_what_had_arrived_is_not_sent_again(
    hub: TakingHub, workspace: Workspace
) -> None:
    """In processes of their own. The token is in no file that they leave."""
    files = {
        "model-00001-of-00002.safetensors": weights(5),
        "model-00002-of-00002.safetensors": weights(6, 60_000),
        "config.json": b"{}",
    }
    result = exported(workspace, "merged", files)
    publishing = Publishing(workspace)

    def stalled() -> int:
        before = hub.steps().count("put")
        publishing.start(result, REPO)
        return wait_until(lambda: hub.steps().count("put") > before and publishing.status(result.name).pid, 60)

    hub.stalls = "put"
    pid = stalled()
    with pytest.raises(BusyError):
        publishing.start(result, REPO)
    assert publishing.cancel(result.name).message.key == "publish.cancelled"
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    hub.stored[hashlib.sha256(weights(5)).hexdigest()] = weights(5)  # the first had arrived before
    psutil.Process(stalled()).kill()
    status = publishing.wait(result.name)
    assert (status.state, status.message.key) == ("failed", "export.went_away") and hub.commits == []
    hub.stalls = None
    hub.requests.clear()
    statuses: list[ExportStatus] = []
    publishing.start(result, REPO)
    status = publishing.wait(result.name, statuses.append)
    assert (status.state, status.message.key) == ("done", "publish.done_private"), status
    assert status.message.params["repo"] == REPO and hub.steps().count("put") == 1
    assert hub.repos[REPO]["model-00001-of-00002.safetensors"] == weights(5)
    for file in workspace.root.parent.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


@pytest.mark.full
@pytest.mark.spawn
@pytest.mark.parametrize("step", ["whoami", "create", "preupload", "batch", "put", "verify", "commit"])
def test_killed_or_cancelled_at_each_step_nothing_is_seen_the_export_stays_and_the_next_one_arrives(
    hub: TakingHub, workspace: Workspace, step: str, faults: FaultTable
) -> None:
    files = {"model.safetensors": weights(5), "config.json": b"{}"}
    result, publishing = exported(workspace, "merged", files), Publishing(workspace)
    folder = workspace.exports / result.name
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    marks = {
        "whoami": "whoami",
        "create": "/repos/create",
        "batch": "/objects/batch",
        "put": "PUT ",
        "verify": "/verify",
    }
    for how in ("killed", "cancelled"):
        hub.stalls = step
        hub.requests.clear()
        hub.stored.clear()  # else a file that had arrived is not asked about again
        publishing.start(result, REPO)
        wait_until(lambda: any(marks.get(step, f"/{step}/") in asked for asked in hub.requests), 60)
        worker = psutil.Process(publishing.status(result.name).pid)
        if how == "killed":
            worker.kill()
            assert publishing.wait(result.name).message.key == "export.went_away"
        else:
            assert publishing.cancel(result.name).message.key == "publish.cancelled"
        wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)  # noqa: B023 - awaited within the loop's turn
        assert hub.commits == [] and not any(hub.repos.values())
        faults.add(f"{how} at {step}", "publishing")
    hub.stalls = None
    publishing.start(result, REPO)
    assert publishing.wait(result.name).state == "done" and set(hub.repos[REPO]) >= {"model.safetensors", "config.json"}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_timeouts_are_those_of_the_client_that_huggingface_hub_uses(hub: TakingHub) -> None:
    from huggingface_hub.utils import get_session

    sending.set_client_factory(sending._client)
    assert get_session().timeout.read == sending.ANSWER_S
