"""`doctor`: the problems of this PC, each with its fix; `workspace`: where its files are, and which folder is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core import COMMAND, __version__, files
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, print_json
from core.errors import BusyError
from core.export.llamacpp import tools
from core.messages import msg, terminal_language
from core.system import checkup as checks
from core.system.surroundings import result
from core.workspace import folder, lease, preferences
from core.workspace.folder import LOG, Workspace
from core.workspace.owner import Ownership


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False, port: int = 7860) -> None:
    """Check this PC: Python, torch, GPUs, paths, disks, sleep, port. Each problem comes with its fix."""
    root = Workspace.place(workspace)
    findings = checks.run(root, root / LOG, port, preferences.read(Workspace(root)).automation.keep_awake)
    findings.append(result("gguf_tools", tools.state(Workspace(root))))
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json(
            {
                "ok": healthy,
                "version": __version__,
                "findings": in_words([finding.model_dump(mode="json") for finding in findings]),
            }
        )
    else:
        language = terminal_language()
        print(f"LoRA Garage {__version__}")
        for finding in findings:
            print(f"{'ok ' if finding.ok else '!! '} {finding.message.render(language)}")
            if finding.fix:
                print(f"    {finding.fix.render(language)}")
    raise typer.Exit(0 if healthy else 1)


@app.command()
def workspace(
    workspace: WorkspaceOption = None,
    new: Annotated[
        Path | None, typer.Option("--use", help="Use this folder from now on, to which you have copied the workspace.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the workspace is, or use a copy of it in another folder, for example on a larger drive."""
    space = Workspace.open(workspace)
    if new is None:
        message = msg(
            "workspace.here",
            folder=space.root,
            gb=files.bytes_in(space.root) / 1e9,
            command=f"{COMMAND} workspace --use",
        )
    else:
        owner = Ownership(space)
        try:
            if owner.claim("", patience_s=0.0):
                raise BusyError("workspace.app_open")
            with lease.hold(space, msg("workspace.using", folder=new)):
                message = msg(
                    "workspace.used", folder=folder.use_copy(space.root, new), old=space.root, file=folder.MOVED
                )
        finally:
            owner.release()
    if as_json:
        root = Workspace.open(workspace).root
        print_json({"workspace": str(root), "bytes": files.bytes_in(root)})
    else:
        print(message.render(terminal_language()))
