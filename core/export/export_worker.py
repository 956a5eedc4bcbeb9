"""The process of one export: `python -m core.export.export_worker REQUEST.json` (folders: core.export.exports).

Holds the lease while it works. A watch thread polls control.json; if the main thread does not react in time it deletes
the unfinished files and ends the process, so that Cancel works inside libraries too. Exit: 0 done, 1 failed, 3
cancelled.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import Timeout

from core import files
from core.errors import BusyError, ExportError, GarageError, RunError, StopRequested, first_line
from core.export.estimate import MERGED, gguf_disk
from core.export.exports import adapter_folder
from core.export.jobs import REPLACED, JobFolder
from core.export.records import (
    QUANTS,
    ExportCheck,
    ExportKind,
    ExportRequest,
    ExportResult,
    ExportStatus,
    State,
    shown_loss,
)
from core.files import JsonObject, is_disk_full, is_out_of_memory, is_page_file_full
from core.messages import Message, msg
from core.models import adapters, weights
from core.models.library import Models
from core.progress import Progress
from core.runs import best
from core.runs import process as run_process
from core.runs.all import Runs
from core.runs.cards import model_card
from core.runs.folder import RunFolder
from core.system.awake import KeepAwake
from core.system.job import Job
from core.system.processes import kill_children
from core.workspace import lease, names, preferences
from core.workspace.folder import Workspace

if TYPE_CHECKING:
    from core.engine.device import Compute
    from core.export.llamacpp.make import MakeOrder
    from core.export.llamacpp.tools import Tools
    from core.export.stored import Base
    from core.export.verification import Method

MadeExport = tuple[ExportCheck, str, tuple[Message, ...]]  # verification, dtype, notes
GRACE_S = 1.5  # how long the main thread may take to notice a cancel
LEASE_WAIT_S = 3.0  # for a chat that was just asked to release the device
SPARE_BYTES = 64 << 20  # tokenizer, cards, records
CANCELLED_EXIT = 3


class ExportReporter(Job[ExportStatus]):
    """Writes the worker's progress to status.json and reads cancel requests from control.json."""

    def __init__(self, folder: JobFolder, cancelled_message: Message | None = None):
        """Begin with a running status of this process; nothing is written before the block. cancelled_message: the
        message of a cancel, by default that of an export."""
        super().__init__(ExportStatus(state="running", pid=os.getpid(), since=time.time()))
        self.folder, self._cancelled_message = folder, cancelled_message or msg("export.cancelled")
        self._cancelled = threading.Event()
        self._cancelled_at = 0.0
        self._phases = [(self.status.stage, self.status.since)]

    def __enter__(self) -> Self:
        """Write the first status, and start the thread that writes progress and looks for a cancel request."""
        self._put()
        return super().__enter__()

    def _write(self, status: ExportStatus) -> None:
        """Write the status to status.json of the job folder."""
        self.folder.write(status)

    def set_stage(self, stage: str, fraction: float | None = None) -> None:
        """Write the stage and its done share; a new stage begins a new phase."""
        if stage != self._phases[-1][0]:
            self._phases.append((stage, time.time()))
        self._progress(stage=stage, fraction=fraction, phase=len(self._phases) - 1, phase_since=self._phases[-1][1])

    def phases(self) -> tuple[tuple[str, float], ...]:
        """All stages so far, with their seconds."""
        ends = [*(since for _, since in self._phases[1:]), time.time()]
        return tuple((stage, round(end - since, 1)) for (stage, since), end in zip(self._phases, ends, strict=True))

    def set_progress(self, stage: str, progress: Progress | None) -> None:
        """Report the stage with the fraction done; without one if progress is None or has no total."""
        self.set_stage(stage, progress.done / progress.total if progress and progress.total else None)

    def set_awake(self, how: Message) -> None:
        """Put a message on whether this PC may go to sleep into the status."""
        self._progress(awake=how)

    def end(
        self, state: State, message: Message | None = None, busy: bool = False, check: ExportCheck | None = None
    ) -> None:
        """Write the final state, after which nothing else is written."""
        self._over.set()
        self._put(state=state, message=message, fraction=None, busy=busy, check=check)

    def check(self) -> None:
        """Raise StopRequested once the user has cancelled. Call between steps."""
        # The file too: the watch thread may not have read it yet.
        if self._cancelled.is_set() or self.folder.cancel_requested():
            raise StopRequested

    def _poll(self, now: float) -> None:
        """Note a cancel request in control.json; if the worker still runs GRACE_S later and is not publishing, end its
        children, delete its files, report "cancelled" and end the process at once."""
        if not self._cancelled.is_set():
            if self.folder.cancel_requested():
                self._cancelled_at = now
                self._cancelled.set()
        # While it is published, folders are only renamed, which takes a moment.
        elif now - self._cancelled_at > GRACE_S and self._status.stage != "publishing":
            try:
                kill_children()
                self.folder.clear()
                self.end("cancelled", self._cancelled_message)
            finally:
                # Not sys.exit: the main thread is inside a library that may never return.
                os._exit(CANCELLED_EXIT)


