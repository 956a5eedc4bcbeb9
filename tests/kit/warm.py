"""Processes by fork: a server that has read the libraries once, and forks what would be started as a process of its
own.

    python -m tests.kit.warm KIND ADDRESS       KIND: one of KINDS; ADDRESS: the path of the Unix socket it listens at

`Popen` stands in subprocess.Popen's place (the fixture `forked`): a command `python -m MODULE` of KINDS is forked, with
the arguments, environment, folder and files that it was given; everything else is started as ever. A worker then takes
what it does, not the seconds in which Python reads torch; an app or a command is there without the second in which it
reads its libraries, and forks its workers in the same way. What a spawn itself is to show is marked `spawn` and gets a
real one. Linux and macOS only, and only without a card (`may_fork`). A server ends when its standard input does. Asked,
one message each: {"argv", "env", "cwd", "servers"} with three files -> {"pid", "number"}; {"code": number} -> {"code":
int | null}.
"""

from __future__ import annotations

import array
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.messages import core_catalogue
from core.models.known import known_models
from core.system import cores, gpu

KINDS = {
    "torch": (
        "core.training.worker", "core.training.ranks.rank_process",
        "core.chat.chat_worker",
        "core.export.export_worker", "core.export.combine_worker", "core.trial.dry_run_worker",
        "core.export.llamacpp.convert", "core.export.llamacpp.library", "core.export.llamacpp.questions",
        "tests.faults.fake_worker", "tests.faults.forking", "tests.faults.instead", "tests.kit.pretended",
    ),
    "web": ("webui", "tests.kit.hostile_app", "tests.kit.endless_base"),
    "commands": ("core.commands", "core.data.large.dataset_worker"),
}  # fmt: skip
# What libraries read as they load; "HF_" is read again (read_hub_again). An app sets gradio's, which its workers do not
# know.
READ_EARLY = ("TRANSFORMERS_", "OMP_", "MKL_", "GOMP_", "LD_", "TORCH_", "PYTORCH_")
READ_EARLY_BY_PAGES = (*READ_EARLY, "GRADIO_")
CONVERTER = "core.export.llamacpp.convert"  # which has a gguf of its own, llama.cpp's
# tokens a second that an app is told at once: a page shows it whatever it is (the measurement: tests/model/test_pace)
MOST = 1 << 20  # bytes of a message
# for what is forked here: a worker that comes after every other test's processes is late on two cores
# (tests/unit/system/test_cores)
cores.NICENESS = 0
ROOM = "." * 4000  # in a server's command line, for that of its children
POLL_S = 0.01
START_S = 120.0


def may_fork() -> bool:
    """Return whether this PC can fork processes and has no card: importing bitsandbytes initializes CUDA, which no
    forked process can use after that."""
    return hasattr(os, "fork") and not gpu.probe().cards


def kind_of(command: Any) -> str | None:
    if not isinstance(command, list) or list(command[:2]) != [sys.executable, "-m"]:
        return None
    return next((kind for kind, modules in KINDS.items() if command[2] in modules), None)


class Warm:
    """This process's connection to one server, for all its threads."""

    def __init__(self, address: str, environment: Mapping[str, str]):
        self.address, self.environment = address, dict(environment)
        self._guard = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end = time.monotonic() + START_S
        while True:
            try:
                self._socket.connect(address)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end, f"no server at {address}"
                time.sleep(POLL_S)

    def takes(self, module: str, environment: Mapping[str, str] | None) -> bool:
        """Return whether the server read its libraries with the same settings; environment None: this process's own."""
        given = os.environ if environment is None else environment
        read = READ_EARLY_BY_PAGES if module in KINDS["web"] else READ_EARLY
        early = {name for name in {*given, *self.environment} if name.startswith(read)}
        return all(given.get(name) == self.environment.get(name) for name in early)

    def ask(self, message: dict[str, Any], files: tuple[int, ...] = ()) -> dict[str, Any]:
        with self._guard:
            return self._asked(message, files)

    def _asked(self, message: dict[str, Any], files: tuple[int, ...] = ()) -> dict[str, Any]:
        socket.send_fds(self._socket, [json.dumps(message).encode()], files)
        answer = self._socket.recv(MOST)
        assert answer, "the warm process is gone"
        return json.loads(answer)

    def code(self, number: int) -> int | None:
        """Return the exit status of a forked process, None while it runs. After `close` nobody can tell: it counts as
        running, as a worker does that lives on."""
        with self._guard:
            return None if self._socket.fileno() < 0 else self._asked({"code": number})["code"]

    def close(self) -> None:
        with self._guard:
            self._socket.close()


