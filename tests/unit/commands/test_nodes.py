"""`train --nnodes` in this process: what cannot be is one sentence before anything begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.commands import running
from core.commands.__main__ import main
from core.system.nodes import Nodes
from core.workspace import lease
from core.workspace.folder import Workspace

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LORA_GARAGE_HOME", str(tmp_path / "ws"))
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    (tmp_path / "recipe.yaml").write_text("data: {source: 'sample:pirate_answers'}\n", "utf-8")

    def command(*arguments: str) -> tuple[int, str]:
        code = main([str(tmp_path / "recipe.yaml") if word == "RECIPE" else word for word in arguments])
        output = capsys.readouterr()
        assert output.out == ""
        return code, output.err

    return command


MAIN = ("--rdzv-endpoint", "pc:1")
BAD = {
    "no address": (("train", "RECIPE", "--nnodes", "2"), "give --nnodes and --rdzv-endpoint"),
    "no count": (("train", "RECIPE", *MAIN), "give --nnodes and --rdzv-endpoint"),
    "a rank alone": (("train", "RECIPE", "--node-rank", "1"), "give --nnodes and --rdzv-endpoint"),
    "one PC": (("train", "RECIPE", "--nnodes", "1", *MAIN), "2 to 8 PCs"),
    "rank 2 of 2": (("train", "RECIPE", "--nnodes", "2", "--node-rank", "2", *MAIN), "--node-rank 2"),
    "no port": (("train", "RECIPE", "--nnodes", "2", "--rdzv-endpoint", "pc"), "“pc” is no address"),
    "any address": (("train", "RECIPE", "--nnodes", "2", "--rdzv-endpoint", "0.0.0.0:5"), "“0.0.0.0:5” is no address"),
    "queued": (("train", "RECIPE", "--nnodes", "2", *MAIN, "--queue"), "cannot be queued"),
    "no recipe": (("train", "--nnodes", "2", *MAIN), "Give a recipe file"),
    "no recipe, one PC": (("train",), "Give a recipe file"),
    "pissa": (
        ("train", "RECIPE", "--nnodes", "2", *MAIN, "--set", "adapter.init_lora_weights=pissa"),
        "PiSSA",
    ),
    "fsdp": (
        ("train", "RECIPE", "--nnodes", "2", *MAIN, "--set", "train.ranks=2", "--set", "train.fsdp=true"),
        "of one PC only",
    ),
    "too many": (("train", "RECIPE", "--nnodes", "8", *MAIN, "--set", "train.ranks=16"), "16"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_a_sentence_and_exit_2(case: str, run: Run, tmp_path: Path) -> None:
    arguments, sentence = BAD[case]
    code, errors = run(*arguments)
    assert code == 2 and sentence in errors and "Traceback" not in errors
    assert not (tmp_path / "ws" / "runs").exists() or not [*(tmp_path / "ws" / "runs").iterdir()]


def test_a_pc_that_joins_says_how_it_ended_and_gives_its_device_back(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With an agent that only says what it was given."""
    agent = "import os, sys; os.environ['LORA_GARAGE_NODE_RANK']; sys.exit(int(os.environ['ENDS']))"
    start = running.subprocess.Popen
    began: list[list[str]] = []

    def played(command: list[str], **how: object) -> object:
        if "core.training.ranks.agent" not in command:  # what keeps the PC awake
            return start(command, **how)  # type: ignore[call-overload]
        began.append(command)
        assert lease.is_held(Workspace.open(tmp_path / "ws"))
        return start([sys.executable, "-c", agent, *command[3:]], **how)  # type: ignore[call-overload]

    monkeypatch.setattr(running.subprocess, "Popen", played)
    for ends, sentence in (("0", "run of pc:1 has ended"), ("1", "no longer takes part in the run of pc:1")):
        monkeypatch.setenv("ENDS", ends)
        code, errors = run("train", "--nnodes", "2", "--node-rank", "1", *MAIN, "--cpu")
        assert code == int(ends) and sentence in errors
        assert began[-1][2:4] == ["core.training.ranks.agent", "--workspace"]
        assert not lease.is_held(Workspace.open(tmp_path / "ws"))


def test_nodes_go_to_a_worker_by_variables_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Nodes.from_options(2, 1, "[::1]:29400")
    assert given and Nodes.from_environment() is None and Nodes.from_options(None, 0, None) is None
    for name, value in given.environment.items():
        monkeypatch.setenv(name, value)
    assert Nodes.from_environment() == given


def test_the_environment_of_another_launcher_makes_no_run_one_of_several_pcs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun or a cluster's launcher leaves it, whole or in part; nor does an incomplete set of ours."""
    for name, value in {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_RDZV_ENDPOINT": "pc:1"}.items():
        monkeypatch.setenv(name, value)
        assert Nodes.from_environment() is None
    monkeypatch.setenv("LORA_GARAGE_NNODES", "2")
    assert Nodes.from_environment() is None
