"""Workers by fork: a process that has read torch once, and forks what the product would start as a process of its own.

    python -m tests.kit.warm FD        FD: one end of a socket pair; Popen holds the other one

`Popen` stands in subprocess.Popen's place (the fixture `warm`): a command `python -m MODULE` of MODULES is forked, with the
arguments, environment, folder and files that the product gave it; everything else is started as ever. A worker then takes
what it does, not the seconds in which Python reads torch. What a spawn itself is to show is marked `spawn` and gets a real one.
Linux and macOS only. Asked, one message each: {"argv", "env", "cwd"} with three files -> {"pid"}; {"code": pid} -> {"code": int | null}.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

MODULES = ("core.training.worker", "core.chat.worker", "core.export.worker", "core.trial.dry_run_worker", "core.trial.pace_probe")
READ_EARLY = ("HF_", "TRANSFORMERS_", "OMP_", "MKL_", "GOMP_", "LD_", "TORCH_")  # libraries read these when they are imported
MOST = 1 << 20  # bytes of a message
ROOM = "." * 4000  # in the server's command line, for that of its children
POLL_S = 0.01


class Warm:
    """The asking side: one server, for all threads of a test process."""

    def __init__(self, environment: Mapping[str, str]):
        self.environment = dict(environment)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._guard = threading.Lock()
        command = [sys.executable, "-m", "tests.kit.warm", str(theirs.fileno()), ROOM]
        self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=self.environment, start_new_session=True)
        theirs.close()

    def takes(self, environment: Mapping[str, str] | None) -> bool:
        """Whether libraries would have read the same settings; None: this process's own environment."""
        given = os.environ if environment is None else environment
        early = {name for name in {*given, *self.environment} if name.startswith(READ_EARLY)}
        return all(given.get(name) == self.environment.get(name) for name in early)

    def ask(self, message: dict[str, Any], files: tuple[int, ...] = ()) -> dict[str, Any]:
        with self._guard:
            socket.send_fds(self._socket, [json.dumps(message).encode()], files)
            answer = self._socket.recv(MOST)
        assert answer, "the warm process is gone"
        return json.loads(answer)

    def close(self) -> None:
        self._socket.close()
        self._server.wait(30)


class Popen(subprocess.Popen):
    """subprocess.Popen, but a command that `warm` takes is forked by it."""

    warm: Warm | None = None  # of this test process; made when the first worker is asked for
    environment: Mapping[str, str] = {}  # that it is made with

    def __init__(self, args: Any, *rest: Any, **options: Any):
        self._forked = not rest and self._takes(args, options.get("env"))
        if not self._forked:
            super().__init__(args, *rest, **options)
            return
        self.args, self.returncode, self.encoding, self.errors, self.text_mode = args, None, None, None, False
        self._child_created, self._communication_started, self._input = False, False, None  # nothing for the base class to reap
        self.stdin = self.stdout = self.stderr = None
        ours: list[int] = []
        files = [self._file(place, options.get(name), ours) for place, name in enumerate(("stdin", "stdout", "stderr"))]
        if files[2] == subprocess.STDOUT:
            files[2] = files[1]
        environment = dict(os.environ if options.get("env") is None else options["env"])
        asked = {"argv": list(args[2:]), "env": environment, "cwd": str(options.get("cwd") or os.getcwd())}
        self.pid = self.warm.ask(asked, tuple(files))["pid"]
        for each in ours:
            os.close(each)

    def _takes(self, command: Any, environment: Mapping[str, str] | None) -> bool:
        if not isinstance(command, list) or list(command[:2]) != [sys.executable, "-m"] or command[2] not in MODULES:
            return False
        if Popen.warm is None:
            Popen.warm = Warm(Popen.environment)
        return self.warm.takes(environment)

    def _file(self, place: int, wanted: Any, ours: list[int]) -> int:
        """A descriptor for the child; ours: those to close once it has them."""
        if wanted is None or wanted == subprocess.STDOUT:
            return place if wanted is None else wanted
        if wanted == subprocess.DEVNULL:
            ours.append(os.open(os.devnull, os.O_RDWR))
            return ours[-1]
        if wanted == subprocess.PIPE:
            reads, writes = os.pipe()
            if place == 0:
                self.stdin = os.fdopen(writes, "wb", -1)
            else:
                setattr(self, ("", "stdout", "stderr")[place], os.fdopen(reads, "rb", -1))
            ours.append(reads if place == 0 else writes)
            return ours[-1]
        return wanted if isinstance(wanted, int) else wanted.fileno()

    def poll(self) -> int | None:
        if not self._forked:
            return super().poll()
        if self.returncode is None:
            self.returncode = self.warm.ask({"code": self.pid})["code"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._forked:
            return super().wait(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(POLL_S)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if not self._forked:
            super().send_signal(sig)
        elif self.poll() is None:
            os.kill(self.pid, sig)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        if not self._forked:
            return super().communicate(input, timeout)
        if self.stdin:
            self.stdin.close()
        said = {}
        readers = [
            threading.Thread(target=lambda name=name, file=file: said.update({name: file.read()}), daemon=True)
            for name, file in (("out", self.stdout), ("err", self.stderr))
            if file
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said.get("out"), said.get("err")

    def __exit__(self, *exception: Any) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            if file:
                file.close()
        self.wait()

    def __del__(self, *arguments: Any) -> None:
        if not self._forked:
            super().__del__(*arguments)


# ---- the process that forks -------------------------------------------------------------------------------------------


def main() -> None:
    asks = socket.socket(fileno=int(sys.argv[1]))
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from core.chat import duel  # noqa: F401
    from core.data import store  # noqa: F401
    from core.export import merge, proof  # noqa: F401
    from core.models import library  # noqa: F401
    from core.training import trainer  # noqa: F401

    codes: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: reap(codes))
    while True:
        said, files, _, _ = receive(asks)
        if not said:
            return
        asked = json.loads(said)
        if "code" in asked:
            reap(codes)
            asks.send(json.dumps({"code": codes.get(asked["code"])}).encode())
            continue
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            asks.close()
            child(asked, list(files))
        for file in files:
            os.close(file)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        asks.send(json.dumps({"pid": pid}).encode())


def receive(asks: socket.socket) -> tuple[bytes, array.array, int, Any]:
    while True:
        try:
            said, files, flags, address = socket.recv_fds(asks, MOST, 3)
            return said, array.array("i", files), flags, address
        except InterruptedError:
            continue


def reap(codes: dict[int, int]) -> None:
    """At once, so that nobody takes a process that has ended for one that lives."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        codes[pid] = os.waitstatus_to_exitcode(status)


def call_yourself(command: list[str]) -> None:
    """What this process's command line is for others: who looks for a worker by its run's id finds it. Linux."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # the third field is the first of these (man 5 proc)
    start, end = int(fields[45]), int(fields[46])
    raw = b"".join(part.encode() + b"\0" for part in command)
    if len(raw) < end - start:
        ctypes.memmove(start, raw.ljust(end - start, b"\0"), end - start)


def child(asked: dict[str, Any], files: list[int]) -> None:
    """As `python -m MODULE`: its end is the process's. Never returns."""
    import atexit
    import random
    import runpy

    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for place, file in enumerate(files):
            os.dup2(file, place)
        for file in files:
            if file > 2:
                os.close(file)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        random.seed()
        sys.argv = list(asked["argv"])
        call_yourself([sys.executable, "-m", *sys.argv])
        try:
            runpy.run_module(asked["argv"][0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as over:
            code = over.code if isinstance(over.code, int) else 0 if over.code is None else 1
        threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 - as Python itself: a traceback and exit status 1
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
