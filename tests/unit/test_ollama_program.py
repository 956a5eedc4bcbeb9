"""Giving an export to Ollama, whose place a script takes: it answers, hangs, babbles, is too old, lies. Ollama's own
program is in no index here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import BusyError, ExportError, GarageError, StopRequested
from core.export.ollama import program
from core.export.ollama.adding import AddStatus, OllamaAdder
from core.messages import msg
from tests.kit.ollama import GOOD, instead, script
from tests.kit.waits import wait_until

NAME = "lora-garage/pirate"
Ollama = Callable[[str], Path]


@pytest.fixture
def ollama(tmp_path: Path) -> Ollama:
    return lambda behaviour: script(tmp_path / "bin", behaviour)


def refused(ollama: Path, modelfile: Path) -> str:
    with pytest.raises(ExportError) as caught:
        program.create_model(ollama, NAME, modelfile)
    assert all("{" not in caught.value.message.render(language) for language in ("en", "zh"))
    return caught.value.message.key


@pytest.fixture
def modelfile(tmp_path: Path) -> Path:
    """In a folder with spaces, Chinese and quotes, by a path of more than 260 characters where Windows does not have to
    be asked for that."""
    folder = tmp_path / "Mein 'Export' 海盗"
    if os.name != "nt":
        folder = folder / ("long " * 30) / ("path " * 30)
    folder.mkdir(parents=True)
    file = folder / "Modelfile"
    file.write_text("FROM ./a.gguf\n")
    assert len(str(file)) > 260 or os.name == "nt"
    return file


def test_a_model_is_created_and_answers(ollama: Ollama, modelfile: Path) -> None:
    there, stages = ollama(GOOD), []
    given = program.create_model(there, NAME, modelfile, stages.append)
    assert given == program.CreatedModel(NAME, "Arr, matey!", replaced=False) and stages == ["creating", "answering"]
    assert repr(["create", NAME, "-f", str(modelfile)]) in (there.parent / "asked").read_text("utf-8")
    assert program.create_model(there, NAME, modelfile).replaced, "it takes the place of an earlier one, which is said"


@pytest.mark.parametrize(
    ("behaviour", "key"),
    [
        (instead("create", "sys.exit('Error: unsupported architecture')"), "ollama.failed"),
        (instead("create", "sys.exit('Error: could not connect to ollama server')"), "ollama.not_running"),
        (instead("create", "print('success')"), "ollama.no_model"),
        (instead("run", "print('\\x1b[1G\u2819 \\x1b[K\\x1b[1G\u2839 \\x1b[K\\x1b[2K\\x1b[1G\\x1b[?25h\\n \\n')"),
            "ollama.no_answer"),
        (instead("run", "sys.exit(3)"), "ollama.failed"),
        (instead("create", "[sys.stdout.write('\\x00\\xff' * 9999) for _ in iter(int, 1)]"), "ollama.babbles"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_one_sentence(ollama: Ollama, modelfile: Path, behaviour: str, key: str) -> None:
    assert refused(ollama(behaviour), modelfile) == key


def test_one_that_hangs_is_ended_at_its_limit_and_one_that_is_cancelled_at_once(
    ollama: Ollama, modelfile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ollama(instead("create", "(here / 'began').touch(); time.sleep(600)"))
    monkeypatch.setattr(program, "CREATE_S", 0.2)
    assert refused(there, modelfile) == "ollama.hangs"
    (there.parent / "began").unlink(missing_ok=True)
    monkeypatch.setattr(program, "CREATE_S", 600)

    def check() -> None:
        if (there.parent / "began").exists():
            raise StopRequested

    with pytest.raises(StopRequested):
        program.create_model(there, NAME, modelfile, check=check)
    wait_until(lambda: not (there.parent / "models").exists())


def test_a_program_that_cannot_be_started_is_said(ollama: Ollama, modelfile: Path) -> None:
    there = ollama(GOOD)
    there.write_bytes(b"rubbish")
    assert refused(there, modelfile) == "ollama.cannot_start"


def test_a_page_looks_on_while_one_at_a_time_is_given_and_it_can_be_cancelled(ollama: Ollama, modelfile: Path) -> None:
    there = ollama(instead("create", "(here / 'began').touch(); time.sleep(600)"))
    giving, result = OllamaAdder(lambda: there), SimpleNamespace(run="r", ollama_name="pirate")
    giving.start(result, modelfile.parent, "llama")
    wait_until((there.parent / "began").exists)
    assert giving.status("other") is None and giving.status("r") == AddStatus("r", msg("ollama.creating"))
    with pytest.raises(BusyError):
        giving.start(result, modelfile.parent, "llama")
    giving.cancel()
    wait_until(lambda: not giving.status("r").active)
    assert giving.status("r").message.key == "ollama.cancelled"
    ollama(GOOD)
    giving.start(result, modelfile.parent, "lfm3")
    wait_until(lambda: not giving.status("r").active)
    assert giving.status("r").answered and "Arr, matey!" in str(giving.status("r").message)
    giving.start(result, modelfile.parent, "lfm3")
    wait_until(lambda: not giving.status("r").active)
    assert "has replaced it" in str(giving.status("r").message)
    ollama("print('version is 0.1.2')")
    giving.start(result, modelfile.parent, "lfm3")
    wait_until(lambda: not giving.status("r").active)
    assert giving.status("r").message.key == "ollama.too_old" and not giving.status("r").answered
    with pytest.raises(GarageError, match="Ollama was not found"):
        OllamaAdder(lambda: None).start(result, modelfile.parent, "llama")


@pytest.mark.parametrize(
    ("says", "is_too_old"),
    [("ollama version is 0.40.11", True), ("ollama version is 0.40.12", False), ("Warning: client version is v0.9.6",
        True),
     ("ollama version is 1.0.0-rc1", False), ("\x1b[31m\x00 rubbish \ufffd", False), ("version is " + "9" * 99, False)],
)  # fmt: skip
def test_one_too_old_for_a_family_is_told_before_the_work(ollama: Ollama, says: str, is_too_old: bool) -> None:
    there = ollama(f"print({says!r})")
    if "v0.9.6" in says:  # it would take the nearest template that it knows, and loses the system prompt
        with pytest.raises(ExportError, match="too old for llama: 0.30.0 or newer"):
            program.check_version(there, "llama")
    else:
        program.check_version(there, "llama")
    if is_too_old:
        with pytest.raises(ExportError, match="too old for lfm3: 0.40.12 or newer"):
            program.check_version(there, "lfm3")
    else:
        program.check_version(there, "lfm3")


def test_it_is_found_on_path_and_where_installers_put_it_and_never_here(
    ollama: Ollama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ollama(GOOD)
    monkeypatch.chdir(there.parent)
    monkeypatch.setenv("PATH", "." + os.pathsep)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert program.find(tmp_path) != there
    local = tmp_path / ("AppData/Local/Programs/Ollama" if os.name == "nt" else ".local/bin")
    local.mkdir(parents=True)
    there.rename(local / there.name)
    assert program.find(tmp_path) == local / there.name
    monkeypatch.setenv("PATH", str(ollama(GOOD).parent))
    assert program.find(tmp_path) == there
