"""`tools`: llama.cpp's converter and runtime in the workspace, which create and verify GGUF files."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, plain, print_json, say
from core.export.llamacpp import tools as gguf_tools
from core.messages import msg
from core.workspace.folder import Workspace


@app.command()
def tools(
    fetch: Annotated[bool, typer.Option("--fetch", help="Download them now with pip and check their hashes.")] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete them; an export that needs them downloads them again.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show, download or remove llama.cpp's converter, quantizer and runtime, which create GGUF files."""
    space = Workspace.open(workspace)
    if remove and not gguf_tools.remove(space) and not as_json:
        say(msg("gguf.tools_none"))
    if fetch:
        if (offer := gguf_tools.offer(space)) and not as_json:
            say(offer)
        gguf_tools.obtain(space)
    folder = gguf_tools.folder(space)
    there = folder.is_dir()
    if as_json:
        reason = gguf_tools.why_unavailable(space)
        builds = {"converter": gguf_tools.CONVERTER_BUILD, "runtime": gguf_tools.RUNTIME_BUILD}
        print_json(in_words(plain({"there": there, "folder": str(folder), "builds": builds, "why_none": reason})))
    else:
        say(gguf_tools.state(space))
