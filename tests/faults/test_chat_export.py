"""The chat and the export under the faults that a training run has: killed, out of memory, models and adapters that
went away or are damaged, a full disk. Real workers on a tiny model; an earlier export is never touched by one that
fails."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from core.chat.answer import Piece, Sampling
from core.chat.client import ChatClient, ChatTarget
from core.errors import BusyError, ChatError, GarageError, ModelError
from core.export import jobs
from core.export.exports import ExportJob, Exports
from core.export.records import ExportStatus
from core.messages import msg
from core.queue.supervisor import spawn_worker
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system.processes import worker_environment
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.faults import fake_worker
from tests.faults.forking import Forker, Trial
from tests.faults.runs import SEED, real_recipe
from tests.faults.table import FaultTable
from tests.kit.waits import PATIENCE, wait_until

pytestmark = pytest.mark.slow
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
LOAD_S = 120.0 * PATIENCE
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "another file": lambda whole: b"<html>" + whole,
}


@dataclass
class Place:
    workspace: Workspace
    model: Path  # a copy of the tiny model that may go away
    run: RunFolder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Place:
    """A workspace with one run that was really trained."""
    root = tmp_path_factory.mktemp("chat-export")
    library = root / "library"
    shutil.copytree(tiny_model, library / "tiny")
    (root / "ws").mkdir()
    (root / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(library)]}), "utf-8")
    workspace = Workspace.open(root / "ws")
    run = Runs(workspace).create(real_recipe(), "command")
    assert spawn_worker(workspace, run).wait(600) == 0, run.log_tail()
    run.add_facts(RunFacts(probe_rows=run.facts().probe_rows[:2]))  # of its own rows, as many as a proof needs here
    return Place(workspace, library / "tiny", run)


@pytest.fixture
def client(place: Place) -> Iterator[ChatClient]:
    client = ChatClient(place.workspace)
    yield client
    client.unload()


def target(place: Place, adapter: Path | None = None) -> ChatTarget:
    return ChatTarget("library:tiny", adapter=adapter, label="Tiny")


def ready(client: ChatClient, place: Place, adapter: Path | None = None) -> ChatClient:
    client.load(target(place, adapter))
    client.wait_ready(LOAD_S)
    return client


def answer(client: ChatClient, tuned: bool = False) -> str:
    items = list(client.ask(QUESTION, QUESTION if tuned else None, Sampling(max_new_tokens=6)))
    return "".join(item.text for item in items if isinstance(item, Piece))


def run_instead(monkeypatch: pytest.MonkeyPatch, module: str, before: str) -> None:
    """The next workers of module run `before` first: the fault is in their process, and nothing of ours knows of it."""
    real = subprocess.Popen

    def popen(command: list[str], **settings: object) -> subprocess.Popen:
        if module in command:
            rest = command[command.index(module) + 1 :]
            command = [command[0], "-m", "tests.faults.instead", module, before, *rest]
        return real(command, **settings)

    monkeypatch.setattr(subprocess, "Popen", popen)


OUT_OF_MEMORY = {
    "python": "MemoryError()",
    "torch": (
        "RuntimeError(\"[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you "
        'tried to allocate 9")'
    ),
    "the card": "type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried to allocate 20.00 MiB')",
}

WHOSE = ["torch", *(pytest.param(whose, marks=pytest.mark.full) for whose in OUT_OF_MEMORY if whose != "torch")]


# ---- chat ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", WHOSE)
def test_a_load_that_runs_out_of_memory_says_so_and_keeps_nothing(
    whose: str, client: ChatClient, place: Place, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    with monkeypatch.context() as patch:
        fails = f"def load(*a, **k): raise {OUT_OF_MEMORY[whose]}"
        run_instead(patch, "core.chat.chat_worker", f"import core.engine.base_model as base\n{fails}\nbase.load = load")
        client.load(target(place))
        with pytest.raises(ChatError) as raised:
            client.wait_ready(LOAD_S)
    assert raised.value.message.key == "chat.out_of_memory"
    wait_until(lambda: not lease.is_held(place.workspace), 20)
    assert answer(ready(client, place))
    faults.add("out of memory while it loads", "chat")


def test_an_answer_that_runs_out_of_memory_says_so_and_the_next_one_works(
    client: ChatClient, place: Place, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    before = (
        "import core.chat.duel as duel\nreal, asked = duel.Duel.answer_all, []\n"
        "def answer(*a):\n asked.append(1)\n if len(asked) == 1: raise MemoryError()\n return real(*a)\n"
        "duel.Duel.answer_all = answer"
    )
    run_instead(monkeypatch, "core.chat.chat_worker", before)
    ready(client, place, place.run.adapter)
    with pytest.raises(ChatError) as raised:
        answer(client)
    assert raised.value.message.key == "chat.out_of_memory" and client.state().phase == "ready"
    assert answer(client, tuned=True)
    faults.add("out of memory while it answers", "chat")


def test_a_base_that_was_deleted_is_named_and_a_chat_that_has_it_goes_on(
    client: ChatClient, place: Place, faults: FaultTable
) -> None:
    ready(client, place)
    first = answer(client)
    away = place.model.with_name("away")
    place.model.rename(away)
    try:
        assert answer(client) == first, "what is loaded is loaded"
        client.unload()
        client.load(target(place))
        with pytest.raises(ChatError, match="tiny") as raised:
            client.wait_ready(LOAD_S)
        assert raised.value.message.key == "model.not_in_library"
    finally:
        away.rename(place.model)
    assert answer(ready(client, place)) == first
    faults.add("base model deleted, before and after it was loaded", "chat", 2)


def test_damaged_and_foreign_adapters_are_refused_in_a_sentence_and_the_next_works(
    client: ChatClient, place: Place, tmp_path: Path, faults: FaultTable
) -> None:
    for number, (name, damage) in enumerate(DAMAGE.items()):
        folder = tmp_path / f"adapter{number}"
        shutil.copytree(place.run.adapter, folder)
        file = folder / "adapter_model.safetensors"
        file.write_bytes(damage(file.read_bytes()))
        client.load(target(place, folder))
        with pytest.raises(ChatError, match="damaged"):
            client.wait_ready(LOAD_S)
        faults.add(f"adapter damaged: {name}", "chat")
    assert answer(ready(client, place, place.run.adapter), tuned=True)


def test_killed_while_it_loads_or_answers_it_is_said_and_the_next_load_works(
    client: ChatClient, place: Place, faults: FaultTable
) -> None:
    for stage in ("waiting", "loading_libraries", "answering"):
        if stage == "answering":
            ready(client, place)
            # more than it writes until it is killed, and no more than it may
            longest = client.state().context_limit // 2
            writing = iter(
                client.ask(QUESTION, None, Sampling(max_new_tokens=longest, do_sample=True, temperature=1.5))
            )
            assert isinstance(next(writing), Piece)
        else:
            client.load(target(place))
            wait_until(lambda s=stage: client.state().stage == s or client.state().phase != "loading", 120)
        client._worker.process.kill()
        state = wait_until(lambda: client.state().phase == "failed" and client.state(), 30)
        assert state.message.key == ("chat.worker_died" if os.name == "nt" else "chat.worker_killed"), (
            "Windows tells of no signal"
        )
        assert "chat.log" in str(state.advice)
        if stage == "answering":
            with pytest.raises(ChatError):
                list(writing)
        wait_until(lambda: not lease.is_held(place.workspace), 20)
    assert answer(ready(client, place))
    faults.add("SIGKILL while it starts, loads, answers", "chat", 3)


def test_a_chat_that_died_in_the_middle_of_a_line_does_not_leave_its_page_waiting(
    place: Place, client: ChatClient, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """The thread that reads the events died of the half line, and the page showed "loading" for ever."""
    half = 'import os\nos.write(1, b\'{"event": "loading", "load": 1, "sta\')\nos._exit(9)'
    run_instead(monkeypatch, "core.chat.chat_worker", half)
    client.load(target(place))
    wait_until(lambda: client.state().phase == "failed", 30)
    faults.add("half a line of output, then the process dies", "chat")


def test_a_chat_whose_app_died_in_the_middle_of_a_line_gives_the_device_back(place: Place, faults: FaultTable) -> None:
    """It held it for half an hour: the thread that would have noticed died of the half line."""
    command = [
        sys.executable,
        "-m",
        "core.chat.chat_worker",
        "--workspace",
        str(place.workspace.root),
        "--idle-minutes",
        "30",
    ]
    worker = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=worker_environment(),
    )
    load = {
        "command": "load",
        "load": 1,
        "model_id": "library:tiny",
        "revision": None,
        "adapter": None,
        "four_bit": False,
    }
    worker.stdin.write(json.dumps(load | {"doing": msg("x").model_dump()}).encode() + b"\n" + b'{"command": "as')
    worker.stdin.flush()
    worker.communicate(timeout=60)
    assert not lease.is_held(place.workspace)
    faults.add("the app dies in the middle of a command", "chat")


def test_while_a_run_trains_the_chat_is_refused_by_name_and_the_run_goes_on(
    place: Place, client: ChatClient, faults: FaultTable
) -> None:
    run = Runs(place.workspace).create(
        fake_worker.recipe(100_000, 10), "command", RunFacts.from_json({"script": {"step_s": 0.01}})
    )
    worker = fake_worker.spawn(place.workspace, run)
    try:
        wait_until(lambda: run.status().step > 3, 60)
        client.load(target(place))
        with pytest.raises(ChatError, match="Scripted"):
            client.wait_ready(LOAD_S)
        step = run.status().step
        wait_until(lambda: run.status().step > step, 30)
        run.request("stop")
        assert worker.wait(60) == 3
    finally:
        worker.kill()
        worker.wait()
        shutil.rmtree(run.path)
    faults.add("a chat is requested during training", "chat")


# ---- export --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with Forker("export") as forker:
        yield forker


@pytest.fixture(scope="module")
def gguf_forker() -> Iterator[Forker]:
    with Forker("gguf") as forker:
        yield forker


def ask(exports: Exports, run: RunFolder, kind: str, quant: str | None) -> Path:
    """As Exports.start, but for the process; returns its request."""
    start, jobs.start_worker = jobs.start_worker, lambda *asked, **where: None
    try:
        return exports.start(run, kind, quant).job.path / "request.json"
    finally:
        jobs.start_worker = start


def ask_name(exporting: Exporting) -> str:
    return exporting.exports.request(exporting.place.run, exporting.kind, exporting.quant).name


class Exporting:
    """Exports of one kind, each by a forked worker."""

    def __init__(self, place: Place, forker: Forker, kind: str, quant: str | None = None):
        self.place, self.forker, self.kind, self.quant = place, forker, kind, quant
        self.exports = Exports(place.workspace)

    def run(self, **fault: object) -> Trial:
        return self.forker.run(
            self.place.workspace.root, str(ask(self.exports, self.place.run, self.kind, self.quant)), **fault
        )

    def finished(self) -> dict[str, bytes] | None:
        """All files of the finished export as pages find it, but for its own record; None where there is none."""
        results = [
            result for result in Exports(self.place.workspace).list(self.place.run.id) if result.kind == self.kind
        ]
        if not results:
            return None
        folder = self.exports.folder(results[0])
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert set(names) == set(results[0].files) | {"export.json"}, "half an export"
        return {name: (folder / name).read_bytes() for name in names if name != "export.json"}

    def status(self) -> ExportStatus:
        return self.exports._job(ask_name(self)).status()

    def a_minute_later(self) -> None:
        """One that was killed before it could say "running" says "starting", and the process here is a forked one."""
        status = self.status()
        if status.state == "starting":
            self.exports._job(ask_name(self)).write(status.model_copy(update={"since": 0.0}))

    def delete(self) -> None:
        for result in self.exports.list(self.place.run.id):
            self.exports.delete(result)

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.place.workspace.exports.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("earlier", [False, True], ids=["the first", "replacing an earlier one"])
@pytest.mark.parametrize("act", ["kill", "full"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks workers: POSIX only")
def test_an_export_that_is_killed_or_finds_the_disk_full_leaves_the_earlier_one_or_none_and_works_again(
    act: str, earlier: bool, place: Place, forker: Forker, full: bool, faults: FaultTable
) -> None:
    meets_faults(Exporting(place, forker, "merged"), act, earlier, full, faults)


@pytest.mark.parametrize("act", ["kill", "full"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks workers: POSIX only")
def test_a_gguf_file_that_is_killed_or_finds_the_disk_full_leaves_the_earlier_one_or_none_and_works_again(
    act: str, place: Place, gguf_forker: Forker, full: bool, faults: FaultTable
) -> None:
    """What llama.cpp writes is written by a script in the worker itself, so that each of its files is an operation
    too."""
    meets_faults(Exporting(place, gguf_forker, "gguf", "q4_k_m"), act, True, full, faults)


def meets_faults(exporting: Exporting, act: str, earlier: bool, full: bool, faults: FaultTable) -> None:
    exporting.delete()
    trial = exporting.run()
    assert trial.code == 0, exporting.status()
    before = exporting.finished()
    every = len(trial.done)
    # The last operations are those in which the new one takes the place of the earlier.
    chosen = (
        range(1, every + 3)
        if full
        else sorted({*random.Random(SEED).sample(range(1, every), 2), *range(every - 6, every + 1)})
    )
    if not full and exporting.quant:
        chosen = chosen[:2]
    elif not full and (act == "full" or not earlier):  # each of the last ones is for the place of an earlier one
        chosen = chosen[::3]
    for nth in chosen:
        if not earlier:
            exporting.delete()
        trial = exporting.run(nth=nth, act=act)
        assert trial.code in ((-9, 0) if act == "kill" else (1, 0))
        result = exporting.finished()
        assert result == before or (result is None and not earlier), (nth, trial.done[-2:])
        exporting.a_minute_later()
        # A program that another thread was just starting (systemd-inhibit) has the lock until it is that program.
        wait_until(lambda: not exporting.status().active, 30)
        if trial.code == 1:
            key = exporting.status().message.key
            assert key in ("export.disk_full", "export.went_away"), key
    assert exporting.run().code == 0, exporting.status()
    assert exporting.finished() == before and exporting.folders() == [exporting.exports.list()[0].name]
    assert not list(exporting.place.workspace.exports.glob(".jobs/*/.*")), (
        "one that was killed as it wrote its status left a part of it"
    )
    what = "SIGKILL before a disk operation" if act == "kill" else "disk full at a disk operation, once"
    kind = "" if exporting.kind == "merged" else f" as {exporting.kind}"
    faults.add(what, f"export{kind}, {'replacing an earlier one' if earlier else 'the first'}", len(chosen))


def test_an_export_whose_process_dies_at_once_does_not_say_starting_for_a_minute(
    place: Place, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    exports = Exports(place.workspace)
    with monkeypatch.context() as patch:
        run_instead(patch, "core.export.export_worker", "import os\nos._exit(9)")
        job = exports.start(place.run, "adapter")
        job.process.wait()
    assert job.status().message.key == "export.went_away"
    faults.add("its process dies before its first word", "export")


@pytest.mark.parametrize("whose", WHOSE)
def test_an_export_that_runs_out_of_memory_says_so(
    whose: str, place: Place, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """The next one may be asked for at once, though the process of this one is slow to leave."""
    exports = Exports(place.workspace)
    before = (
        f"import time\nimport core.export.merge as merge\ndef fails(*a, **k): raise {OUT_OF_MEMORY[whose]}\n"
        f"merge.merge = fails\n"
        "from core.export.jobs import JobFolder\nwrite = JobFolder.write\n"
        "JobFolder.write = lambda self, status: (write(self, status), status.active or time.sleep(1))"
    )
    with monkeypatch.context() as patch:
        run_instead(patch, "core.export.export_worker", before)
        status = exports.start(place.run, "merged").wait(LOAD_S)
        assert (status.state, status.message.key) == ("failed", "export.out_of_memory")
        run_instead(patch, "core.export.export_worker", "import os\nos._exit(9)")
        next_one = exports.start(place.run, "merged")
        next_one.process.wait()
        (next_one.job.path / "status.json").unlink()
    assert not lease.is_held(place.workspace)
    faults.add("out of memory while it merges", "export")


def test_an_export_without_its_base_or_with_a_damaged_adapter_is_one_sentence(
    place: Place, tmp_path: Path, faults: FaultTable
) -> None:
    exports = Exports(place.workspace)
    away = place.model.with_name("away")
    place.model.rename(away)
    try:
        status = exports.start(place.run, "merged").wait(LOAD_S)
        assert (status.state, status.message.key) == ("failed", "model.not_in_library")
    finally:
        away.rename(place.model)
    faults.add("base model deleted", "export")
    file = place.run.adapter / "adapter_model.safetensors"
    content = file.read_bytes()
    try:
        for name, damage in DAMAGE.items():
            file.write_bytes(damage(content))
            with pytest.raises(ModelError, match="damaged"):
                exports.start(place.run, "merged")
            faults.add(f"adapter damaged: {name}", "export")
    finally:
        file.write_bytes(content)


def test_an_adapter_of_another_base_is_not_exported(place: Place, faults: FaultTable) -> None:
    """Its shapes do not fit the base that the recipe names."""
    from safetensors.torch import load, save_file

    run = Runs(place.workspace).create(place.run.recipe(), "command")
    for state in (State.PREPARING, State.RUNNING, State.COMPLETED):
        run.write_status(run.status().model_copy(update={"state": state}))
    shutil.copytree(place.run.adapter, run.adapter)
    file = run.adapter / "adapter_model.safetensors"
    smaller = {name: w[:, :-4].contiguous() if "lora_A" in name else w for name, w in load(file.read_bytes()).items()}
    save_file(smaller, file)
    try:
        status = Exports(place.workspace).start(run, "merged").wait(LOAD_S)
        assert (status.state, status.message.key) == ("failed", "adapter.other_base"), status
        assert Exports(place.workspace).list(run.id) == []
    finally:
        shutil.rmtree(run.path)
    faults.add("adapter for another base", "export")


def unending(pid: Path, full: bool = False) -> str:
    """For run_instead: llama.cpp's tools are there, and its converter is tests/faults/unending."""
    return (
        "from pathlib import Path\nimport core.export.llamacpp.tools as tools\nimport core.export.llamacpp.child as "
        "child\nreal = child.ask\n"
        f"more = {{'pid': {str(pid)!r}, 'full': {full}}}\ntools.obtain = lambda *a: tools.Tools(Path(), Path())\n"
        "child.ask = lambda module, asked, *rest: real('tests.faults.unending', asked | more, *rest)"
    )