def main() -> int:
    """Make the export of the request file in argv[1]; return the exit status."""
    request = ExportRequest.model_validate_json(Path(sys.argv[1]).read_text("utf-8"))
    return work_in(Path(sys.argv[1]).parent, request.workspace, lambda job: carry_out(request, job))


def work_in(path: Path, workspace: str, work: Callable[[ExportReporter], int], cancelled: Message | None = None) -> int:
    """Hold a job's folder and keep the PC awake if that is set, do the work and return its exit status; 1 if another
    process holds the folder for 5 s. cancelled: the message of a cancel."""
    folder, space = JobFolder(path), Workspace.open(workspace)
    try:
        with (
            folder.lock().acquire(timeout=5),
            ExportReporter(folder, cancelled) as job,
            KeepAwake(lambda: preferences.read(space).automation.keep_awake, job.set_awake),
        ):
            return work(job)
    except Timeout:
        return 1  # another worker has this job, and its status stands


def carry_out(request: ExportRequest, job: ExportReporter) -> int:
    """Make one export under the device's lease, report its end to the job whatever happens, and return the exit status:
    0 done, CANCELLED_EXIT cancelled, else 1. Unfinished files are deleted unless the export was completed."""
    workspace = Workspace.open(request.workspace)
    run = Runs(workspace).get(request.run)
    ending: JsonObject
    try:
        job.folder.clear()
        with lease.hold(workspace, msg("export.lease", name=run.name), wait_s=LEASE_WAIT_S):
            result = Exporter(workspace, run, request, job).run()
        if result.check.passed:
            job.end("done", msg("export.done", name=result.name), check=result.check)
            return 0
        job.end("failed", describe_failure(result), check=result.check)
        return 1
    except StopRequested:
        ending = {"state": "cancelled", "message": msg("export.cancelled")}
    except GarageError as error:
        ending = {"state": "failed", "message": error.message, "busy": isinstance(error, BusyError)}
    except Exception as error:  # noqa: BLE001 - any error must reach the user and the log
        traceback.print_exc()
        ending = {"state": "failed", "message": describe_error(error, workspace)}
    # Only now: the exception still held open and mapped files, which Windows does not delete.
    gc.collect()
    job.folder.clear()
    job.end(**ending)
    return CANCELLED_EXIT if ending["state"] == "cancelled" else 1


def describe_failure(result: ExportResult) -> Message:
    """Return the message about an export that failed its verification, with the reasons and numbers."""
    check = result.check
    if check.proof == "llamacpp":
        suffix = "_kept" if result.name.endswith("-unproven") else ""
        values = {"quant": check.type_text, "reasons": check.reasons, "folder": result.name}
        larger = larger_type(result)
        return (
            msg(f"gguf.not_proven_larger{suffix}", larger=larger.upper(), **values)
            if larger
            else msg(f"gguf.not_proven{suffix}", **values)
        )
    reasons = []
    if check.tensors_off:
        key = "export.reason_bytes" if check.proof == "bytes" else "export.reason_tensors"
        reasons.append(msg(key, off=len(check.tensors_off), tensors=check.tensors, first=check.tensors_off[0]))
    if check.mean_loss_adapter is not None:
        reasons.append(
            msg(
                "export.reason_answers",
                adapter=shown_loss(check.mean_loss_adapter),
                export=shown_loss(check.mean_loss_export),
            )
        )
    if check.mean_text_loss_adapter is not None:
        losses = {
            "adapter": shown_loss(check.mean_text_loss_adapter),
            "export": shown_loss(check.mean_text_loss_export),
        }
        reasons.append(msg("export.reason_rows", **losses, equal=check.first_tokens_equal, prompts=check.prompts))
    reasons.append(msg("export.reason_read", alike=check.prompts_read_alike, prompts=check.prompts))
    key = "export.copy_differs" if check.proof == "bytes" else "export.not_proven"
    key += "_kept" if result.name.endswith("-unproven") else ""
    return msg(key, kind=result.kind, reasons=reasons, folder=result.name)


