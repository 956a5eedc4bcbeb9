"""Ollama's own program: finds it, checks its version, adds an export and requests a first answer. No torch.

Its server must be running already; it is not started here. Whatever the program does (hang, write endlessly, succeed
without a model), each call ends at its time limit, or when `check` raises.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ExportError
from core.export.llamacpp.export_support import load_data
from core.system.processes import kill_tree, own_group
from core.workspace.names import display_name

LEAST = "0.30.0"  # the first version that renders the template in a GGUF file itself
VERSION_S, SHOW_S, ANSWER_S, CREATE_S = 15.0, 60.0, 600.0, 3600.0
POLL_S = 0.05
MAX_BYTES = 4 << 20  # output of one call; progress bars stay far below
LONGEST_TEXT = 400
QUESTION = "Hello! Who are you?"  # not the user's data: other programs can see a process's arguments
_VERSION = re.compile(r"version is v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
# The beginning of a line that the cursor returns to and overwrites: a spinner while the model loads.
_OVERWRITTEN = re.compile(r"^[^\n]*\x1b\[1?G", re.MULTILINE)
_NOT_RUNNING = re.compile(r"could not connect|connection refused|is (?:it|ollama) running", re.IGNORECASE)

Version = tuple[int, int, int]


@dataclass(frozen=True)
class CreatedModel:
    """A model that Ollama now has, and its first answer. replaced: a model of this name existed before."""

    name: str
    answer: str
    replaced: bool


def find(home: Path | None = None) -> Path | None:
    """Return the path of Ollama's program, from PATH (never the current folder), else from where its installers put it;
    None if it is not there."""
    file = "ollama.exe" if os.name == "nt" else "ollama"
    home = home or Path.home()
    # A relative entry of PATH would mean the current folder, where anybody may have put a program of this name.
    folders = [Path(folder) for folder in os.get_exec_path() if os.path.isabs(folder)]
    if os.name == "nt":
        local = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        folders += [local / "Programs" / "Ollama", Path(os.environ.get("PROGRAMFILES", "C:/Program Files")) / "Ollama"]
    else:
        app_folder = Path("Ollama.app/Contents/Resources")
        folders += [Path("/usr/local/bin"), Path("/opt/homebrew/bin"), Path("/snap/bin"), home / ".local" / "bin"]
        folders += [Path("/Applications") / app_folder, home / "Applications" / app_folder]
    return next((path for folder in folders if (path := folder / file).is_file() and os.access(path, os.X_OK)), None)


def least_version(model_type: str) -> str:
    """The first Ollama that knows a family and uses the file's own template (presets/gguf.yaml, with its source)."""
    newer = load_data()["newer"].get(model_type.removesuffix("_text"))
    return str(newer["ollama"]) if newer else LEAST


def check_version(program: Path, model_type: str, check: Callable[[], None] = lambda: None) -> None:
    """Raise ExportError if Ollama is known to be too old for the family. An unknown version is accepted."""
    least, version = least_version(model_type), _version(program, check)
    if version and version < tuple(map(int, least.split("."))):
        raise ExportError("ollama.too_old", found=".".join(map(str, version)), family=model_type or "GGUF", least=least)


def create_model(
    program: Path,
    name: str,
    modelfile: Path,
    tell: Callable[[str], None] = lambda step: None,
    check: Callable[[], None] = lambda: None,
) -> CreatedModel:
    """Run `ollama create`, then request a first answer; return both, and whether a model of this name was replaced.
    tell: called with each step (a key below `ollama.`).

    Raises ExportError with Ollama's message, or if there is no answer, and what check raises.
    """
    # Before it is created: afterwards there is one in any case.
    replaced = _call(program, ["show", "--modelfile", name], SHOW_S, check)[0] == 0
    tell("creating")
    _call_or_raise(program, ["create", name, "-f", str(modelfile.absolute())], CREATE_S, check)
    # It may have succeeded without a model.
    code, output = _call(program, ["show", "--modelfile", name], SHOW_S, check)
    if code or "FROM" not in output:
        raise ExportError("ollama.no_model", name=name)
    tell("answering")
    answer = _call_or_raise(program, ["run", "--nowordwrap", "--hidethinking", name, QUESTION], ANSWER_S, check)
    if not (shown := display_name(answer, LONGEST_TEXT)):
        raise ExportError("ollama.no_answer", name=name)
    return CreatedModel(name, shown, replaced)


def _version(program: Path, check: Callable[[], None]) -> Version | None:
    """Version of the running server, else of the program; None if the output contains neither."""
    matches = _VERSION.findall(_call(program, ["--version"], VERSION_S, check)[1])
    return (int(matches[0][0]), int(matches[0][1]), int(matches[0][2])) if matches else None


def _call_or_raise(program: Path, arguments: list[str], limit_s: float, check: Callable[[], None]) -> str:
    """Run Ollama's program and return its output. Raises ExportError with its last line if it fails, or if its server
    does not run."""
    code, output = _call(program, arguments, limit_s, check)
    if code and _NOT_RUNNING.search(output):
        raise ExportError("ollama.not_running")
    if code:
        lines = [line for line in output.splitlines() if line.strip()]
        raise ExportError(
            "ollama.failed",
            what=arguments[0],
            code=code,
            reason=display_name(lines[-1], LONGEST_TEXT) if lines else "-",
        )
    return output


def _call(program: Path, arguments: list[str], limit_s: float, check: Callable[[], None]) -> tuple[int, str]:
    """Run Ollama's program until it ends, and return (exit status, output and errors without terminal control
    sequences).

    Raises ExportError if it cannot start, runs for longer than limit_s seconds or writes more than MAX_BYTES. check is
    called while it runs; what check raises is passed on unchanged. A running program is killed with its children before
    an error is raised. A failure that Ollama itself reports is only its exit status.
    """
    what = arguments[0].lstrip("-")
    with tempfile.TemporaryFile() as output_file:  # a full pipe would block it
        try:
            process = subprocess.Popen(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output_file,
                stderr=subprocess.STDOUT,
                **own_group(),
            )
        except OSError as error:
            raise ExportError("ollama.cannot_start", program=program, reason=error.strerror or str(error)) from error
        try:
            deadline = time.monotonic() + limit_s
            while process.poll() is None:
                check()
                if os.fstat(output_file.fileno()).st_size > MAX_BYTES:
                    raise ExportError("ollama.babbles", what=what, mb=MAX_BYTES >> 20)
                if time.monotonic() > deadline:
                    raise ExportError("ollama.hangs", what=what, minutes=limit_s / 60)
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()
        output_file.seek(0)
        output = output_file.read(MAX_BYTES).decode("utf-8", "replace")
    return process.returncode, _TERMINAL.sub("", _OVERWRITTEN.sub("", output)).replace("\r", "\n")
