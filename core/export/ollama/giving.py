"""Adds an export to Ollama while the page shows progress: one at a time, in a thread of the web process. No torch.

Nothing of it is kept on disk: after a restart Ollama has the model, or the button is pressed again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import BusyError, ExportError, GarageError, StopRequested
from core.export import elsewhere
from core.export.ollama import program
from core.export.records import ExportResult
from core.messages import Message, msg


@dataclass(frozen=True)
class Gift:
    """said: what is done now, or how it ended. answered: it ended with an answer."""

    run: str
    said: Message
    active: bool = True
    answered: bool = False


class Giving:
    def __init__(self, find: Callable[[], Path | None] = program.find):
        self.find = find
        self._gift: Gift | None = None
        self._lock, self._cancelled = threading.Lock(), threading.Event()

    def now(self, run: str) -> Gift | None:
        """Of the newest one, if it is of that run."""
        gift = self._gift
        return gift if gift and gift.run == run else None

    def start(self, result: ExportResult, folder: Path, model_type: str) -> None:
        """model_type: "" where it is not known. Raises BusyError while another is on its way, ExportError without
        Ollama."""
        ollama = self.find()
        if ollama is None:
            raise ExportError("ollama.not_there", file=folder, command=elsewhere.ollama_create(result, folder))
        with self._lock:
            if self._gift and self._gift.active:
                raise BusyError("ollama.at_work")
            self._cancelled.clear()
            self._gift = Gift(result.run, msg("ollama.creating"))
        threading.Thread(
            target=self._give, args=(ollama, result, folder, model_type), name="ollama", daemon=True
        ).start()

    def cancel(self) -> None:
        self._cancelled.set()

    def _give(self, ollama: Path, result: ExportResult, folder: Path, model_type: str) -> None:
        name = elsewhere.ollama_name(result)
        ended = Gift(result.run, msg("ollama.cancelled"), active=False)
        try:
            program.see_version(ollama, model_type, self._check)
            given = program.give(ollama, name, folder / "Modelfile", self._tell, self._check)
            said = msg("ollama.answered", name=name, question=program.QUESTION, answer=given.answer)
            if given.replaced:
                said = msg("ollama.both", first=said, second=msg("ollama.replaced", name=name))
            ended = replace(ended, said=said, answered=True)
        except GarageError as error:
            ended = replace(ended, said=error.message)
        except StopRequested:
            pass
        except OSError as error:  # no room for what it writes, a folder that was deleted meanwhile
            ended = replace(ended, said=msg("ollama.cannot_start", program=ollama, reason=error.strerror or str(error)))
        finally:
            self._gift = ended

    def _tell(self, stage: str) -> None:
        if self._gift:
            self._gift = replace(self._gift, said=msg(f"ollama.{stage}"))

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise StopRequested