@pytest.mark.parametrize("how", ["killed", "cancelled"])
def test_llama_cpp_ends_with_the_export_that_started_it_and_leaves_nothing_half_made(
    how: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """Of a worker that was killed its converter went on for minutes, with a model in memory that nobody knew of."""
    exports, pid = Exports(place.workspace), tmp_path / "pid"
    name = exports.request(place.run, "gguf", "q4_k_m").name
    earlier = place.workspace.exports / name
    earlier.mkdir(exist_ok=True)  # another test may have made the same export
    (earlier / "export.json").write_text("{}", "utf-8")
    run_instead(monkeypatch, "core.export.export_worker", unending(pid))
    try:
        job = exports.start(place.run, "gguf", "q4_k_m")
        theirs = psutil.Process(int(wait_until(lambda: pid.exists() and pid.read_text("utf-8"), LOAD_S)))
        wait_until(lambda: job.status().stage == "converting_gguf" and list(job.job.build.rglob("*.gguf")))
        if how == "killed":
            job.process.kill()
            job.process.wait()
            wait_until(lambda: job.status().message == msg("export.went_away"))
        else:
            assert exports.cancel(job.request.name).state == "cancelled"
        theirs.wait(30)
        Exports(place.workspace)  # as the app does when it is started again
        assert not job.job.build.exists() and (earlier / "export.json").read_text("utf-8") == "{}"
        wait_until(lambda: not lease.is_held(place.workspace))
    finally:
        shutil.rmtree(earlier)
    faults.add(f"{how} while llama.cpp converts", "export")


def test_a_disk_that_is_full_for_llama_cpp_is_said_as_for_us(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """It was "llama.cpp ended without an answer"."""
    run_instead(monkeypatch, "core.export.export_worker", unending(tmp_path / "pid", full=True))
    job = Exports(place.workspace).start(place.run, "gguf", "q4_k_m")
    status = job.wait(LOAD_S)
    assert (status.state, status.message.key) == ("failed", "export.disk_full"), status
    assert not job.job.build.exists()
    faults.add("disk full while llama.cpp converts", "export")


def begun(place: Place) -> ExportJob | None:
    """None while the process of the export before this one, which has said how it ended, is still about to go."""
    try:
        return Exports(place.workspace).start(place.run, "merged")
    except BusyError:
        return None


def test_an_export_beside_a_training_run_names_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    with lease.hold(place.workspace, msg("lease.training", name="pirates")):
        started = time.monotonic()
        status = wait_until(lambda: begun(place)).wait(LOAD_S)
        assert status.busy and "pirates" in str(status.message)
        assert time.monotonic() - started < LOAD_S
    with pytest.raises(GarageError):
        Exports(place.workspace).start(place.run, "nothing")
    faults.add("an export is requested during training", "export")
