"""The tools for agents, without the SDK that only passes them on (tried with it by hand: docs/commands.md)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from core.commands.agents import Agents, CommandFailed
from core.presets import PROJECT
from core.runs.all import Runs
from core.workspace.folder import Workspace


def test_a_journey_up_to_the_run_that_waits(workspace: Workspace) -> None:
    agents = Agents(workspace)

    def call(tool: Any, *arguments: Any, **options: Any) -> Any:
        return asyncio.run(tool(*arguments, **options))

    assert "qwen" in call(agents.find_model, "qwen 4b", fits=False)["rows"][0]["id"]
    new = {"model": "starter", "data": "sample:pirate_answers", "name": "By an agent"}
    dry = call(agents.start, **new)
    assert dry["dry_run"] and dry["plan"]["verdict"] == "fits" and Runs(workspace).list() == []
    with pytest.raises(CommandFailed, match="train.learning_rate"):
        call(agents.start, **new, settings={"train.learning_rate": "fast"}, dry_run=False)
    with pytest.raises(CommandFailed, match="nowhere.csv"):
        call(agents.inspect_data, "nowhere.csv")
    assert call(agents.status) == {"runs": []}
    assert call(agents.export, "RUN", "gguf", None, quant="q8_0", dry_run=True)["command"][-6:] == [
        "RUN", "--to", "gguf", "--quant", "q8_0", "--json",
    ]  # fmt: skip


def test_without_the_sdk_it_is_a_sentence(workspace: Workspace) -> None:
    command = [sys.executable, "-S", "-m", "core.commands", "mcp", "--workspace", str(workspace.root)]
    without = [
        sys.executable,
        "-c",
        "import sys; sys.modules['mcp'] = None; from core.commands.__main__ import main; sys.exit(main(sys.argv[1:]))",
    ]
    done = subprocess.run([*without, *command[4:]], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install mcp" in done.stderr
