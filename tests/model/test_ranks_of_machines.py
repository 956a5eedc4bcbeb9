"""Ranks of other PCs, their lines over TCP and their group by those lines: a run is that of one rank, and a PC that is
lost or does not fit ends in a sentence. The other PC is a thread here; two real ones are in
tests/process/test_machines."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from core.engine.step import Step
from core.errors import RunError
from core.messages import msg
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts, TrainedOn
from core.system.linked import Entrance, Gathering, Link, LinkError, new_secret, reach
from core.system.machine import library_versions
from core.training.ranks import group as groups
from core.training.ranks import machines
from core.training.ranks.group import RankGroup
from core.training.ranks.helpers import LOAD_S, RankError
from core.training.ranks.machines import RanksOfMachines
from core.training.ranks.meeting import Meeting
from core.training.ranks.step import EXTRA, serve
from core.training.trainer import Trainer
from tests.kit.trainer import FP32, Pausing
from tests.model.test_ranks import nearly_the_same, recipe_of, trainer_of, tuned_of

SECRET = new_secret()


class OtherPC(threading.Thread):
    """What `join` and its process do. lost_after: orders until its network is gone. says: beside the usual, as it
    comes."""

    def __init__(self, base: Path, lost_after: int = 1000, **says: Any):
        super().__init__(daemon=True)
        self.lost_after, self.says = lost_after, says
        # Here, not in its thread: the random numbers are the process's.
        self.step = Step.of(tuned_of(base, recipe_of()), recipe_of(), FP32, 0)
        self.step.begin(recipe_of().train.seed)
        self.address: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self.last: Any = None
        self.link: Link | None = None

    def run(self) -> None:
        link = self.link = reach(self.address.get(), SECRET, 10.0, silent_s=2.0)
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        meeting = Meeting(lambda key, value: link.say(store=[key, value]))
        link.listen(lambda said: meeting.heard(*said["store"]) if "store" in said else events.put(said), events.put)
        link.say(**{"versions": library_versions(), "device": "another processor"} | self.says)
        self.last = first = events.get()
        if "base" not in first:
            return
        step, rank = self.step, (first["rank"], first["size"])
        link.say(ready=sum(parameter.numel() for parameter in step.parameters))
        group = RankGroup(meeting, *rank, step.parameters, EXTRA + rank[1], link.here)
        for _ in range(self.lost_after):
            self.last = order = events.get()
            if isinstance(order, str) or "over" in order:
                return
            serve(step, group, order, rank, link.say)
        link._closed.set()  # no beat any more, and the connection stays: a cable that is cut


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the entrance at a port of the system's choice."""

    class Anywhere(Entrance):
        def __init__(self, address: Any, *rest: Any):
            super().__init__(("127.0.0.1", 0), *rest, silent_s=2.0)
            for other in waiting:
                other.address.put(self.address)

    monkeypatch.setattr(machines, "Entrance", Anywhere)
    waiting.clear()


waiting: list[OtherPC] = []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trainer:
    """By one rank."""
    trainer = trainer_of(tmp_path_factory.mktemp("whole"), tiny_model, recipe_of())
    trainer.run()
    return trainer


@contextmanager
def gathered(folder: Path, *others: OtherPC) -> Iterator[RanksOfMachines]:
    folder.mkdir(parents=True, exist_ok=True)
    recipe_of().write(folder / "recipe.yaml")
    run = RunFolder(folder)
    run.add_facts(RunFacts(data=TrainedOn(name="mine", sha256="1")))
    waiting.extend(others)
    for other in others:
        other.start()
    ranks = RanksOfMachines(run, Gathering(machines=1 + len(others), main="127.0.0.1:1", secret=SECRET), Pausing(run))  # type: ignore[arg-type]
    try:
        ranks.begin([])
        yield ranks
    finally:
        ranks.close()


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_run_with_other_pcs_learns_what_one_learns_and_they_hear_its_end(
    count: int, tmp_path: Path, tiny_model: Path, whole: Trainer
) -> None:
    others = [OtherPC(tiny_model) for _ in range(count)]
    with gathered(tmp_path / "run", *others) as ranks:
        trainer = trainer_of(tmp_path / "run", tiny_model, recipe_of(), ranks)
        trainer.run()
    nearly_the_same(trainer, whole)
    for other in others:
        other.join(10)
        assert other.last == {"over": True}


