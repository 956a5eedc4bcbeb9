"""Turns a GGUF file into a base model (core.export.llamacpp.base), started on the Settings page: one at a time, in a
thread that waits for processes. It ends with the app; a half-made folder is never visible."""

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
class Making:
    """message: the stage while it works, and at the end what came of it."""

    file: str
    state: Literal["working", "done", "failed", "cancelled"]
    message: Message


class GgufBases:
    def __init__(self, workspace: Workspace):
        self._workspace, self._stop, self._thread = workspace, threading.Event(), threading.Thread()
        self._making: Making | None = None

    def now(self) -> Making | None:
        return self._making

    def begin(self, source: str, file: Path) -> None:
        """source: what the list calls it. Raises BusyError while another file is at it."""
        if self._thread.is_alive():
            raise BusyError("gguf.base_busy", file=self._making.file if self._making else "-")
        self._stop.clear()
        self._making = Making(source, "working", msg("export.stage_starting"))
        self._thread = threading.Thread(target=self._work, args=(source, file), name="gguf base", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """What runs is ended; what has ended is no longer told."""
        if self._thread.is_alive():
            self._stop.set()
        else:
            self._making = None

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self, source: str, file: Path) -> None:
        def look() -> None:
            if self._stop.is_set():
                raise StopRequested

        def told(stage: str, _: float | None) -> None:
            self._say("working", msg(f"export.stage_{stage}"))

        try:
            made = base.import_file(self._workspace, file, names.slug(source, fallback="model"), told, look, source)
        except StopRequested:
            self._say("cancelled", msg("gguf.base_cancelled"))
        except GarageError as error:
            self._say("failed", error.message)
        except OSError as error:
            self._say("failed", msg("gguf.base_failed", reason=error.strerror or type(error).__name__))
        else:
            self._say("done", base.describe(made))

    def _say(self, state: Literal["working", "done", "failed", "cancelled"], message: Message) -> None:
        if self._making:
            self._making = replace(self._making, state=state, message=message)