def larger_type(result: ExportResult) -> str | None:
    """Return the next larger type to choose, if lost precision by quantization is the only reason that failed; else
    None. From q4_k_m it is q6_k if llama.cpp stored tensors in larger types, because their rows are too short."""
    if [reason.key for reason in result.check.reasons] != ["gguf.reason_quantised"]:
        return None
    short_rows = any(note.key == "gguf.larger_types" for note in result.notes)
    # Those of short rows are Q5_1 in a Q5_K_M, which keeps no more of the starter than the Q5_0 of its Q4_K_M
    # (docs/export.md).
    return {"q4_k_m": "q6_k" if short_rows else "q5_k_m", "q5_k_m": "q6_k", "q6_k": "q8_0", "q8_0": "bf16"}.get(
        result.quant or ""
    )


def describe_error(error: Exception, workspace: Workspace) -> Message:
    """Return the message for an unexpected error: a full disk, too little memory (or page file), else its type and
    first line."""
    if is_disk_full(error, workspace.exports):
        free = shutil.disk_usage(workspace.exports).free
        return msg("export.disk_full", folder=workspace.exports, free_mb=free // 10**6)
    if is_out_of_memory(error):
        return msg("faults.page_file" if is_page_file_full(error) else "export.out_of_memory")
    return msg("export.crashed", kind=type(error).__name__, reason=first_line(error)[:300])


@dataclass
class Exporter:
    """Makes an export in the job folder, verifies it, and only then moves it to its place."""

    workspace: Workspace
    run_folder: RunFolder
    request: ExportRequest
    job: ExportReporter

    def run(self) -> ExportResult:
        """Build the files of the requested kind from the adapter, at the requested strength, check them, move them to
        their place and return the record. An export that fails its check is deleted, or kept as NAME-unproven if
        requested."""
        started = time.monotonic()
        job, request, recipe = self.job, self.request, self.run_folder.recipe()
        adapter = adapter_folder(self.run_folder, request.checkpoint)
        if request.strength != 1:
            adapter = adapters.at_strength(adapter, request.strength, job.folder.build / "adapter")
        out = job.folder.build / "out"  # not the export's name again: Windows limits paths to 260 characters
        check, dtype, notes = BUILDERS[request.kind](self, adapter, out)
        if request.strength != 1:
            notes = (msg("export.at_strength", strength=request.strength), *notes)
        result = ExportResult(
            name=request.name if check.passed else f"{request.name}-unproven",
            run=request.run,
            run_name=self.run_folder.name,
            kind=request.kind,
            quant=request.quant,
            checkpoint=request.checkpoint,
            strength=request.strength,
            base=recipe.model.id,
            dtype=dtype,
            files={
                file.relative_to(out).as_posix(): file.stat().st_size
                for file in sorted(out.rglob("*"))
                if file.is_file()
            },
            check=check,
            notes=notes,
            ollama_name=self._ollama_name() if request.kind == "gguf" else None,
            created=time.time(),
            seconds=round(time.monotonic() - started, 1),
            phases=job.phases(),
        )
        return self._move_to_place(out, result)

    # ---- one function for each kind: BUILDERS -----------------------------------------------------
    def _copy(self, adapter: Path, out: Path) -> MadeExport:
        """Export the unchanged adapter by copying its folder; return the byte check and the weights' dtype. Needs
        neither the base nor memory for a model."""
        from core.export import verification

        self._refuse_without_space(files.bytes_in(adapter))
        self.job.set_stage("copying")
        shutil.copytree(adapter, out)
        self.job.check()
        with weights.open_tensors(adapter / "adapter_model.safetensors") as opened:  # the first tensor's
            dtype = str(opened.get_tensor(next(iter(opened.keys()))).dtype).removeprefix("torch.")
        return verification.prove_copy(out, adapter, self.run_folder.facts().probe_rows, self.job.set_stage), dtype, ()

    def _merged(self, adapter: Path, out: Path) -> MadeExport:
        """Export a folder with the adapter merged into its base and a model card; return the verification."""
        from core.export import verification

        base, method, _ = self._source(adapter)
        self._merge(base, adapter, out)
        rows = self.run_folder.facts().probe_rows
        check = verification.prove(out, base, adapter, rows, method, self.job.set_stage, self.job.check)
        return self._with_card(out, base, method, check)

    def _gguf(self, adapter: Path, out: Path) -> MadeExport:
        """Export the merged model as a GGUF file, with an Ollama Modelfile and a model card; return the
        verification."""
        from core.export.llamacpp import make

        order = self._order(adapter, out)
        self._merge(order.base, adapter, order.merged)
        check, notes = make.make(order)
        model_type = files.read_object(order.base.folder / "config.json").get("model_type")
        notes = (*notes, *self._write_modelfile(adapter, order.target, str(model_type)))
        return self._with_card(out, order.base, order.method, check, notes)

    # ---- inputs and checks ----------------------------------------------------------------
    def _source(self, adapter: Path) -> tuple[Base, Method, Tools | None]:
        """Return the base (downloaded if needed), the verification method, and llama.cpp's tools for a GGUF file, else
        None. Raises ExportError without enough disk."""
        from core.export import stored, verification

        # The base first: it may be of a family that llama.cpp does not know, for which no tools need be downloaded.
        base = stored.read_base(self._obtain_base(adapter))
        tools = self._tools() if self.request.kind == "gguf" else None
        method = verification.choose(base, adapter, in_float32=tools is not None)
        self._refuse_without_space(need_bytes(self.request, base))
        return base, method, tools

    def _with_card(
        self, out: Path, base: Base, method: Method, check: ExportCheck, notes: tuple[Message, ...] = ()
    ) -> MadeExport:
        """Write the model card to out and return the made export: check, dtype and notes, one more if another GPU than
        the training's verifies it."""
        card = model_card.of_run(self.run_folder, self._form(base.dtype_name), base.folder)
        (out / "README.md").write_text(card, "utf-8", newline="\n")
        if other_gpu := self._other_gpu_note(method.compute):
            notes = (*notes, other_gpu)
        return check, base.dtype_name, notes

    def _other_gpu_note(self, compute: Compute) -> Message | None:
        """Return a note if the verifying GPU is not the one of the training, else None. On the CPU there is none: that
        is a matter of memory."""
        from core.engine.device import card_in_use

        return (
            run_process.other_device_notice(self.run_folder.facts(), card_in_use(compute), True)
            if compute.on_card
            else None
        )

    def _obtain_base(self, adapter: Path) -> Path:
        """Download the base if needed and return its folder. Raises ExportError if it has changed since training, or if
        llama.cpp does not know its family (GGUF), or the adapter trains an output head tied to the embedding."""
        job, model = self.job, self.run_folder.recipe().model
        folder = Models(self.workspace).obtain(model.id, model.revision, job.set_progress, job.check, to_train=False)
        job.set_stage("starting")
        trained_on = self.run_folder.facts().base_weights
        # An adapter on other weights still answers, only worse: nothing later would notice.
        if trained_on and trained_on != weights.sampled_fingerprint(folder):
            raise ExportError("export.base_changed", model=model.id, folder=folder)
        if self.request.kind == "gguf":
            from core.export.llamacpp.tools import check_family

            check_family(folder)
        # In the files head and embedding are one tensor; merged into it, the head's change would also reach every
        # input.
        if trains_tied_head(adapter, files.read_object(folder / "config.json")):
            raise ExportError("export.tied_head")
        return folder

    def _tools(self) -> Tools:
        """Return llama.cpp's tools, installing them if needed. Raises ExportError."""
        from core.export.llamacpp.tools import obtain

        try:
            return obtain(self.workspace, self.job.set_stage, self.job.check)
        except (ExportError, RunError) as error:
            raise ExportError("gguf.needs_tools", reason=error.message) from error

    def _merge(self, base: Base, adapter: Path, merged: Path) -> None:
        """Merge the adapter into the base and write the model to the new folder `merged`; the done share is reported as
        the stage "merging", and a cancel takes effect between tensors."""
        from core.export import merge

        self.job.set_stage("merging", 0)
        merge.merge(base, adapter, merged, lambda fraction: self.job.set_stage("merging", fraction), self.job.check)

    def _refuse_without_space(self, need: int) -> None:
        """Raise ExportError if less than need bytes and SPARE_BYTES are free on the disk of the exports."""
        free = shutil.disk_usage(self.workspace.exports).free
        if free < need + SPARE_BYTES:
            need_mb = (need + SPARE_BYTES) // 10**6
            raise ExportError("export.no_space", need_mb=need_mb, free_mb=free // 10**6, folder=self.workspace.exports)

    def _ollama_name(self) -> str:
        """Return the model's proposed name in Ollama: the run's name as a slug, or "tuned-" and the end of the run's id
        if nothing is left of it."""
        return names.slug(self.run_folder.name, fallback=f"tuned-{self.run_folder.id[-6:]}")

    def _gguf_name(self) -> str:
        """Return the name of the GGUF file, NAME-QUANTIZATION.gguf. NAME is the run's name as a slug; if nothing is
        left of it, "tuned-" and the end of the run's id."""
        return f"{self._ollama_name()}-{self.request.quant}.gguf"

    def _order(self, adapter: Path, out: Path) -> MakeOrder:
        """Return the order to make a GGUF file: sources, target and working folders, and how its result is verified.

        The base and llama.cpp's tools are downloaded if needed, and the folder out is created. Raises ExportError as
        `_source`.
        """
        from core.export.llamacpp import make

        job, (base, method, tools) = self.job, self._source(adapter)
        assert tools
        out.mkdir(parents=True)
        return make.MakeOrder(
            tools=tools,
            quant=self.request.quant or QUANTS[0],
            name=self.run_folder.name,
            base=base,
            adapter=adapter,
            merged=job.folder.build / "merged",
            target=out / self._gguf_name(),
            work=job.folder.build / "gguf",
            log=job.folder.path / "export.log",
            rows=self.run_folder.facts().probe_rows,
            method=method,
            stage=job.set_stage,
            check=job.check,
        )

    def _write_modelfile(self, adapter: Path, file: Path, model_type: str) -> tuple[Message, ...]:
        """Write Ollama's Modelfile, with the template's end and EOS as stop strings, beside the GGUF file; return notes
        on what Ollama does differently."""
        from core.data.tokenizer import Tokenizer
        from core.export.ollama import modelfile
        from core.export.ollama.program import least_version

        tokenizer = Tokenizer(adapter)
        # They may be two tokens: <|im_end|>, <|endoftext|>.
        stops = dict.fromkeys((tokenizer.template.stop, tokenizer.special.get("eos_token", "")))
        text = modelfile.render(file.name, list(stops), self.run_folder.name, least_version(model_type))
        (file.parent / "Modelfile").write_text(text, "utf-8", newline="\n")
        return modelfile.notes(model_type)

    def _form(self, dtype: str) -> model_card.CardBeside:
        """The facts of this export that go into its model card."""
        request = self.request
        file = self._gguf_name() if request.kind == "gguf" else ""
        return model_card.CardBeside(
            kind=request.kind,
            step=best.step_of(request.checkpoint) if request.checkpoint else None,
            strength=request.strength,
            quant=request.quant or "",
            file=file,
            dtype=dtype,
        )

    def _move_to_place(self, out: Path, result: ExportResult) -> ExportResult:
        """Move a finished export to its place, replacing an earlier one of the same name only now. Writes export.json,
        and returns the result. One that failed its check is deleted instead, unless it is to be kept."""
        if not result.check.passed and not self.request.keep_unproven:
            self.job.folder.clear()
            return result.model_copy(update={"name": self.request.name})
        (out / "export.json").write_text(result.model_dump_json(indent=1) + "\n", "utf-8", newline="\n")
        self.job.check()
        self.job.set_stage("publishing")
        target = self.workspace.exports / result.name
        # On the disk before the earlier export gives way: after a power cut one of the two is complete.
        files.sync_tree(out)
        if target.exists():
            files.rename(target, self.job.folder.build / (REPLACED + result.name.removeprefix(self.request.name)))
        files.rename(out, target)
        files.sync_folder(target.parent)
        self.job.folder.clear()
        return result


BUILDERS: Mapping[ExportKind, Callable[[Exporter, Path, Path], MadeExport]] = {
    "adapter": Exporter._copy,
    "merged": Exporter._merged,
    "gguf": Exporter._gguf,
}


def need_bytes(request: ExportRequest, base: Base) -> int:
    """Return the bytes of disk that a merged folder or a GGUF export needs at its peak while it is made, without the
    base; a GGUF file is converted from a merged folder, which is deleted afterwards."""
    if request.kind == "merged":
        return MERGED * base.parameters
    # The embedding has a row for each token, as a rule more than any other matrix has.
    vocabulary = max(tensor.shape[0] for tensor in base.tensors.values() if len(tensor.shape) == 2)
    return gguf_disk(request.quant or QUANTS[0], base.parameters, vocabulary)


def trains_tied_head(adapter: Path, base: JsonObject) -> bool:
    """Return whether an adapter has factors of an output head tied to the embedding: merging would change both.

    base: config.json of its base.
    """
    # A multimodal base has the setting in its text_config or beside it.
    tied = (base.get("text_config") or base).get("tie_word_embeddings", base.get("tie_word_embeddings"))
    with weights.open_tensors(adapter / "adapter_model.safetensors", "np") as opened:
        heads = [name for name in list(opened.keys()) if adapters.layer_of(name).rpartition(".")[2] == "lm_head"]
    return bool(tied) and any(".lora_" in name for name in heads)


if __name__ == "__main__":
    sys.exit(main())
