"""The first half hour on a card, without one: what its parts find, that none takes another along, what it tells."""

from __future__ import annotations

import importlib
import inspect
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu_report import child, journey, parts, running
from benchmarks.gpu_report.child import anonymous
from benchmarks.gpu_report.hour import Hour, LeftOut, NotWell
from benchmarks.gpu_report.running import go_through
from core.messages import msg
from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import MemoryFacts, RunFacts, TimeFacts
from core.runs.states import State
from core.system import gpu
from core.system.gpu import Card, Nvidia
from core.workspace.folder import Workspace
from tests.kit.runs import PATHS, ScriptedRun

FAKE = "tests.kit.gpu_parts"


@pytest.fixture
def hour(tmp_path: Path, tiny_model: Path) -> Hour:
    """With a tiny model in the place of the starter, on the processor."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "settings.yaml").write_text(
        json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8"
    )
    train = {"max_steps": 20, "learning_rate": 1e-2, "sample_seconds": 0}
    recipe = {
        "model": {"id": "library:tiny"},
        "data": {"source": "sample:pirate_answers"},
        "adapter": {"r": 4},
        "train": train,
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return Hour(tmp_path, recipe=tmp_path / "recipe.yaml", device="cpu")


def hows(hour: Hour) -> dict[str, str]:
    return {check: each["how"] for (_, check), each in running.results(hour).items()}


def test_a_check_that_fails_crashes_or_hangs_takes_no_other_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All checks were in one process: a kernel that ended it ended the report."""
    hour = Hour(tmp_path)
    assert go_through(hour, FAKE, "this card", seconds=600) == 1
    assert hows(hour) == {
        "a": "well", "fails": "failed", "raises": "failed", "ends_the_process": "failed", "crashes": "failed",
        "needs_it": "well",
        "hangs": "failed", "after": "left out", "not here": "left out", "not there": "failed", "once": "failed",
    }  # fmt: skip
    printed, written = (
        re.sub(r"\| \d+ \|", "| 0 |", each)
        for each in (capsys.readouterr().out, (tmp_path / "report.md").read_text("utf-8"))
    )
    for row in (
        "| one | a | well | 0 | fine in <folder> |",
        "| two | fails | failed | 0 | the last words |",
        "| two | raises | failed | 0 | ValueError: boom |",
        r"| two | needs_it | well | 0 | it has r1<br>two \| lines |",
        "| four | not here | left out | 0 | needs two GPUs |",
    ):
        assert row in written and row in printed
    assert re.search(r"\| two \| crashes \| failed \| 0 \| its process ended with -?\d+ \|", printed)
    assert re.search(r"\| three \| hangs \| failed \| 0 \| not done when the 3 s of this part were over \|", printed)
    assert "Error invalid device function" in written, "the end of what a process said is kept"
    assert printed.count("\n|---") == 1, "one table to paste"


def test_what_broke_off_goes_on_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    hour = Hour(tmp_path)
    assert go_through(hour, FAKE, "this card", seconds=600, quick=True) == 1
    assert hows(hour) == {"a": "well", "not here": "left out", "not there": "failed", "once": "failed"}, (
        "a part without quick seconds is left out"
    )
    (tmp_path / "hour.json").write_text("{}", "utf-8")  # written anew at each start
    go_through(hour, FAKE, "this card", seconds=600, quick=True)
    assert hows(hour)["once"] == "well"
    assert [each["check"] for each in running.lines(hour)].count("a") == 1, "what was well is not done again"
    go_through(hour, FAKE, "another card", seconds=0, quick=True)
    assert set(hows(hour).values()) == {"left out"}, "another card's results are not gone on with; no time is left here"


