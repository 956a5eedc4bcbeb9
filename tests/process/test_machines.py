"""A run on two PCs: `train --nnodes 2` on both, under torchrun's agents, real processes. Both are workspaces of this PC
at 127.0.0.1, or each has a network of its own with a cable between them that is cut, or slow (skipped where the system
lets nobody make one)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from core.presets import PROJECT
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit.ports import free_port
from tests.kit.trainer import losses
from tests.kit.waits import PATIENCE, wait_until
from tests.kit.workers import at_work, rank_of

pytestmark = pytest.mark.full
LONG_S = 180 * PATIENCE
SETTINGS = {
    "name": "Two PCs", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers", "max_length": 128},
    "adapter": {"r": 4},
    "train": {
        "max_steps": 24, "learning_rate": 1e-2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2,
        "save_steps": 8, "eval_steps": 12, "sample_seconds": 0,
    },
}  # fmt: skip


@dataclass
class Computer:
    """A PC: a workspace with its own copy of the base, and what stands before a command that is to run in its
    network."""

    root: Path
    base: Path
    inside: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shutil.copytree(self.base, self.root / "models" / "tiny")
        library = json.dumps({"library_folders": [str(self.root / "models")]})
        (self.root / "settings.yaml").write_text(library, "utf-8")
        self.space = Workspace.open(self.root)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        with open(self.root / f"{arguments[0]}.said", "w", encoding="utf-8") as output:
            return subprocess.Popen(
                [*self.inside, sys.executable, "-m", "core.commands", *arguments], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output,
                text=True, cwd=PROJECT,
                env=os.environ | {"LORA_GARAGE_HOME": str(self.root), "LANG": "C.UTF-8",
                    "LC_ALL": ""} | self.environment,
            )  # fmt: skip

    def said(self, command: str) -> str:
        return (self.root / f"{command}.said").read_text("utf-8")

    def train(self, main: str) -> subprocess.Popen[str]:
        Recipe.parse(SETTINGS).write(self.root / "recipe.yaml")
        return self.begin("train", str(self.root / "recipe.yaml"), "--cpu", "--nnodes", "2", "--rdzv-endpoint", main)

    def join(self, main: str) -> subprocess.Popen[str]:
        return self.begin("train", "--cpu", "--nnodes", "2", "--node-rank", "1", "--rdzv-endpoint", main)

    @property
    def run(self) -> RunFolder:
        return Runs(self.space).list()[0]

    def is_left_clean(self) -> bool:
        return not (lease.is_held(self.space) or any(run.is_locked() for run in Runs(self.space).list()))


def end_of(process: subprocess.Popen[str]) -> int:
    return process.wait(LONG_S)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[int, float]:
    """The losses of the same run by one PC."""
    computer = Computer(tmp_path_factory.mktemp("alone"), tiny_model)
    Recipe.parse(SETTINGS).write(computer.root / "recipe.yaml")
    assert end_of(computer.begin("train", str(computer.root / "recipe.yaml"), "--cpu")) == 0, computer.said("train")
    return losses(computer.run)


IMPATIENT = """
import os
if os.environ.get("RANK") == "0":
    from datetime import timedelta
    from core.training.ranks import group
    group.PATIENCE_S, group.COME = 10.0, timedelta(seconds=90)
