"""A finished export given to LM Studio and Ollama (the hub: tests/process/test_publishing.py): killed, cancelled, disk
full at every step. What was there before stands, nothing half-made can be taken for whole, the export itself stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.errors import ExportError, RunError, StopRequested
from core.export import lmstudio
from core.export.ollama import program
from tests.faults.layer import Fault, full_disk, injected, killed
from tests.faults.table import FaultTable
from tests.kit.ollama import GOOD, instead, script

REFUSED, PASSED = 3, 4  # with a sentence; by what did not need that operation
posix = pytest.mark.skipif(os.name == "nt", reason="forks")


# ---- LM Studio -----------------------------------------------------------------------------------
def in_a_fork(act: Callable[[], object]) -> int:
    """Exit status, -9 for killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@posix
@pytest.mark.parametrize("how", ["link", "copy"])
@pytest.mark.parametrize("act", [killed, full_disk])
def test_a_file_for_lm_studio_is_the_earlier_one_or_the_new_one_and_what_a_kill_left_goes_with_the_next(
    act: Callable[[str, str], None], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """Seen: a copy that was killed stayed in LM Studio's folder for good, as large as the model."""
    file, models, nth = tmp_path / "a.gguf", tmp_path / "models", 0
    models.mkdir()
    file.write_bytes(b"GGUF first")
    if how == "copy":
        monkeypatch.setattr(lmstudio.os, "link", lambda *_: full_disk("", "another disk"))
    placed, code = lmstudio.place(file, "Run", models), -1
    while code:
        nth, old = nth + 1, placed.read_bytes()
        file.unlink()
        file.write_bytes(b"GGUF %03d" % nth)

        def place(nth: int = nth) -> None:
            with injected(Fault(models, nth, act)) as fault:
                try:
                    lmstudio.place(file, "Run", models)
                except RunError:
                    os._exit(REFUSED)
            os._exit(PASSED if fault.bit else 0)

        code = in_a_fork(place)
        assert code in ({-9, 0} if act is killed else {REFUSED, PASSED, 0})
        assert placed.read_bytes() in ({old, b"GGUF %03d" % nth} if code in (-9, REFUSED) else {b"GGUF %03d" % nth})
        assert list(models.rglob("*.gguf")) == [placed], "all that LM Studio would show"
        assert act is killed or [each.name for each in placed.parent.iterdir()] == ["a.gguf"]
    lmstudio.place(file, "Run", models)
    assert [each.name for each in placed.parent.iterdir()] == ["a.gguf"] and nth > 2
    what = "SIGKILL before a disk operation" if act is killed else "disk full at a disk operation, once"
    faults.add(what, f"export into LM Studio, by {how}", nth - 1)


# ---- Ollama --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verb", "how"),
    [("create", "cancelled"), *(pytest.param(verb, how, marks=pytest.mark.full) for verb in ("show", "create",
        "run") for how in ("cancelled", "disk full"))],
)  # fmt: skip
def test_an_export_for_ollama_that_is_cancelled_or_finds_the_disk_full_ends_its_program_and_stays(
    verb: str, how: str, tmp_path: Path, faults: FaultTable
) -> None:
    folder = tmp_path / "Mein Export 海盗 🏴"
    folder.mkdir()
    (folder / "Modelfile").write_text("FROM ./a.gguf\n", "utf-8")
    does = "(here / 'pid').write_text(str(__import__('os').getpid())); time.sleep(600)"
    if how == "disk full":
        does = "sys.exit('Error: write /blobs/x: no space left on device')"
    there = script(tmp_path / "bin", instead(verb, does))
    pid = there.parent / "pid"

    def check() -> None:
        if pid.exists() and pid.read_text():
            raise StopRequested

    with pytest.raises(StopRequested if how == "cancelled" else ExportError) as caught:
        program.create_model(there, "lora-garage/pirate", folder / "Modelfile", check=check)
    if how == "cancelled":
        assert not psutil.pid_exists(int(pid.read_text()))
    else:
        assert caught.value.message.key in ("ollama.failed", "ollama.no_model")
    assert [file.name for file in folder.iterdir()] == ["Modelfile"]
    assert (
        program.create_model(script(tmp_path / "bin", GOOD), "lora-garage/pirate", folder / "Modelfile").answer
        == "Arr, matey!"
    )
    faults.add(f"{how} at `ollama {verb}`", "export into Ollama")