def test_each_result_is_on_disk_before_the_next_check_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PC itself may go down with a driver."""
    hour = Hour(tmp_path)
    hour.write()
    began: list[list[str]] = []
    own = child.carried_out
    monkeypatch.setattr(
        child,
        "carried_out",
        lambda *given: began.append([each["check"] for each in running.lines(hour)]) or own(*given),
    )
    monkeypatch.setattr(sys, "argv", ["child", FAKE, "two", str(tmp_path), "needs_it", "needs_it", "fails", "needs_it"])
    hour.keep("run", "r2")
    assert child.main() == child.BROKEN
    assert began == [[], ["needs_it"], ["needs_it"] * 2]


def test_the_parts_have_half_an_hour_and_five_minutes() -> None:
    own_model = parts.PARTS[-1]
    assert sum(part.seconds for part in parts.PARTS if part is not own_model) == parts.SECONDS == 1800
    assert sum(part.quick_seconds or 0 for part in parts.PARTS) == parts.QUICK_SECONDS == 300
    assert parts.PARTS[0].title == "Kernels" and parts.PARTS[0].seconds == 120


def test_every_check_is_a_function_that_takes_its_settings() -> None:
    for part in parts.PARTS:
        for check in part.checks.values():
            function = getattr(importlib.import_module(check.module), check.function)
            inspect.signature(function).bind(Hour(Path()), **check.settings)


COMPUTE = {
    "Kernels": {"one attention for a packed row", "AdamW in 8 bit, paged", "pinned RAM", "a copy beside products"},
    "What only a GPU decides": {
        "P1 neighbours registered", "P3 flash attention", "P6 bf16 where it is emulated", "P7 context after a step",
        "P2 pinning beside a full GPU", "P9 sharded over two GPUs",
    },
    "A step of an 8B": set(),
}  # fmt: skip


@pytest.mark.parametrize("title", COMPUTE)
def test_what_a_check_computes_can_be_computed_here(title: str, tmp_path: Path) -> None:
    """On the processor, so that no mistake waits for a card: those named above have nothing to do on one."""
    if gpu.probe().cards:
        pytest.skip("there is a card: benchmarks.gpu_report itself shows it")
    hour = Hour(tmp_path, device="cpu")
    hour.write()
    (part,) = (each for each in parts.PARTS if each.title == title)
    for name, check in part.checks.items():
        how, _, text = child.carried_out(hour, check)
        assert how == (child.LEFT_OUT if name in COMPUTE[title] else child.WELL), (name, text)


def test_a_check_of_numbers_finds_wrong_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from bitsandbytes import functional

    from benchmarks.gpu_report import kernels

    own = functional.dequantize_4bit
    monkeypatch.setattr(functional, "dequantize_4bit", lambda *given: own(*given).roll(1, 0))
    with pytest.raises(NotWell, match=r"of the largest value apart, 0\.02 is allowed"):
        kernels.product_4bit(Hour(tmp_path, device="cpu"), rows=16)
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: a.matmul(b).mul_(float("nan")))
    with pytest.raises(NotWell, match="nan"):
        kernels.product(Hour(tmp_path, device="cpu"))


@pytest.mark.full
def test_a_run_that_did_not_use_the_card_is_found_and_the_checks_after_it_go_on(hour: Hour) -> None:
    hour.write()
    assert child.carried_out(hour, parts.PARTS[3].checks["the starter"])[0] == child.FAILED
    with pytest.raises(NotWell, match="on the processor, not on the card: loss"):
        journey.first_run(hour)
    assert journey.export(hour, "merged").startswith("merged: proven")
    assert journey.pairs(hour).startswith("loss 0.69")


@pytest.mark.full
def test_a_run_that_is_paused_and_gone_on_with_has_the_losses_of_the_undisturbed_one(hour: Hour, monkeypatch) -> None:
    monkeypatch.setattr(journey, "learned", lambda run: run.status().state.value)
    text = journey.paused_and_resumed(hour, steps=60, pause_at=2)
    assert text.startswith("completed; paused at step ") and text.endswith("losses at most 0 apart")
    assert [Runs(hour.space).status(run).state for run in Runs(hour.space).folders()] == [State.COMPLETED] * 2


@pytest.mark.full
def test_another_program_takes_the_memory_while_a_run_trains(hour: Hour, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is real; the other program is none, because there is no card whose memory it could take."""
    taken: list[int] = []

    @contextmanager
    def nothing(leaves_bytes: int) -> Iterator[str]:
        taken.append(Runs(hour.space).list()[0].status().step)
        yield "nothing held"

    monkeypatch.setattr(journey, "ballast", nothing)
    assert journey.memory_that_goes(hour, steps=100).startswith(
        f"nothing held from step {taken[0]} on: completed at step 100"
    )
    assert taken[0] >= 1


