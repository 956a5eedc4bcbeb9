"""`export --to ollama`, after the file: Ollama there (a script), too old, failing, or not there at all."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.commands import handing
from core.commands.handing import Receiver
from core.errors import ExportError
from core.export.ollama import program
from core.export.records import ExportCheck, ExportResult
from tests.kit.ollama import instead, script

RUN = SimpleNamespace(recipe=lambda: SimpleNamespace(model=SimpleNamespace(id="some/model")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a finished export; nothing on PATH, and a family that Ollama knows from 0.40.12 on."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(
        handing, "Models", lambda space: SimpleNamespace(shape=lambda id: SimpleNamespace(model_type="lfm3"))
    )
    monkeypatch.setattr(program.Path, "home", lambda: tmp_path)
    export = tmp_path / "2026-11-28_海盗_abc123-gguf"
    export.mkdir()
    for name in ("tuned-abc123-q8_0.gguf", "Modelfile"):
        (export / name).write_bytes(b"GGUF")
    return export


def result() -> ExportResult:
    check = ExportCheck(proof="whole", prompts_read_alike=1, prompts=1, own_prompts=True, passed=True)
    return ExportResult(name="x", run="r", run_name="海盗 🏴", kind="gguf", quant="q8_0", base="b", dtype="bfloat16",
                        files={"tuned-abc123-q8_0.gguf": 4, "Modelfile": 4}, check=check, ollama_name="tuned-abc123",
                        created=time.time(), seconds=1.0)  # fmt: skip


def test_ollama_gets_the_file_and_says_its_first_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = script(folder.parent / "bin")
    handed = Receiver.find("ollama", SimpleNamespace(), RUN).hand_over(result(), folder, quiet=False)["ollama"]
    assert handed == {
        "name": "lora-garage/tuned-abc123",
        "question": program.QUESTION,
        "answer": "Arr, matey!",
        "replaced": False,
    }
    assert repr(["create", "lora-garage/tuned-abc123", "-f", str(folder / "Modelfile")]) in (
        there.parent / "asked"
    ).read_text("utf-8")
    assert "Arr, matey!" in (words := capsys.readouterr().err) and "ollama run lora-garage/tuned-abc123" in words


def test_one_that_is_too_old_is_refused_before_the_work_and_one_that_fails_leaves_the_file(folder: Path) -> None:
    script(folder.parent / "bin", instead("--version", "print('ollama version is 0.34.1')"))
    with pytest.raises(ExportError, match="too old for lfm3: 0.40.12 or newer"):
        Receiver.find("ollama", SimpleNamespace(), RUN)
    script(folder.parent / "bin", instead("create", "sys.exit('Error: no space left on device')"))
    with pytest.raises(ExportError, match="no space left on device"):
        Receiver.find("ollama", SimpleNamespace(), RUN).hand_over(result(), folder, quiet=True)
    assert sorted(file.name for file in folder.iterdir()) == ["Modelfile", "tuned-abc123-q8_0.gguf"]


def test_without_ollama_the_exact_commands_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing.program, "find", lambda: None)
    handed = Receiver.find("ollama", SimpleNamespace(), RUN).hand_over(result(), folder, quiet=False)
    create = f'ollama create lora-garage/tuned-abc123 -f "{folder / "Modelfile"}"'
    assert handed["commands"]["ollama"] == f"{create}\nollama run lora-garage/tuned-abc123"
    assert set(handed["commands"]) == {"ollama", "lmstudio", "llamacpp", "koboldcpp", "jan"}
    words = capsys.readouterr().err
    assert "Ollama was not found" in words and create in words and "koboldcpp --model" in words
