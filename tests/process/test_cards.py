"""Two unequal cards, one in instances, one that goes away, through the real pynvml on a fake driver library: what is
planned for, and what training, chat, export and the pace are started with. One process is asked for all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.advice import plan
from core.export.exports import Exports
from core.presets import PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import devices
from core.system.processes import worker_environment
from core.workspace.folder import Workspace
from tests.kit import nvml
from tests.kit.runs import ScriptedRun, trained
from tests.kit.spawns import UNSET

LARGER, FREER = (str(nvml.UNEQUAL[f"{index}.uuid"]) for index in (0, 1))  # 12 GB half full, 8 GB nearly empty
SPAWNS = ("training", "chat", "export")


class Pc:
    def __init__(self, folder: Path):
        self.workspace = Workspace.open(folder / "ws")
        self.file = nvml.write(folder / "cards.txt", nvml.UNEQUAL)
        environment = (
            worker_environment() | nvml.environment(nvml.compile(folder), self.file) | {"PYTHONPATH": str(PROJECT)}
        )
        environment.pop(devices.VISIBLE, None)
        command = [sys.executable, "-m", "tests.kit.spawns", str(self.workspace.root)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=folder)

    def ask(self, run: RunFolder, cards: nvml.Scenario = nvml.UNEQUAL, **asked: Any) -> dict[str, Any]:
        nvml.write(self.file, cards)
        self.process.stdin.write(json.dumps({"run": run.id, **asked}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def pc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pc]:
    started = Pc(tmp_path_factory.mktemp("two_cards"))
    yield started
    started.process.stdin.close()
    assert started.process.wait(20) == 0
    started.process.stdout.close()


def run_on(pc: Pc, wanted: str | None) -> RunFolder:
    """An ended run with an adapter."""
    run = trained(pc.workspace, f"on {wanted}")
    run.add_facts(
        RunFacts(wanted_device=wanted, advice={"budget": {"kind": "card", "name": "NVIDIA GeForce RTX 3060"}})
    )
    return run


def cards_of(said: dict[str, Any]) -> set[str]:
    return {said[spawn] for spawn in SPAWNS}


def test_the_card_that_was_planned_for_trains_chats_and_exports(pc: Pc):
    """CUDA's own order would have taken the RTX 3060 for chat and export, whatever had trained."""
    report = pc.ask(run_on(pc, LARGER))
    assert cards_of(report) == {LARGER}
    assert (report["plan"], report["device"]) == ("NVIDIA GeForce RTX 4060", FREER)


def test_several_cards_train_together_while_one_of_them_chats_and_exports(pc: Pc):
    run = run_on(pc, FREER)
    run.add_facts(RunFacts(wanted_beside={LARGER: "NVIDIA GeForce RTX 3060"}, ranks=2))
    report = pc.ask(run)
    assert (report["training"], report["chat"], report["export"]) == (f"{FREER},{LARGER}", FREER, FREER)


def test_a_run_of_the_processor_stays_there(pc: Pc):
    assert cards_of(pc.ask(run_on(pc, "cpu"))) == {"-1"}


def test_a_card_that_was_hidden_is_neither_planned_for_nor_used(pc: Pc):
    report = pc.ask(run_on(pc, LARGER), visible="0")
    assert report["plan"] == "NVIDIA GeForce RTX 3060"
    none = pc.ask(run_on(pc, None), visible="-1")
    assert (none["plan"], none["device"]) == ("cpu", "cpu")
    # "-1" already
    assert none["training"] == none["chat"] == none["export"] == UNSET


def test_a_run_whose_card_went_away_sees_what_there_is_while_chat_takes_another(pc: Pc):
    """Its worker refuses, with an offer (below); named all the same, the card would hide the others from it."""
    report = pc.ask(run_on(pc, FREER), nvml.dead(nvml.UNEQUAL, 1))
    assert (report["training"], report["chat"], report["export"]) == (UNSET, LARGER, LARGER)
    assert report["plan"] == "NVIDIA GeForce RTX 3060"


def test_a_card_in_instances_is_left_to_cuda(pc: Pc):
    report = pc.ask(run_on(pc, None), nvml.MIG, visible="MIG-8f2b")
    assert report["plan"] == "NVIDIA A100-SXM4-40GB" and report["device"] is None
    assert cards_of(report) == {UNSET}


def test_the_only_card_is_found_without_being_named(pc: Pc):
    report = pc.ask(run_on(pc, str(nvml.EIGHT_GB["0.uuid"])), nvml.EIGHT_GB)
    assert cards_of(report) == {UNSET}


@pytest.mark.parametrize(
    ("cards", "visible", "sentence", "advice"),
    [
        (nvml.dead(nvml.UNEQUAL, 1), None, "no longer responds", "it trains on NVIDIA GeForce RTX 3060"),
        ({**nvml.UNEQUAL, "count": 1}, None, "not available now", "it trains on NVIDIA GeForce RTX 3060"),
        (nvml.EIGHT_GB, None, "not available now", "it trains on NVIDIA GeForce RTX 4060"),
        (nvml.NO_DRIVER, None, "does not respond: Driver Not Loaded", "launch.py doctor"),
        (nvml.UNEQUAL, "0", "hides it", "it trains on NVIDIA GeForce RTX 3060"),
        (nvml.UNEQUAL, None, "built without CUDA", "--repair"),
    ],
    ids=["dead", "gone", "another card", "driver gone", "hidden", "torch for the processor"],
)
def test_a_worker_never_takes_another_device_without_a_word(
    pc: Pc, cards: nvml.Scenario, visible: str | None, sentence: str, advice: str
):
    """It trained on the processor."""
    if sentence == "built without CUDA" and devices.torch_build().knows_cards:
        pytest.skip("the torch here knows cards")
    run = ScriptedRun(pc.workspace, "planned", device=None, wanted_device=FREER).run
    ended = pc.ask(run, cards, visible=visible, train=True)
    assert ended["code"] == 1 and run.status().state == State.FAILED
    assert sentence in ended["message"] and advice in ended["advice"]
    assert not Runs(pc.workspace).get(run.id).facts().model_folder and not os.listdir(pc.workspace.models)


@pytest.mark.full
def test_a_run_and_an_export_come_to_their_end_beside_cards_that_tell_little(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    """On the processor, beside a card whose processes tell no memory and one in instances."""
    scenario = {**nvml.UNEQUAL, "0.compute": "4194303:-", "1.mig": 1}
    for name, value in nvml.environment(nvml.compile(tmp_path), nvml.write(tmp_path / "cards.txt", scenario)).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    workspace = Workspace.open(tmp_path / "ws")
    value = {
        "model": {"id": "library:tiny"},
        "data": {"source": "sample:pirate_answers"},
        "train": {"max_steps": 2, "sample_seconds": 0},
    }
    facts = RunFacts(wanted_device="cpu")
    run = Runs(workspace).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command", facts)
    assert spawn_worker(workspace, run).wait(300) == 0, run.log_tail()
    assert (run.facts().device, run.facts().device_uuid) == ("cpu", None)
    exports = Exports(workspace)
    status = exports.start(run, "merged").wait(300)
    assert status.state == "done" and not exports.list(run.id)[0].notes, status.message
