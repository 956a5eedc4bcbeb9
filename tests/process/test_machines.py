"""A run on two PCs: `train --machines 2` on one, `join` on the other, real processes. Both are workspaces of this PC at
127.0.0.1, or each has a network of its own with a cable between them that is cut, or slow (skipped where the system
lets nobody make one)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from core.presets import PROJECT
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.system.linked import new_secret
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit.ports import free_port
from tests.kit.trainer import losses
from tests.kit.waits import PATIENCE, wait_until
from tests.kit.workers import at_work

pytestmark = [pytest.mark.full, pytest.mark.skipif(not hasattr(os, "fork"), reason="kills by signals: POSIX only")]
LONG_S = 300 * PATIENCE
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
        (self.root / "settings.yaml").write_text(f'library_folders: ["{self.root / "models"}"]', "utf-8")
        self.space = Workspace.open(self.root)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        with open(self.root / f"{arguments[0]}.said", "w", encoding="utf-8") as said:
            return subprocess.Popen(
                [*self.inside, sys.executable, "-m", "core.commands", *arguments], stdin=subprocess.DEVNULL,
                stdout=said, stderr=said,
                text=True, cwd=PROJECT,
                env=os.environ | {"LORA_GARAGE_HOME": str(self.root), "LANG": "C.UTF-8",
                    "LC_ALL": ""} | self.environment,
            )  # fmt: skip

    def said(self, command: str) -> str:
        return (self.root / f"{command}.said").read_text("utf-8")

    def train(self, main: str) -> subprocess.Popen[str]:
        Recipe.parse(SETTINGS).write(self.root / "recipe.yaml")
        return self.begin("train", str(self.root / "recipe.yaml"), "--cpu", "--machines", "2", "--main", main)

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


@pytest.fixture
def two(tmp_path: Path, tiny_model: Path) -> tuple[Computer, Computer]:
    secret = {"LORA_GARAGE_SECRET": new_secret()}
    first, second = (Computer(tmp_path / name, tiny_model, environment=dict(secret)) for name in ("main", "other"))
    return first, second


def free_address(host: str = "127.0.0.1") -> str:
    return f"{host}:{free_port(host)}"


def test_two_pcs_learn_what_one_learns_and_nobody_stays(
    two: tuple[Computer, Computer], alone: dict[int, float]
) -> None:
    main, other = two
    address = free_address()
    process, joined = main.train(address), other.begin("join", address, "--cpu")
    assert end_of(process) == 0, main.said("train") + other.said("join") + main.run.log_tail()
    assert end_of(joined) == 0, other.said("join")
    run, secret = main.run, main.environment["LORA_GARAGE_SECRET"]
    events = (run.path / "events.jsonl").read_text("utf-8")
    assert "machines.joined" in events and f"join {address}" in main.said("train")
    written = [
        file.read_bytes()
        for computer in two
        for file in computer.root.rglob("*")
        if file.is_file() and file.suffix != ".said"
    ]
    assert not any(secret.encode() in content for content in written), "the secret is in no file, only on the terminal"
    assert main.is_left_clean() and other.is_left_clean() and not at_work("core.training.ranks.worker", address)
    assert losses(run) == pytest.approx(alone, rel=2e-2)


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
            ip(
                "-n",
                self.switch,
                "link",
                "add",
                f"socket{number}",
                "type",
                "veth",
                "peer",
                "name",
                "cable",
                "netns",
                self.computer(number),
            )
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


def learned(computer: Computer, steps: int) -> None:
    wait_until(lambda: Runs(computer.space).list() and len(losses(computer.run)) >= steps, LONG_S)


@pytest.mark.parametrize("rate", [None, "4mbit"])
def test_two_pcs_on_a_cable_of_their_own_learn_what_one_learns(
    rate: str | None, apart: tuple[Computer, Computer], network: Network, alone: dict[int, float]
) -> None:
    """4 Mbit: a step's numbers of the tiny adapter take a while, and nobody is taken for lost."""
    main, other = apart
    if rate:
        network.slow(rate)
    process, joined = main.train(MAIN), other.begin("join", MAIN, "--cpu")
    assert end_of(process) == 0, main.said("train") + other.said("join")
    assert end_of(joined) == 0 and main.is_left_clean() and other.is_left_clean()
    assert losses(main.run) == pytest.approx(alone, rel=2e-2)


