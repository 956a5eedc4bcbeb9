"""What Windows says of itself, where its registry and its libraries are played."""

from __future__ import annotations

import ast
import ctypes
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core import files
from core.data.store import DatasetStore
from core.errors import DataError, ExportError, GarageError, RunError
from core.export.exports import Exports
from core.export.jobs import JobFolder
from core.export.records import ExportRequest
from core.presets import PROJECT
from core.recipe import Recipe
from core.runs.all import Runs
from core.system import machine, windows
from core.workspace.folder import Workspace
from core.workspace.names import is_reserved, short_id, slug

FILES = "SYSTEM\\CurrentControlSet\\Control\\FileSystem"
MEMORY = "SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Memory Management"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    """Key and name -> value, or the error that reading it raises."""
    values: dict[tuple[str, str], Any] = {}

    def query(key: str, name: str) -> tuple[Any, int]:
        value = values.get((key, name), FileNotFoundError(2, "not found"))
        if isinstance(value, OSError):
            raise value
        return value, 4

    played = SimpleNamespace(HKEY_LOCAL_MACHINE=0, OpenKey=lambda root, key: nullcontext(key), QueryValueEx=query)
    monkeypatch.setitem(sys.modules, "winreg", played)
    return values


@pytest.mark.parametrize(
    ("value", "name"),
    [("AMD Ryzen 5 5600X 6-Core Processor             ", "AMD Ryzen 5 5600X 6-Core Processor"), (PermissionError(13,
        "no"), "AMD64 F"), (None, "AMD64 F")],
)  # fmt: skip
def test_the_processor_has_the_name_of_its_box(
    registry: dict, monkeypatch: pytest.MonkeyPatch, value: Any, name: str
) -> None:
    """It was "AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD", in the header and as what measurements hold for."""

    def no_file(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "/proc/cpuinfo")

    monkeypatch.setattr(machine, "open", no_file, raising=False)
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("platform.processor", lambda: "AMD64 F")
    if value is not None:
        registry["HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0", "ProcessorNameString"] = value
    assert machine._cpu_name.__wrapped__() == name


@pytest.mark.parametrize(
    ("value", "expected"), [(1, True), (0, False), (None, False), (PermissionError(13, "no"), None)]
)
def test_whether_long_paths_are_on(registry: dict, value: Any, expected: bool | None) -> None:
    if value is not None:
        registry[FILES, "LongPathsEnabled"] = value
    assert windows.long_paths() is expected


@pytest.mark.parametrize(
    ("lines", "most_mb"),
    [
        (["?:\\pagefile.sys"], None),
        (["C:\\pagefile.sys 0 0"], None),
        (["C:\\pagefile.sys 2048 4096", "D:\\pagefile.sys 0 0"], None),
        (["C:\\pagefile.sys 2048 4096", "D:\\pagefile.sys 1000 1000"], 5096),
        ([], 0),
        ([""], 0),
    ],
)
def test_how_large_the_page_file_may_become(registry: dict, lines: list[str], most_mb: int | None) -> None:
    registry[MEMORY, "PagingFiles"] = lines
    assert windows.page_file() == windows.PageFile(most_mb)


def test_a_page_file_that_is_not_told_is_unknown(registry: dict) -> None:
    assert windows.page_file() is None


def played_library(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    library = SimpleNamespace(**functions)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(version=library, powrprof=library), raising=False)


def test_the_version_of_the_visual_c_runtime_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert windows.runtime_version() == (), "there is none"
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "msvcp140.dll").touch()
    # VS_FIXEDFILEINFO: signature, structure's version, then the file's version, high and low half.
    block = (ctypes.c_uint32 * 13)(0xFEEF04BD, 0x10000, (14 << 16) | 36, 32532 << 16)

    def query(buffer: Any, path: str, place: Any, length: Any) -> int:
        assert path == "\\"
        place._obj.contents, length._obj.value = ctypes.c_uint32.from_buffer(block), ctypes.sizeof(block)
        return 1

    played_library(
        monkeypatch,
        GetFileVersionInfoSizeW=lambda file, handle: 1000,
        GetFileVersionInfoW=lambda file, zero, size, buffer: size,
        VerQueryValueW=query,
    )
    assert windows.runtime_version() == (14, 36, 32532, 0) < windows.MIN_RUNTIME
    played_library(monkeypatch, GetFileVersionInfoSizeW=lambda file, handle: 0)
    assert windows.runtime_version() is None


