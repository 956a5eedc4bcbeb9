"""What the tests fork (tests/kit/warm), and what nothing forks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from core.presets import PROJECT
from core.system import gpu
from tests.kit import nvml as fake_nvml
from tests.kit.warm import Popen


def test_processes_are_forked_here_unless_there_is_a_card() -> None:
    assert (subprocess.Popen is Popen) == (hasattr(os, "fork") and not gpu.probe().cards)


def test_nothing_is_forked_where_there_is_a_card(tmp_path: Path) -> None:
    """bitsandbytes' import initializes CUDA: forked workers ended with "Cannot re-initialize CUDA in forked
    subprocess"."""
    cards = fake_nvml.write(tmp_path / "cards.txt", fake_nvml.EIGHT_GB)
    environment = {**os.environ, **fake_nvml.environment(fake_nvml.compile(tmp_path), cards)}
    this = f"{Path(__file__).relative_to(PROJECT)}::{test_processes_are_forked_here_unless_there_is_a_card.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_nothing_of_the_program_forks() -> None:
    """What is forked from a process that has initialized CUDA cannot use it."""
    forks = {"fork", "forkpty", "multiprocessing", "ProcessPoolExecutor"}
    problems = []
    for file in (file for room in ("core", "webui", "launcher") for file in (PROJECT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            named += [node.attr] if isinstance(node, ast.Attribute) else []
            if module and module.startswith("torch.distributed.elastic."):  # it starts commands, and forks nothing
                continue
            if forks & {part for name in (*named, module or "") for part in name.split(".")}:
                problems.append(f"{file.relative_to(PROJECT)}: {', '.join(named)}")
    assert not problems
