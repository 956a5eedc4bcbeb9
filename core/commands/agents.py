"""`mcp`: this app's commands as tools for agents, by the Model Context Protocol on standard input and output.

Each tool runs one command with --json in a process of its own and returns its object, so that there is no second way.
Nothing is deleted, published or sent away. The SDK (`pip install mcp`) is not part of the app.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Literal

from core import COMMAND
from core.commands.terminal import WorkspaceOption, app
from core.errors import GarageError, RecipeError
from core.files import JsonObject
from core.messages import msg
from core.presets import PROJECT
from core.queue.queue import Queue
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.system.processes import own_group
from core.workspace.folder import Workspace

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context, MCPServer

TAG = "agent"  # of runs that a tool started, shown on the page
PROGRESS_S = 2.0  # between two notifications
POLL_S = 0.5
SEARCH = ("models", "search")  # knows no workspace
BEGIN_S = 120.0  # for a run to be there: its data is imported first
INSTRUCTIONS = (
    "Fine-tune language models with LoRA on this PC: find_model, inspect_data, plan, start, status; chat, evaluate "
    "and export. Call start with dry_run first and show the plan to the person."
)


@app.command("mcp")
def serve_agents(workspace: WorkspaceOption = None) -> None:
    """Offer this app to agents over standard input and output (Model Context Protocol) until they close it. Raises
    RecipeError without the protocol's SDK, `mcp`."""
    if find_spec("mcp") is None:
        raise RecipeError("agents.no_sdk", command=f"{sys.executable} -m pip install mcp")
    server_of(Agents(Workspace.open(workspace))).run("stdio")


def server_of(agents: Agents) -> MCPServer:
    """Return the Model Context Protocol server with all tools, whose errors are the commands' sentences."""
    from mcp.server.mcpserver import Context, MCPServer

    server = MCPServer("LoRA Garage", instructions=INSTRUCTIONS, log_level="ERROR")
    for tool in agents.tools():
        if "ctx" in tool.__annotations__:  # the SDK may be missing where this module is imported
            tool.__func__.__annotations__["ctx"] = Context
        server.tool()(with_its_sentence(tool))
    return server


def with_its_sentence(tool: Callable[..., Awaitable[JsonObject]]) -> Callable[..., Awaitable[JsonObject]]:
    """Return the tool, wrapped so that a failed command, or an error that a person can act on, reaches the agent as its
    sentence; the SDK would report any other exception as a crash, without its text."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    async def call_with_tool_error(*arguments: Any, **options: Any) -> JsonObject:
        """Call the tool and return its object; the sentence of a failed command, or of an error that a person can act
        on, is raised as the SDK's ToolError."""
        try:
            return await tool(*arguments, **options)
        except (CommandFailed, GarageError) as error:
            raise ToolError(str(error)) from error

    return call_with_tool_error


