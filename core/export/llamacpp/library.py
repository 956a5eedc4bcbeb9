"""llama.cpp's library through the C bindings of llama-cpp-py-sync, and its quantizer: a process that `child.ask` starts
to quantize a file. Without numpy, whose import would take a tenth of the time for a small file.

A damaged file can crash the process, and the library prints on its own. Paths are names in the current folder, because
the library's C++ streams do not open paths with letters beyond ASCII on Windows.

A build of the user's own (tools.own_library) is called through its own headers: structures change from build to build,
and one that is filled by another build's header holds garbage without an error.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.files import JsonObject

# llama.h: enum llama_ftype
FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "bf16": 32}
FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")  # llama.cpp's log at this build
MAX_LOG_LINES = 400
LIBRARIES = {"Linux": "lib{}.so", "Darwin": "lib{}.dylib", "Windows": "{}.dll"}
# Functions called here and in `runtime`, and the headers of a checkout that declare them.
TYPES, LLAMA_H, MTMD_H = ("ggml/include/ggml.h", "ggml/include/ggml-backend.h"), "include/llama.h", "tools/mtmd/mtmd.h"
CALLED = [
    "llama_log_set", "llama_backend_init", "llama_model_quantize_default_params", "llama_model_quantize",
    "llama_model_default_params",
    "llama_model_load_from_file", "llama_model_get_vocab", "llama_vocab_n_tokens", "llama_context_default_params",
    "llama_init_from_model",
    "llama_free", "llama_model_free", "llama_adapter_lora_init", "llama_set_adapters_lora", "llama_model_meta_val_str",
    "llama_vocab_is_eog", "llama_tokenize", "llama_get_memory", "llama_memory_clear", "llama_decode",
    "llama_get_logits_ith",
    "llama_batch_init", "llama_batch_free",
]  # fmt: skip
TOWER_FUNCTIONS = ["mtmd_log_set", "mtmd_context_params_default", "mtmd_init_from_file", "mtmd_free"]
NO_CODE = re.compile(r"/\*.*?\*/|//[^\n]*|^[ \t]*#[^\n]*", re.DOTALL | re.MULTILINE)
BODY = r"\{(?:[^{}]|\{[^{}]*\})*\}"
DEFINED = re.compile(
    rf"(?:typedef\s+)?(struct|enum)\s+(\w+)\s*{BODY}\s*\w*\s*;"
    r"|typedef\s+[^;{}]*?(?:\(\*\s*)?\b(\w+)\s*(?:\)\s*\([^;{}]*\))?;"  # a function's pointer has its name in brackets
)


class LlamaError(Exception):
    """An error of llama.cpp, with the last errors of its log."""


class Library:
    """llama.cpp's library, loaded once in a process. folder: the runtime from `tools`. own: the library of the user's
    own checkout to use instead."""

    def __init__(self, folder: Path, own: str | None = None):
        sys.path.insert(0, str(folder))
        if own:
            self._load_own(Path(own))
        else:
            self._load(folder)
        self.log: list[str] = []

        def keep(level: int, words: Any, _: object) -> None:
            self.log.append(self.ffi.string(words).decode("utf-8", "replace"))
            del self.log[:-MAX_LOG_LINES]

        # C holds only its address, so a reference has to stay
        self.keep = self.ffi.callback("void(enum ggml_log_level, const char *, void *)")(keep)
        self.lib.llama_log_set(self.keep, self.ffi.NULL)
        self.lib.llama_backend_init()

    def _load(self, folder: Path) -> None:
        """Load the bindings module alone and through it the shared libraries."""
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
        self.towers = bindings.get_mtmd_lib

    def _load_own(self, library: Path) -> None:
        """Load the user's own build. Raises Refused with the reason if it cannot be called through its headers."""
        from cffi import FFI
        from cffi.error import CDefError, FFIError

        checkout = next(folder for folder in library.parents if (folder / LLAMA_H).is_file())
        name = LIBRARIES[platform.system()]
        self.ffi = FFI()

        def load(which: str) -> Any:
            return self.ffi.dlopen(str(library.with_name(name.format(which))))

        def towers() -> Any:
            self.ffi.cdef(declarations(checkout, [*TYPES, LLAMA_H, MTMD_H], TOWER_FUNCTIONS), override=True)
            return load("mtmd")

        self.towers = towers
        try:
            self.ffi.cdef(declarations(checkout, [*TYPES, LLAMA_H], CALLED))
            self.ffi.cdef("size_t ggml_backend_reg_count(void); void ggml_backend_load_all_from_path(const char *);")
            if hasattr(os, "add_dll_directory"):
                os.add_dll_directory(str(library.parent))
            self.lib, parts = load("llama"), load("ggml")
            for function in CALLED:
                getattr(self.lib, function)
            if not parts.ggml_backend_reg_count():  # a build with its backends in separate libraries
                parts.ggml_backend_load_all_from_path(str(library.parent).encode())
        except (OSError, AttributeError, CDefError, FFIError) as error:
            raise Refused("own_build", folder=str(library.parent), reason=str(error).strip()[:300]) from error

    def error(self, what: str) -> LlamaError:
        lines = [line for line in "".join(self.log).splitlines() if "error" in line.lower() or "fail" in line.lower()]
        return LlamaError(f"{what}: {'; '.join(lines[-3:]) or 'no reason given'}")

    def quantize(self, source: str, target: str, kind: str, threads: int) -> None:
        """Quantize source to target. Raises LlamaError. Notes on tensors in another type are in `log`."""
        params = self.lib.llama_model_quantize_default_params()
        params.nthread, params.ftype, params.allow_requantize = threads, FILE_TYPES[kind], True
        self.log.clear()
        if self.lib.llama_model_quantize(
            source.encode(), target.encode(), self.ffi.new("llama_model_quantize_params *", params)
        ):
            raise self.error(f"cannot quantize {source}")


def declarations(checkout: Path, headers: Iterable[str], functions: Iterable[str]) -> str:
    """C declarations of these functions with all types that they need; ggml's structures are declared by name only.

    Raises Refused if a function is missing.
    """
    texts = [NO_CODE.sub("", (checkout / header).read_text("utf-8")) for header in headers]
    code, types_by_name = "\n".join(texts), dict[str, re.Match[str]]()
    for definition in DEFINED.finditer(code):
        name = definition[2] or definition[3]
        if not (definition[1] == "struct" and name.startswith("ggml_")):
            types_by_name.setdefault(name, definition)
    prototypes: list[str] = []
    for function in functions:
        prototype = re.search(rf"(?:LLAMA|MTMD)_API\s+([^;{{}}]*?\b{function}\s*\([^;]*\)\s*;)", code)
        if not prototype:
            raise Refused("own_build", folder=str(checkout), reason=f"{LLAMA_H}: {function}?")
        prototypes.append(prototype[1])
    needed: set[str] = set()
    queue = list(prototypes)
    while queue:
        for word in set(re.findall(r"\w+", queue.pop())) & types_by_name.keys() - needed:
            needed.add(word)
            queue.append(types_by_name[word][0])
    # In the headers' order, as C declares a type before its use.
    types = sorted((types_by_name[name] for name in needed), key=lambda definition: definition.start())
    return "\n".join([*(definition[0] for definition in types), *prototypes])


def work(request: JsonObject) -> JsonObject:
    os.chdir(request["folder"])
    try:
        return quantize(Library(Path(request["runtime"]), request.get("own")), request)
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
