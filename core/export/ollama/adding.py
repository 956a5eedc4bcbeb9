"""Adds an export to Ollama while the page shows progress: one at a time, in a thread of the web process. No torch.

The progress is not kept on disk: after a restart either Ollama has the model, or the user adds it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import BusyError, ExportError, GarageError, StopRequested
from core.export import other_programs
from core.export.ollama import program
from core.export.records import ExportResult
from core.messages import Message, msg


@dataclass(frozen=True)
class AddStatus:
    """Progress of adding a model to Ollama. message: the current step or the result. answered: it ended with an
    answer."""

    run: str
    message: Message
    active: bool = True
    answered: bool = False


class OllamaAdder:
    """Adds one export at a time to Ollama. find: returns the path of Ollama's program, or None."""

    def __init__(self, find: Callable[[], Path | None] = program.find):
        self.find = find
        self._status: AddStatus | None = None
        self._lock, self._cancelled = threading.Lock(), threading.Event()

    def status(self, run: str) -> AddStatus | None:
        """Status of the newest addition if it belongs to this run, else None."""
        status = self._status  # read once: the thread may replace it between two looks
        return status if status and status.run == run else None

    def start(self, result: ExportResult, folder: Path, model_type: str) -> None:
        """Begin to add an export in a thread. model_type: "" if unknown.

        Raises BusyError while another is being added, ExportError without Ollama.
        """
        ollama = self.find()
        if ollama is None:
            raise ExportError("ollama.not_there", file=folder, command=other_programs.ollama_create(result, folder))
        with self._lock:
            if self._status and self._status.active:
                raise BusyError("ollama.at_work")
            self._cancelled.clear()
            self._status = AddStatus(result.run, msg("ollama.creating"))
        threading.Thread(
            target=self._add, args=(ollama, result, folder, model_type), name="ollama", daemon=True
        ).start()

    def cancel(self) -> None:
        """Request that the addition in progress ends, and return at once; its thread stops Ollama's program and sets
        the status."""
        self._cancelled.set()

    def _add(self, ollama: Path, result: ExportResult, folder: Path, model_type: str) -> None:
        """Create the model in Ollama and set the final status: its answer, or the message of a cancel or an error.
        Raises none of these."""
        name = other_programs.ollama_name(result)
        ended = AddStatus(result.run, msg("ollama.cancelled"), active=False)
        try:
            program.check_version(ollama, model_type, self._raise_if_cancelled)
            model = program.create_model(ollama, name, folder / "Modelfile", self._set_stage, self._raise_if_cancelled)
            text = msg("ollama.answered", name=name, question=program.QUESTION, answer=model.answer)
            if model.replaced:
                text = msg("ollama.both", first=text, second=msg("ollama.replaced", name=name))
            ended = replace(ended, message=text, answered=True)
        except GarageError as error:
            ended = replace(ended, message=error.message)
        except StopRequested:
            pass  # `ended` says already that it was cancelled
        except OSError as error:  # no room for what it writes, a folder that was deleted meanwhile
            ended = replace(
                ended, message=msg("ollama.cannot_start", program=ollama, reason=error.strerror or str(error))
            )
        finally:
            self._status = ended

    def _set_stage(self, stage: str) -> None:
        """Show a step of the addition (a key below `ollama.`) as the message of its status."""
        if self._status:
            self._status = replace(self._status, message=msg(f"ollama.{stage}"))

    def _raise_if_cancelled(self) -> None:
        """Raise StopRequested if a cancel of the present addition was requested."""
        if self._cancelled.is_set():
            raise StopRequested