"""


@pytest.fixture
def two(tmp_path: Path, tiny_model: Path) -> tuple[Computer, Computer]:
    """Whose rank 0 waits ten seconds for another, not ten minutes, and 90 for one that is to come."""
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT, "utf-8")
    # The launcher has set PYTHONSAFEPATH, with which a command finds the project only here.
    impatient = {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(PROJECT)))}
    first, second = (Computer(tmp_path / name, tiny_model, environment=impatient) for name in ("main", "other"))
    return first, second


def free_address(host: str = "127.0.0.1") -> str:
    return f"{host}:{free_port(host)}"


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"))]
)
def test_two_pcs_learn_what_one_learns_and_nobody_stays(
    host: str, two: tuple[Computer, Computer], alone: dict[int, float]
) -> None:
    main, other = two
    address = f"{host}:{free_port()}"
    process, joined = main.train(address), other.join(address)
    assert end_of(process) == 0, main.said("train") + other.said("train") + main.run.log_tail()
    assert end_of(joined) == 0 and "has ended" in other.said("train"), other.said("train")
    assert f"train --nnodes 2 --node-rank 1 --rdzv-endpoint {address}" in main.said("train")
    assert main.is_left_clean() and other.is_left_clean() and not ranks_of(two)
    assert losses(main.run) == pytest.approx(alone, rel=2e-2)
    assert not Runs(other.space).list()


def ranks_of(two: tuple[Computer, Computer]) -> list[int]:
    return [pid for computer in two for pid in at_work("core.training.ranks.rank_process", str(computer.root))]


# ---- a network of their own ----------------------------------------------------------------------
@dataclass
class Network:
    """Two network namespaces and between them a third that is the switch, whose sockets are the ends of two cables."""

    name: str
    made: list[str] = field(default_factory=list)

    def build(self) -> None:
        self._add(self.switch)
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self.switch, "link", "set", "switch", "up")
        for number in (1, 2):
            self._add(self.computer(number))
            peer = ("type", "veth", "peer", "name", "cable", "netns", self.computer(number))
            ip("-n", self.switch, "link", "add", f"socket{number}", *peer)
            ip("-n", self.switch, "link", "set", f"socket{number}", "master", "switch", "up")
            ip("-n", self.computer(number), "address", "add", f"10.99.0.{number}/24", "dev", "cable")
            for device in ("cable", "lo"):
                ip("-n", self.computer(number), "link", "set", device, "up")

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        self.made.append(name)

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    def computer(self, number: int) -> str:
        return f"{self.name}-{number}"

    def inside(self, number: int) -> list[str]:
        return ["ip", "netns", "exec", self.computer(number)]

    def cut(self, number: int) -> None:
        ip("-n", self.switch, "link", "set", f"socket{number}", "down")

    def mend(self, number: int) -> None:
        ip("-n", self.switch, "link", "set", f"socket{number}", "up")

    def slow(self, rate: str) -> None:
        """Both ways, as tc writes it: 10mbit."""
        for number in (1, 2):
            tbf = ("qdisc", "add", "dev", "cable", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "200ms")
            ip("netns", "exec", self.computer(number), "tc", *tbf)

    def close(self) -> None:
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(f"lg{os.getpid()}")
    try:
        made.build()
        made.slow("1gbit")
        for number in (1, 2):
            ip("netns", "exec", made.computer(number), "tc", "qdisc", "del", "dev", "cable", "root")
    except (OSError, subprocess.CalledProcessError) as error:
        made.close()
        reason = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"no network namespaces of a test's own here: {reason.strip()[:200]}")
    yield made
    made.close()


@pytest.fixture
def apart(two: tuple[Computer, Computer], network: Network) -> tuple[Computer, Computer]:
    for number, computer in enumerate(two, 1):
        computer.inside = network.inside(number)
    return two


MAIN = "10.99.0.1:29400"


def learned(two: tuple[Computer, Computer], steps: int, *processes: subprocess.Popen[str]) -> None:
    """Wait until the main PC has learned so many steps; fails at once with what both said where one has ended."""

    def is_learned() -> bool:
        runs = Runs(two[0].space).list()
        if runs and len(losses(runs[0])) >= steps:
            return True
        assert all(process.poll() is None for process in processes), [computer.said("train") for computer in two]
        return False

    wait_until(is_learned, LONG_S)


@pytest.mark.parametrize("rate", [None, "4mbit"])
def test_two_pcs_on_a_cable_of_their_own_learn_what_one_learns(
    rate: str | None, apart: tuple[Computer, Computer], network: Network, alone: dict[int, float]
) -> None:
    """4 Mbit: a step's numbers of the tiny adapter take a while, and nobody is taken for lost."""
    main, other = apart
    if rate:
        network.slow(rate)
    process, joined = main.train(MAIN), other.join(MAIN)
    assert end_of(process) == 0, main.said("train") + other.said("train")
    assert end_of(joined) == 0 and main.is_left_clean() and other.is_left_clean()
    assert losses(main.run) == pytest.approx(alone, rel=2e-2)


