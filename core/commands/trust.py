"""`python launch.py trust MODEL`: shows a model's own Python code with its sha256, and records what was trusted. Never
runs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from core.commands.terminal import WorkspaceOption, app
from core.errors import ModelError
from core.hub import hub_errors, peek
from core.messages import Message, msg, terminal_language
from core.models.library import ModelRef, Models
from core.models.trust import Trust, code_in, sha256
from core.workspace.folder import Workspace


@app.command()
def trust(
    model: Annotated[str, typer.Argument(help="The model, e.g. owner/name.")],
    workspace: WorkspaceOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Trust these files without asking.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Stop trusting the model.")] = False,
) -> None:
    """Show the Python code that a model contains, and allow exactly these files to run when it is loaded."""
    raise typer.Exit(carry_out(Workspace.open(workspace), model, yes, forget))


def carry_out(space: Workspace, model: str, yes: bool, forget: bool) -> int:
    """Show, trust or forget a model's code. Returns the exit status: 0 trusted or forgotten, 1 not. Raises
    ModelError."""
    models, trusted = Models(space), Trust(space)
    model = models.hub_id(model)
    kind = ModelRef.parse(model).kind
    if kind == "starter":
        raise ModelError("trust.starter")
    if forget:
        was_trusted = trusted.forget(model)
        _say(msg("trust.forgotten" if was_trusted else "trust.nothing_to_forget", model=model))
        return 0 if was_trusted else 1
    source, commit = (models.library_folder(model), None) if kind == "library" else peek.python_files(model, None)
    files = {name: sha256(content) for name, content in source.items()} if isinstance(source, dict) else code_in(source)
    if not files:
        raise ModelError("trust.no_code", model=model)
    _say(msg("trust.shown", model=model))
    for name, digest in files.items():
        print(f"  {digest}  {name.encode('unicode_escape').decode()}")
    if commit:
        _say(msg("trust.of_commit", commit=commit, page=f"{hub_errors.page(model)}/tree/{commit}"))
    if not yes and not _confirmed(model):
        return 1
    trusted.pin(model, files)
    _say(msg("trust.trusted", model=model, count=len(files)))
    return 0


def _confirmed(model: str) -> bool:
    """Ask on the terminal for the model's name, and say what to do if it is not typed. False without a terminal."""
    try:
        answer = input(msg("trust.ask").render(terminal_language())) if sys.stdin.isatty() else None
    except EOFError:  # Windows' null device is a terminal to isatty
        print()
        answer = None
    if answer is None:
        _say(msg("trust.ask_flag"))
        return False
    if answer.strip() == model:
        return True
    _say(msg("trust.not_trusted"))
    return False


def _say(message: Message) -> None:
    print(message.render(terminal_language()))
