"""Errors that a person can act on. Everything else is a bug and keeps its traceback in the log.

GarageError
├── RecipeError      an impossible recipe, setting or argument
├── DataError        a data file that cannot be read, or has nothing to learn
├── ModelError       a model that is missing, gated, damaged, or cannot be used
├── TemplateError    a chat template that cannot be rendered or masked
├── RunError         a run that does not exist, or is in the wrong state
├── BusyError        another process holds the lease
├── ChatError        a chat that could not be loaded or ended
├── JudgeError       a judge that cannot judge an answer
└── ExportError      an export that could not be made, or failed its check

Each is raised with a catalogue key and its values: `DataError("data.empty_file", file="a.jsonl")`.
"""

from __future__ import annotations

from core.messages import Message, msg


class GarageError(Exception):
    """Carries a Message; `str(error)` is the English sentence, `error.message.render("zh")` the Chinese."""

    def __init__(self, key: str | Message, **params: object):
        """Create the error from a Message, or from a catalogue key with params as the values of its placeholders."""
        self.message = key if isinstance(key, Message) else msg(key, **params)
        super().__init__(str(self.message))

    def __reduce__(self) -> tuple[object, ...]:
        """Return the parts from which pickle rebuilds the error: its type and its message."""
        return (type(self), (self.message,))


class RecipeError(GarageError): ...


class DataError(GarageError): ...


class ModelError(GarageError): ...


class TemplateError(GarageError): ...


class RunError(GarageError):
    """An error of a run. advice: what to try, if that is not the same for all such errors (core/runs/ended)."""

    def __init__(self, key: str | Message, advice: Message | None = None, **params: object):
        super().__init__(key, **params)
        self.advice = advice

    def __reduce__(self) -> tuple[object, ...]:
        """Return the parts from which pickle rebuilds the error: its type, its message and its advice."""
        return (type(self), (self.message, self.advice))


class DoesNotFitError(RunError):
    """Too little memory for a run, found before its first step. Its advice: what would fit, computed."""


class BusyError(GarageError): ...


class ChatError(GarageError): ...


class JudgeError(GarageError): ...


class ExportError(GarageError): ...


class StopRequested(Exception):
    """Raised at the worker's next sub-step after the person pressed Stop. Not an error."""


class PauseRequested(Exception):
    """Raised like StopRequested, to resume later from exactly here."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's text that is not blank; "" if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def reason_of(error: Exception) -> str:
    """Return the first line of a library's or the system's error, cut to 200 characters; the name of its type if it has
    no text."""
    return first_line(error)[:200] or type(error).__name__
