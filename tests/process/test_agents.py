"""The tools for agents: without the SDK, which only passes them on, and by its own client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.commands.agents import Agents, CommandFailed
from core.presets import PROJECT
from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit import tiny


def test_a_journey_up_to_the_run_that_waits(workspace: Workspace) -> None:
    agents = Agents(workspace)

    def call(tool: Any, *arguments: Any, **options: Any) -> Any:
        return asyncio.run(tool(*arguments, **options))

    assert "qwen" in call(agents.find_model, "qwen 4b", fits=False)["rows"][0]["id"]
    assert len(call(agents.find_model, fits=False)["rows"]) > 50  # it asked for words
    unclear = workspace.root / "unclear.csv"
    unclear.write_text("foo,bar,baz\n" + "\n".join(f"a{n},b{n},c{n}" for n in range(20)), "utf-8")
    with pytest.raises(CommandFailed, match="foo, bar"):
        call(agents.inspect_data, str(unclear))
    named = call(agents.inspect_data, str(unclear), columns={"foo": "question", "bar": "answer"})
    assert named["good_rows"] == 20
    new = {"model": "starter", "data": "sample:pirate_answers", "name": "By an agent"}
    dry = call(agents.start, **new)
    assert dry["dry_run"] and dry["plan"]["verdict"] == "fits" and Runs(workspace).list() == []
    with pytest.raises(CommandFailed, match="train.learning_rate"):
        call(agents.start, **new, settings={"train.learning_rate": "fast"}, dry_run=False)
    with pytest.raises(CommandFailed, match="nowhere.csv"):
        call(agents.inspect_data, "nowhere.csv")
    assert call(agents.status) == {"runs": []}
    assert call(agents.find_model, "--hub", fits=False)["rows"] == []  # a word, no option that asks the Hub
    with pytest.raises(CommandFailed, match="--help"):
        call(agents.status, "--help")
    assert call(agents.export, "RUN", "gguf", None, quant="q8_0", dry_run=True)["command"][-7:] == [
        "--to", "gguf", "--quant", "q8_0", "--json", "--", "RUN",
    ]  # fmt: skip


def test_a_start_without_a_run_in_time_leaves_no_process(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.commands.agents.BEGIN_S", 0.0)
    started, agents = [], Agents(workspace)
    process_of = agents._process

    async def noted(*arguments: Any, **options: Any) -> Any:
        started.append(await process_of(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(agents, "_process", noted)
    with pytest.raises(CommandFailed):
        new = {"model": "starter", "data": "sample:pirate_answers", "name": "Late"}
        asyncio.run(agents.start(**new, dry_run=False))
    assert started[0].returncode is not None


def test_without_the_sdk_it_is_a_sentence(workspace: Workspace) -> None:
    without = (
        "import sys; sys.modules['mcp'] = None; from core.commands.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", without, "mcp", "--workspace", str(workspace.root)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install mcp" in done.stderr


def test_the_sdks_own_client_trains_watches_and_asks(workspace: Workspace, tiny_model: Path) -> None:
    from mcp.client.session import ClientSession
    from mcp.client.stdio import StdioServerParameters, stdio_client

    tiny.in_place_of_the_starter(workspace, tiny_model)
    command = ["-m", "core.commands", "mcp", "--workspace", str(workspace.root)]
    server = StdioServerParameters(command=sys.executable, args=command, cwd=PROJECT)

    async def journey() -> None:
        async with stdio_client(server) as streams, ClientSession(*streams) as client:
            await client.initialize()

            async def call(tool: str, **arguments: Any) -> Any:
                result = await client.call_tool(tool, arguments)
                text = "".join(part.text for part in result.content if part.type == "text")
                return text if result.is_error else json.loads(text)

            assert len((await client.list_tools()).tools) == 9
            new = {"model": "starter", "data": "sample:pirate_answers", "name": "sdk", "dry_run": False}
            assert "train.max_steps" in await call("start", **new, settings={"train.max_steps": "many"})
            short = {"train.max_steps": 2, "train.sample_seconds": 0, "data.eval_fraction": 0}
            run = (await call("start", **new, settings=short))["run"]
            while (state := (await call("status", run=run))["state"]) in ("preparing", "running"):
                await asyncio.sleep(0.2)
            assert state == "completed" and (await call("chat", run=run, prompt="Ahoy?"))["tuned"] is not None
            assert "nobody" in await call("chat", run="nobody", prompt="Ahoy?")

    asyncio.run(asyncio.wait_for(journey(), 300))
    [made] = Runs(workspace).list()
    assert made.label()["tags"] == ["agent"]
