"""Real llama.cpp that stands still in the middle of its work: its quantiser with a part of the file written, its
runtime within a sum. Its process id is written to the file that the request names `pid`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from core.export.llamacpp import child, questions
from core.export.llamacpp.library import Library, quantize
from core.export.llamacpp.runtime import LoadedGguf


def stand(pid: str) -> NoReturn:
    """Called by llama.cpp itself, on its own stack."""
    Path(pid).write_text(str(os.getpid()), "utf-8")
    while True:
        time.sleep(600)


class Said(list[str]):
    """Its log: the quantiser says each matrix."""

    def __init__(self, pid: str):
        super().__init__()
        self.pid = pid

    def append(self, line: str) -> None:
        super().append(line)
        if line.startswith("[   5/"):
            stand(self.pid)


class Standing(LoadedGguf):
    pid = ""

    def _settings(self, length: int, threads: int) -> Any:
        settings = super()._settings(length, threads)
        self.kept = self._ffi.callback("bool(struct ggml_tensor *, bool, void *)")(lambda *_: stand(self.pid))
        settings.cb_eval = self.kept
        return settings


def work(request: dict[str, Any]) -> dict[str, Any]:
    os.chdir(request["folder"])
    library = Library(Path(request["runtime"]))
    library.log, Standing.pid, questions.LoadedGguf = Said(request["pid"]), request["pid"], Standing  # type: ignore[misc]
    return (quantize if "source" in request else questions.ask)(library, request)


if __name__ == "__main__":
    sys.exit(child.answer(work))
