"""llama.cpp's own library by the C bindings of llama-cpp-py-sync, and its quantiser: a process that `child.ask` starts to make a file
smaller. Without numpy, which would be a tenth of the time of a small file.

A damaged file can end the process, and the library prints on its own. Paths are names in the current folder: what the library opens
by C++ streams would not find letters beyond ASCII on Windows.
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

# llama.h: enum llama_ftype
FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "bf16": 32}
FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")  # llama.cpp's log at this build
MOST_SAID = 400  # lines of its log that are kept


class LlamaError(Exception):
    """With what llama.cpp said last about it."""


class Library:
    """Loaded once in a process. folder: the runtime's of `tools`."""

    def __init__(self, folder: Path):
        sys.path.insert(0, str(folder))
        spec = importlib.util.spec_from_file_location("llama_cpp_bindings", folder / "llama_cpp_py_sync" / "_cffi_bindings.py")
        assert spec and spec.loader
        self.bindings = importlib.util.module_from_spec(spec)
        gc.disable()  # the header's thousand lines are parsed into what stays: looking through it is a fifth of that
        spec.loader.exec_module(self.bindings)  # not its package, which reads numpy and a chat of its own
        gc.enable()
        self.ffi: Any = self.bindings.get_ffi()
        self.lib: Any = self.bindings.get_lib()
        self.said: list[str] = []

        def keep(level: int, words: Any, _: Any) -> None:
            self.said.append(self.ffi.string(words).decode("utf-8", "replace"))
            del self.said[:-MOST_SAID]

        self.keep = self.ffi.callback("void(enum ggml_log_level, const char *, void *)")(keep)  # C holds only its address
        self.lib.llama_log_set(self.keep, self.ffi.NULL)
        self.lib.llama_backend_init()

    def error(self, what: str) -> LlamaError:
        lines = [line for line in "".join(self.said).splitlines() if "error" in line.lower() or "fail" in line.lower()]
        return LlamaError(f"{what}: {'; '.join(lines[-3:]) or 'no reason given'}")

    def quantise(self, source: str, target: str, kind: str, threads: int) -> None:
        """Raises LlamaError. What it says of tensors in another type is in `said`."""
        params = self.lib.llama_model_quantize_default_params()
        params.nthread, params.ftype, params.allow_requantize = threads, FILE_TYPES[kind], True
        self.said.clear()
        if self.lib.llama_model_quantize(source.encode(), target.encode(), self.ffi.new("llama_model_quantize_params *", params)):
            raise self.error(f"cannot quantise {source}")


def work(request: dict[str, Any]) -> dict[str, Any]:
    os.chdir(request["folder"])
    try:
        return quantise(Library(Path(request["runtime"])), request)
    except LlamaError as error:
        raise Refused("llama_error", reason=str(error)[:300]) from error


def quantise(library: Library, request: dict[str, Any]) -> dict[str, Any]:
    """source, target, kind, threads. Returns larger, tensors: how many became a larger type than was asked for, of how many."""
    library.quantise(request["source"], request["target"], request["kind"], request["threads"])
    found = FALLBACK.search("".join(library.said))
    return {"larger": int(found[1]) if found else 0, "tensors": int(found[2]) if found else 0}


if __name__ == "__main__":
    sys.exit(child.answer(work))
