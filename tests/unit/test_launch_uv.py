"""The install by uv, which is played as pip is; and what uv is told of pip's settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.request import url2pathname

import pytest

from launcher import running, tools
from launcher.install import CannotInstall
from launcher.progress import Progress
from tests.unit.test_launch import CPU, FakeMachine, cu

# As uv 0.13.9 drew it on a terminal.
BARS = (
    "\x1b[2K\x1b[8A\x1b[37m⠙\x1b[0m \x1b[2mPreparing packages...\x1b[0m (0/54)      \x1b[2muvicorn             \x1b[0m "
    "\x1b[32m-----------"
    "\x1b[30m\x1b[2m-------------------\x1b[0m\x1b[0m 31.89 KiB/85.38 KiB         \x1b[2mpyarrow             \x1b[0m "
    "\x1b[32m\x1b[30m\x1b[2m"
    "------------------------------\x1b[0m\x1b[0m 5.00 MiB/52.49 MiB         \x1b[8A\r\x1b[2K\x1b[1B\r\x1b[2K"
)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    machine.facts = machine.facts._replace(uv="/somewhere/uv")
    return machine


def lines(machine: FakeMachine) -> list[str]:
    return [" ".join(command) for command in machine.commands]


def test_uv_makes_the_environment_and_fetches_all_of_it(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # Debian without python3-venv
    machine.install("absent", with_tests=True)
    made, torch, packages, tests = lines(machine)
    assert all(line.startswith("/somewhere/uv ") for line in lines(machine)) and " venv " in made
    assert "--torch-backend cpu" in torch and "peft" not in torch
    assert "constraints.txt" in packages and "gradio" in packages and "pytest" in tests
    assert machine.why(with_tests=True) is None and "without_uv" not in machine.said


def test_uv_finds_the_constraints_in_a_folder_with_a_blank_in_its_name(tmp_path: Path) -> None:
    """It took C:\\Users\\Anna Schmidt\\...\\constraints.txt for two files, found none, and pip did all of it again."""
    file = tmp_path / "Zürich – LoRA Übung 中" / "constraints.txt"
    command = tools.Uv("uv", "python").install(["gradio"], constraints=str(file))
    address = command[command.index("-c") + 1]
    assert not set(address) & set(" \t") and Path(url2pathname(address.removeprefix("file:"))) == file


@pytest.mark.parametrize("step", ["venv", "--torch-backend", "gradio"])
def test_where_uv_fails_its_words_are_said_and_pip_goes_on(machine: FakeMachine, step: str) -> None:
    Path(machine.environment.folder).mkdir()
    machine.fail_at, machine.fails, machine.words = step, 1, "error: Request failed after 2 retries\n"
    machine.install("absent")
    assert "uv_failed" in machine.said and machine.why() is None
    after = lines(machine)[[step in line for line in lines(machine)].index(True) + 1 :]
    assert after and all("/somewhere/uv" not in line for line in after) and "gradio" in after[-1]


def test_a_full_disk_is_no_reason_to_try_pip(machine: FakeMachine) -> None:
    Path(machine.environment.folder).mkdir()
    machine.fail_at, machine.words = "gradio", "  cause: No space left on device (os error 28)"
    with pytest.raises(CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == "pip_disk_full" and "uv_failed" not in machine.said


def test_the_one_large_file_for_a_card_is_pips_and_the_rest_uvs(machine: FakeMachine) -> None:
    """uv 0.13.9 began a file of 55 MB that broke off at the first byte again, four times of four."""
    machine.facts = machine.facts._replace(driver="550.54.14", nvidia=True)
    machine.install("absent")
    made, pip, torch, packages = lines(machine)
    assert f"-m pip install --disable-pip-version-check --no-input --progress-bar raw --index-url {cu(126)}" in torch
    assert all("/somewhere/uv" in line for line in (made, pip, packages)) and "torch_by_pip" in machine.said


def test_a_damaged_torch_comes_from_where_it_came_and_not_from_the_cache(machine: FakeMachine) -> None:
    machine.broken = ["peft==0.21.2", "torch==2.13.0+cpu"]
    machine.install("absent")
    torch, other = lines(machine)[-2:]
    assert "--torch-backend cpu --reinstall --no-deps --no-cache torch==2.13.0+cpu" in torch
    assert other.endswith("--reinstall --no-deps --no-cache peft==0.21.2")


def test_uv_hears_of_the_mirror_that_pip_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://mirror/simple\nfind-links = /a\n    /b\n[install]\ntrusted-host = mirror\n",
        "utf-8",
    )
    own = {"PIP_CONFIG_FILE": str(file), "PIP_CERT": "/x.pem", "UV_HTTP_TIMEOUT": "5", "PIP_TIMEOUT": "9"}
    environment = tools.environ_for(["/somewhere/uv"], own)
    assert {name: environment[name] for name in ("UV_DEFAULT_INDEX", "UV_FIND_LINKS", "UV_INSECURE_HOST",
        "SSL_CERT_FILE", "UV_HTTP_TIMEOUT")} == {
        "UV_DEFAULT_INDEX": "https://mirror/simple", "UV_FIND_LINKS": "/a,/b", "UV_INSECURE_HOST": "mirror",
        "SSL_CERT_FILE": "/x.pem",
        "UV_HTTP_TIMEOUT": "5",
    }  # fmt: skip
    assert not any(name.startswith("UV_I") for name in tools.environ_for(["/somewhere/python"], own)), (
        "pip reads its own"
    )


def test_where_uv_is_looked_for(tmp_path: Path) -> None:
    program = tmp_path / "uv"
    program.touch()
    assert tools.find_uv({"UV": str(program)}) == str(program)
    assert tools.find_uv({"UV": str(program), "LORA_GARAGE_INSTALLER": "pip"}) is None
    assert tools.Uv("uv", "python").install(["torch"], index="https://x/rocm7.2")[-3:] == [
        "--default-index",
        "https://x/rocm7.2",
        "torch",
    ]
    assert tools.Uv("uv", "python").install(["torch"], index=CPU)[-3:] == ["--torch-backend", "cpu", "torch"]


def test_uvs_bars_and_lines_tell_megabytes_and_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    drawn = Progress()
    assert drawn.draw(BARS + "Resolved 53 packages in 874ms\r\n") == "Resolved 53 packages in 874ms\n"
    assert drawn.describe([], 1.0) == "pyarrow: 5 of 55 MB, ? left"
    drawn.draw(BARS.replace("5.00 MiB/", "25.0 MiB/"))
    assert drawn.describe([], 11.0) == "pyarrow: 26 of 55 MB, 0:13 left"
    lines, windows = ["Downloading torch (100.0MiB)", "Downloading gradio (29.9MiB)"], Progress()
    assert windows.describe(lines, 1.0) == "torch: 0 of 136 MB, ? left"
    assert windows.describe([*lines, " Downloaded gradio"], 11.0) == "torch: 31 of 136 MB, 0:33 left"


@pytest.mark.skipif(os.name == "nt", reason="uv draws its bars on a terminal of our own, which that has not")
def test_what_uv_says_on_a_terminal_is_in_the_log_without_its_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    program, log = tmp_path / "uv", tmp_path / "log" / "install.log"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.write({BARS!r})\nprint('error: no such host')\nsys.exit(int(not "
        f"sys.stdout.isatty()) + 1)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert running.LoggedRun(str(log))([str(program)], "step") == 1
    assert log.read_text("utf-8").splitlines()[2:] == ["error: no such host"]
