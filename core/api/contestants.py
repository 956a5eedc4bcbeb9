"""The contestants of a comparison or an evaluation, named by words such as RUN@0.8, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.chat.answer import STRENGTHS
from core.chat.client import ChatClient
from core.chat.comparison import Contestant, PromptComparison
from core.chat.contest import answer_missing
from core.errors import ChatError, RecipeError
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace


def generate_answers(space: Workspace, comparison: PromptComparison, on_progress: Callable[[int, int], None]) -> None:
    """Generate the missing answers, calling on_progress(done, total) at first and after each, and unload the model.
    Those that arrived are kept if it is ended."""
    chat = ChatClient(space)
    try:
        for done, total in answer_missing(chat, space, comparison):
            on_progress(done, total)
    finally:
        chat.unload()


def named_contestants(space: Workspace, words: Sequence[str]) -> list[Contestant]:
    """Return the contestants in words such as RUN@0.8 or base@4bit; `base` is the first run's.

    Raises RecipeError for `base` without a run, RunError for an unknown run, ChatError for a strength beyond the
    limits.
    """
    runs, contestants = Runs(space), list[Contestant]()
    of_base = list(map(is_base, words))
    first = next(
        (runs.find(word.partition("@")[0]) for word, bare in zip(words, of_base, strict=True) if not bare), None
    )
    if not words or first is None and any(word.partition("@")[0] == "base" for word in words):
        raise RecipeError("compare.no_run")
    for word, bare in zip(words, of_base, strict=True):
        name, *how = word.split("@")
        run = None if bare else runs.find(name)
        values: dict[str, object] = (
            {"label": word} if run is None else {"label": "@".join([run.name, *how]), "run": run.id}
        )
        if run is None:
            values |= {"column": "base"} | ({"run": first.id} if name == "base" and first else {"other": name})
        for part in how:
            values |= _contestant_option(part, run)
        contestants.append(Contestant(**values))
    return contestants


def is_base(word: str) -> bool:
    """Return whether word names a base model: base, base@4bit or base:MODEL."""
    return word.partition("@")[0] == "base" or word.startswith("base:")


def _contestant_option(part: str, run: RunFolder | None) -> dict[str, object]:
    """Return the Contestant fields of the part behind an @: precision of the base; for a run also its strength or a
    checkpoint. Raises GarageError."""
    if part in ("4bit", "16bit"):
        return {"precision": part.removesuffix("bit")}
    if run is None:
        raise RecipeError("compare.base_how", found=part[:40])
    try:
        strength = float(part)
    except ValueError:
        return {"checkpoint": run.checkpoint(part).name}
    if not STRENGTHS[0] <= strength <= STRENGTHS[1]:
        raise ChatError("compare.strength", found=strength, low=STRENGTHS[0], high=STRENGTHS[1])
    return {"strength": strength}
