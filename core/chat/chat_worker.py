"""The process behind Chat: `python -m core.chat.chat_worker --workspace DIR [--idle-minutes M]`.

It exchanges lines (core.system.lines). In:
  load {load, model_id, revision, adapter: folder or null, four_bit, eight_bit, run, doing}
  ask {id, questions: a list of {base, tuned: turns or null}, sampling: of all, or a list of one for each, strength}
  join {id, questions, sampling: one for each}: more questions for that answer; of no effect once it has ended
  stop {id, column: "base", "tuned", or null for both, question: its number, or null for all}
Out:
  loading {load, stage, progress, tight}   ready {load, dtype, context_limit, mixed, thinks, adapter, elsewhere}
  piece {id, as answer.Piece}   done {id, as answer.Done}
  answered {id}   error {load or id, text, advice}   idle {minutes}

It holds the lease from load to its end. A load that fails ends it, so that a failure keeps no memory and no lease; an
answer that fails in a foreseen way does not.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import queue
import sys
import threading
import traceback
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core import files
from core.chat.answer import ApiSampling, Column, Piece, Sampling
from core.chat.memory_check import too_little
from core.data.template import ChatTemplate
from core.data.tokenizer import Tokenizer
from core.errors import ChatError, GarageError, StopRequested, first_line
from core.files import JsonObject, is_out_of_memory, is_page_file_full
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.adapters import AdapterFacts, changes_base, check_complete, describe
from core.models.library import Models
from core.progress import Progress
from core.runs import process as run_process
from core.runs.all import Runs
from core.system import cores
from core.system.lines import ToParent
from core.workspace import lease
from core.workspace.folder import Workspace

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from core.chat.duel import Duel
    from core.engine.device import Compute

LEASE_S = 2.0  # a chat worker that has just failed or gone idle needs a moment to end
LAST_GRACE_S = 5.0  # the longest that an uninterruptible native call (reading weights) may outlive the app


def main() -> int:
    """Serve the chat of --workspace until it is over, holding the device's lease once something is loaded; return the
    exit status."""
    parser = argparse.ArgumentParser(prog="core.chat.chat_worker")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--idle-minutes", type=float, required=True)
    arguments = parser.parse_args()
    parent = ToParent()
    with contextlib.ExitStack() as held:
        return ChatWorker(Workspace.open(arguments.workspace), parent, held).serve(arguments.idle_minutes)


class Commands:
    """The client's commands in order; stop, a newer load and the end also take effect at once, during other work."""

    def __init__(self, parent: ToParent):
        """Listen to parent from now on."""
        self._queue: queue.Queue[JsonObject] = queue.Queue()
        self._joining = deque[JsonObject]()
        self._stopped: set[tuple[int, Column | None, int | None]] = set()
        self._newest_load = -1
        self._quit = threading.Event()
        parent.listen(self._on_line, self._on_parent_gone)

    def _on_line(self, command: JsonObject) -> None:
        """Take one command of the client. A stop and the questions that join an answer are noted at once, for the work
        in progress; any other command is queued for `next`. A load also becomes the newest, so that earlier loads and
        their answers count as superseded."""
        if command["command"] == "stop":
            self._stopped.add((command["id"], command["column"], command["question"]))
        elif command["command"] == "join":
            self._joining.append(command)
        else:
            self._newest_load = command.get("load", self._newest_load)
            self._queue.put(command)

    def _on_parent_gone(self) -> None:
        """Queue the end of this process, and force it after LAST_GRACE_S."""
        self._quit.set()
        self._queue.put({"command": "quit"})
        last = threading.Timer(LAST_GRACE_S, os._exit, [1])
        last.daemon = True
        last.start()

    def next(self, timeout_s: float) -> JsonObject | None:
        """Return the next command; None if none comes within timeout_s."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def answer_stopped(self, answer: int, load: int, column: Column | None = None, question: int | None = None) -> bool:
        """Return whether to end the whole answer, or this column of it to this question; always once its load is
        superseded."""
        stops = {(answer, None, None), (answer, column, None), (answer, None, question)}
        return not self._stopped.isdisjoint(stops) or self.load_superseded(load)

    def joining(self, answer: int) -> list[JsonObject]:
        """Return the joins of an answer that have come since the last call; those of other answers are dropped."""
        new = [self._joining.popleft() for _ in range(len(self._joining))]
        return [command for command in new if command["id"] == answer]

    def load_superseded(self, load: int) -> bool:
        """Return whether another load than this one is the newest, or the app has ended."""
        return self._quit.is_set() or self._newest_load != load


class ChatWorker:
    """Serves the client's commands with one base and one adapter at a time. held: receives the lease."""

    def __init__(self, workspace: Workspace, parent: ToParent, held: contextlib.ExitStack):
        """Begin without a base or the lease."""
        self._workspace, self._parent, self._commands, self._held = workspace, parent, Commands(parent), held
        self._holds_lease = False
        self._load = -1
        self._base: LoadedBase | None = None
        self._duel: Duel | None = None

    def serve(self, idle_minutes: float) -> int:
        """Serve load and ask commands until the app quits or idle_minutes pass without a command (exit status 0), or a
        load fails, or an answer by an error that is neither foreseen nor lack of memory (1). Errors are reported as
        events; after one, memory is freed."""
        while True:
            command = self._commands.next(idle_minutes * 60)
            if command is None:
                self._emit("idle", minutes=idle_minutes)
                return 0
            if command["command"] == "quit":
                return 0
            about = {name: command[name] for name in ("load", "id") if name in command}
            try:
                if command["command"] == "load":
                    self._do_load(command)
                else:
                    self._answer(command)
            except StopRequested:
                continue  # superseded by the next load, or by quit
            except GarageError as error:
                self._emit("error", **about, text=error.message.model_dump(), advice=None)
                is_usable = True
            except Exception as error:  # noqa: BLE001 - any error must reach the user and the log
                traceback.print_exc()
                message, advice, is_usable = describe_error(error)
                self._emit("error", **about, text=message.model_dump(), advice=advice.model_dump())
            else:
                continue
            is_load = command["command"] == "load"
            if not (is_load and self._commands.load_superseded(self._load)) and (is_load or not is_usable):
                return 1
            if is_load:
                self._duel = self._base = None  # the load may be incomplete
            self._free_memory()

    def _emit(self, event: str, **values: object) -> None:
        """Send the client an event."""
        self._parent.send(event=event, **values)

    # ---- load -----------------------------------------------------------------------------------------------------
    def _do_load(self, command: JsonObject) -> None:
        """Take the lease, load a base with an adapter or none, and report "ready" with its properties. A base that is
        loaded already stays."""
        self._load = command["load"]
        folder = Path(command["adapter"]) if command["adapter"] else None
        facts = None if folder is None else checked_adapter(folder)
        doing = Message.model_validate(command["doing"])
        if self._holds_lease:
            lease.record(self._workspace, doing)
        else:
            self._held.enter_context(lease.hold(self._workspace, doing, LEASE_S))
            self._holds_lease = True
        base = self._obtain_base(
            command["model_id"], command["revision"], command["four_bit"], command.get("eight_bit", False)
        )
        self._report("loading_model")
        self._check()
        from core.chat.duel import Duel

        model = base.with_adapter(folder)
        self._duel = Duel(model, base.tokenizer, None if folder is None else trained_template(folder, base.tokenizer))
        self._check()
        self._emit(
            "ready",
            load=self._load,
            dtype="nf4" if command["four_bit"] else "int8" if command.get("eight_bit") else base.compute.dtype_name,
            context_limit=self._duel.context_limit,
            mixed=self._duel.mixed,
            thinks=self._duel.thinks,
            adapter=None if facts is None else asdict(facts),
            elsewhere=self._device_notice(command.get("run"), base),
        )

    def _device_notice(self, run_id: str | None, base: LoadedBase) -> JsonObject | None:
        """Return a note (as JSON) if the base runs on another device than the run's training, else None."""
        from core.engine.device import card_in_use

        with contextlib.suppress(GarageError):  # the run was deleted meanwhile
            facts = Runs(self._workspace).get(run_id or "").facts()
            notice = run_process.other_device_notice(facts, card_in_use(base.compute), base.compute.on_card)
            return notice.model_dump() if notice else None
        return None

    def _obtain_base(self, model_id: str, revision: str | None, four_bit: bool, eight_bit: bool) -> LoadedBase:
        """Load the base unless it is loaded already, and return it: unload the other, download (if needed) and load,
        with progress reports. Raises ModelError, and StopRequested if cancelled."""
        key = (model_id, revision, four_bit, eight_bit)
        if self._base is not None and self._base.key == key:
            return self._base
        self._duel = self._base = None
        self._free_memory()
        model_folder = Models(self._workspace).obtain(model_id, revision, self._report, self._check, to_train=False)
        self._report("loading_libraries")
        import torch

        from core.engine import base_model, device

        torch.set_num_threads(min(torch.get_num_threads(), cores.usable()))
        compute = device.choose()
        device.read_bitsandbytes()
        self._check()
        self._report("loading_model", tight=self._memory_warning(key, compute))
        tokenizer = Tokenizer(model_folder)
        loaded, compute = base_model.load_finite(model_folder, compute, four_bit, eight_bit)
        self._base = LoadedBase(key, compute, tokenizer, loaded)
        return self._base

    def _memory_warning(self, key: tuple[str, str | None, bool, bool], compute: Compute) -> Message | None:
        """Return a warning if memory is short for the base of key (as LoadedBase's), None if it is not or unknown. It
        comes before the weights are read: later a GPU on Windows may write a word a second, and RAM be paged out."""
        import psutil

        from core.chat.duel import free_on_card

        model_id, revision, four_bit, eight_bit = key
        method: Literal["qlora", "lora"] = "qlora" if four_bit else "lora"
        device: Literal["card", "cpu"] = "card" if compute.on_card else "cpu"
        setup = Setup(method=method, load_in_8bit=eight_bit, base_bytes=compute.dtype.itemsize, device=device)
        on_card = free_on_card(compute.device)
        free = psutil.virtual_memory().available if on_card is None else on_card
        try:
            return too_little(Models(self._workspace).shape(model_id, revision), setup, free)
        except GarageError:
            return None  # a shape whose memory cannot be computed

    def _report(self, stage: str, progress: Progress | None = None, tight: Message | None = None) -> None:
        """Send the client a stage of loading. tight: a warning that memory is short."""
        values = {"stage": stage, "progress": progress and progress.model_dump(), "tight": tight and tight.model_dump()}
        self._emit("loading", load=self._load, **values)

    def _check(self) -> None:
        """Raise StopRequested if the load in progress is no longer needed: a newer one has come, or the app has
        ended."""
        if self._commands.load_superseded(self._load):
            raise StopRequested

    def _free_memory(self) -> None:
        """Collect garbage, and return torch's unused GPU memory to the system."""
        gc.collect()
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()

    # ---- answer ---------------------------------------------------------------------------------------------------
    def _answer(self, command: JsonObject) -> None:
        """Answer the command's questions as batches, reporting each piece of text and each column's end, then
        "answered". Raises ChatError before a load."""
        answer, load, sampling = command["id"], self._load, command["sampling"]
        if self._duel is None:
            raise ChatError("chat.not_ready")
        pieces = self._duel.answer_all(
            command["questions"],
            _samplings(sampling) if isinstance(sampling, list) else Sampling.model_validate(sampling),
            lambda column=None, question=None: self._commands.answer_stopped(answer, load, column, question),
            command["strength"],
            lambda: [(join["questions"], _samplings(join["sampling"])) for join in self._commands.joining(answer)],
        )
        with contextlib.closing(pieces):
            for piece in pieces:
                self._emit("piece" if isinstance(piece, Piece) else "done", id=answer, **asdict(piece))
        self._emit("answered", id=answer)


