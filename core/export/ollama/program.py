"""Ollama's own program: finds it, asks its version, gives it an export and requests a first answer. No torch.

Its server has to run already; it is not started here. Whatever it does (hang, write without end, end well without a
model), each call ends:
at its time limit, or when `check` raises.
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
from core.export.llamacpp.ways_out import load_data
from core.system.processes import kill_tree, own_group
from core.workspace.names import display_name

LEAST = "0.30.0"  # from here on it renders the template in a GGUF file itself
VERSION_S, SHOW_S, ANSWER_S, CREATE_S = 15.0, 60.0, 600.0, 3600.0
POLL_S = 0.05
MOST_BYTES = 4 << 20  # what one call may write; its progress bars stay far below
LAST_WORDS = 400
QUESTION = "Hello! Who are you?"  # none of the person's data: other programs see what a program is started with
_VERSION = re.compile(r"version is v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
# What stood in a line whose beginning the cursor goes back to: a wheel that turns while it loads.
_TAKEN_BACK = re.compile(r"^[^\n]*\x1b\[1?G", re.MULTILINE)
_NOT_RUNNING = re.compile(r"could not connect|connection refused|is (?:it|ollama) running", re.IGNORECASE)

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Given:
    """What Ollama has now, and what it said. replaced: there was a model of this name before."""

    name: str
    answer: str
    replaced: bool


def find(home: Path | None = None) -> Path | None:
    """On PATH (never in the folder that one happens to stand in), then where its installers put it."""
    file = "ollama.exe" if os.name == "nt" else "ollama"
    home = home or Path.home()
    folders = [Path(folder) for folder in os.get_exec_path() if os.path.isabs(folder)]
    if os.name == "nt":
        local = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        folders += [local / "Programs" / "Ollama", Path(os.environ.get("PROGRAMFILES", "C:/Program Files")) / "Ollama"]
    else:
        inside = Path("Ollama.app/Contents/Resources")
        folders += [Path("/usr/local/bin"), Path("/opt/homebrew/bin"), Path("/snap/bin"), home / ".local" / "bin"]
        folders += [Path("/Applications") / inside, home / "Applications" / inside]
    return next((path for folder in folders if (path := folder / file).is_file() and os.access(path, os.X_OK)), None)


def least_version(model_type: str) -> str:
    """The first Ollama that knows a family and uses the file's own template (presets/gguf.yaml, with its source)."""
    newer = load_data()["newer"].get(model_type.removesuffix("_text"))
    return str(newer["ollama"]) if newer else LEAST


def see_version(program: Path, model_type: str, check: Callable[[], None] = lambda: None) -> None:
    """Raises ExportError where it is known to be too old for the family. One that does not tell its version is
    tried."""
    least, found = least_version(model_type), _version(program, check)
    if found and found < tuple(map(int, least.split("."))):
        raise ExportError("ollama.too_old", found=".".join(map(str, found)), family=model_type or "GGUF", least=least)


def give(
    program: Path,
    name: str,
    modelfile: Path,
    tell: Callable[[str], None] = lambda stage: None,
    check: Callable[[], None] = lambda: None,
) -> Given:
    """`ollama create`, then a first answer. tell: what begins (a key below `ollama.`). Raises ExportError, with what
    Ollama said, and what check raises."""
    replaced = _call(program, ["show", "--modelfile", name], SHOW_S, check)[0] == 0
    tell("creating")
    _must(program, ["create", name, "-f", str(modelfile.absolute())], CREATE_S, check)
    code, words = _call(program, ["show", "--modelfile", name], SHOW_S, check)
    if code or "FROM" not in words:
        raise ExportError("ollama.no_model", name=name)
    tell("answering")
    answer = _must(program, ["run", "--nowordwrap", "--hidethinking", name, QUESTION], ANSWER_S, check)
    if not (shown := display_name(answer, LAST_WORDS)):
        raise ExportError("ollama.no_answer", name=name)
    return Given(name, shown, replaced)


def _version(program: Path, check: Callable[[], None]) -> Version | None:
    """Of the server where it runs, else of the program; None where neither can be read from what it says."""
    found = _VERSION.findall(_call(program, ["--version"], VERSION_S, check)[1])
    return (int(found[0][0]), int(found[0][1]), int(found[0][2])) if found else None


def _must(program: Path, arguments: list[str], limit_s: float, check: Callable[[], None]) -> str:
    code, words = _call(program, arguments, limit_s, check)
    if code and _NOT_RUNNING.search(words):
        raise ExportError("ollama.not_running")
    if code:
        lines = [line for line in words.splitlines() if line.strip()]
        raise ExportError(
            "ollama.failed", what=arguments[0], code=code, reason=display_name(lines[-1], LAST_WORDS) if lines else "-"
        )
    return words


def _call(program: Path, arguments: list[str], limit_s: float, check: Callable[[], None]) -> tuple[int, str]:
    """(exit status, what it wrote, without what moves a terminal's cursor). Raises ExportError where it does not end or
    writes on and on."""
    what = arguments[0].lstrip("-")
    with tempfile.TemporaryFile() as out:  # a pipe that nobody empties would stop it
        try:
            process = subprocess.Popen(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                **own_group(),
            )
        except OSError as error:
            raise ExportError("ollama.cannot_start", program=program, reason=error.strerror or str(error)) from error
        try:
            until = time.monotonic() + limit_s
            while process.poll() is None:
                check()
                if os.fstat(out.fileno()).st_size > MOST_BYTES:
                    raise ExportError("ollama.babbles", what=what, mb=MOST_BYTES >> 20)
                if time.monotonic() > until:
                    raise ExportError("ollama.hangs", what=what, minutes=limit_s / 60)
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()
        out.seek(0)
        words = out.read(MOST_BYTES).decode("utf-8", "replace")
    return process.returncode, _TERMINAL.sub("", _TAKEN_BACK.sub("", words)).replace("\r", "\n")
