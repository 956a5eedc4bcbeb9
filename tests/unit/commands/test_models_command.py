"""`python launch.py models ...` in this process: what it answers, in sentences and as JSON, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.commands.__main__ import main
from core.hub import cached, hub_errors, search
from core.recipe import Recipe
from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit.fetching import fetch_here
from tests.kit.hub import FakeHub, tiny_model

REPO = "owner/model"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fetch_here(monkeypatch)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setattr(cached.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(cached.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    config = b'{"model_type": "llama"}'
    with FakeHub({REPO: tiny_model() | {"config.json": config}}) as server:
        # Not the library's own constant: hf_hub_url has a template of the real address from its import.
        hub_constants = SimpleNamespace(**vars(hub_errors.constants) | {"ENDPOINT": server.url})
        for module in (hub_errors, search):
            monkeypatch.setattr(module, "constants", hub_constants)
        yield server


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LORA_GARAGE_HOME", str(tmp_path / "ws"))

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["models", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return command


def test_a_model_is_downloaded_shown_and_deleted(hub: FakeHub, run: Run) -> None:
    code, out, _ = run("download", REPO, "--json")
    answer = json.loads(out)
    assert (code, answer["repo"], answer["revision"]) == (0, REPO, "main") and Path(answer["folder"]).is_dir()
    code, out, _ = run("--json")
    (kept,) = json.loads(out)["models"]
    assert (code, kept["id"], kept["store"], kept["is_whole"], kept["can_delete"]) == (0, REPO, "hub", True, True)
    assert REPO in run()[1] and "Hub cache" in run()[1]
    code, out, _ = run("delete", REPO, "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"deleted": REPO, "freed_bytes": kept["bytes"]})
    assert json.loads(run("--json")[1]) == {"models": []}


def test_deleting_asks_and_without_anybody_to_ask_deletes_nothing(hub: FakeHub, run: Run) -> None:
    run("download", REPO)
    code, _, error = run("delete", REPO)
    assert code == 1 and "--yes" in error and cached.installed() == [REPO]


def test_a_model_that_a_run_needs_is_not_deleted_and_the_run_is_named(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    run("download", REPO)
    recipe = {"name": "Pirate", "model": {"id": REPO}, "data": {"source": "sample:pirate_answers"}}
    Runs(Workspace.open(tmp_path / "ws")).create(Recipe.parse(recipe), "test")
    code, _, error = run("delete", REPO, "--yes")
    assert code == 2 and "Pirate" in error and cached.installed() == [REPO]


def test_a_download_that_fails_says_so_and_the_same_command_goes_on(hub: FakeHub, run: Run) -> None:
    hub.gated = True
    code, out, error = run("download", REPO)
    assert code == 2 and out == "" and "licence" in error and error.count("\n") == 1
    hub.gated = False
    code, _, error = run("download", REPO)
    assert code == 0 and "is ready" in error


def test_a_known_model_goes_by_its_short_name_and_a_misspelt_one_names_the_nearest(hub: FakeHub, run: Run) -> None:
    code, _, error = run("download", "qwen3-4b")
    assert code == 2 and "Qwen/Qwen3-4B" in error
    code, _, error = run("download", "Qwen/Qwen-3-4B")
    assert code == 2 and "Did you mean" in error and "Qwen/Qwen3-4B" in error


def test_what_is_no_name_is_one_sentence(hub: FakeHub, run: Run) -> None:
    for word in ("download", "delete"):
        code, out, error = run(word, "../..", *(["--yes"] if word == "delete" else []))
        assert (code, out) == (2, "") and error.count("\n") == 1


def test_words_find_what_fits_and_the_hub_is_asked_only_where_it_is_named(hub: FakeHub, run: Run) -> None:
    hub.rows = [{"id": "owner/qwen3-mine", "downloads": 3, "gated": "auto", "tags": ["license:mit"]}]
    code, out, _ = run("search", "qwen3", "4b", "--fits", "--vram", "12", "--json")
    report = json.loads(out)
    assert code == 0 and hub.requests == [] and "hub" not in report
    assert {row["verdict"] for row in report["rows"]} <= {"lora", "qlora", "tight"} and "Qwen/Qwen3-4B" in [
        r["hub"] for r in report["rows"]
    ]
    assert "Qwen/Qwen3-4B" in run("search", "qwen3", "4b", "--vram", "12")[1]
    code, out, _ = run("search", "qwen3", "--hub", "--json")
    assert [row["id"] for row in json.loads(out)["hub"]] == ["owner/qwen3-mine"]
    hub.status = 500
    code, out, error = run("search", "qwen3", "--hub")
    assert (code, out) == (2, "") and "500" in error