def test_launch_can_read_this_file_before_anything_is_installed() -> None:
    tree = ast.parse((PROJECT / "core" / "system" / "windows.py").read_text("utf-8"))
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_the_longest_names_below_a_workspace_leave_some_room() -> None:
    """Of the longest run's name there is. What is written aside has a longer name than what it becomes."""
    run = f"2026-11-27_{slug('x' * 200)}_{short_id()}"
    export = ExportRequest(workspace="", run=run, kind="gguf", quant="q8_0", checkpoint="checkpoint-000200").name
    names = (
        f"runs/{run}/checkpoints/.checkpoint-000200.part/.adapter.part/adapter_model.safetensors",
        f"exports/.jobs/{export}/build/out/model-00001-of-00004.safetensors",
        f"exports/.jobs/{export}/build/out/.Modelfile.tmp-99999-99999",
        f"datasets/{slug('x' * 200)}-{short_id()}/.rows-6-{'0' * 24}.arrow.99999.99999",
    )
    assert 140 < max(map(len, names)) <= windows.LONGEST_IN_WORKSPACE
    assert windows.MAX_ROOT + len("/workspace/") + windows.LONGEST_IN_WORKSPACE <= windows.MAX_PATH


def begin_run(space: Workspace) -> object:
    return Runs(space).create(Recipe(name="x", data={"source": "sample:pirate_answers"}), launcher="command")


def begin_import(space: Workspace) -> object:
    (space.root.parent / "a.txt").write_text("Hello", "utf-8")
    return DatasetStore(space.datasets, space.root.parent).import_file(space.root.parent / "a.txt")


def begin_export(space: Workspace) -> object:
    """Of a run whose name fills what a name may have, from a checkpoint: 53 characters more than a run's longest."""
    return Exports(space).start(
        SimpleNamespace(name="x" * 60, id=f"2026-11-27_{'x' * 40}_abcdef"), "gguf", None, "checkpoint-000200"
    )


@pytest.mark.parametrize(
    ("begin", "error", "least"),
    [(begin_run, RunError, 109), (begin_import, DataError, 109), (begin_export, ExportError, 100)],
)
def test_what_would_end_in_a_path_too_long_for_windows_is_not_begun(
    begin: Any, error: type[GarageError], least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the doctor said it: the first checkpoint, or hours later the export, ended with "No such file or
    directory"."""
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    monkeypatch.setattr(windows, "long_paths", lambda: False)
    monkeypatch.setattr(
        Exports,
        "request",
        lambda self, run, *more: ExportRequest(
            workspace="", run=run.id, kind="gguf", quant="q4_k_m", checkpoint=more[2]
        ),
    )
    monkeypatch.setattr(JobFolder, "begin", lambda job, *args: pytest.fail("begun"))
    space = Workspace.open(tmp_path / ("w" * max(1, least - 1 - len(str(tmp_path)))))
    with pytest.raises(error) as caught:
        begin(space)
    assert caught.value.message.key == "faults.path_too_long"
    for language in ("en", "zh"):
        assert " 259 " in caught.value.message.render(language) and str(caught.value.message.params["found"]) in str(
            caught.value
        )
    assert [each for each in space.root.rglob("*") if each.is_file()] == []
    monkeypatch.setattr(windows, "long_paths", lambda: True)
    if begin is not begin_export:
        begin(space)


@pytest.mark.parametrize(
    "name",
    ["海盗 🏴\u200d☠️", "ends with dots...", "CON", "lpt1 ", "a:b\\c/../d", "Übung\u202e.exe", "", "e\u0301" * 300],
)
def test_what_people_call_things_becomes_a_folder_that_windows_takes(name: str) -> None:
    """Runs, exports and their files, sets, saved recipes and LM Studio's folders are named by it."""
    made = slug(name)
    assert made.isascii() and 0 < len(made) <= 40 and set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not is_reserved(made) and made[0] != "-" != made[-1]


def test_a_device_of_windows_is_known_with_an_ending_too() -> None:
    assert [name for name in ("CON", "con.txt", "Nul .gguf", "console", "com10", "lpt9") if is_reserved(name)] == [
        "CON",
        "con.txt",
        "Nul .gguf",
        "lpt9",
    ]
