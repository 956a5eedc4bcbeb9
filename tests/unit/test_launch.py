"""launch.py without a network and without installing anything: pip is played by a function."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest

import launcher
from core import __version__
from core.presets import PROJECT
from launcher import developers, doctor, install, main, running, sentences, torch_build, uninstall
from launcher.environment import MARKER_VERSION, Environment, Needs, read_needs, why_not_ready
from launcher.machine import MachineFacts, parse_nvidia_smi, probe_nvidia, windows_obstacles
from launcher.progress import Progress
from tools import lock

ROOT = PROJECT
LAUNCHER = [file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "launcher").glob("*.py"))]
CPU = torch_build.WHEEL_INDEX + "cpu"


def cu(number: int) -> str:
    return f"{torch_build.WHEEL_INDEX}cu{number}"


# ---- which torch ---------------------------------------------------------------------------------

# system, machine, driver, capability, amd, environ -> index, build, key of the reason.
# Drivers: 580 is CUDA 13's minimum, 525.60.13 and 528.33 CUDA 12's (docs.nvidia.com/deploy/cuda-compatibility).
CHOICES = {
    "linux, new driver: PyPI's torch is the CUDA build": ("Linux", "x86_64", "580.65.06", (8, 9), False, {}, None,
        "pypi", "torch_pypi_cuda"),
    "linux, new driver, capability unknown": ("Linux", "x86_64", "590.44", None, False, {}, None, "pypi",
        "torch_pypi_cuda"),
    "linux, RTX 30 with a driver of 2024": ("Linux", "x86_64", "550.54.14", (8, 6), False, {}, cu(126), "cu126",
        "torch_cuda"),
    "linux, RTX 50 with its first driver": ("Linux", "x86_64", "570.86.16", (12, 0), False, {}, cu(128), "cu128",
        "torch_cuda"),
    "linux, GTX 1080 with a new driver: CUDA 13 has no code for it": ("Linux", "x86_64", "580.65.06", (6, 1), False, {},
        cu(126), "cu126", "torch_cuda"),
    "linux, GTX 970: bitsandbytes has no code for it": ("Linux", "x86_64", "580.65.06", (5, 2), False, {}, CPU, "cpu",
        "torch_old_card"),
    "windows, GTX 750 Ti": ("Windows", "AMD64", "572.16", (5, 0), False, {}, CPU, "cpu", "torch_old_card"),
    "linux, driver just too old": ("Linux", "x86_64", "525.60.11", (8, 6), False, {}, CPU, "cpu", "torch_unknown_card"),
    "linux, driver of 2022": ("Linux", "x86_64", "470.42.01", (8, 6), False, {}, CPU, "cpu", "torch_old_driver"),
    "linux, RTX 50 reported by too old a driver": ("Linux", "x86_64", "565.10", (12, 0), False, {}, CPU, "cpu",
        "torch_unknown_card"),
    "linux on ARM with a card: PyPI's was the CPU build": ("Linux", "aarch64", "580.82", (12, 1), False, {}, cu(130),
        "cu130", "torch_cuda"),
    "linux, no card": ("Linux", "x86_64", None, None, False, {}, CPU, "cpu", "torch_no_card"),
    "linux, AMD": ("Linux", "x86_64", None, None, True, {}, CPU, "cpu", "torch_amd"),
    "linux, AMD graphics beside an NVIDIA card": ("Linux", "x86_64", "580.95", (8, 9), True, {}, None, "pypi",
        "torch_pypi_cuda"),
    "windows, new driver: PyPI has no CUDA there": ("Windows", "AMD64", "581.29", (8, 9), False, {}, cu(130), "cu130",
        "torch_cuda"),
    "windows, driver of early 2025": ("Windows", "AMD64", "572.16", (8, 9), False, {}, cu(128), "cu128", "torch_cuda"),
    "windows, driver between Linux' and Windows' minimum": ("Windows", "AMD64", "527.41", (8, 6), False, {}, CPU, "cpu",
        "torch_unknown_card"),
    "windows, no card": ("Windows", "AMD64", None, None, False, {}, None, "pypi", "torch_no_card"),
    "windows on ARM": ("Windows", "ARM64", None, None, False, {}, None, "pypi", "torch_no_card"),
    "mac": ("Darwin", "arm64", None, None, False, {}, None, "pypi", "torch_mac"),
    "intel mac: no torch since 2.3": ("Darwin", "x86_64", None, None, False, {}, None, "none", "torch_intel_mac"),
    "the person decides": ("Linux", "x86_64", None, None, True, {"LORA_GARAGE_TORCH_INDEX": "https://x/rocm7.2"},
        "https://x/rocm7.2", "rocm7.2", "torch_by_you"),
    "the person wants PyPI": ("Linux", "x86_64", None, None, False, {"LORA_GARAGE_TORCH_INDEX": "pypi"}, None, "pypi",
        "torch_by_you"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_the_right_torch_for_a_machine(case: str):
    system, machine, driver, capability, amd, environ, index, build, reason = CHOICES[case]
    choice = torch_build.choose_torch(system, machine, driver, amd, environ, [torch_build.NvidiaCard(capability)])
    assert (choice.index_url, choice.build, choice.reason[0]) == (index, build, reason)
    assert "{" not in sentences.say_text(choice.reason[0], **choice.reason[1])


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_a_card_never_gets_a_build_without_code_for_it(system: str):
    for driver in ("525.60.13", "528.33", "560.1", "570", "580", "600.1"):
        for capability in ((5, 0), (6, 1), (7, 0), (7, 5), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)):
            row = torch_build.matching_cuda_build(system, torch_build.parse_version(driver), capability)
            assert row is None or row.low <= capability <= row.high


@pytest.mark.parametrize(
    ("driver", "capabilities", "build", "left_out"),
    [
        ("580.65", [(6, 1), (12, 0)], "cu130", ["6.1"]),  # no build has code for both: the newer card counts
        ("580.65", [(8, 9), (7, 5)], "cu130", []),
        ("580.65", [(6, 1), (8, 6)], "cu126", []),  # there is one for both
        ("560.81", [(6, 1), (12, 0)], "cu126", ["12.0"]),  # this driver runs none for the newer card
        ("580.65", [None, (12, 0)], "cu130", []),
        ("560.81", [(3, 5), (12, 0)], "cpu", []),
        ("580.65", [(5, 2), (8, 9)], "cu130", ["5.2"]),  # it had CUDA 12.6 for the sake of a card that is not used
        ("560.81", [(5, 2), (6, 1)], "cu126", ["5.2"]),
    ],
)
def test_of_unequal_cards_the_better_one_gets_its_torch(
    driver: str, capabilities: list, build: str, left_out: list[str]
):
    """A GTX 1060 beside an RTX 5070 got CUDA 12.6, which has no code for the better card."""
    cards = [torch_build.NvidiaCard(c, ".".join(map(str, c)) if c else "unknown") for c in capabilities]
    choice = torch_build.choose_torch("Windows", "AMD64", driver, False, {}, cards)
    assert (choice.build, list(choice.left_out)) == (build, left_out)


def test_nvidia_smi_tells_each_card():
    two = "580.65.06, 8.9, NVIDIA GeForce RTX 4060\n580.65.06, 6.1, NVIDIA GeForce GTX 1060, 6GB\n"
    cards = (
        torch_build.NvidiaCard((8, 9), "NVIDIA GeForce RTX 4060"),
        torch_build.NvidiaCard((6, 1), "NVIDIA GeForce GTX 1060, 6GB"),
    )
    assert parse_nvidia_smi(two) == ("580.65.06", cards)
    assert parse_nvidia_smi("535.1, [N/A], Tesla\n") == ("535.1", (torch_build.NvidiaCard(None, "Tesla"),))
    assert parse_nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate\n") == (None, ())


@pytest.mark.skipif(launcher.WINDOWS, reason="the stand-in for nvidia-smi is a shell script")
def test_the_installed_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ntest "$1" = "--query-gpu=driver_version,compute_cap,name" && echo "580.65.06, 12.0, RTX 5070"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert probe_nvidia() == ("580.65.06", (torch_build.NvidiaCard((12, 0), "RTX 5070"),))


def test_a_cpu_torch_beside_a_driver_is_said():
    assert torch_build.torch_beside_card(None, None, "580.1") == "after_cpu_beside_card"
    assert torch_build.torch_beside_card("13.0", None, "580.1") == "after_cuda"
    assert torch_build.torch_beside_card(None, None, None) == "after_cpu"
    assert torch_build.torch_beside_card(None, "7.2", None) == "after_rocm"


# ---- complete or not -----------------------------------------------------------------------------

NEEDS = Needs(["torch>=2.9"], ["pytest"], "digest", "tests")
MARKER = {"version": MARKER_VERSION, "needs": "digest", "base": "/usr/bin/python3.11", "nvidia": False, "test": None}


@pytest.mark.parametrize(
    ("marker", "base", "nvidia", "tests", "expected"),
    [
        (MARKER, "/usr/bin/python3.11", False, False, None),
        (None, None, False, False, "absent"),
        (MARKER, None, False, False, "python_moved"),
        (None, "/usr/bin/python3.11", False, False, "unfinished"),
        ("not an object", "/usr/bin/python3.11", False, False, "unfinished"),
        (MARKER | {"version": 0}, "/usr/bin/python3.11", False, False, "unfinished"),
        (MARKER, "/usr/bin/python3.13", False, False, "python_moved"),
        (MARKER | {"needs": "older"}, "/usr/bin/python3.11", False, False, "changed"),
        (MARKER, "/usr/bin/python3.11", True, False, "new_card"),
        (MARKER | {"nvidia": True}, "/usr/bin/python3.11", False, False, None),
        (MARKER, "/usr/bin/python3.11", False, True, "tests_missing"),
        (MARKER | {"test": "tests"}, "/usr/bin/python3.11", False, True, None),
    ],
)
def test_when_the_environment_must_be_worked_on(marker, base, nvidia, tests, expected):
    assert why_not_ready(marker, NEEDS, base, nvidia, tests) == expected
    if expected:
        assert f"because_{expected}" in sentences.sentences("en")


def test_other_requirements_or_other_tested_versions_change_the_digest():
    project = '[project]\ndependencies = ["a>=1"]\n[project.optional-dependencies]\ntest = ["b"]\n'
    needs = read_needs(project, "a==1.5")
    assert read_needs(project + "[tool.ruff]\nline-length = 99\n", "a==1.5") == needs
    assert read_needs(project, "a==1.6").digest != needs.digest
    assert read_needs(project.replace("a>=1", "a>=2"), "a==1.5").digest != needs.digest
    assert read_needs(project.replace('"b"', '"c"'), "a==1.5").digest == needs.digest


def test_constraints_admit_what_pyproject_asks_for_and_leave_torch_out():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needs = read_needs((ROOT / "pyproject.toml").read_text("utf-8"), "")
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    tested = {
        canonicalize_name(r.name): str(r.specifier)[2:]
        for r in map(Requirement, (x for x in lines if x and x[0] != "#"))
    }
    assert "torch" not in tested, "its build is chosen"
    for need in map(Requirement, needs.requirements + needs.test_requirements):
        if need.name not in ("torch", "pip"):
            assert need.specifier.contains(tested[canonicalize_name(need.name)]), need


def test_constraints_are_derived_from_pyproject_by_one_command():
    digest = lock.digest((ROOT / "pyproject.toml").read_text("utf-8"))
    lock_text = lock.LOCK.read_text("utf-8")
    assert lock_text.startswith(lock.HEADING.format(digest=digest)), (
        "pyproject.toml asks for something else since: python tools/lock.py"
    )
    assert not [pin for pin in lock_text.splitlines() if lock.LEFT_OUT.match(pin)]
    assert "audioop-lts==0.2.2 ; python_full_version >= '3.13'" in lock_text, (
        "what another Python alone needs is in it too"
    )


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("uv"), reason="no uv here")
def test_deriving_the_constraints_again_changes_nothing():
    assert lock.derive() == lock.LOCK.read_text("utf-8")


# ---- installing, with a pip that is played -------------------------------------------------------


class FakeMachine:
    """Plays pip and the interpreter of .venv: keeps what was run, stops like Ctrl-C or fails at the step asked for."""

    def __init__(self, folder: Path, answers_index: str | None = None, driver: str | None = None):
        for name in ("pyproject.toml", "constraints.txt"):
            (folder / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
        self.environment = Environment(str(folder))
        self.commands: list[list[str]] = []
        self.said: list[str] = []
        self.stop_at = self.fail_at = ""
        self.fails, self.words = 1000, ""  # so many times, with these words in the log
        self.broken: list[str] = []
        self.torch = {"version": "2.13.0", "cuda": None, "hip": None}
        self.versions = ""  # what pip says of torch's versions
        self.check, self.check_s = "", 60.0  # a program in the check's place
        self.facts = MachineFacts(
            "Linux", "x86_64", driver, (), False, bool(driver), {}, False, lambda url: answers_index
        )

    def run(self, command: list[str], label: str) -> int:
        line = " ".join(command)
        self.commands.append(command)
        if self.stop_at and self.stop_at in line:
            raise KeyboardInterrupt
        if self.fail_at and self.fail_at in line and self.fails:
            self.fails -= 1
            with open(self.environment.log, "a", encoding="utf-8") as log:
                log.write(self.words)
            return 1
        if "venv" in command:
            python = Path(self.environment.python)
            python.parent.mkdir(parents=True, exist_ok=True)
            python.write_text("")
            (python.parent.parent / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
        return 0

    def ask(self, command: list[str], limit_s: float = 180.0) -> running.Answer:
        if install.CHECK_PROGRAM in command:
            if self.check:
                return running.ask([sys.executable, "-c", self.check], self.check_s)
            broken, self.broken = self.broken, []
            return running.Answer(json.dumps({"broken": broken, "torch": {} if broken else self.torch}), None, "")
        if "index" in command:
            return running.Answer(self.versions, None, "")
        is_there = Path(self.environment.python).exists()
        return running.Answer("" if is_there else None, None if is_there else "no such file", "")

    def install(self, reason: str, with_tests: bool = False) -> None:
        say = lambda key, **values: self.said.append(key)  # noqa: E731
        installer = install.Installer(self.environment, self.run, self.ask, say, self.facts)
        installer.install(reason, self.environment.needs(), with_tests)

    def why(self, with_tests: bool = False) -> str | None:
        env = self.environment
        return why_not_ready(env.marker(), env.needs(), env.base(), self.facts.nvidia, with_tests)

    def pip_lines(self) -> list[str]:
        return [" ".join(c[3:]) for c in self.commands if "pip" in c]


@pytest.mark.parametrize("step", ["venv", "--index-url", "gradio"])
def test_an_interrupted_install_leaves_no_marker_and_the_next_start_finishes_it(tmp_path: Path, step: str):
    machine = FakeMachine(tmp_path)
    machine.stop_at = step
    with pytest.raises(KeyboardInterrupt):
        machine.install("absent")
    assert machine.environment.marker() is None
    machine.stop_at = ""
    machine.install(machine.why())
    assert machine.why() is None


def test_an_interrupted_update_is_not_taken_for_the_complete_install_before_it(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.install("absent")
    machine.stop_at = "gradio"
    with pytest.raises(KeyboardInterrupt):
        machine.install("changed")
    assert machine.why() == "unfinished"


def test_the_card_that_is_left_out_is_named_before_anything_is_downloaded(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    cards = (torch_build.NvidiaCard((6, 1), "GTX 1060"), torch_build.NvidiaCard((12, 0), "RTX 5070"))
    machine.facts = machine.facts._replace(driver="580.65", cards=cards)
    machine.install("absent")
    assert machine.said.index("card_left_out") < machine.said.index("will_do")


def test_a_failed_step_is_named_and_leaves_no_marker(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.fail_at = "gradio"
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == "pip_failed"
    assert machine.environment.marker() is None


@pytest.mark.parametrize(
    ("program", "limit_s", "sentence", "in_log"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 60, "signal 9", "")
        if os.name != "nt"
        else ("import os; os._exit(-1073741819)", 60, "status 0xC0000005", ""),
        (
            "import os; os.write(2, b'first\\nDLL load failed\\n'); os._exit(53)",
            60,
            "status 53: DLL load failed",
            "first",
        ),
        ("import os, time; os.write(2, b'still at it'); time.sleep(60)", 3, "took longer than 3 s", "still at it"),
    ],
)
def test_a_check_that_dies_or_never_ends_says_how_and_keeps_what_it_printed(
    tmp_path: Path, program: str, limit_s: float, sentence: str, in_log: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    machine = FakeMachine(tmp_path)
    machine.check, machine.check_s = program, limit_s
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == "torch_does_not_load"
    assert sentence in failure.value.values["reason"]
    log = Path(machine.environment.log).read_text("utf-8")
    assert sentence in log and in_log in log
    assert machine.environment.marker() is None


def test_check_runs_every_check_and_fails_where_one_has_found_something(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "good.json").write_text("{}", "utf-8")
    environment = Environment(str(tmp_path))
    environment.python = sys.executable
    good, bad = ("json.tool", str(tmp_path / "good.json")), ("json.tool", str(tmp_path / "none.json"))
    monkeypatch.setattr(developers, "CHECKS", {"one": bad, "two": good})
    assert developers.run_checks(environment) == 1
    assert "== two" in (said := capfd.readouterr().out) and "found something: one" in said
    monkeypatch.setattr(developers, "CHECKS", {"two": good})
    assert developers.run_checks(environment) == 0
    assert main.parse(["check"]) == ("check", []) and "launch.py check" in (ROOT / ".ci/run").read_text("utf-8")


def test_a_crash_on_windows_is_named_as_windows_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    assert running.how_it_ended(0xC0000005, "") == "the check ended with status 0xC0000005"


def test_an_index_out_of_reach_is_not_tried_at_all(tmp_path: Path):
    machine = FakeMachine(tmp_path, answers_index="Name or service not known")
    machine.install("absent")
    assert "fall_back" in machine.said
    assert not any("--index-url" in line for line in machine.pip_lines())


def test_without_a_card_an_index_that_fails_midway_makes_way_for_plain_pip(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.fail_at = "--index-url"
    machine.install("absent")
    assert "fall_back" in machine.said
    assert machine.said[-2:] == ["after_cpu", "ready"]
    assert machine.environment.marker()["build"] == "pypi"
    assert machine.why() is None, "what could not be had must not be tried again at every start"


@pytest.mark.parametrize(
    ("versions", "pinned"),
    [
        ("2.15.0, 2.14.1, 2.13.0+cpu, 2.13.0, 2.11.0+cpu", "torch==2.13.0+cpu"),
        ("2.15.0, 2.8.0+cpu", None),
        ("2.15.0, 2.14.1", None),
    ],
)
def test_without_a_card_a_small_torch_that_pip_finds_beside_its_index_is_taken(
    tmp_path: Path, versions: str, pinned: str | None
):
    """PyPI's is 3 GB of CUDA on Linux, and filled a disk: a wheel of PIP_FIND_LINKS for the processor is a tenth of
    that."""
    machine = FakeMachine(tmp_path, answers_index="Name or service not known")
    machine.versions = f"torch (2.15.0)\nAvailable versions: {versions}\n"
    machine.install("absent")
    assert [word for line in torch_lines(machine) for word in line.split() if word.startswith("torch==")] == [
        pinned
    ] * bool(pinned)
    assert machine.environment.marker()["build"] == ("cpu" if pinned else "pypi") and machine.why() is None


def test_a_torch_of_pips_own_index_is_taken_where_it_was_asked_for(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.versions = "Available versions: 2.15.0, 2.13.0+cpu"
    machine.facts = machine.facts._replace(environ={"LORA_GARAGE_TORCH_INDEX": "pypi"})
    machine.install("absent")
    assert torch_lines(machine) and not any("+cpu" in line for line in torch_lines(machine))


def torch_lines(machine: FakeMachine) -> list[str]:
    return [line for line in machine.pip_lines() if "torch>=2.9" in line and "peft" not in line]


def test_beside_a_card_a_failed_download_never_gets_a_torch_that_cannot_use_it(tmp_path: Path):
    """Seen by reading: on Windows one broken download of 3 GB put the processor's torch in its place, and said
    "Ready"."""
    machine = FakeMachine(tmp_path, driver="550.54.14")
    machine.fail_at = "--index-url"
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == "card_torch_failed" and cu(126) in failure.value.values["index"]
    assert len(torch_lines(machine)) == 3 and all("--index-url" in line for line in torch_lines(machine))
    assert machine.environment.marker() is None
    machine.fails = 2
    machine.commands.clear()
    machine.install(machine.why())
    assert machine.environment.marker()["build"] == "cu126" and len(torch_lines(machine)) == 3, "the third try had it"


def test_beside_a_card_an_index_out_of_reach_is_said_before_anything_is_made(tmp_path: Path):
    machine = FakeMachine(tmp_path, "Name or service not known", driver="550.54.14")
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == "card_index_unreachable"
    assert machine.commands == [] and not Path(machine.environment.folder).exists()


def test_an_index_out_of_reach_does_not_stop_an_update_whose_torch_is_there(tmp_path: Path):
    machine = FakeMachine(tmp_path, "Name or service not known", driver="550.54.14")
    packages = Path(machine.environment.folder) / "lib/python3.11/site-packages"
    (packages / "torch-2.13.0+cu126.dist-info").mkdir(parents=True)
    machine.install("changed")
    assert machine.environment.marker()["build"] == "cu126"


def test_a_card_that_appears_without_a_network_does_not_stop_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    machine = FakeMachine(tmp_path)
    machine.install("absent")
    machine.commands.clear()
    machine.facts = machine.facts._replace(driver="550.54.14", nvidia=True, index_problem=lambda url: "timed out")
    monkeypatch.setattr(install, "machine_facts", lambda: machine.facts)
    monkeypatch.setattr(install, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(install, "ask", machine.ask)
    monkeypatch.setattr(install, "LoggedRun", lambda log: machine.run)
    assert install.ensure_environment(machine.environment)
    assert "--repair --cpu" in capsys.readouterr().err and machine.commands == [] and machine.why() == "new_card"
    assert not install.ensure_environment(machine.environment, repair=True), (
        "who asked for it is told that it was not done"
    )


@pytest.mark.parametrize(("system", "index"), [("Linux", CPU), ("Windows", None)])
def test_the_processors_torch_is_had_beside_a_card_by_asking_for_it(tmp_path: Path, system: str, index: str | None):
    machine = FakeMachine(tmp_path, driver="581.29")
    environ = {"LORA_GARAGE_TORCH_INDEX": "cpu"}
    machine.facts = machine.facts._replace(system=system, environ=environ)
    choice = torch_build.choose_torch(system, "x86_64", "581.29", False, environ)
    assert (
        choice.index_url == index
        and torch_build.must_remove("cu130", choice)
        and not torch_build.must_remove("cpu", choice)
    )
    # PyPI's is made for CUDA there, for the processor on Windows
    assert torch_build.must_remove("", choice) is (system == "Linux")
    machine.install("absent")
    assert "torch_cpu_by_you" in machine.said and machine.environment.marker()["build"] == "cpu"
    machine.facts = machine.facts._replace(environ={})
    machine.install("changed")
    assert machine.environment.marker()["build"] == "cpu", "another version of this program does not ask again"
    machine.install("repair")
    assert machine.environment.marker()["build"] in ("pypi", "cu130") and not machine.environment.marker()["cpu"]


def test_repair_with_cpu_is_that_asking(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def ensure(environment: Environment, with_tests: bool, repair: bool) -> bool:
        calls.append((os.environ.get("LORA_GARAGE_TORCH_INDEX"), repair))
        return False

    monkeypatch.setenv("LORA_GARAGE_TORCH_INDEX", "pypi")
    monkeypatch.setattr(main, "ensure_environment", ensure)
    assert main.main(["--repair", "--cpu"]) == 1 and calls == [("cpu", True)]


def test_pip_learns_to_go_on_with_a_download_before_the_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = FakeMachine(tmp_path)
    machine.install("absent")
    first, second, *_ = machine.pip_lines()
    assert "pip>=25.2" in first and "torch" in second
    assert "--progress-bar off" in first and "--progress-bar raw" in second
    monkeypatch.delenv("PIP_RESUME_RETRIES", raising=False)
    script = "import os; print(os.environ['PIP_RESUME_RETRIES'])"
    assert running.LoggedRun(str(tmp_path / "log" / "install.log"))([sys.executable, "-c", script], "step") == 0
    assert (tmp_path / "log" / "install.log").read_text("utf-8").endswith("\n20\n")


def test_an_old_pip_that_stays_is_not_asked_for_what_it_does_not_know(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.fail_at = "pip>=25.2"
    machine.install("absent")
    assert len(machine.pip_lines()) > 2 and not [line for line in machine.pip_lines() if "raw" in line]


def test_a_step_tells_megabytes_and_the_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    pip, output = Progress(), []

    def after(seconds: float, *lines: str) -> str:
        output.extend(lines)
        return pip.describe(output, seconds)

    assert (
        after(
            0,
            "Collecting torch",
            "  Downloading https://x/torch-2.15.0.whl.metadata (31 kB)",
            "Progress 31000 of 31000",
        )
        == "torch"
    )
    assert (
        after(1, "Downloading https://x/torch-2.15.0.whl (900 MB)", "Progress 0 of 900000000")
        == "torch: 0 of 900 MB, ? left"
    )
    assert (
        after(11, *["Progress 99 of 900000000"] * 200, "Progress 100000000 of 900000000")
        == "torch: 100 of 900 MB, 1:20 left"
    )
    assert after(90, "Progress 900000000 of 900000000", "Installing collected packages: torch") == "torch"
    assert after(91, "Downloading sympy-1.14.whl (6.3 MB)") == "sympy", "a pip that tells nothing of how far it is"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 2] No such file or directory: 'C:\\\\x'\nHINT: "
         "This error might "
         "have occurred since this system does not have Windows Long Path support enabled.", "pip_path_too_long"),
        ("ERROR: [WinError 206] Der Dateiname oder die Erweiterung ist zu lang", "pip_path_too_long"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "pip_disk_full"),
        ("OSError: [WinError 112] Es steht nicht genug Speicherplatz auf dem Datenträger zur Verfügung",
            "pip_disk_full"),
    ],
)  # fmt: skip
def test_a_cause_that_no_other_try_mends_is_named_at_once(tmp_path: Path, words: str, key: str):
    machine = FakeMachine(tmp_path, driver="550.54.14")
    Path(machine.environment.folder).mkdir()
    Path(machine.environment.log).write_text("[Errno 28] [WinError 206] of an earlier install", "utf-8")
    machine.fail_at, machine.words = "--index-url", words
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("unfinished")
    assert failure.value.key == key and len(torch_lines(machine)) == 1
    assert "{" not in sentences.say_text(key, **failure.value.values) and key in install.WITH_LOG


WELL_ON_WINDOWS = ("C:\\" + "x" * 95, "AMD64", False, (14, 44, 35211, 0))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({0: "C:\\" + "x" * 96}, ["path"]),  # 98 fit: 259 - 10 for \workspace - 1 - 150 for the longest name in it
        ({0: "C:\\" + "x" * 96, 2: True}, []),
        ({0: "C:\\" + "x" * 96, 2: None}, []),
        ({3: (14, 36, 32532, 0)}, ["runtime"]),  # the one of pytorch issue 169429
        ({3: (14, 40)}, []),
        ({3: ()}, ["runtime"]),
        ({3: None}, []),
        ({0: "C:\\" + "x" * 200, 3: ()}, ["path", "runtime"]),
    ],
)
def test_what_would_end_an_install_on_windows_is_found_before_it(tmp_path: Path, changes: dict, names: list[str]):
    facts = [changes.get(place, value) for place, value in enumerate(WELL_ON_WINDOWS)]
    obstacles = windows_obstacles(*facts)
    assert [obstacle.name for obstacle in obstacles] == names
    machine = FakeMachine(tmp_path)
    machine.facts = machine.facts._replace(obstacles=lambda folder: obstacles)
    if not obstacles:
        return machine.install("absent")
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == obstacles[0].key and machine.commands == []
    for language in sentences.sentences("en"), sentences.sentences("zh"):
        for obstacle in obstacles:
            assert "{" not in (language[obstacle.key] + language[obstacle.fix]).format_map(
                sentences.Forgiving(obstacle.values)
            )


def test_the_doctor_without_an_environment_names_what_would_end_the_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    machine = FakeMachine(tmp_path)
    obstacles = windows_obstacles("C:\\" + "x" * 200, "AMD64", False, ())
    monkeypatch.setattr(doctor, "machine_facts", lambda: machine.facts._replace(obstacles=lambda folder: obstacles))
    assert doctor.doctor(machine.environment, ["--json"]) == 1
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert "203 characters" in findings["path"]["message"]["sentence"] and not findings["path"]["ok"]
    assert "https://aka.ms/vc14/vc_redist.x64.exe" in findings["runtime"]["fix"]["sentence"]


def test_a_full_drive_of_the_temporary_folder_is_found_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """pip unpacks there what it downloads: often the small C: beside a large D: that the program lies on."""
    from collections import namedtuple

    machine, other = FakeMachine(tmp_path, driver="550.54.14"), tmp_path / "temporary"
    other.mkdir()
    real, usage = os.stat, namedtuple("usage", "free")
    stat = namedtuple("stat", "st_dev")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(other))
    monkeypatch.setattr(os, "stat", lambda path, **more: stat(99) if path == str(other) else real(path, **more))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1e9 if folder == str(other) else 50e9))
    with pytest.raises(install.CannotInstall) as failure:
        machine.install("absent")
    assert failure.value.key == "disk_full" and failure.value.values["folder"] == str(other)
    assert failure.value.values["free"] == "1.0" and machine.commands == []


def test_a_cpu_torch_makes_way_when_a_card_appeared(tmp_path: Path):
    """Seen with pip: it is content with 2.13.0+cpu when asked for torch>=2.9 from the CUDA index."""
    machine = FakeMachine(tmp_path)
    machine.install("absent")
    (Path(machine.environment.folder) / "lib/python3.11/site-packages/torch-2.13.0+cpu.dist-info").mkdir(parents=True)
    (Path(machine.environment.folder) / "lib/python3.11/site-packages/torch-2.13.0+cpu.dist-info/RECORD").touch()
    machine.facts = machine.facts._replace(driver="550.54.14", nvidia=True)
    assert machine.why() == "new_card"
    machine.commands.clear()
    machine.install("new_card")
    lines = [line for line in machine.pip_lines() if "pip>=" not in line]
    assert "uninstall" in lines[0] and "torch" in lines[0]
    assert cu(126) in lines[1]


def test_an_environment_killed_before_it_had_pip_is_made_again(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    Path(machine.environment.python).parent.mkdir(parents=True)
    machine.install("unfinished")
    assert any("venv" in command for command in machine.commands)
    assert machine.why() is None


def test_packages_with_files_cut_short_are_installed_again(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.broken = ["peft==0.21.2"]
    machine.install("absent")
    assert any("--force-reinstall" in line and "peft==0.21.2" in line for line in machine.pip_lines())
    assert machine.why() is None


def test_what_a_killed_pip_leaves_is_swept(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    packages = Path(machine.environment.folder) / "lib/python3.11/site-packages"
    for name in ("~orch", "peft-0.21.2.dist-info", "whole-1.0.dist-info"):
        (packages / name).mkdir(parents=True)
    (packages / "whole-1.0.dist-info" / "RECORD").touch()
    machine.environment.write_marker({})
    Path(machine.environment.python).parent.mkdir(parents=True, exist_ok=True)
    Path(machine.environment.python).touch()
    machine.install("unfinished")
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]


def test_debian_without_venv_is_told_the_one_apt_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ensurepip" else real(name, *rest)
    )
    with pytest.raises(install.CannotInstall) as failure:
        FakeMachine(tmp_path).install("absent")
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert failure.value.values["command"] == f"sudo apt install {package}"
    assert install.apt_line(root_user=True) == f"apt install {package}"


def test_an_intel_mac_is_refused_before_anything_is_made(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.facts = machine.facts._replace(system="Darwin", machine="x86_64")
    with pytest.raises(install.CannotInstall):
        machine.install("absent")
    assert machine.commands == []
    assert not Path(machine.environment.folder).exists()


def test_tests_once_installed_are_kept_by_an_update(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.install("absent", with_tests=True)
    machine.install("changed")
    assert machine.why(with_tests=True) is None


def test_adding_the_tests_touches_nothing_else(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    machine.install("absent")
    machine.commands.clear()
    machine.install(machine.why(with_tests=True), with_tests=True)
    (line,) = machine.pip_lines()
    assert "pytest" in line and "torch" not in line
    assert machine.why(with_tests=True) is None
    assert machine.environment.marker()["build"] == "cpu"


def test_a_second_installer_waits_for_the_first(tmp_path: Path):
    with install.one_installer(str(tmp_path)), open(tmp_path / ".install.lock", "a+") as second:
        assert not install.try_lock(second)
    with open(tmp_path / ".install.lock", "a+") as second:
        assert install.try_lock(second)


# ---- words on the command line -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("app", [])),
        (["--port", "7861"], ("app", ["--port", "7861"])),
        (["train", "r.yaml", "--json"], ("train", ["r.yaml", "--json"])),
        (["test", "-k", "launch"], ("test", ["-k", "launch"])),
        (["test", "--full", "-k", "x"], ("test", ["--full", "-k", "x"])),
        (["--help"], ("help", [])),
        (["test", "--changed", "--help"], ("help", [])),  # before anything is installed
        (["--version"], ("version", [])),
        (["trian"], ("unknown", ["trian"])),
    ],
)
def test_what_is_started(arguments: list[str], expected: tuple[str, list[str]]):
    assert main.parse(arguments) == expected


@pytest.mark.parametrize("full", [False, True])
def test_long_forms_wait_for_full(full: bool, tmp_path: Path):
    """With the real hooks, in a pytest of its own."""
    (tmp_path / "test_long.py").write_text(
        "import pytest\n@pytest.mark.full\ndef test_long(full): assert full\ndef test_short(full): print(full)\n",
        "utf-8",
    )
    pytest_of_its_own = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*pytest_of_its_own, "--rootdir", str(tmp_path), str(tmp_path), *(["--full"] if full else [])],
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "LORA_GARAGE_TEST_CACHE": str(tmp_path / "cache")},
    )
    assert ("2 passed" if full else "1 passed, 1 skipped") in done.stdout, done.stdout + done.stderr
    assert full or "python launch.py test --full" in done.stdout


def test_an_unknown_word_is_one_sentence_and_exit_2():
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "trian"], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "train" in done.stderr


@pytest.mark.parametrize(("arguments", "stream"), [(["plan", "--json"], "err"), (["--no-browser"], "out")])
def test_an_install_leaves_the_stdout_of_a_command_alone(arguments: list[str], stream: str, monkeypatch, capsys):
    monkeypatch.setattr(main, "ensure_environment", lambda *a, **k: sentences.say("ready", seconds="1") or False)
    assert main.main(arguments) == 1
    output = capsys.readouterr()
    assert (output.err if stream == "err" else output.out) and not (output.out if stream == "err" else output.err)


def test_packages_beside_the_person_do_not_hide_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    environ = running.child_environ()
    assert environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/theirs"]
    assert environ["PYTHONSAFEPATH"] == "1"


def test_an_older_python_gets_one_sentence():
    """The check stands before anything that it does not know; sys.exit with a string is that sentence on stderr."""
    source = (ROOT / "launch.py").read_text("utf-8")
    program = f"import sys\nsys.version_info = (3, 9, 2)\nexec(compile({source!r}, 'launch.py', 'exec'))"
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "this is Python 3.9" in done.stderr


def test_launch_parses_on_old_pythons():
    import ast

    ast.parse((ROOT / "launch.py").read_text("utf-8"), feature_version=(3, 6))


# ---- uninstall -----------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A folder with all that a start leaves in it, a hub's cache elsewhere, and nobody at a terminal."""
    for name in ("app/.venv/bin/python", "app/.uv/uv", "app/workspace/runs/a/recipe.yaml", "hub/models--a--b/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x" * 10)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("LORA_GARAGE_HOME", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Environment(str(tmp_path / "app"))


def left(environment: Environment) -> set[str]:
    root = Path(environment.root)
    return {path.relative_to(root.parent).as_posix() for path in root.parent.rglob("*") if path.is_file()}


RUN, MODEL = "app/workspace/runs/a/recipe.yaml", "hub/models--a--b/x"


@pytest.mark.parametrize(
    ("words", "stays"),
    [(["--yes"], {RUN, MODEL}), (["--yes", "--workspace"], {MODEL}), (["--models", "--yes"], {RUN})],
)
def test_what_was_installed_goes_and_runs_and_models_only_where_they_are_named(
    installed: Environment, words: list[str], stays: set[str], capsys: pytest.CaptureFixture
) -> None:
    assert uninstall.uninstall(installed, words) == 0 and left(installed) == stays
    output = capsys.readouterr().out
    assert all(name in output for name in (".venv", ".uv", "workspace", "hub"))
    assert uninstall.uninstall(installed, ["--yes"]) == 0 and left(installed) == stays, "a second time there is nothing"


@pytest.mark.parametrize(("words", "sentence"), [([], "--yes"), (["--all"], "“--all”")])
def test_nothing_is_removed_unasked_or_by_a_word_that_is_none(
    installed: Environment, words: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    before = left(installed)
    assert (
        uninstall.uninstall(installed, words) == 2 and sentence in capsys.readouterr().err and left(installed) == before
    )


def test_an_environment_in_use_is_left_whole(
    installed: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = left(installed)

    def refused(*paths: str) -> None:
        raise PermissionError(13, "used by another process")

    monkeypatch.setattr(os, "rename", refused)
    assert uninstall.uninstall(installed, ["--yes"]) == 1 and left(installed) == before
    assert "used by another process" in capsys.readouterr().err
    rename = os.replace
    monkeypatch.setattr(os, "rename", lambda old, new: refused() if old.endswith(".venv") else rename(old, new))
    assert uninstall.uninstall(installed, ["--workspace", "--yes"]) == 1, "what is in use keeps nothing else"
    assert os.path.isdir(os.path.join(installed.root, ".venv")) and not os.path.exists(
        os.path.join(installed.root, "workspace")
    )


@pytest.mark.parametrize(("name", "below"), [("HF_HOME", ""), ("XDG_CACHE_HOME", "huggingface")])
def test_the_hubs_cache_is_found_where_its_library_keeps_it(
    installed: Environment, name: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path / "moved"))
    model = tmp_path / "moved" / below / "hub" / "x"
    model.parent.mkdir(parents=True)
    model.write_text("x")
    assert uninstall.uninstall(installed, ["--models", "--yes"]) == 0 and not model.exists()


@pytest.mark.skipif(os.name == "nt", reason="a link needs a right there that users have not")
def test_a_link_to_an_environment_goes_and_what_it_leads_to_stays(installed: Environment, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    Path(installed.folder).rename(elsewhere)
    Path(installed.folder).symlink_to(elsewhere, target_is_directory=True)
    assert uninstall.uninstall(installed, ["--yes"]) == 0
    assert not os.path.lexists(installed.folder) and (elsewhere / "bin" / "python").is_file()


# ---- doctor without an environment, browser, sentences -------------------------------------------


def copy_of_the_launcher(folder: Path) -> None:
    locales = ("core/locales/en/launch.yaml", "core/locales/zh/launch.yaml")
    for name in ("launch.py", *LAUNCHER, "pyproject.toml", "constraints.txt", *locales, "core/system/windows.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text((ROOT / name).read_text("utf-8"), "utf-8", newline="\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_doctor_works_without_an_environment_and_makes_none(tmp_path: Path, as_json: bool):
    copy_of_the_launcher(tmp_path)
    command = [sys.executable, str(tmp_path / "launch.py"), "doctor", *(["--json"] if as_json else [])]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / ".venv").exists()
    if as_json:
        answer = json.loads(done.stdout)
        findings = {finding["name"]: finding for finding in answer["findings"]}
        assert answer["version"] == __version__
        assert findings["environment"]["fix"]["sentence"] == "Run: python launch.py"
    else:
        assert done.stdout.startswith(f"LoRA Garage {__version__}\n") and "!! " in done.stdout


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("code_page", ["gbk", "cp1252"])
def test_what_goes_into_a_pipe_is_utf_8_whatever_the_code_page(tmp_path: Path, code_page: str, as_json: bool):
    """launch.py's part of a log was in the code page, with "?" for what that lacks, and the rest of it in UTF-8."""
    place = tmp_path / "Zürich – LoRA Übung 中"
    copy_of_the_launcher(place)
    command = [sys.executable, str(place / "launch.py"), "doctor", *(["--json"] if as_json else [])]
    output = subprocess.run(
        command, capture_output=True, env=os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": code_page}
    ).stdout
    if as_json:
        assert output.isascii(), "a terminal may read it as anything"
        output = json.dumps(json.loads(output), ensure_ascii=False).encode()
    assert place.name in output.decode("utf-8")


def test_the_first_browser_that_starts_is_taken():
    installed = {"chromium": "/usr/bin/chromium", "chromium-browser": "/snap/bin/chromium"}
    assert developers.find_browser(installed.get, lambda path: path == "/snap/bin/chromium") == "/snap/bin/chromium"
    assert developers.find_browser(lambda name: None, lambda path: False) is None


def test_both_languages_have_the_same_sentences_with_the_same_values():
    english, chinese = sentences.sentences("en"), sentences.sentences("zh")
    assert english.keys() == chinese.keys()
    for key in english:
        fields = [{name for _, name, _, _ in string.Formatter().parse(s[key]) if name} for s in (english, chinese)]
        assert fields[0] == fields[1], key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_catalogue_read_without_yaml_is_what_yaml_reads(language: str):
    import yaml

    file = ROOT / "core" / "locales" / language / "launch.yaml"
    assert sentences.sentences(language) == yaml.safe_load(file.read_text("utf-8"))


def test_the_release_has_the_launchers_sentences_in_every_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """German was packed as a whole: start.sh spoke English, and launch.py on a German Windows ended with a
    traceback."""
    from core.messages import LANGUAGES, Catalogue
    from tools import release

    core = ROOT / "core"
    names = [*core.glob("locales/**/*.yaml"), *(core / f"{name}.py" for name in ("__init__", "messages", "values"))]
    released = release.with_catalogues_together({str(file.relative_to(ROOT).as_posix()): file.read_bytes()
                                                 for file in names})  # fmt: skip
    for name, content in released.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    code = "from core.messages import LANGUAGES, core_catalogue as c; print([(n, len(c().keys(n))) for n in LANGUAGES])"
    output = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    ours = Catalogue(core / "locales")
    assert output.stdout.strip() == str([(language, len(ours.keys(language))) for language in LANGUAGES])
    expected = {language: sentences.sentences(language) for language in LANGUAGES}
    assert "\nstart:\n" in (tmp_path / "core" / "locales" / "de.yaml").read_text("utf-8"), "as start.sh reads it"
    monkeypatch.setattr(sentences, "LOCALES", os.fspath(tmp_path / "core" / "locales"))
    assert {language: sentences.sentences(language) for language in LANGUAGES} == expected
    monkeypatch.setenv("LORA_GARAGE_LANG", "de")
    assert sentences.language() == "de"


def test_every_sentence_is_used_and_every_used_one_is_there():
    source = "".join((ROOT / file).read_text("utf-8") for file in LAUNCHER)
    for key in sentences.sentences("en"):
        assert f'"{key}"' in source or key.startswith(("because_", "build_")), key
    for key in re.findall(r'(?:say|say_text|CannotInstall)\("(\w+)"', source):
        assert key in sentences.sentences("en") or key in ("because_", "build_"), key


def test_all_tests_run_side_by_side_and_chosen_ones_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert developers.side_by_side([])[:2] == ["-n", "2"]
    assert developers.side_by_side(["--full", "-q"])[:2] == ["-n", "2"]
    for chosen in (["tests/test_x.py"], ["-k", "stop"], ["-n", "4"], ["-n0"]):
        assert developers.side_by_side(chosen) == []
