"""The first hour on a card, without one: what its parts would find, in which order, and what its report tells of a person."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_report
from benchmarks.gpu_report import Hour, LeftOut, NotWell, anonymous, go_through
from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import MemoryFacts, RunFacts, TimeFacts
from core.runs.states import State
from core.system.gpu import Card, Nvidia
from tests.kit.runs import ScriptedRun


@pytest.fixture
def hour(tmp_path: Path, tiny_model: Path) -> Hour:
    """With a tiny model in the place of the starter."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    train = {"max_steps": 20, "learning_rate": 1e-2, "sample_seconds": 0}
    recipe = {"model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"}, "adapter": {"r": 4}, "train": train}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return Hour(tmp_path, recipe=tmp_path / "recipe.yaml")


@pytest.mark.full
def test_a_run_that_did_not_use_the_card_is_found_and_the_parts_after_it_go_on(hour: Hour, capsys) -> None:
    parts = {title: gpu_report.PARTS[title] for title in ("A first run in an empty workspace", "Exports")}
    assert go_through(hour, parts, "this PC") == 1
    state = json.loads((hour.folder / "state.json").read_text("utf-8"))["parts"]
    first, exports = state.values()
    assert first["how"] == "failed" and "on the processor, not on the card: loss" in first["said"][0]
    assert exports["how"] == "well" and len(exports["said"]) == 3 and all("proven" in line for line in exports["said"])
    report = (hour.folder / "report.md").read_text("utf-8")
    assert report.count("\n## ") == 3 and str(hour.folder) not in report
    assert "failed: A first run" in capsys.readouterr().out


@pytest.mark.full
def test_a_run_that_is_paused_and_gone_on_with_has_the_losses_of_the_undisturbed_one(hour: Hour, monkeypatch) -> None:
    monkeypatch.setattr(gpu_report, "learned", lambda run: run.status().state.value)
    said = gpu_report.paused_and_resumed(hour, "lora", "adamw_torch", steps=60, pause_at=2)
    assert said.startswith("lora adamw_torch: completed; paused at step ") and said.endswith("losses at most 0 apart")
    assert [Runs(hour.space).status(run).state for run in Runs(hour.space).folders()] == [State.COMPLETED] * 2


def test_what_broke_off_goes_on_and_what_failed_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    broken = [KeyboardInterrupt(), NotWell("no"), ValueError("boom")]

    def first(hour: Hour) -> list[str]:
        hour.kept["run"] = "r1"
        return done.append("first") or ["fine"]

    def second(hour: Hour) -> list[str]:
        done.append("second")
        assert hour.kept == {"run": "r1"}
        if broken:
            raise broken.pop(0)
        return ["fine"]

    def third(hour: Hour) -> list[str]:
        raise LeftOut("not here")

    parts = {"one": first, "two": second, "three": third}
    with pytest.raises(KeyboardInterrupt):
        go_through(Hour(tmp_path), parts, "this card")
    assert go_through(Hour(tmp_path), parts, "this card") == 1
    assert go_through(Hour(tmp_path), parts, "this card") == 1
    assert "ValueError: boom" in (tmp_path / "report.md").read_text("utf-8")
    assert "ValueError: boom" in capsys.readouterr().out, "the report is printed too"
    assert go_through(Hour(tmp_path), parts, "this card") == 0, "what has nothing to do here is no failure"
    assert done == ["first"] + ["second"] * 4
    go_through(Hour(tmp_path), {"one": first}, "another card")
    assert done[-1] == "first", "another card's results are not gone on with"
    assert "another card" in (tmp_path / "report.md").read_text("utf-8")


def test_what_only_a_real_machine_shows_is_a_part_or_stands_at_the_end_of_the_report() -> None:
    said = (PROJECT / "docs" / "gaming-pc.md").read_text("utf-8").split("### What only a real machine can show")[1]
    rows = [line for line in said.split(gpu_report.BY_HAND)[0].splitlines() if line.startswith("|")][2:]
    assert {part for row in rows for part in re.findall(r"`([A-Z][^`]+)`", row)} == set(gpu_report.PARTS)
    report = gpu_report.report("this card", {})
    assert "fast user switching" in report and "## The first hour" not in report


def test_each_of_two_cards_is_trained_on_and_one_that_is_not_used_is_found(hour: Hour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are not started: that a worker takes the card of its environment is test_cards.py."""
    pc = Nvidia(driver="580.65.06", cards=tuple(Card(index=i, name=f"RTX {i}", uuid=f"GPU-{i}") for i in (0, 1)))
    monkeypatch.setattr(gpu_report.devices, "here", lambda: pc)
    shown: list[str] = []

    def train(hour: Hour, name: str, *settings: str, environment: dict[str, str]) -> RunFolder:
        shown.append(environment["CUDA_VISIBLE_DEVICES"])
        run = ScriptedRun(hour.space, name, device=None).run
        run.add_facts(RunFacts(device_uuid="GPU-0", device_name="RTX 0"))
        return run

    monkeypatch.setattr(Hour, "train", train)
    with pytest.raises(NotWell, match="card 1 alone: it trained on RTX 0"):
        gpu_report.cards(hour)
    assert shown == ["GPU-0", "GPU-1"]
    monkeypatch.setattr(gpu_report.devices, "here", lambda: pc.model_copy(update={"cards": pc.cards[:1]}))
    (line,) = gpu_report.cards(hour)
    assert "free_bytes" in line and len(shown) == 2, "what is not told is named; one card is no choice"


def test_what_was_foretold_stands_beside_what_came() -> None:
    facts = RunFacts(
        memory=MemoryFacts(predicted_gib=1.5, measured_gib=2.0), time=TimeFacts(after_steps=3, said_seconds=10, took_seconds=12)
    )
    assert gpu_report.foretold(facts) == (
        ", foretold 1.50 GiB, measured 2.00 GiB, of it torch's unknown; 10 s foretold after 3 steps, 12 s taken"
    )


def test_the_report_names_no_person_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "user", lambda: "mueller")
    monkeypatch.setattr(platform, "node", lambda: "SCHREIBTISCH")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/mueller"))
    said = f"{PROJECT}/core/x.py {tmp_path}/workspace/runs /HOME/Mueller/models on schreibtisch: Mueller's {sys.prefix}/lib"
    assert (
        anonymous(said, tmp_path)
        == "<program>/core/x.py <folder>/workspace/runs <home>/models on <name>: <name>'s <environment>/lib"
    )


def test_without_a_card_nothing_is_reported(tmp_path: Path) -> None:
    if gpu_report.gpu.probe().cards:
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks.gpu_report", "--folder", str(tmp_path / "report")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and "launch.py doctor" in done.stderr and not (tmp_path / "report").exists()