@pytest.mark.parametrize("number", [1, 2])
def test_a_cable_that_is_cut_ends_in_a_checkpoint_and_the_run_resumes_without_it(
    number: int, apart: tuple[Computer, Computer], network: Network, alone: dict[int, float]
) -> None:
    main, other = apart
    process, joined = main.train(MAIN), other.begin("join", MAIN, "--cpu")
    learned(main, 5)
    network.cut(number)
    assert end_of(process) == 1 and end_of(joined) == 1
    run, status = main.run, Runs(main.space).status(main.run)
    assert (status.state, status.message.key, status.message.params["host"]) == (
        State.FAILED,
        "machines.silent",
        "10.99.0.2",
    )
    assert run.saved_step() == len(losses(run)) >= 5, "what was learned last is saved too"
    assert "cannot be reached any more" in main.said(
        "train"
    ) and "10.99.0.1:29400 cannot be reached any more" in other.said("join")
    assert main.is_left_clean() and other.is_left_clean() and not at_work("core.training.ranks.worker", MAIN)
    assert end_of(main.begin("resume", run.id)) == 0, main.said("resume")
    assert losses(run) == pytest.approx(alone, rel=2e-2)


def test_a_cable_that_is_back_at_once_is_not_noticed(apart: tuple[Computer, Computer], network: Network) -> None:
    main, other = apart
    process, joined = main.train(MAIN), other.begin("join", MAIN, "--cpu")
    learned(main, 5)
    network.cut(2)
    before = len(losses(main.run))
    subprocess.run(["sleep", "3"], check=True)  # what a switch takes to learn of it, and less than SILENT_S
    network.mend(2)
    learned(main, before + 5)
    assert end_of(process) == 0 and end_of(joined) == 0, main.said("train")


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("victim", ["worker", "join", "rank"])
def test_whoever_is_killed_nobody_is_left_and_the_run_goes_on(
    victim: str, steps: int, two: tuple[Computer, Computer], alone: dict[int, float]
) -> None:
    main, other = two
    address = free_address()
    process, joined = main.train(address), other.begin("join", address, "--cpu")
    rank = psutil.Process(wait_until(lambda: at_work("core.training.ranks.worker", address), LONG_S)[0])  # type: ignore[index]
    learned(main, steps)
    worker = at_work("core.training.worker", main.run.id)[0]
    os.kill({"worker": worker, "join": joined.pid, "rank": rank.pid}[victim], signal.SIGKILL)
    assert end_of(process) == 1 and (end_of(joined) in (1, -signal.SIGKILL)), main.said("train") + other.said("join")
    wait_until(lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE)
    assert main.is_left_clean() and other.is_left_clean()
    if victim == "rank":  # and together again
        again, joined = (
            main.begin("resume", main.run.id, "--machines", "2", "--main", address),
            other.begin("join", address, "--cpu"),
        )
        assert (end_of(again), end_of(joined)) == (0, 0), main.said("resume") + other.said("join")
        assert (main.run.path / "events.jsonl").read_text("utf-8").count("machines.joined") == 2
    else:
        assert end_of(main.begin("resume", main.run.id)) == 0, main.said("resume")
    assert losses(main.run) == pytest.approx(alone, rel=2e-2)


def test_another_base_another_secret_and_other_data_are_a_sentence_at_both_ends(two: tuple[Computer, Computer]) -> None:
    main, other = two
    weights = other.root / "models" / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-64:] = bytes(64)
    weights.write_bytes(content)
    address = free_address()
    process = main.train(address)
    right = other.environment.pop("LORA_GARAGE_SECRET")
    other.environment["LORA_GARAGE_SECRET"] = "another secret, long enough"
    assert end_of(other.begin("join", address, "--cpu")) == 2 and "does not accept the secret" in other.said("join")
    other.environment["LORA_GARAGE_SECRET"] = right
    joined = other.begin("join", address, "--cpu")
    assert end_of(joined) == 2 and "are not those of the main PC" in other.said("join")
    assert end_of(process) == 1 and "are not those of the main PC" in main.said("train")
    assert main.is_left_clean() and other.is_left_clean()
    (main.root / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 40, "utf-8")
    (other.root / "rows.jsonl").write_text('{"prompt": "a", "completion": "c"}\n' * 40, "utf-8")
    for computer in two:
        Recipe.parse(SETTINGS | {"data": {"source": "rows.jsonl", "max_length": 128}}).write(
            computer.root / "recipe.yaml"
        )
    arguments = ("--cpu", "--machines", "2", "--main", address)
    process = main.begin("train", str(main.root / "recipe.yaml"), *arguments)
    joined = other.begin("train", str(other.root / "recipe.yaml"), "--rank", "1", *arguments)
    assert end_of(joined) == 1 and "is not the one of this PC" in other.said("train"), other.said("train")
    assert end_of(process) == 1 and "is not the one of this PC" in main.said("train")
