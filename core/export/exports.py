"""Take it home: the adapter, a merged 16-bit folder, or a GGUF file with an Ollama Modelfile, each proven before it counts.

What an export is and how to ask for one; the work is done by `core.export.worker` in a process of its own. No torch.

    <workspace>/exports/
      <run-id>[-<checkpoint>]-<kind>[-<quant>]/    complete, or not there
        export.json                                 an ExportResult, written last
      .jobs/<the same name>/                        the newest attempt
        request.json, control.json                  written by whoever asks
        status.json, export.log, build/             written by the worker, which holds job.lock while it lives

An export that does not prove itself is removed, unless it was asked to be kept: then its name ends in "-unproven".
A crash leaves a job folder whose lock is free; the next start clears it, and a finished export is never touched by it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from core import files
from core.errors import BusyError, ExportError
from core.export.llamacpp import lora_kinds, tools
from core.files import writing
from core.messages import Message, msg
from core.models import adapters
from core.runs import process as run_process
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.system import path_length
from core.system.processes import kill_tree, start_worker
from core.values import Frozen
from core.workspace import names
from core.workspace.folder import Workspace

ExportKind = Literal["adapter", "merged", "gguf", "gguf-lora"]
# What can be asked for; ollama is gguf: both come with a Modelfile. lmstudio is gguf too, and the file is then given to LM Studio.
KINDS: dict[str, ExportKind] = {"adapter": "adapter", "merged": "merged", "gguf": "gguf", "ollama": "gguf", "lmstudio": "gguf",
                                "gguf-lora": "gguf-lora"}  # fmt: skip
QUANTS = ("q4_k_m", "q5_k_m", "q6_k", "q8_0", "f16", "bf16")
# How the name of a file begins that holds what a model sees or hears by; LM Studio and llama.cpp know it by that.
MMPROJ = "mmproj-"
WITHOUT_TOOLS = "q8_0"  # what is written where llama.cpp's tools cannot be had
GGUF_KINDS = ("gguf", "gguf-lora")
MOST_STRENGTH = 4.0
LONGEST_MERGED = "out/model-00001-of-00004.safetensors"
State = Literal["starting", "running", "done", "failed", "cancelled"]
# From the spawn to the first status of the worker: imports, on a slow disk.
START_S = 60.0
CANCEL_S = 5.0
# In build/, with what its name has beyond the job's: an earlier export, for the instant in which the new one takes its place. No
# folder here has the name of the export once more: paths of more than 260 characters are refused by many programs on Windows.
REPLACED = "replaced"
# Stages of the worker's own; the others (a model being fetched) have their sentence under `stage.`.
STAGES = frozenset({"starting", "copying", "copying_base", "fetching_tools", "merging", "writing_gguf", "comparing", "proving_adapter", "proving_export",
                    "layers_of_adapter", "layers_of_export", "publishing", "asking_hub", "sending", "committing", "converting_gguf", "unpacking_gguf", "quantising", "asking_llamacpp"})  # fmt: skip


class ExportRequest(Frozen):
    """What is asked of the worker: request.json."""

    v: int = 1
    workspace: str
    run: str
    kind: ExportKind
    quant: str | None = None
    checkpoint: str | None = None
    keep_unproven: bool = False
    strength: float = 1.0
    base_gguf: str | None = None  # of a LoRA in GGUF: the person's own file of the base, which it is to go with

    @property
    def name(self) -> str:
        """The folder's name. A checkpoint is part of it, so that it never replaces the export of the whole run; so is a strength."""
        strength = f"x{self.strength:g}" if self.strength != 1 else None
        return "-".join(filter(None, (self.run, self.checkpoint, self.kind, self.quant, strength)))


class Difference(Frozen):
    """A prompt whose greedy answers, or first tokens, are not the same."""

    prompt: str
    adapter: str
    export: str
    first_token_equal: bool


Proof = Literal["bytes", "whole", "layers", "llamacpp"]


