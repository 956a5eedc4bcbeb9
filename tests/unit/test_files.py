"""The words in which systems and libraries say that the memory or the disk was not enough: Linux', Windows', CUDA's,
Rust's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from core import files
from core.chat import chat_worker
from core.errors import RecipeError, RunError
from core.queue.queue import Queue
from core.runs.ended import Failed
from core.workspace import preferences
from core.workspace.folder import Workspace

OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                 "to allocate 4 bytes"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to "
                 "allocate 16777216 bytes."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: resource already mapped"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
]  # fmt: skip
PAGE_FILE = [
    OSError("The paging file is too small for this operation to complete. (os error 1455)"),
    OSError("[WinError 1455] 页面文件太小，无法完成操作。"),
]
FULL_DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("I/O error: No space left on device (os error 28)"),
    RuntimeError("I/O error: Es steht nicht genug Speicherplatz auf dem Datenträger zur Verfügung. (os error 112)"),
    RuntimeError("I/O error: 磁盘已满。 (os error 39)"),
]
OTHERS = [
    ValueError("a row says: out of memory"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("I/O error: something else (os error 1120)"),
    FileNotFoundError("not there"),
]


def reason_of(error: Exception) -> str:
    return str(error) or type(error).__name__


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, *PAGE_FILE], ids=reason_of)
def test_no_memory_is_known_in_every_words(error: Exception) -> None:
    assert files.is_out_of_memory(error) and not files.is_disk_full(error)
    assert files.is_page_file_full(error) == (error in PAGE_FILE)


@pytest.mark.parametrize("error", FULL_DISK, ids=reason_of)
def test_a_full_disk_is_known_in_every_words(error: Exception) -> None:
    assert files.is_disk_full(error) and not files.is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=reason_of)
def test_other_faults_are_neither(error: Exception) -> None:
    assert not files.is_out_of_memory(error) and not files.is_disk_full(error)


def test_a_page_file_that_is_too_small_gets_its_own_remedy(tmp_path: Path) -> None:
    failed = Failed.from_error(PAGE_FILE[0], tmp_path)
    assert failed.message.key == "run.out_of_memory" and "page file" in str(failed.advice)
    assert "Virtual memory" in str(chat_worker.describe_error(PAGE_FILE[1])[1]) and "虚拟内存" in failed.advice.render(
        "zh"
    )


def test_a_folder_is_weighed_while_another_program_tidies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip removed a folder of its own at the moment in which it was to be looked into: "Cannot write to tools (Path not
    found)" was the end of an export that waited for its tools."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_bytes(b"x" * 10)
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "pip-unpack" / "a.whl").write_bytes(b"x" * 10)
    real = os.scandir

    def scandir(folder: str | Path) -> Iterator[os.DirEntry]:
        if Path(folder).name == "pip-unpack":
            Path(folder, "a.whl").unlink()
            Path(folder).rmdir()
        return real(folder)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        assert files.bytes_in(tmp_path) == 10
    assert not (tmp_path / "pip-unpack").exists()


def test_a_folder_takes_the_place_of_another_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that was saved once stays where saving it again ends early, or the new one cannot be renamed."""
    folder, real = tmp_path / "adapter", files.rename

    def write(text: str) -> None:
        with files.folder_aside(folder) as aside:
            aside.mkdir()
            (aside / "weights").write_text(text)
            if text == "half":
                raise OSError(errno.ENOSPC, "No space left on device")

    def refusing(source: Path, target: Path) -> None:
        if source.suffix == ".part":
            raise PermissionError("somebody has it open")
        real(source, target)

    write("first")
    with pytest.raises(OSError):
        write("half")
    with monkeypatch.context() as patched, pytest.raises(PermissionError):
        patched.setattr(files, "rename", refusing)
        write("refused")
    assert (folder / "weights").read_text() == "first" and [left.name for left in tmp_path.iterdir()] == ["adapter"]
    write("second")
    assert (folder / "weights").read_text() == "second" and [left.name for left in tmp_path.iterdir()] == ["adapter"]


def test_what_cannot_be_read_for_a_moment_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scanner that holds a file for longer than a look waits: the queue, the preferences."""
    space = Workspace.open(tmp_path / "ws")
    order = Queue(space)
    order.add("first", [])
    preferences.choose(space, model_folders=("/models",))
    str(RunError("queue.cannot_write", file=space.root, reason=""))  # the catalogues are files too, and read once
    with monkeypatch.context() as patched:
        refuse = Mock(side_effect=PermissionError(errno.EACCES, "held by a scanner"))
        patched.setattr(Path, "read_text", refuse)
        patched.setattr(files, "open", lambda path, mode: refuse() if mode == "rb" else open(path, mode), raising=False)
        for change, error in (
            (lambda: order.add("second", ["first"]), RunError),
            (lambda: preferences.choose(space, model_folders=()), RecipeError),
        ):
            with pytest.raises(error, match="held by a scanner"):
                change()
    assert [entry.run for entry in order.read().runs] == ["first"] and preferences.read(space).model_folders
