"""LM Studio's folder of models, which a home of the test's own has."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from core.errors import ExportError, RunError
from core.export import lmstudio


def test_a_file_is_found_where_lm_studio_looks_and_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / ".lmstudio").mkdir()
    file = tmp_path / "pirate-q4_k_m.gguf"
    file.write_bytes(b"GGUF")
    placed = lmstudio.place(file, "Der Pirat 海盗", lmstudio.require_folder(tmp_path))
    assert placed.relative_to(tmp_path).as_posix() == ".lmstudio/models/lora-garage/der-pirat/pirate-q4_k_m.gguf"
    assert os.path.samefile(placed, file)
    file.unlink()
    file.write_bytes(b"newer")
    assert lmstudio.place(file, "Der Pirat 海盗", lmstudio.require_folder(tmp_path)).read_bytes() == b"newer"
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
        lmstudio.require_folder(tmp_path)
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert lmstudio.models_folder(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'elsewhere'}\n", "utf-8")
    assert lmstudio.models_folder(tmp_path) == tmp_path / "elsewhere" / "models"
    for nothing in (b"\xff\xfe\x00", b"\n"):
        (tmp_path / ".lmstudio-home-pointer").write_bytes(nothing)
        assert lmstudio.models_folder(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"


def test_the_folder_that_its_settings_name_is_taken_and_one_on_a_disk_that_is_gone_is_said(tmp_path: Path) -> None:
    home, moved = tmp_path / ".lmstudio", tmp_path / "Große Platte 模型"
    for folder in (home, moved):
        folder.mkdir()
    settings = home / "settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(moved)}), "utf-8")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    placed = lmstudio.place(tmp_path / "a.gguf", "海盗 🏴", lmstudio.require_folder(tmp_path))
    assert placed.relative_to(moved).as_posix() == "lora-garage/a/a.gguf", "a name without a Latin letter is the file's"
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path / "unplugged" / "models")}), "utf-8")
    with pytest.raises(ExportError, match="unplugged"):
        lmstudio.require_folder(tmp_path)
    for nothing in (
        "{",
        "[]",
        '{"downloadsFolder": 7}',
        '{"downloadsFolder": "models"}',
        '{"downloadsFolder": "/a\\u0000"}',
    ):
        settings.write_text(nothing, "utf-8")
        assert lmstudio.models_folder(tmp_path) == home / "models", nothing


def test_what_cannot_be_placed_leaves_nothing_and_the_earlier_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, file = tmp_path / "models", tmp_path / "a.gguf"
    models.mkdir()
    file.write_bytes(b"GGUF")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(lmstudio.files, "link_or_copy", full)
        with pytest.raises(RunError, match="full|free"):
            lmstudio.place(file, "Run", models)
        assert list(models.rglob("*")) == []
    placed = lmstudio.place(file, "Run", models)
    with monkeypatch.context() as broken:
        broken.setattr(lmstudio.files, "rename", full)
        with pytest.raises(RunError):
            lmstudio.place(file, "Run", models)
    assert [each for each in models.rglob("*") if each.is_file()] == [placed] and placed.read_bytes() == b"GGUF"


def test_a_path_that_windows_programs_do_not_open_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmstudio, "LONGEST", 259)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    models = tmp_path / ("m" * 200)
    with pytest.raises(ExportError, match="at most 259"):
        lmstudio.place(tmp_path / "a.gguf", "Run " * 20, models)
    assert not models.exists()


def test_a_folder_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(RunError):
        lmstudio.place(tmp_path / "a.gguf", "Run", tmp_path / "models")
