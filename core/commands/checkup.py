"""`doctor`: what is wrong with this PC, each problem with its fix."""

from __future__ import annotations

import typer

from core import __version__
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, print_json
from core.export.llamacpp import tools
from core.messages import terminal_language
from core.system import checkup as checks
from core.system.surroundings import result
from core.workspace import preferences
from core.workspace.folder import LOG, Workspace


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False, port: int = 7860) -> None:
    """Check this PC: interpreter, torch, cards, paths, disks, sleep, port; each problem with its fix."""
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