class ExportCheck(Frozen):
    """What the proof found (core.export.proof says which there are). Losses in nats, of the export and of the adapter on the
    same 16-bit base: mean over all answer tokens, and over all tokens of the same rows (`text`), where damage shows that answers
    learned by heart hide. None where nothing was asked: an adapter, and answers that had to be written first."""

    proof: Proof = "whole"
    tensors: int = 0  # compared one by one; 0 in what was exported before there was such a comparison
    tensors_off: tuple[str, ...] = ()
    mean_loss_adapter: float | None = None
    mean_loss_export: float | None = None
    mean_text_loss_adapter: float | None = None
    mean_text_loss_export: float | None = None
    first_tokens_equal: int | None = None
    prompts_read_alike: int  # the export's own tokenizer and template give the training's token ids
    prompts: int
    own_prompts: bool  # rows of the run's data; else built-in questions
    passed: bool
    differences: tuple[Difference, ...] = ()
    compute: str = ""  # device and dtype of both sides, or the build of llama.cpp
    quant: str | None = (
        None  # of a proof in llama.cpp; with it the mean divergence (nats) of the file from the 16-bit file that it was
    )
    divergence: float | None = None  # made of, and of that one from the adapter
    divergence_16: float | None = None
    reasons: tuple[Message, ...] = ()  # why a proof in llama.cpp failed

    @property
    def found(self) -> Message:
        """Which proof was made and what it found, without the verdict."""
        if self.proof == "llamacpp":
            return msg("export.found", found=self._found_in_llamacpp())
        parts = []
        if self.tensors:
            key = "export.found_copy" if self.proof == "bytes" else "export.found_tensors"
            parts.append(msg(key, right=max(0, self.tensors - len(self.tensors_off)), tensors=self.tensors))
        if self.mean_loss_adapter is not None:
            losses = {"export": loss_text(self.mean_loss_export), "adapter": loss_text(self.mean_loss_adapter)}
            parts.append(msg("export.found_losses", **losses))
        if self.first_tokens_equal is not None:
            parts.append(msg("export.found_words", equal=self.first_tokens_equal, prompts=self.prompts))
        if self.proof == "layers":
            parts.append(msg("export.found_by_layer"))
        elif self.proof == "whole":
            key = "export.found_difference" if len(self.differences) == 1 else "export.found_differences"
            parts.append(msg(key, different=len(self.differences)))
        return msg("export.found", found=parts)

    @property
    def type_text(self) -> str:
        return {"lora": "LoRA"}.get(self.quant or "", (self.quant or "").upper())

    def _found_in_llamacpp(self) -> list[Message]:
        """ "Q4_K_M: 19 of 20 first words as the adapter's; loss 0.04 higher"."""
        more = more_loss(self)
        values = {"quant": self.type_text, "equal": self.first_tokens_equal, "prompts": self.prompts}
        parts = [msg("gguf.found_words", **values)]
        parts.append(msg("gguf.found_higher" if more >= 0 else "gguf.found_lower", loss=f"{abs(more):.2f}"))
        if self.tensors:
            parts.append(msg("export.found_tensors", right=max(0, self.tensors - len(self.tensors_off)), tensors=self.tensors))
        return [*parts, msg("gguf.found_where", compute=self.compute)]


def more_loss(check: ExportCheck) -> float:
    """Of a proof in llama.cpp: how much higher its loss is than the adapter's, on the answers where there are any."""
    if check.mean_loss_adapter is not None and check.mean_loss_export is not None:
        return check.mean_loss_export - check.mean_loss_adapter
    return (check.mean_text_loss_export or 0.0) - (check.mean_text_loss_adapter or 0.0)


def loss_text(loss: float | None) -> str:
    return "?" if loss is None else f"{loss:.3f}"


class ExportResult(Frozen):
    """export.json of a finished export."""

    v: int = 1
    name: str
    run: str
    run_name: str
    kind: ExportKind
    quant: str | None = None
    checkpoint: str | None = None
    strength: float = 1.0
    base: str
    dtype: str
    files: dict[str, int]  # name: bytes
    check: ExportCheck
    notes: tuple[Message, ...] = ()
    ollama_name: str | None = None
    created: float
    seconds: float
    phases: tuple[tuple[str, float], ...] = ()  # stages in their order, with their seconds

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def gguf(self) -> str:
        """The file that a program opens, "" where there is none; what the model sees by lies beside it."""
        return next((name for name in self.files if name.endswith(".gguf") and not name.startswith(MMPROJ)), "")

    @property
    def mmproj(self) -> str:
        return next((name for name in self.files if name.startswith(MMPROJ)), "")