class Servers:
    """A server of each kind, started when first used; `environments`: the environment of each. Forked processes get the
    addresses."""

    def __init__(self, environments: Mapping[str, Mapping[str, str]]):
        self.environments = environments
        self._folder = tempfile.mkdtemp(prefix="warm")
        self._begun: dict[str, subprocess.Popen] = {}
        self._warm: dict[str, Warm] = {}
        self._guard = threading.Lock()

    def begin(self, kind: str) -> str:
        """Start the server of a kind if there is none, and return its address; it may still be reading its
        libraries."""
        address = str(Path(self._folder, kind))
        with self._guard:
            if kind not in self._begun:
                command = [sys.executable, "-m", "tests.kit.warm", kind, address, ROOM]
                self._begun[kind] = Popen.__base__(
                    command, stdin=subprocess.PIPE, env=dict(self.environments[kind]), start_new_session=True
                )
        return address

    def get(self, kind: str) -> Warm:
        address = self.begin(kind)
        with self._guard:
            if kind not in self._warm:
                self._warm[kind] = Warm(address, self.environments[kind])
            return self._warm[kind]

    def close(self) -> None:
        for warm in self._warm.values():
            warm.close()
        for server in self._begun.values():
            server.stdin.close()
            server.kill()  # it may still read its libraries; what it has forked lives on
            server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Elsewhere:
    """The servers of another process, by their addresses: for an app that was forked, and for each process of xdist."""

    def __init__(self, addresses: Mapping[str, str], environments: Mapping[str, Mapping[str, str]]):
        self.addresses, self.environments = addresses, environments
        self._warm: dict[str, Warm] = {}
        self._guard = threading.Lock()

    def begin(self, kind: str) -> str:
        return self.addresses[kind]

    def get(self, kind: str) -> Warm:
        with self._guard:
            if kind not in self._warm:
                self._warm[kind] = Warm(self.addresses[kind], self.environments[kind])
            return self._warm[kind]


class Popen(subprocess.Popen):
    """subprocess.Popen, but a command that one of `servers` takes is forked by it."""

    servers: Servers | Elsewhere

    def __init__(self, args: Any, *rest: Any, **options: Any):
        kind = None if rest else kind_of(args)
        self.warm = self.servers.get(kind) if kind else None
        self._forked = self.warm is not None and self.warm.takes(args[2], options.get("env"))
        if not self._forked:
            super().__init__(args, *rest, **options)
            return
        self.args, self.returncode, self.encoding, self.errors, self.text_mode = args, None, None, None, False
        # nothing for the base class to reap
        self._child_created, self._communication_started, self._input = False, False, None
        self.stdin = self.stdout = self.stderr = None
        if any(options.get(name) for name in ("text", "encoding", "errors", "universal_newlines")):
            self.encoding, self.errors, self.text_mode = options.get("encoding") or "utf-8", options.get("errors"), True
        ours: list[int] = []
        files = [self._file(place, options.get(name), ours) for place, name in enumerate(("stdin", "stdout", "stderr"))]
        if files[2] == subprocess.STDOUT:
            files[2] = files[1]
        environment = dict(os.environ if options.get("env") is None else options["env"])
        asked = {"argv": list(args[2:]), "env": environment, "cwd": str(options.get("cwd") or os.getcwd())}
        if kind != "torch":
            asked["servers"] = [
                {"torch": self.servers.begin("torch")},
                {"torch": dict(self.servers.environments["torch"])},
            ]
        told = self.warm.ask(asked, tuple(files))
        self.pid, self._number = told["pid"], told["number"]
        for each in ours:
            os.close(each)

    def _file(self, place: int, wanted: Any, ours: list[int]) -> int:
        """Return a descriptor for the child. ours: collects those to close once it has them."""
        if wanted is None or wanted == subprocess.STDOUT:
            return place if wanted is None else wanted
        if wanted == subprocess.DEVNULL:
            ours.append(os.open(os.devnull, os.O_RDWR))
            return ours[-1]
        if wanted == subprocess.PIPE:
            reads, writes = os.pipe()
            mode = {"encoding": self.encoding, "errors": self.errors} if self.text_mode else {}
            if place == 0:
                self.stdin = os.fdopen(writes, "w" if mode else "wb", **mode)
            else:
                setattr(self, ("", "stdout", "stderr")[place], os.fdopen(reads, "r" if mode else "rb", **mode))
            ours.append(reads if place == 0 else writes)
            return ours[-1]
        return wanted if isinstance(wanted, int) else wanted.fileno()

    def poll(self) -> int | None:
        if not self._forked:
            return super().poll()
        if self.returncode is None:
            self.returncode = self.warm.code(self._number)
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
            with suppress(ProcessLookupError):  # it has ended just now, as in the base class
                os.kill(self.pid, sig)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        if not self._forked:
            return super().communicate(input, timeout)
        if self.stdin:
            if input:
                self.stdin.write(input)
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


# ---- the process that forks ----------------------------------------------------------------------


