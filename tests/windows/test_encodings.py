"""What goes into files and pipes on a Windows whose code page is not UTF-8; under Wine it is 936, as in China (W7)."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.presets import PROJECT
from tests.windows.place import NAME, PROGRAM

pytestmark = pytest.mark.skipif(os.name != "nt", reason="on a Windows Python: python launch.py test --windows")
LAUNCHER = (
    "launch.py",
    *(file.relative_to(PROJECT).as_posix() for file in (PROJECT / "launcher").glob("*.py")),
    "pyproject.toml",
    "constraints.txt",
    "core/locales/en/launch.yaml",
    "core/locales/zh/launch.yaml",
    "core/system/windows.py",
)
ROWS = [("Wie heißt die Stadt?", "Zürich"), ("中文怎么说？", "你好")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encodings") / NAME
    for name in LAUNCHER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, folder / name)
    return folder


def only_under_wine() -> None:
    if not hasattr(ctypes.WinDLL("ntdll"), "wine_get_version"):
        pytest.skip(f"Windows itself, code page {ctypes.WinDLL('kernel32').GetACP()}")


def said_into_a_file(place: Path, *command: str, language: str = "zh") -> tuple[bytes, int]:
    """What a person has who starts it with `> log.txt 2>&1`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "PYTHONPATH": str(PROJECT),
        "LORA_GARAGE_LANG": language,
        "LORA_GARAGE_HOME": str(place / "workspace"),
    }
    with open(place / "log.txt", "wb") as log:
        code = subprocess.run(command, cwd=place, env=environment, stdout=log, stderr=log, timeout=180).returncode
    return (place / "log.txt").read_bytes(), code


def test_the_code_page_is_one_that_cannot_write_umlauts() -> None:
    """Under Wine; else these tests show nothing."""
    only_under_wine()
    assert ctypes.WinDLL("kernel32").GetACP() == 936
    with pytest.raises(UnicodeEncodeError):
        "Ü".encode("gbk")


def test_the_program_itself_is_in_a_folder_that_the_code_page_cannot_write() -> None:
    only_under_wine()
    assert PROJECT.name == PROGRAM
    with pytest.raises(UnicodeEncodeError):
        PROGRAM.encode("gbk")


def test_the_launcher_writes_utf_8_into_a_file(place: Path) -> None:
    output, code = said_into_a_file(place, sys._base_executable, "launch.py", "doctor")
    assert code == 1 and NAME in output.decode("utf-8") and "请运行" in output.decode("utf-8")
    output, code = said_into_a_file(place, sys._base_executable, "launch.py", "doctor", "--json")
    assert code == 1 and NAME in json.dumps(json.loads(output), ensure_ascii=False)


def test_a_command_writes_utf_8_into_a_file(place: Path) -> None:
    output, code = said_into_a_file(place, sys.executable, "-X", "utf8", "-m", "core.commands", "runs")
    assert code == 0 and "还没有" in output.decode("utf-8"), output


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_excel_and_of_notepad_is_read(place: Path, encoding: str) -> None:
    file = place / "Prüf–中文 datei.csv"
    file.write_text("question,answer\r\n" + "".join(f"{q},{a}\r\n" for q, a in ROWS), encoding, newline="")
    output, code = said_into_a_file(
        place, sys.executable, "-X", "utf8", "-m", "core.commands", "inspect", file.name, "--json"
    )
    report = json.loads(output)
    assert code == 0 and (report["good_rows"], report["problem_count"]) == (2, 0), report


def test_a_file_in_the_code_page_itself_is_read_and_said_to_be_one(place: Path) -> None:
    (place / "gbk.csv").write_text("question,answer\r\n你好,再见\r\n", "gbk", newline="")
    output, code = said_into_a_file(
        place, sys.executable, "-X", "utf8", "-m", "core.commands", "inspect", "gbk.csv", language="en"
    )
    assert code == 0 and b"read as GB18030" in output and b"1 of 1 row" in output, output