def test_a_run_without_memory_must_complete_or_say_so(workspace: Workspace) -> None:
    def run(state: State, key: str) -> RunFolder:
        other_run = ScriptedRun(workspace, key).run
        for each in PATHS[state]:
            other_run.write_status(
                other_run.status().model_copy(update={"state": each, "message": msg(key, step=1, total=2)})
            )
        return other_run

    judge = journey.completed_or_refused
    assert "completed at step 0" in judge(run(State.COMPLETED, "run.interrupted"), "held", "run.out_of_memory")
    assert "failed at step 0" in judge(run(State.FAILED, "run.out_of_memory"), "held", "run.out_of_memory")
    with pytest.raises(NotWell, match="held: failed at step 0"):
        judge(run(State.FAILED, "run.interrupted"), "held", "run.out_of_memory")


def test_what_only_a_real_machine_shows_is_a_part_or_stands_at_the_end_of_the_report(tmp_path: Path) -> None:
    section = (PROJECT / "docs" / "gaming-pc.md").read_text("utf-8").split("### What only a real machine can show")[1]
    rows = [line for line in section.split(running.BY_HAND)[0].splitlines() if line.startswith("|")][2:]
    assert {part for row in rows for part in re.findall(r"`([A-Z][^`]+)`", row)} == {part.title for part in parts.PARTS}
    report = running.report(Hour(tmp_path), "this card", parts.PARTS)
    assert "fast user switching" in report and "## The first hour" not in report


def test_each_of_two_cards_is_trained_on_and_one_that_is_not_used_is_found(
    hour: Hour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are not started: that a worker takes the card of its environment is test_cards.py."""
    pc = Nvidia(driver="580.65.06", cards=tuple(Card(index=i, name=f"RTX {i}", uuid=f"GPU-{i}") for i in (0, 1)))
    monkeypatch.setattr(journey.devices, "read_cards", lambda: pc)
    shown: list[str] = []

    def train(hour: Hour, name: str, *settings: str, environment: dict[str, str]) -> RunFolder:
        shown.append(environment["CUDA_VISIBLE_DEVICES"])
        run = ScriptedRun(hour.space, name, device=None).run
        run.add_facts(RunFacts(device_uuid="GPU-0", device_name="RTX 0"))
        return run

    monkeypatch.setattr(Hour, "train", train)
    with pytest.raises(NotWell, match="card 1 alone: it trained on RTX 0"):
        journey.cards(hour)
    assert shown == ["GPU-0", "GPU-1"]
    monkeypatch.setattr(journey.devices, "read_cards", lambda: pc.model_copy(update={"cards": pc.cards[:1]}))
    (line,) = journey.cards(hour)
    assert "free_bytes" in line and len(shown) == 2, "what is not told is named; one card is no choice"


def test_what_was_foretold_stands_beside_what_came() -> None:
    facts = RunFacts(
        memory=MemoryFacts(predicted_gib=1.5, measured_gib=2.0),
        time=TimeFacts(after_steps=3, said_seconds=10, took_seconds=12),
    )
    assert journey.foretold(facts) == (
        ", foretold 1.50 GiB, measured 2.00 GiB, of it torch's unknown; 10 s foretold after 3 steps, 12 s taken"
    )


def test_the_report_names_no_person_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "user", lambda: "mueller")
    monkeypatch.setattr(platform, "node", lambda: "SCHREIBTISCH")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/mueller"))
    text = (
        f"{PROJECT}/core/x.py {tmp_path}/workspace/runs /HOME/Mueller/models on schreibtisch: Mueller's "
        f"{sys.prefix}/lib"
    )
    assert (
        anonymous(text, tmp_path)
        == "<program>/core/x.py <folder>/workspace/runs <home>/models on <name>: <name>'s <environment>/lib"
    )


def test_without_a_model_of_ones_own_it_is_said_how_to_name_one(hour: Hour) -> None:
    with pytest.raises(LeftOut, match="--model"):
        journey.own_model(replace(hour, model=""))


def test_without_a_card_nothing_is_reported(tmp_path: Path) -> None:
    if gpu.probe().cards:
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks.gpu_report", "--folder", str(tmp_path / "report")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and "launch.py doctor" in done.stderr and not (tmp_path / "report").exists()
