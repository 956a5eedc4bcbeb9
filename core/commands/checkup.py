"""`doctor`: what is wrong with this PC, each problem with its fix; `workspace`: where its files are, and moving them to another drive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core import COMMAND, __version__
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, print_json, say
from core.export.llamacpp import tools
from core.messages import msg, terminal_language
from core.system import checkup as checks
from core.system.surroundings import result
from core.workspace import moving, preferences
from core.workspace.folder import LOG, Workspace


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False, port: int = 7860) -> None:
    """Check this PC: Python, torch, GPUs, paths, disks, sleep, port. Each problem comes with its fix."""
    root = Workspace.place(workspace)
    findings = checks.run(root, root / LOG, port, preferences.read(Workspace(root)).automation.keep_awake)
    findings.append(result("gguf_tools", tools.state(Workspace(root))))
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json(
            {"ok": healthy, "version": __version__, "findings": in_words([finding.model_dump(mode="json") for finding in findings])}
        )
    else:
        language = terminal_language()
        print(f"LoRA Garage {__version__}")
        for finding in findings:
            print(f"{'ok ' if finding.ok else '!! '} {finding.found.render(language)}")
            if finding.fix:
                print(f"    {finding.fix.render(language)}")
    raise typer.Exit(0 if healthy else 1)


@app.command()
def workspace(
    workspace: WorkspaceOption = None,
    move: Annotated[
        Path | None, typer.Option("--move", help="Move the workspace to this new or empty folder; every file is verified.")
    ] = None,
    delete_old: Annotated[bool, typer.Option("--delete-old", help="Delete the copy that a move left in the old folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where the workspace is, or move it to another drive; the old copy is kept until --delete-old."""
    space = Workspace.open(workspace)
    if move is not None:
        old = space.root
        space = moving.move(space, str(move), moving.by_twentieths(say))
        said = msg("moving.moved", folder=space.root, old=old, command=f"{COMMAND} workspace --delete-old")
    elif delete_old:
        said = msg("moving.freed", gb=moving.forget_old(space) / 1e9)
    else:
        said = msg("moving.here", folder=space.root, gb=moving.size(space) / 1e9)
    old_copy = moving.old_copy(space)
    if as_json:
        print_json({"workspace": str(space.root), "bytes": moving.size(space), "old_copy": str(old_copy) if old_copy else None})
    else:
        print(said.render(terminal_language()))
