"""Child processes on Windows, seen from here: what would hang an import, or end with the console."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.advice import plan
from core.messages import msg
from core.presets import PROJECT
from core.recipe import Recipe
from core.runs.all import Runs
from core.system import processes
from core.workspace.folder import Workspace
from tests.kit.source import tree_of

# Runs a module as a program; at the import of torch, and of transformers and numpy before it, it looks at descriptor 0
# and ends.
LOOK = """
import importlib.abc, os, runpy, stat, sys

class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch", "transformers"):
            now = os.fstat(0)  # Windows tells no two handles apart, but a device from a pipe
            os._exit(0 if stat.S_ISCHR(now.st_mode) and os.path.samestat(now, os.stat(os.devnull)) else 9)

sys.meta_path.insert(0, Look())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
os._exit(8)
"""


def first_heavy_import(arguments: list[str], said: dict) -> int:
    """0: descriptor 0 was the null device then; 9: it was something else; 8: there was none."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOOK, *arguments], cwd=PROJECT, env=processes.worker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(json.dumps(said).encode() + b"\n")
    process.stdin.flush()  # and stays open: the listening thread is in its read
    try:
        return process.wait(60)
    finally:
        process.kill()
        process.communicate()


def test_the_chat_worker_leaves_no_pipe_as_stdin_when_torch_is_imported(
    make_workspace: Callable[[], Workspace],
) -> None:
    """On Windows that import never ends: it asks for the handle that the listening thread reads from (numpy issue
    24290)."""
    doing = msg("lease.somebody").model_dump()
    load = {
        "command": "load",
        "load": 1,
        "model_id": "starter",
        "revision": None,
        "adapter": None,
        "four_bit": False,
        "doing": doing,
    }
    arguments = ["core.chat.chat_worker", "--workspace", str(make_workspace().root), "--idle-minutes", "1"]
    assert first_heavy_import(arguments, load) == 0


def test_the_dry_run_worker_leaves_no_pipe_as_stdin_when_torch_is_imported() -> None:
    assert first_heavy_import(["core.trial.dry_run_worker"], {"question": {}}) == 0


def test_what_converts_to_gguf_leaves_no_pipe_as_stdin_when_torch_is_imported(tmp_path: Path) -> None:
    """It listens for the end of whoever started it, and torch comes with llama.cpp's converter."""
    (tmp_path / "conversion").mkdir()
    (tmp_path / "model").mkdir()  # apart: a model's folder with Python in it is refused
    (tmp_path / "conversion" / "__init__.py").write_text("import torch")
    request = {"converter": str(tmp_path), "runtime": str(tmp_path), "model": str(tmp_path / "model")}
    (tmp_path / "request.json").write_text(json.dumps(request))
    arguments = ["core.export.llamacpp.convert", str(tmp_path / "request.json"), str(tmp_path / "answer.json")]
    assert first_heavy_import(arguments, {}) == 0


def test_the_look_at_stdin_can_fail() -> None:
    assert first_heavy_import(["torch"], {}) == 9


def test_no_worker_reads_stdin_by_its_name() -> None:
    """It would hold the handle that libraries ask for; `core.system.lines` gives it a source of its own."""
    workers = sorted(
        [*(PROJECT / "core").rglob("*worker.py"), *(PROJECT / "core" / "export" / "llamacpp").glob("*.py")]
    )
    assert len(workers) > 15
    assert [file.name for file in workers if "sys.stdin" in file.read_text("utf-8")] == []


def test_a_worker_on_windows_shares_no_console_with_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a console's window ends all that share it. Flags: CreateProcess, Microsoft's documentation."""
    monkeypatch.setattr(processes.os, "name", "nt")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x00000200, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x08000000, raising=False)
    assert processes.own_group() == {"creationflags": 0x08000200}


@pytest.mark.parametrize("folder", ["core", "webui"])
def test_every_text_file_is_written_with_the_same_line_ends_everywhere(folder: str) -> None:
    """On Windows a text file gets CRLF unless newline is given, and Ollama reads it inside a TEMPLATE."""
    files = sorted((PROJECT / folder).rglob("*.py"))
    assert files
    assert [line for file in files for line in endings_left_to_the_system(file)] == []


def endings_left_to_the_system(file: Path) -> list[str]:
    """Calls that write text and do not say how its lines end: "name.py:12"."""
    import ast

    places = []
    for node in ast.walk(tree_of(file)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        modes = [part.value for part in node.args[1:2] if isinstance(part, ast.Constant)]
        if "force_zip64" in given:  # a member of an archive, which is bytes
            continue
        opens_text = name in ("open", "fdopen") and any("w" in str(mode) and "b" not in str(mode) for mode in modes)
        if (name == "write_text" or opens_text) and "newline" not in given:
            places.append(f"{file.name}:{node.lineno}")
    return places


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("Linux", "expandable_segments:True"),
        ("Windows", "garbage_collection_threshold:0.8"),
        ("WSL", "garbage_collection_threshold:0.8"),
        ("Darwin", None),
    ],
)
def test_the_allocator_of_a_card_copes_with_ever_new_lengths(
    system: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in processes.ALLOCATOR_NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes, "driver_system", lambda: system)
    assert processes.worker_environment().get("PYTORCH_ALLOC_CONF") == expected


@pytest.mark.parametrize("name", processes.ALLOCATOR_NAMES)
def test_a_persons_own_setting_of_the_allocator_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reads PYTORCH_CUDA_ALLOC_CONF first, and would then not look at ours; an older name is a setting all the
    same."""
    for other in processes.ALLOCATOR_NAMES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(processes, "driver_system", lambda: "Linux")
    monkeypatch.setenv(name, "max_split_size_mb:128")
    environment = processes.worker_environment()
    assert {other: environment.get(other) for other in processes.ALLOCATOR_NAMES} == dict.fromkeys(
        processes.ALLOCATOR_NAMES
    ) | {name: "max_split_size_mb:128"}


# Makes the starter model without its download, as a first run does, and ends at the import of torch.
FIRST_RUN = """
import importlib.abc, os, runpy, stat, sys
from core.models import starter

starter._sha256 = lambda file: starter.GGUF_SHA256

class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os._exit(0 if "pyarrow" in sys.modules else 9)

sys.meta_path.insert(0, Look())
sys.argv = ["worker", *sys.argv[1:]]
runpy.run_module("core.training.worker", run_name="__main__")
"""


def test_a_first_run_loads_pyarrow_before_torch(workspace: Workspace) -> None:
    """On some Windows PCs a process that loads it after torch ends with 0xC0000005 (minimind issue 771): the newcomer's
    first run."""
    run = Runs(workspace).create(
        plan.resolve(Recipe.parse({"data": {"source": "sample:pirate_answers"}}), "first", False), "command"
    )
    command = [sys.executable, "-c", FIRST_RUN, "--workspace", str(workspace.root), run.id]
    done = subprocess.run(
        command, cwd=PROJECT, env=processes.worker_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:] + run.log_tail()
