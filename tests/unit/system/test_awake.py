"""This PC stays awake while something works and no longer, by each system's own request. The systems are played."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from core.messages import Message
from core.presets import PROJECT
from core.system import awake
from core.system.awake import KeepAwake
from core.system.processes import worker_environment
from tests.kit.awake import HOLDS, REFUSES, REFUSES_SLEEP, WATCHES, Program
from tests.kit.waits import wait_until

Told = namedtuple("Told", "percent secsleft power_plugged")  # of psutil, its battery
KEPT, FREE = 0x80000001, 0x80000000  # winbase.h: ES_CONTINUOUS | ES_SYSTEM_REQUIRED, ES_CONTINUOUS


@pytest.fixture(autouse=True)
def no_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)


class Said(list[Message]):
    @property
    def keys(self) -> list[str]:
        return [message.key.removeprefix("awake.") for message in self]


def test_windows_is_asked_by_one_thread_that_takes_it_back_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request belongs to the thread that made it, and ends with it."""
    calls: list[tuple[int, int]] = []

    def state(flags: int) -> int:
        calls.append((flags, threading.get_ident()))
        return FREE

    monkeypatch.setattr(
        ctypes, "windll", SimpleNamespace(kernel32=SimpleNamespace(SetThreadExecutionState=state)), raising=False
    )
    sentences = Said()
    with KeepAwake(lambda: True, sentences.append, lambda: awake.hold("Windows"), 0.01):
        wait_until(lambda: sentences)
    assert [flags for flags, _ in calls] == [KEPT, FREE] and len({thread for _, thread in calls}) == 1
    assert calls[0][1] != threading.get_ident() and sentences.keys == ["held"]


def test_a_windows_that_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(SetThreadExecutionState=lambda flags: 0)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert awake.hold("Windows").key == "awake.refused"


def test_systemd_is_asked_while_the_work_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, sentences = Program("systemd-inhibit", HOLDS, tmp_path, monkeypatch), Said()
    with KeepAwake(lambda: True, sentences.append, lambda: awake.hold("Linux")):
        wait_until(lambda: sentences)
        assert program.runs and sentences.keys == ["held"]
        assert program.asked[:3] == ["--what=idle:sleep", "--mode=block", "--who=LoRA Garage"]
    assert not program.runs


def test_a_killed_process_leaves_the_pc_to_sleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program("systemd-inhibit", HOLDS, tmp_path, monkeypatch)
    work = (
        "import sys; from core.system.awake import KeepAwake, hold\n"
        "with KeepAwake(lambda: True, lambda said: print(said.key, flush=True), lambda: hold('Linux')): "
        "sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", work], cwd=PROJECT, env=worker_environment(), text=True, **pipes
    ) as process:
        assert process.stdout.readline() == "awake.held\n" and program.runs
        process.kill()
        process.wait()
        wait_until(lambda: not program.runs)


def test_macos_is_asked_to_watch_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, sentences = Program("caffeinate", WATCHES, tmp_path, monkeypatch), Said()
    with KeepAwake(lambda: True, sentences.append, lambda: awake.hold("Darwin")):
        wait_until(lambda: sentences and program.asked)
        assert program.asked == ["-i", "-w", str(os.getpid())] and sentences.keys == ["held"]
    assert not program.runs


def test_a_refusal_is_said_without_the_systems_english_keeps_it_and_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, sentences, looks = Program("systemd-inhibit", REFUSES, tmp_path, monkeypatch), Said(), []
    with KeepAwake(lambda: looks.append(1) or True, sentences.append, lambda: awake.hold("Linux"), 0.01):
        wait_until(lambda: len(looks) > 4)
    assert (
        sentences.keys == ["refused"]
        and "Access denied" in sentences[0].params["reason"]
        and "Access" not in sentences[0].render("zh")
    )
    assert program.asked == ["again", "again"], "once for each way"


def test_where_sleep_may_not_be_held_the_idle_pc_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program("systemd-inhibit", REFUSES_SLEEP, tmp_path, monkeypatch)
    held = awake.hold("Linux")
    assert callable(held) and program.runs and program.asked[0] == "--what=idle"
    held()
    assert not program.runs


@pytest.mark.parametrize(("system", "key"), [("Linux", "no_program"), ("Darwin", "no_program"), ("WSL", "wsl")])
def test_where_it_cannot_be_asked_the_setting_says_so(
    system: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert awake.hold(system) == awake.can_hold(system) and awake.can_hold(system).key == f"awake.{key}"


def test_a_battery_that_runs_low_and_the_setting_let_it_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back on its charger, and with the setting on again, it is held again."""
    states, is_wanted, sentences, held = [Told(90, 9, False)], [True], Said(), []

    def ask() -> awake.Release:
        held.append(True)
        return held.clear

    monkeypatch.setattr(psutil, "sensors_battery", lambda: states[0], raising=False)
    with KeepAwake(lambda: is_wanted[0], sentences.append, ask, 0.01):
        for battery, wish, key in (
            (Told(90, 9, False), True, "held"), (Told(12.4, 9, False), True, "battery"), (Told(12.4, 9, True), True,
                "held"),
            (Told(80, 9, True), False, "unwanted"), (Told(80, 9, True), True, "held"),
        ):  # fmt: skip
            states[0], is_wanted[0] = battery, wish
            wait_until(lambda key=key: sentences and sentences.keys[-1] == key)
            assert bool(held) is (key == "held")
    assert not held and sentences.keys == ["held", "battery", "held", "unwanted", "held"]
    assert "12 %" in str(sentences[1])


def test_a_disk_that_takes_no_word_does_not_let_the_pc_fall_asleep() -> None:
    held, looks = [], []

    def say(message: Message) -> None:
        raise OSError(28, "No space left on device")

    with KeepAwake(lambda: looks.append(1) or True, say, lambda: held.append(True) or held.clear, 0.01):
        wait_until(lambda: len(looks) > 3)
        assert held