class Agents:
    """The tools. A docstring is what the agent reads of a tool; runs are named by id or name."""

    def __init__(self, workspace: Workspace):
        self._space = workspace

    def tools(self) -> tuple[Any, ...]:
        """Return the methods that are offered to agents as tools."""
        return (self.find_model, self.inspect_data, self.plan, self.start, self.status, self.stop, self.evaluate,
            self.chat, self.export)  # fmt: skip

    async def find_model(self, words: str = "", fits: bool = True) -> JsonObject:
        """Search known models by words such as "qwen 4b german" or "for 12 GB"; without words, all. fits: only those
        that can be trained on this PC, or on the GPU in the words."""
        return await self._run(None, *SEARCH, *(["--fits"] if fits else []), values=words.split())

    async def inspect_data(self, data: str, rows: int = 4, columns: dict[str, str] | None = None) -> JsonObject:
        """Show what is in a file, a folder or a dataset of the app: format, problems, the first rows as trained.
        columns: what each is, if their names do not show it: {"Frage": "question", "Antwort": "answer"}; also for
        start. sample:pirate_answers is a sample."""
        roles = ",".join(f"{role}={name}" for name, role in (columns or {}).items())
        options = _given({"--columns": roles or None})
        return await self._run(None, "inspect", "--rows", str(rows), *options, values=[data])

    async def plan(
        self, model: str, data: str | None = None, goal: str | None = None, vram_gb: float | None = None
    ) -> JsonObject:
        """Recommend settings with reasons, and whether they fit this PC or a GPU of vram_gb. Downloads no weights."""
        options = {"--model": model, "--data": data, "--goal": goal, "--vram": vram_gb}
        return await self._run(None, "plan", *_given(options))

    async def start(
        self,
        model: str,
        data: str,
        name: str,
        goal: str | None = None,
        settings: dict[str, Any] | None = None,
        columns: dict[str, str] | None = None,
        dry_run: bool = True,
    ) -> JsonObject:
        """Start training a run and return its state, without waiting for its end; while the page is open, it waits
        behind the queued runs. model: an id of find_model; settings: {"train.max_steps": 50, ...}, instead of planned
        ones; dry_run: only return the plan, made without settings and columns."""
        if dry_run:
            return {"dry_run": True, "plan": await self.plan(model, data, goal)}
        source = {"source": data} | ({"columns": columns} if columns else {})
        recipe = {"name": name, "model": {"id": model}, "data": source} | ({"goal": goal} if goal else {})
        changes = [part for key, value in (settings or {}).items() for part in ("--set", f"{key}={json.dumps(value)}")]
        before = {run.id for run in Runs(self._space).list()}
        with TemporaryDirectory() as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(json.dumps(recipe), "utf-8", newline="\n")
            options = [str(file), *changes]
            if Queue(self._space).read().app_is_open:
                run = Runs(self._space).get((await self._run(None, "train", "--queue", *options))["run"])
            else:
                run = await self._train(options, before)
        run.relabel(tags=[TAG])
        return await self.status(run.id)

    async def _train(self, options: list[str], before: set[str]) -> RunFolder:
        """Start `train` with these options in a process that outlives this one, wait until its run exists, and return
        the run. before: ids of the runs that existed already. Raises CommandFailed, with its output, if it ends first,
        or is ended because no run appears within BEGIN_S."""
        with TemporaryFile() as output:  # not one of the workspace: a second start would overwrite that of a first
            process = await self._process("train", *options, outlives_with=output)
            deadline = time.monotonic() + BEGIN_S
            while process.returncode is None and time.monotonic() < deadline:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), POLL_S)
                if new := [run for run in Runs(self._space).list() if run.id not in before]:
                    return new[0]
            if process.returncode is None:  # no agent could name its run
                process.kill()
                await process.wait()
            output.seek(0)
            raise CommandFailed(output.read())

    async def status(self, run: str = "") -> JsonObject:
        """Return a run with its state, losses and findings; without one all runs, newest first."""
        return await self._run(None, "runs", values=[run] if run else [])

    async def stop(self, run: str, dry_run: bool = False) -> JsonObject:
        """Pause a run: it saves a checkpoint and frees the GPU. The person can resume it."""
        result = await self._run(None, "pause", values=[run], as_json=False, dry_run=dry_run)
        return result or await self.status(run)

    async def evaluate(self, run: str, ctx: Context, rows: int = 20, dry_run: bool = False) -> JsonObject:
        """Compare base, base with a prompt, base with examples and tuned model on held-out questions: was fine-tuning
        needed? Takes minutes."""
        return await self._run(ctx, "evaluate", "--rows", str(rows), values=[run], dry_run=dry_run)

    async def chat(
        self, run: str, prompt: str, ctx: Context, with_base: bool = False, dry_run: bool = False
    ) -> JsonObject:
        """Ask the tuned model one question; with_base: its base too."""
        options = ["--base"] if with_base else []
        return await self._run(ctx, "chat", "--prompt", prompt, *options, values=[run], dry_run=dry_run)

    async def export(
        self,
        run: str,
        kind: Literal["adapter", "merged", "gguf"],
        ctx: Context,
        quant: str | None = None,
        dry_run: bool = False,
    ) -> JsonObject:
        """Write a run's model as files, verified; with gguf comes a Modelfile for Ollama. quant: of GGUF, such as
        q4_k_m. Takes minutes."""
        options = _given({"--quant": quant})
        return await self._run(ctx, "export", "--to", kind, *options, values=[run], dry_run=dry_run)

    # ---- commands ---------------------------------------------------------------------------------------------------
    async def _run(
        self,
        ctx: Context | None,
        *arguments: str,
        values: Sequence[str] = (),
        as_json: bool = True,
        dry_run: bool = False,
    ) -> JsonObject:
        """Run a command and return its object, with a progress notification every PROGRESS_S seconds; with dry_run only
        the command itself. values: its arguments that are no options, even if they begin with "-". Raises CommandFailed
        with the command's sentence."""
        arguments = (*arguments, "--json") if as_json else arguments
        if dry_run:
            return {"dry_run": True, "command": [*COMMAND.split(), *arguments, "--", *values]}
        process = await self._process(*arguments, values=values)
        ending, begun = asyncio.ensure_future(process.communicate()), time.monotonic()
        try:
            while not (await asyncio.wait({ending}, timeout=PROGRESS_S))[0]:
                if ctx is not None:
                    await ctx.report_progress(time.monotonic() - begun, message=f"{arguments[0]} is at work")
        except asyncio.CancelledError:
            process.terminate()
            raise
        output, errors = ending.result()
        if process.returncode:
            raise CommandFailed(errors or output)
        return dict(json.loads(output)) if as_json else {}

    async def _process(
        self, *arguments: str, values: Sequence[str] = (), outlives_with: IO[bytes] | None = None
    ) -> asyncio.subprocess.Process:
        """Start a command of this app as a process on the workspace and return the process without waiting for it.
        values: arguments that are no options, even if they begin with "-". outlives_with: a file for the output of a
        command that goes on when this process ends; None: its output is read through pipes."""
        output = outlives_with or asyncio.subprocess.PIPE
        place = () if arguments[:2] == SEARCH else ("--workspace", str(self._space.root))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "core.commands", *arguments, *place, "--", *values),
            cwd=PROJECT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **(own_group() if outlives_with else {}),
        )


def _given(options: Mapping[str, object]) -> list[str]:
    """Return the options that have a value, as arguments."""
    return [part for name, value in options.items() if value is not None for part in (name, str(value))]


class CommandFailed(Exception):
    """A command that ended with an error; what it printed is what the agent reads."""

    def __init__(self, output: bytes):
        super().__init__(output.decode("utf-8", "replace").strip()[-2000:] or str(msg("agents.no_reason")))