@pytest.mark.parametrize("number", [1, 2])
def test_a_cable_that_is_cut_ends_in_a_checkpoint_and_the_run_resumes_without_it(
    number: int, apart: tuple[Computer, Computer], network: Network, alone: dict[int, float]
) -> None:
    """The other PC hears of it once the cable is back; without that it waits for a day."""
    main, other = apart
    process, joined = main.train(MAIN), other.join(MAIN)
    learned(apart, 5, process, joined)
    network.cut(number)
    assert end_of(process) == 1
    run, status = main.run, Runs(main.space).status(main.run)
    assert (status.state, status.message.key) == (State.FAILED, "ranks.silent")
    assert run.saved_step() == len(losses(run)) >= 5, "what was learned last is saved too"
    assert "have not responded for" in main.said("train")
    network.mend(number)
    assert end_of(joined) == 1 and "no longer takes part" in other.said("train")
    assert main.is_left_clean() and other.is_left_clean() and not ranks_of(apart)
    assert end_of(main.begin("resume", run.id)) == 0, main.said("resume")
    assert losses(run) == pytest.approx(alone, rel=2e-2)


def test_a_cable_that_is_back_at_once_is_not_noticed(apart: tuple[Computer, Computer], network: Network) -> None:
    main, other = apart
    process, joined = main.train(MAIN), other.join(MAIN)
    learned(apart, 5, process, joined)
    network.cut(2)
    before = len(losses(main.run))
    subprocess.run(["sleep", "3"], check=True)  # what a switch takes to learn of it, and less than rank 0 waits
    network.mend(2)
    learned(apart, before + 5, process, joined)
    assert end_of(process) == 0 and end_of(joined) == 0, main.said("train")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills by signals: POSIX only")
@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("victim", ["rank 0", "command", "rank 1"])
def test_whoever_is_killed_nobody_is_left_and_the_run_goes_on(
    victim: str, steps: int, two: tuple[Computer, Computer], alone: dict[int, float]
) -> None:
    main, other = two
    address = free_address()
    process, joined = main.train(address), other.join(address)
    first, second = (wait_until(partial(rank_of, str(two[rank].root), rank), LONG_S) for rank in (0, 1))
    learned(two, steps, process, joined)
    if is_stopped := steps and victim == "command":  # the steps that are left take a second, and may end first
        os.kill(first, signal.SIGSTOP)
    os.kill({"rank 0": first, "command": joined.pid, "rank 1": second}[victim], signal.SIGKILL)
    if is_stopped:
        wait_until(lambda: rank_of(str(other.root), 1) is None)
        os.kill(first, signal.SIGCONT)
    assert end_of(process) == 1 and (end_of(joined) in (1, -signal.SIGKILL)), main.said("train") + other.said("train")
    wait_until(lambda: not ranks_of(two))
    assert main.is_left_clean() and other.is_left_clean()
    if steps and victim != "rank 0":
        assert main.run.saved_step() == len(losses(main.run)) and "latest checkpoint" in main.said("train")
    if victim == "rank 1":  # and together again
        again = main.begin("resume", main.run.id, "--nnodes", "2", "--rdzv-endpoint", address)
        joined = other.join(address)
        assert (end_of(again), end_of(joined)) == (0, 0), main.said("resume") + other.said("train")
    else:
        assert end_of(main.begin("resume", main.run.id)) == 0, main.said("resume")
    assert losses(main.run) == pytest.approx(alone, rel=2e-2)


def test_a_pc_that_is_gone_as_the_run_ends_is_not_waited_for(two: tuple[Computer, Computer]) -> None:
    """Torchrun's agent waited 300 s for it, and the main PC was not free for its next run."""
    main, other = two
    address = free_address()
    process, joined = main.train(address), other.join(address)
    learned(two, SETTINGS["train"]["max_steps"], process, joined)
    os.kill(joined.pid, signal.SIGKILL)
    end_of(process)
    assert main.run.saved_step() and main.is_left_clean() and not ranks_of(two)


def test_another_base_is_a_sentence_at_both_ends(two: tuple[Computer, Computer]) -> None:
    main, other = two
    weights = other.root / "models" / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-64:] = bytes(64)
    weights.write_bytes(content)
    address = free_address()
    process, joined = main.train(address), other.join(address)
    assert (end_of(process), end_of(joined)) == (1, 1)
    assert all("files of the base model on" in computer.said("train") for computer in two)
    assert main.is_left_clean() and other.is_left_clean()


def test_a_main_pc_whose_address_is_not_its_own_says_so(two: tuple[Computer, Computer]) -> None:
    process = two[0].train("nowhere.invalid:29400")
    assert end_of(process) == 1 and "no address of this PC" in two[0].said("train")
    assert Runs(two[0].space).status(two[0].run).state == State.FAILED
