"""Converts a GGUF file into a base model (core.export.llamacpp.base), one at a time, in a thread that waits for
processes. Started on the Models page. It ends with the app; an unfinished folder is never visible."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from core.errors import BusyError, GarageError, StopRequested
from core.export.llamacpp import base
from core.messages import Message, msg
from core.workspace import names
from core.workspace.folder import Workspace


@dataclass(frozen=True)
class GgufConversion:
    """A conversion and its state. message: its stage while it runs, its result at the end."""

    file: str
    state: Literal["working", "done", "failed", "cancelled"]
    message: Message


class GgufBases:
    def __init__(self, workspace: Workspace):
        self._workspace, self._stop, self._thread = workspace, threading.Event(), threading.Thread()
        self._conversion: GgufConversion | None = None

    def current(self) -> GgufConversion | None:
        return self._conversion

    def begin(self, source: str, file: Path) -> None:
        """Start to convert a file. source: its name in the list. Raises BusyError while another conversion runs."""
        if self._thread.is_alive():
            raise BusyError("gguf.base_busy", file=self._conversion.file if self._conversion else "-")
        self._stop.clear()
        self._conversion = GgufConversion(source, "working", msg("export.stage_starting"))
        self._thread = threading.Thread(target=self._work, args=(source, file), name="gguf base", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End the running conversion, or remove the finished one from the page."""
        if self._thread.is_alive():
            self._stop.set()
        else:
            self._conversion = None

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self, source: str, file: Path) -> None:
        """Import the file in its thread, setting the state as it goes; an error becomes the state "failed"."""

        def look() -> None:
            if self._stop.is_set():
                raise StopRequested

        def report(stage: str, _: float | None) -> None:
            self._set_state("working", msg(f"export.stage_{stage}"))

        try:
            model = base.import_file(self._workspace, file, names.slug(source, fallback="model"), report, look, source)
        except StopRequested:
            self._set_state("cancelled", msg("gguf.base_cancelled"))
        except GarageError as error:
            self._set_state("failed", error.message)
        except OSError as error:
            self._set_state("failed", msg("gguf.base_failed", reason=error.strerror or type(error).__name__))
        else:
            self._set_state("done", base.describe(model))

    def _set_state(self, state: Literal["working", "done", "failed", "cancelled"], message: Message) -> None:
        if self._conversion:
            self._conversion = replace(self._conversion, state=state, message=message)
