"""Parts that all commands share: options, exit status, output as sentences or as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml

from core.advice.diagnosis import Diagnosis
from core.api.training import with_changes
from core.errors import RecipeError
from core.files import JsonObject
from core.messages import Message, as_text, msg, terminal_language
from core.recipe import Recipe
from core.runs.folder import Status
from core.values import width
from core.workspace import foreign_recipes

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)

WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", help="The folder with data, models, runs and exports.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object only.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Also count the training step itself, without weights or GPU.")
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Plan for the CPU and train on it, even if there is a GPU.")]
CardsOption = Annotated[
    str | None,
    typer.Option(
        help="GPUs to train on, by nvidia-smi's numbers or UUIDs, e.g. 0,1. Several train together (train.ranks)."
    ),
]
RunArgument = Annotated[str, typer.Argument(help="A run: its id or name.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, e.g. train.learning_rate=1e-3; repeatable.")
]


def apply_settings(value: JsonObject, settings: list[str]) -> JsonObject:
    """Change value, a parsed recipe, in place by settings SECTION.NAME=VALUE (YAML) of --set, and return it. Raises
    RecipeError for another form."""
    parsed = {}
    for setting in settings:
        name, equals, raw = setting.partition("=")
        try:
            parsed[name] = yaml_scalar(raw)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise RecipeError("recipe.bad_setting", setting=setting[:200])
    return with_changes(value, parsed)


def recipe_of(file: Path, settings: list[str]) -> Recipe:
    """Read a recipe file, ours or another tool's, and apply --set. What became of the other's keys, and its dataset if
    that is open, are printed. Raises RecipeError."""
    value, foreign = foreign_recipes.read(file)
    if foreign:
        for message in (foreign.head, *foreign.texts("changed", "left_out", "open")):
            say(message)
    return Recipe.parse(apply_settings(value, settings) if isinstance(value, dict) else value, where=file.name)


def yaml_scalar(raw: str) -> object:
    """Parse a value as people type it: YAML, but 1e-3 is a number (YAML 1.1 wants 1.0e-3). Raises yaml.YAMLError."""
    try:
        return float(raw) if "e" in raw.lower() and not raw.strip().isalpha() else yaml.safe_load(raw)
    except ValueError:
        return yaml.safe_load(raw)


def say(message: Message | str) -> None:
    """Print a message in the terminal's language, or a text, on stderr."""
    print(message.render(terminal_language()) if isinstance(message, Message) else message, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print value as JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=1))


def in_words(value: object) -> object:
    """Return a copy of JSON values in which each message, at any depth, also carries its English sentence."""
    if isinstance(value, dict) and (len(value), type(value.get("key")), type(value.get("params"))) == (2, str, dict):
        return value | {"sentence": Message.model_validate(value).render("en")}
    if isinstance(value, dict):
        return {k: in_words(v) for k, v in value.items()}
    return [in_words(v) for v in value] if isinstance(value, list | tuple) else value


def progress_line(status: Status) -> str:
    """Return a run's stage as text, with its step and the minutes left, or with per cent where the stage reports it."""
    language = terminal_language()
    stage = msg(f"stage.{status.stage}").render(language)
    if status.stage == "training" and status.total_steps:
        left = f", {status.seconds_left / 60:.1f} min" if status.seconds_left is not None else ""
        return f"{stage} {status.step}/{status.total_steps}{left}"
    if status.progress and status.progress.total:
        return f"{stage} {100 * status.progress.done / status.progress.total:.0f} %"
    return stage


def say_finding(finding: Diagnosis) -> None:
    """Print a finding as the page shows it, with its remedy as settings."""
    language = terminal_language()
    settings = " ".join(f"--set {name}={json.dumps(value)}" for name, value in finding.fix.items())
    words = (part.render(language) for part in (finding.evidence, finding.meaning, finding.remedy))
    say(as_text(words, language) + (f" ({settings})" if settings else ""))


def plain(value: object) -> object:
    """Return value with every pydantic model as JSON values, also in dicts, but not in lists."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def columns(*cells: str) -> str:
    """Put cells side by side, each 18 columns wide, and further apart where one is wider."""
    return "".join(cell + " " * max(2, 18 - width(cell)) for cell in cells).rstrip()


def written_over(before: str, line: str) -> str:
    """Return line so that it replaces `before` on a terminal.

    With spaces: Windows' old console shows an escape sequence as letters.
    """
    return "\r" + line + " " * (width(before) - width(line))


@contextmanager
def progress_on_terminal(quiet: bool) -> Iterator[Callable[[Message], None]]:
    """Context manager: a function that shows a message on stderr in place of the one before it, unless quiet or without
    a terminal. The line ends with the block."""
    line = ""

    def show_over_last(message: Message) -> None:
        """Show the message on stderr in place of the last one. Nothing happens if quiet, or if stderr is no
        terminal."""
        nonlocal line
        if not quiet and sys.stderr.isatty():
            before, line = line, message.render(terminal_language())
            print(written_over(before, line), end="", file=sys.stderr, flush=True)

    try:
        yield show_over_last
    finally:
        if line:
            print(file=sys.stderr)


@contextmanager
def counting(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Context manager: a function that shows on a terminal how many answers of all are there, unless quiet."""
    with progress_on_terminal(quiet) as show:
        yield lambda done, total: show(msg("compare.progress", done=done, wanted=total))