@pytest.mark.full
def test_clocks_that_are_years_apart_and_jump_change_nothing(
    tmp_path: Path, tiny_model: Path, whole: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the links nor the ranks ask for the time of day."""
    real, asked = time.time, []

    def wrong() -> float:
        asked.append(None)
        return real() + (-1) ** len(asked) * 1e8

    monkeypatch.setattr(time, "time", wrong)
    other = OtherPC(tiny_model)
    with gathered(tmp_path / "run", other) as ranks:
        trainer = trainer_of(tmp_path / "run", tiny_model, recipe_of(), ranks)
        trainer.run()
    nearly_the_same(trainer, whole)
    other.join(10)
    assert other.last == {"over": True}


def test_a_pc_that_is_lost_ends_the_others_with_a_sentence_and_the_run_goes_on_alone(
    tmp_path: Path, tiny_model: Path, whole: Trainer
) -> None:
    with gathered(tmp_path / "run", OtherPC(tiny_model, lost_after=3)) as ranks:  # a step, an evaluation, a step
        trainer = trainer_of(tmp_path / "run", tiny_model, recipe_of(), ranks)
        with pytest.raises(RankError) as failed:
            trainer.run()
        trainer.checkpoint()  # as the worker does
    assert failed.value.message.key == "machines.silent" and failed.value.message.params["host"] == "127.0.0.1"
    assert failed.value.advice and failed.value.advice.key == "machines.without"
    further = trainer_of(tmp_path / "run", tiny_model, recipe_of())
    assert further.position.step == trainer.position.step > 0
    further.run()
    further.reporter.numbers = trainer.reporter.numbers | further.reporter.numbers
    further.reporter.told = trainer.reporter.told | further.reporter.told
    nearly_the_same(further, whole)


OTHERS = {
    "version": ({"versions": {"lora_garage": "0.0.1"}}, r"127.0.0.1 has lora_garage 0.0.1, this PC \d"),
    "data": ({"data": "2"}, "dataset “mine” of 127.0.0.1"),
    "model": ({"model": "elsewhere/else"}, "trains elsewhere/else"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_pc_with_another_version_data_or_model_is_sent_away_and_told_why(
    case: str, tmp_path: Path, tiny_model: Path
) -> None:
    says, sentence = OTHERS[case]
    other = OtherPC(tiny_model, **says)
    with pytest.raises(RunError, match=sentence), gathered(tmp_path, other):
        raise AssertionError("it was let in")
    other.join(10)
    assert other.last["refused"]["key"] == f"machines.other_{case}"


def test_a_build_for_another_card_is_the_same_version() -> None:
    assert machines._public("2.13.0+cpu") == machines._public("2.13.0+cu130") != machines._public("2.13.1")


def test_pcs_that_cannot_exchange_numbers_are_told_of_their_firewalls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The lines of main go through, and rank 1 does not come to the group."""
    monkeypatch.setattr(groups, "MEET", groups.timedelta(seconds=1))
    meeting = Meeting(lambda key, value: None)
    with gathered(tmp_path) as ranks, pytest.raises(RankError) as failed:
        ranks.meet(lambda: RankGroup(meeting, 0, 2, [torch.zeros(1)], EXTRA))
    assert failed.value.message.key == "machines.not_met" and failed.value.advice == msg("machines.firewall")


def test_a_rank_that_is_ready_first_waits_for_those_that_still_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rank 0 comes to the group when all are ready; another one gave up after its minute, and the run ended."""
    waits = []
    real = torch.distributed.ProcessGroupGloo
    fake = Mock(side_effect=lambda store, rank, size, options: waits.append(options._timeout) or Mock())
    fake._Options, fake.create_device = real._Options, real.create_device
    monkeypatch.setattr(torch.distributed, "ProcessGroupGloo", fake)
    for rank in (0, 1):
        groups._gloo(None, rank, 2, "127.0.0.1")
    assert waits == [groups.MEET, groups.LATE] and groups.LATE.total_seconds() >= LOAD_S


def test_the_port_that_is_taken_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        monkeypatch.setattr(machines, "Entrance", Entrance)
        recipe_of().write(tmp_path / "recipe.yaml")
        gathering = Gathering(machines=2, main=f"{host}:{port}", secret=SECRET)
        ranks = RanksOfMachines(RunFolder(tmp_path), gathering, Pausing(RunFolder(tmp_path)))  # type: ignore[arg-type]
        with pytest.raises(LinkError, match=f"Port {port}"):
            ranks.begin([])
        ranks.close()
