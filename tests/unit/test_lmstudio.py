"""LM Studio's folder of models, which a home of the test's own has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import ExportError, RunError
from core.export import lmstudio


def test_a_file_is_found_where_lm_studio_looks_and_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / ".lmstudio").mkdir()
    file = tmp_path / "pirate-q4_k_m.gguf"
    file.write_bytes(b"GGUF")
    placed = lmstudio.place(file, "Der Pirat 海盗", lmstudio.wanted_folder(tmp_path))
    assert placed.relative_to(tmp_path).as_posix() == ".lmstudio/models/lora-garage/der-pirat/pirate-q4_k_m.gguf"
    assert os.path.samefile(placed, file)
    file.unlink()
    file.write_bytes(b"newer")
    assert lmstudio.place(file, "Der Pirat 海盗", lmstudio.wanted_folder(tmp_path)).read_bytes() == b"newer"
    assert [p.name for p in placed.parent.iterdir()] == [file.name]


def test_on_another_disk_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(lmstudio.os, "link", refuse)
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    placed = lmstudio.place(file, "Run", tmp_path / "models")
    assert placed.read_bytes() == b"GGUF" and not os.path.samefile(placed, file)


def test_its_own_pointer_comes_first_and_a_pc_without_it_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="LM Studio was not found"):
        lmstudio.wanted_folder(tmp_path)
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert lmstudio.models_folder(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / lmstudio.POINTER).write_text(f"{tmp_path / 'elsewhere'}\n", "utf-8")
    assert lmstudio.models_folder(tmp_path) == tmp_path / "elsewhere" / "models"
    for nothing in (b"\xff\xfe\x00", b"\n"):
        (tmp_path / lmstudio.POINTER).write_bytes(nothing)
        assert lmstudio.models_folder(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"


def test_a_folder_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(RunError):
        lmstudio.place(tmp_path / "a.gguf", "Run", tmp_path / "models")
