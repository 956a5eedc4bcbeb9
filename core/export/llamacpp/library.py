"""llama.cpp's library through the C bindings of llama-cpp-py-sync, and its quantizer: a process that `child.ask` starts
to quantize a file. Without numpy, whose import would take a tenth of the time for a small file.

A damaged file can crash the process, and the library prints on its own. Paths are names in the current folder, because
the library's C++ streams do not open paths with letters beyond ASCII on Windows.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.files import JsonObject

# llama.h: enum llama_ftype
FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "bf16": 32}
FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")  # llama.cpp's log at this build
MAX_LOG_LINES = 400


class LlamaError(Exception):
    """An error of llama.cpp, with the last errors of its log."""


class Library:
    """llama.cpp's library, loaded once in a process. folder: the runtime from `tools`."""

    def __init__(self, folder: Path):
        """Load the library, keep its last MAX_LOG_LINES lines of log in `log`, and start its backend."""
        sys.path.insert(0, str(folder))
        self._load(folder)
        self.log: list[str] = []

        def log_newest_lines(level: int, words: Any, _: object) -> None:
            """Append a piece of llama.cpp's log to `log` and drop all but the last MAX_LOG_LINES; called by the
            library."""
            self.log.append(self.ffi.string(words).decode("utf-8", "replace"))
            del self.log[:-MAX_LOG_LINES]

        # C holds only its address, so a reference has to stay
        self.keep = self.ffi.callback("void(enum ggml_log_level, const char *, void *)")(log_newest_lines)
        self.lib.llama_log_set(self.keep, self.ffi.NULL)
        self.lib.llama_backend_init()

    def _load(self, folder: Path) -> None:
        """Load the bindings module alone, without its package, and through it the shared libraries, as `ffi` and
        `lib`."""
        spec = importlib.util.spec_from_file_location(
            "llama_cpp_bindings", folder / "llama_cpp_py_sync" / "_cffi_bindings.py"
        )
        assert spec and spec.loader
        bindings = importlib.util.module_from_spec(spec)
        gc.disable()  # parsing the header makes only lasting objects: collecting garbage would take a fifth of the time
        spec.loader.exec_module(bindings)  # not its package, which imports numpy and a chat
        gc.enable()
        self.ffi: Any = bindings.get_ffi()
        self.lib: Any = bindings.get_lib()

    def error(self, what: str) -> LlamaError:
        """Return an error of what failed, with the log's last three lines that name an error."""
        lines = [line for line in "".join(self.log).splitlines() if "error" in line.lower() or "fail" in line.lower()]
        return LlamaError(f"{what}: {'; '.join(lines[-3:]) or 'no reason given'}")

    def quantize(self, source: str, target: str, kind: str, threads: int) -> None:
        """Quantize the file source to target, also from a quantized type. Raises LlamaError. Notes on tensors in
        another type are in `log`."""
        params = self.lib.llama_model_quantize_default_params()
        params.nthread, params.ftype, params.allow_requantize = threads, FILE_TYPES[kind], True
        self.log.clear()
        if self.lib.llama_model_quantize(
            source.encode(), target.encode(), self.ffi.new("llama_model_quantize_params *", params)
        ):
            raise self.error(f"cannot quantize {source}")


def work(request: JsonObject) -> JsonObject:
    """Quantize in request["folder"], which becomes the working directory. Raises Refused with llama.cpp's reason."""
    os.chdir(request["folder"])
    try:
        return quantize(Library(Path(request["runtime"])), request)
    except LlamaError as error:
        raise Refused("llama_error", reason=str(error)[:300]) from error


def quantize(library: Library, request: JsonObject) -> JsonObject:
    """Quantize request's source to target. Returns larger, tensors: how many got a larger type than requested, of how
    many."""
    library.quantize(request["source"], request["target"], request["kind"], request["threads"])
    fallback = FALLBACK.search("".join(library.log))
    return {"larger": int(fallback[1]) if fallback else 0, "tensors": int(fallback[2]) if fallback else 0}


if __name__ == "__main__":
    sys.exit(child.answer(work))
