"""Errors that a person can act on. Everything else is a bug and keeps its traceback in the log.

GarageError
├── RecipeError      a recipe, a setting or an argument that cannot be
├── DataError        a data file that cannot be read, or has nothing to learn
├── ModelError       a model that is missing, gated, damaged, or cannot be used
├── TemplateError    a chat template that cannot be rendered or masked
├── RunError         a run that is not there, or is not in the state that was asked for
├── BusyError        the lease is held by somebody else
├── ChatError        a chat that could not be loaded or went away
└── ExportError      an export that could not be made, or did not prove itself

Each is raised with a catalogue key and its values: `DataError("data.empty_file", file="a.jsonl")`.
"""

from __future__ import annotations

from typing import Any

from core.messages import Message, msg


class GarageError(Exception):
    """Carries a Message; `str(error)` is the English sentence, `error.message.render("zh")` the Chinese."""

    def __init__(self, key: str | Message, **params: Any):
        self.message = key if isinstance(key, Message) else msg(key, **params)
        super().__init__(str(self.message))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message,))


class RecipeError(GarageError): ...


class DataError(GarageError): ...


class ModelError(GarageError): ...


class TemplateError(GarageError): ...


class RunError(GarageError):
    """advice: what to try, where that is not said of all such errors (core/runs/ended)."""

    def __init__(self, key: str | Message, advice: Message | None = None, **params: Any):
        super().__init__(key, **params)
        self.advice = advice

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message, self.advice))


class DoesNotFitError(RunError):
    """The memory is not enough for a run, seen before its first step. Its advice: what would fit, computed."""


class BusyError(GarageError): ...


class ChatError(GarageError): ...


class ExportError(GarageError): ...


class StopRequested(Exception):
    """The person asked to stop; raised at the next sub-step of whatever the worker is doing. Not an error."""


class PauseRequested(Exception):
    """As StopRequested, but to go on later from exactly here."""


def first_line(error: Exception) -> str:
    """Of what it says; "" where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def reason_of(error: Exception) -> str:
    """What an error of somebody else's says, short enough for a sentence; its kind where it says nothing."""
    return first_line(error)[:200] or type(error).__name__