def read_libraries(kind: str) -> None:
    core_catalogue()
    known_models()
    import pandas  # noqa: F401 - both are read as pyarrow makes its first array
    import pyarrow.pandas_compat  # noqa: F401

    os.fsync = no_fsync
    if kind == "commands":
        import core.commands.__main__  # noqa: F401

        del sys.modules["core.commands.__main__"]  # it is run, not imported
        return
    if kind == "web":
        import webui.__main__
        import webui.app
        import webui.state.services  # noqa: F401

        del sys.modules["webui.__main__"]
        return
    from core.engine import device

    device.read_bitsandbytes()
    import peft
    import peft.utils.transformers_weight_conversion
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from core.chat import duel  # noqa: F401
    from core.data import store  # noqa: F401
    from core.export import merge, verification  # noqa: F401
    from core.models import library  # noqa: F401
    from core.runs.cards import model_card  # noqa: F401
    from core.training import tokenizing, trainer  # noqa: F401
    from core.training.memory import probe  # noqa: F401
    from core.training.ranks import step  # noqa: F401
    from core.trial import dry_run  # noqa: F401

    if peft.import_utils.is_bnb_available():
        import peft.tuners.lora.bnb  # noqa: F401 - as it finds the first adapter


def no_fsync(file: Any) -> None:
    """Replaces os.fsync by nothing: a save that waits for the disk takes four milliseconds, a run of eight steps makes
    160. A kill leaves the same files; their order is tested by tests/faults, whose own process has the real one."""


def main() -> None:
    kind, address = sys.argv[1:3]
    gc.disable()
    read_libraries(kind)
    gc.enable()
    # what is forked shares the libraries' pages, which a collection would write to, and looks through its own objects
    # alone
    gc.freeze()
    listens = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listens.bind(address)
    listens.listen(64)
    children = Children()
    signal.signal(signal.SIGCHLD, lambda *_: children.reap())
    waits = selectors.DefaultSelector()
    waits.register(listens, selectors.EVENT_READ)
    waits.register(sys.stdin.buffer, selectors.EVENT_READ)
    asking: set[socket.socket] = set()
    while True:
        for key, _ in waits.select():
            if key.fileobj is sys.stdin.buffer:
                return
            if key.fileobj is listens:
                one, _ = listens.accept()
                asking.add(one)
                waits.register(one, selectors.EVENT_READ)
            elif not answer(key.fileobj, children, [listens, *asking]):
                waits.unregister(key.fileobj)
                asking.discard(key.fileobj)
                key.fileobj.close()


class Children:
    """The processes forked here, each by a number of its own: pids are given again, here after 32,768 others, and an
    old one's exit status would be a new one's."""

    def __init__(self) -> None:
        self._alive: dict[int, int] = {}  # pid -> number
        self._codes: list[int | None] = []

    def add(self, pid: int) -> int:
        """Return the number of a new process. SIGCHLD is blocked since the fork."""
        self._alive[pid] = len(self._codes)
        self._codes.append(None)
        return self._alive[pid]

    def code(self, number: int) -> int | None:
        return self._codes[number]

    def reap(self) -> None:
        """Note the exit status of every process that has ended, at once, so that none of them still looks alive."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._codes[self._alive.pop(pid)] = os.waitstatus_to_exitcode(status)


def answer(asks: socket.socket, children: Children, ours: list[socket.socket]) -> bool:
    """Answer one message; False when that connection is closed. ours: sockets that a forked process closes."""
    try:
        said, files, _, _ = receive(asks)
        if not said:
            return False
        asked = json.loads(said)
        if "code" in asked:
            children.reap()
            asks.send(json.dumps({"code": children.code(asked["code"])}).encode())
            return True
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            for each in ours:
                each.close()
            child(asked, list(files))
        number = children.add(pid)
        for file in files:
            os.close(file)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        asks.send(json.dumps({"pid": pid, "number": number}).encode())
        return True
    except ConnectionError:
        return False


def receive(asks: socket.socket) -> tuple[bytes, array.array, int, Any]:
    while True:
        try:
            said, files, flags, address = socket.recv_fds(asks, MOST, 3)
            return said, array.array("i", files), flags, address
        except InterruptedError:
            continue


def read_hub_again() -> None:
    """Read HF_ variables again (which hub, where its files lie): reload huggingface_hub's constants, and replace the
    copies that other modules have taken."""
    import importlib

    hub = sys.modules.get("huggingface_hub.constants")
    if hub is None:
        return
    before = {name: value for name, value in vars(hub).items() if name.isupper()}
    importlib.reload(hub)
    changed = {name: value for name, value in before.items() if getattr(hub, name) != value}
    if changed:
        home, now = before["HF_HOME"], hub.HF_HOME
        for module in [*sys.modules.values()]:
            for name, value in [*vars(module).items()] if isinstance(module, types.ModuleType) else ():
                if name in changed and value == changed[name]:
                    setattr(module, name, getattr(hub, name))
                elif type(value) is str and value.startswith(
                    home + os.sep
                ):  # made of it: where transformers keeps a model's modules
                    setattr(module, name, now + value.removeprefix(home))


def call_yourself(command: list[str]) -> None:
    """Write command over this process's command line, by which others find a worker with its run's id. Linux."""
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
    """Run as `python -m MODULE`, and end the process with its exit status. Never returns."""
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
        tempfile.tempdir = None
        read_hub_again()
        os.chdir(asked["cwd"])
        random.seed()
        sys.argv = list(asked["argv"])
        if sys.argv[0] == CONVERTER:
            for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
                del sys.modules[name]
        if "servers" in asked:
            Popen.servers = Elsewhere(*asked["servers"])
            subprocess.Popen = Popen
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