class ExportStatus(Frozen):
    """status.json: how far an export is. fraction: of this stage, or None where it cannot be told; phase: which stage that is, from 0, and
    phase_since when it began."""

    v: int = 1
    state: State = "starting"
    stage: str = "starting"
    fraction: float | None = None
    message: Message | None = None
    busy: bool = False  # failed only because somebody else holds the device
    check: ExportCheck | None = None  # the numbers, also of a proof that failed
    pid: int | None = None
    since: float = 0.0
    phase: int = 0
    phase_since: float = 0.0
    awake: Message | None = None  # whether this PC may fall asleep under it

    @property
    def active(self) -> bool:
        return self.state in ("starting", "running")

    @property
    def stage_text(self) -> Message:
        return Message(key=f"export.stage_{self.stage}" if self.stage in STAGES else f"stage.{self.stage}")


GONE = {"state": "failed", "message": msg("export.went_away")}


@dataclass(frozen=True)
class JobFolder:
    path: Path

    @property
    def build(self) -> Path:
        return self.path / "build"

    def lock(self) -> FileLock:
        return FileLock(self.path / "job.lock")

    def is_locked(self) -> bool:
        file = self.path / "job.lock"
        try:
            return files.is_locked(file)
        except OSError:  # it cannot be opened
            return file.exists()

    def status(self, process: subprocess.Popen[bytes] | None = None) -> ExportStatus | None:
        """As it really is: one that says it is at work while nobody holds its lock went away without a word.

        process: of its worker, where it was started here, so that one which died at once is not "starting" for a minute.
        """
        status, is_over = self._written(), process is not None and process.poll() is not None
        if status and status.active and not self.is_locked():
            status = self._written() or status  # it may have ended between the two looks
            waited = abs(time.time() - status.since)  # the PC's clock may have been put back
            if status.state == "running" or (status.active and (is_over if process else waited > START_S)):
                return status.model_copy(update=self._gone())
        return status

    def _gone(self) -> dict[str, Any]:
        """A disk that is full to its last byte takes no last word either."""
        free = files.free_when_full(self.path)
        return GONE if free is None else GONE | {"message": msg("export.went_away_full", folder=self.path, free_mb=free // 10**6)}

    def is_at_work(self) -> bool:
        return self.is_locked() or ((status := self.status()) is not None and status.active)

    def _written(self) -> ExportStatus | None:
        return files.read_model(ExportStatus, self.path / "status.json")

    def write(self, status: ExportStatus) -> None:
        files.replace(self.path / "status.json", status.model_dump_json(indent=1) + "\n")

    def ask_cancel(self) -> None:
        with writing(self.path):
            files.replace_json(self.path / "control.json", {"command": "cancel"})

    def cancel_asked(self) -> bool:
        return (self.path / "control.json").exists()

    def end(self, process: subprocess.Popen[bytes] | None, cancelled: Message) -> ExportStatus | None:
        """Ask, wait, kill; what Windows refuses to delete even then is said, and goes with the next job. Takes CANCEL_S and a moment at most."""
        if not (status := self.status(process)) or not status.active:
            return status
        self.ask_cancel()
        deadline = time.monotonic() + CANCEL_S
        while (status := self.status(process)) and status.active and time.monotonic() < deadline:
            time.sleep(0.1)
        if status is None:
            return None
        while self.is_locked() and time.monotonic() < deadline:  # Windows deletes what it has mapped only once it has ended
            time.sleep(0.05)
        if process and process.poll() is None and (status.active or self.is_locked()):
            kill_tree(process.pid)
        elif status.pid and self.is_locked():
            kill_tree(status.pid)
        if status.active:
            status = status.model_copy(update={"state": "cancelled", "message": cancelled})
            self.write(status)
        if not self.is_at_work() and not self.clear(files.MOMENT_S) and status.state == "cancelled":
            status = status.model_copy(update={"message": msg("export.cancelled_left", folder=self.build)})
            self.write(status)
        return status

    def clear(self, patience_s: float = 0.0) -> bool:
        """Whether all that was half made is gone: Windows deletes no file that a process which is just ending has mapped, or a
        scanner open."""
        self.bring_back()
        is_gone = files.remove_tree(self.build, patience_s)
        (self.path / "control.json").unlink(missing_ok=True)
        return is_gone

    def bring_back(self) -> None:
        """An earlier export that was put aside by one which was killed before it took its place."""
        exports = self.path.parent.parent
        found = {old: self.path.name + old.name.removeprefix(REPLACED) for old in self.build.glob(f"{REPLACED}*")}
        if inner := [file.parent for file in (self.build / REPLACED).glob("*/export.json")]:  # as earlier versions put it aside
            del found[self.build / REPLACED]
            found |= {old: old.name for old in inner}
        for old, name in found.items():
            if not (exports / name).exists():
                files.rename(old, exports / name)


@dataclass(frozen=True)
class ExportJob:
    """An export at work. `folder` is where it will be when it is done."""

    request: ExportRequest
    folder: Path
    job: JobFolder
    process: subprocess.Popen[bytes]

    def status(self) -> ExportStatus:
        is_over = self.process.poll() is not None
        return self.job.status(self.process) or ExportStatus().model_copy(update=GONE if is_over else {})

    def wait(self, timeout_s: float | None = None, on_status: Callable[[ExportStatus], None] | None = None) -> ExportStatus:
        """The status once it is over, or after timeout_s."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.status()).active and (deadline is None or time.monotonic() < deadline):
            if on_status:
                on_status(status)
            time.sleep(0.1)
        return status


class Exports:
    """All exports of a workspace: asking for one, its progress, what there is.

    before_start is called before a worker starts: what else is on the device gives it up there.
    """

    def __init__(self, workspace: Workspace, runs: Runs | None = None, before_start: Callable[[], None] = lambda: None):
        self.workspace, self.runs, self._before_start = workspace, runs or Runs(workspace), before_start
        self._started: dict[str, subprocess.Popen[bytes]] = {}  # by name
        self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """What a worker that was killed left, or could not delete on Windows."""
        for job in (self.workspace.exports / ".jobs").glob("*"):
            folder = JobFolder(job)
            with contextlib.suppress(OSError):  # a file that is none of ours, or one that is open elsewhere
                if not folder.is_at_work():
                    folder.clear()
                    for half in job.glob(".*.tmp-*"):  # of core.files.replace
                        half.unlink(missing_ok=True)

    def start(
        self,
        run: RunFolder,
        to: str,
        quant: str | None = None,
        checkpoint: str | None = None,
        keep_unproven: bool = False,
        strength: float = 1.0,
        base_gguf: Path | None = None,
    ) -> ExportJob:
        """Begin an export in a child process. Raises ExportError for what cannot be, BusyError while it is at work."""
        request = self.request(run, to, quant, checkpoint, keep_unproven, strength, base_gguf)
        job = self._job(request.name)
        longest = f"out/{MMPROJ}{names.slug(run.name)}-q4_k_m.gguf" if request.kind in GGUF_KINDS else LONGEST_MERGED
        path_length.refuse(job.build, ExportError, len(longest))
        with writing(self.workspace.exports):
            job.path.mkdir(parents=True, exist_ok=True)
        status = job.status(self._started.get(request.name))
        if job.is_locked() or (status and status.active):
            raise BusyError("export.already_running", name=run.name, kind=request.kind)
        self._clear_leftovers()
        with writing(job.path):
            job.clear()
            files.replace(job.path / "request.json", request.model_dump_json(indent=1))
            job.write(ExportStatus(since=time.time()))
            try:
                self._started[request.name] = process = self._spawn(job, run)
            except OSError:
                (job.path / "status.json").unlink(missing_ok=True)  # else it would be "starting" for a minute
                raise
        return ExportJob(request, self.workspace.exports / request.name, job, process)

    def _spawn(self, job: JobFolder, run: RunFolder) -> subprocess.Popen[bytes]:
        self._before_start()
        request, environment = str(job.path / "request.json"), run_process.environment_nearest(run.facts().wanted_device)
        (job.path / "export.log").write_bytes(b"")
        with open(job.path / "export.log", "ab") as log:  # llama.cpp's processes write into it too
            return start_worker("core.export.worker", request, log=log, cwd=self.workspace.root, **environment)

    def request(
        self,
        run: RunFolder,
        to: str,
        quant: str | None = None,
        checkpoint: str | None = None,
        keep_unproven: bool = False,
        strength: float = 1.0,
        base_gguf: Path | None = None,
    ) -> ExportRequest:
        """What a person asks for as what the worker needs. Raises ExportError, RunError or ModelError."""
        if to not in KINDS:
            raise ExportError("export.unknown_target", found=str(to)[:40], there=list(KINDS))
        kind = KINDS[to]
        if quant is not None and (kind not in GGUF_KINDS or quant not in QUANTS):
            raise ExportError("export.unknown_quant", found=str(quant)[:40], there=list(QUANTS))
        folder = adapter_folder(run, checkpoint)
        adapters.describe(folder)
        adapters.check_whole(folder)
        if not 0 < strength <= MOST_STRENGTH:
            raise ExportError("export.strength", found=f"{strength:g}", most=f"{MOST_STRENGTH:g}")
        if base_gguf is not None and (kind != "gguf-lora" or quant is not None):
            raise ExportError("export.base_gguf")
        if kind == "gguf-lora":
            lora_kinds.refuse(folder, {})
            if reason := tools.why_none(self.workspace):
                raise ExportError("gguf.lora_needs_tools", reason=reason)
        return ExportRequest(
            workspace=str(self.workspace.root),
            run=run.id,
            kind=kind,
            quant=(quant or self.usual_quant()) if kind == "gguf" else quant,
            checkpoint=checkpoint,
            keep_unproven=keep_unproven,
            strength=strength,
            base_gguf=str(base_gguf.absolute()) if base_gguf else None,
        )

    def usual_quant(self) -> str:
        """What a GGUF file is written in where nothing was said."""
        return QUANTS[0] if tools.why_none(self.workspace) is None else WITHOUT_TOOLS

    def status(
        self, run_id: str, to: str, quant: str | None = None, checkpoint: str | None = None, strength: float = 1.0
    ) -> ExportStatus | None:
        """Of the newest attempt, or None where there never was one (or its words cannot be a request)."""
        name = self.request(self.runs.get(run_id), to, quant, checkpoint, strength=strength).name
        return self._job(name).status(self._started.get(name))

    def attempts(self, run_id: str) -> Sequence[tuple[ExportRequest, ExportStatus]]:
        """The newest attempt at each export of a run, of whatever strength, that is at work or came to nothing."""
        found = []
        for folder in sorted((self.workspace.exports / ".jobs").glob("*")):
            asked = files.read_model(ExportRequest, folder / "request.json") if folder.name.startswith(f"{run_id}-") else None
            if asked and asked.run == run_id and asked.name == folder.name:
                status = JobFolder(folder).status(self._started.get(asked.name))
                found += [(asked, status)] if status and status.state != "done" else []
        return found

    def cancel(
        self, run_id: str, to: str, quant: str | None = None, checkpoint: str | None = None, strength: float = 1.0
    ) -> ExportStatus | None:
        """From any process: an earlier finished export stays, and nothing of this one."""
        name = self.request(self.runs.get(run_id), to, quant, checkpoint, strength=strength).name
        return self._job(name).end(self._started.get(name), msg("export.cancelled"))

    def finished(
        self, run: RunFolder, to: str, quant: str | None = None, checkpoint: str | None = None, strength: float = 1.0
    ) -> ExportResult | None:
        """One that is there and of the adapter as it is now. Raises as `request`."""
        request = self.request(run, to, quant, checkpoint, strength=strength)
        found = read_result(self.workspace.exports / request.name)
        trained = (adapter_folder(run, checkpoint) / "adapter_model.safetensors").stat().st_mtime
        return found if found and found.name == request.name and found.created >= trained else None

    def list(self, run_id: str | None = None) -> Sequence[ExportResult]:
        """Finished exports, newest first; of one run, or of all."""
        folders = [path for path in self.workspace.exports.iterdir() if not path.name.startswith(".")]
        found = [(path.name, read_result(path)) for path in folders]
        # A copied folder still says the name of its original: it is not an export of ours.
        wanted = [result for name, result in found if result and result.name == name and run_id in (None, result.run)]
        return sorted(wanted, key=lambda result: (result.created, result.name), reverse=True)

    def folder(self, result: ExportResult) -> Path:
        return self.workspace.exports / result.name

    def delete(self, result: ExportResult) -> None:
        try:
            shutil.rmtree(self.folder(result))
        except OSError as error:
            raise ExportError("export.cannot_delete", name=result.name, reason=error.strerror or error) from error

    def _job(self, name: str) -> JobFolder:
        return JobFolder(self.workspace.exports / ".jobs" / name)


def adapter_folder(run: RunFolder, checkpoint: str | None) -> Path:
    """Raises RunError for an unknown checkpoint, ExportError for a run that kept nothing."""
    if checkpoint is not None:
        return run.checkpoint(checkpoint) / "adapter"
    if not run.has_adapter():
        raise ExportError("export.no_adapter", name=run.name)
    return run.adapter


def read_result(folder: Path) -> ExportResult | None:
    return files.read_model(ExportResult, folder / "export.json")
