"""A spreadsheet is read by a process of its own, which may die or grow: the app does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from core import files
from core.data.reading import reader_process
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.office import xlsx


def far(folder: Path, cell: str) -> Path:
    """Two cells with nothing between them."""
    row = "".join(filter(str.isdecimal, cell))
    sheet = xlsx(
        {"S": [["question", "answer"], ["Why?", "So."]]}, raw_rows=f'<row r="{row}"><c r="{cell}"><v>1</v></c></row>'
    )
    (folder / "a.xlsx").write_bytes(sheet)
    return folder / "a.xlsx"


def test_a_sheet_is_read_to_its_end(tmp_path: Path) -> None:
    report = inspect_file(far(tmp_path, "B3"))
    assert (report.kind, report.rows, report.good_rows, str(report.problems[0].sentence)[:15]) == (
        "xlsx",
        2,
        1,
        "Row 2 (line 3):",
    )


def test_cells_at_opposite_corners_end_that_process_and_not_ours(tmp_path: Path) -> None:
    """Seen: calamine asks for 512 GiB and aborts the program that it runs in."""
    with pytest.raises(DataError, match="not a readable spreadsheet"):
        inspect_file(far(tmp_path, "XFD1048576"))


@pytest.mark.parametrize(
    "is_venv_on_windows", [False, pytest.param(True, marks=pytest.mark.skipif(os.name == "nt", reason="it is one"))]
)
def test_a_sheet_that_takes_too_much_memory_is_refused_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_venv_on_windows: bool
) -> None:
    """On Windows the program of a venv starts the interpreter, whose memory nobody looked at."""
    if is_venv_on_windows:
        starts = tmp_path / "python.exe"
        starts.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
        starts.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(starts))
        monkeypatch.setattr(files, "ON_WINDOWS", True)
    monkeypatch.setattr(reader_process, "MAX_MEMORY", 60 << 20)
    monkeypatch.setattr(reader_process, "LOOK_S", 0.001)
    with pytest.raises(DataError, match="needs more than 60 MiB of memory"):
        inspect_file(far(tmp_path, "J1048576"))