def _samplings(sampling: list[JsonObject]) -> list[ApiSampling]:
    """Return the sampling of each question, read from JSON objects."""
    return list(map(ApiSampling.model_validate, sampling))


class LoadedBase:
    """One base in memory, whose adapters are exchanged. key: (model_id, revision, four_bit, eight_bit)."""

    def __init__(
        self,
        key: tuple[str, str | None, bool, bool],
        compute: Compute,
        tokenizer: Tokenizer,
        model: PreTrainedModel | PeftModel,
    ):
        """Store a loaded base; it has no adapter yet."""
        self.key, self.compute, self.tokenizer = key, compute, tokenizer
        self._model = model

    def with_adapter(self, folder: Path | None) -> PreTrainedModel | PeftModel:
        """Put this adapter in the place of the one before, or none, and return the model. Raises ModelError if it does
        not fit."""
        from peft import PeftModel

        from core.engine import adapter

        if isinstance(self._model, PeftModel):
            self._model = self._model.unload()
        if folder is not None:
            self._model = adapter.attach(self._model, folder)
        return self._model


def checked_adapter(folder: Path) -> AdapterFacts:
    """Return the adapter's facts. Raises ModelError if it is no complete adapter, ChatError if it changes the base's
    weights (initialization or bias)."""
    facts = describe(folder)
    check_complete(folder)
    if setting := changes_base(files.read_object(folder / "adapter_config.json")):
        raise ChatError("chat.adapter_changes_base", folder=folder.name, found=setting)
    return facts


def trained_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """Return the template saved with an adapter, with which it was trained; None if it is the base's own, or there is
    none."""
    file = folder / "chat_template.jinja"
    try:
        source = file.read_text("utf-8")
    except (OSError, ValueError):
        return None
    return None if source == tokenizer.template.source else replace(tokenizer.template, source=source)


def describe_error(error: Exception) -> tuple[Message, Message, bool]:
    """Describe an unforeseen error as (what happened, what to try, whether the next answer may still work); the last is
    True only for lack of memory."""
    if is_out_of_memory(error):
        advice = "faults.page_file" if is_page_file_full(error) else "chat.advice_out_of_memory"
        return msg("chat.out_of_memory"), msg(advice), True
    return msg("chat.crashed", kind=type(error).__name__, reason=first_line(error)[:300]), msg("chat.advice_log"), False


if __name__ == "__main__":
    sys.exit(main())
