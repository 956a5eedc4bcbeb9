"""The chat for the page and the commands: a thread-safe object in front of one worker process. No torch.

load() and unload() change its phase, state() is a frozen snapshot for any page, ask() returns the answer piece by
piece. A thread reads the worker's events, so no page has to be open for them. The worker's own output goes to
<workspace>/chat.log, which each worker overwrites.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from core.chat.answer import COLUMNS, Answer, ApiSampling, Column, Sampling, item_of
from core.data.conversation import Turn, characters
from core.errors import ChatError, GarageError
from core.files import JsonObject
from core.messages import Message, msg
from core.progress import Progress
from core.runs import process as run_process
from core.runs.all import Runs
from core.system import devices
from core.system.lines import Child
from core.workspace.folder import Workspace

STOP_S = 2.0  # how long "Regenerate" waits for the answer that was just stopped; usually 10 ms
DOING = "chat.doing_chat"  # names a chat to others who want the device
IDLE_MINUTES = 30.0  # without a question; then the worker ends and the device is free
END_S = 2.0  # for a clean end; then the process tree is killed
# many times the longest context here; keeps a pasted file from being tokenized for minutes
MAX_CHARACTERS = 400_000


@dataclass(frozen=True)
class ChatTarget:
    """A model to chat with. adapter: a folder in PEFT's format, or None for the bare base; label: its name for the
    user. eight_bit: the base as LLM.int8, if it is not in 4 bit. run: the run whose device to use (core/runs/process).
    """

    model_id: str
    revision: str | None = None
    adapter: Path | None = None
    four_bit: bool = False
    label: str = ""
    eight_bit: bool = False
    run: str | None = None


Question = tuple[Sequence[Turn] | None, Sequence[Turn] | None]  # for the base, for the tuned model
Phase = Literal["empty", "loading", "ready", "answering", "failed"]


@dataclass(frozen=True)
class ChatState:
    """A snapshot of the chat.

    message, advice: why it failed and what to try. stage: catalogue key `stage.<stage>` while loading. dtype: bfloat16,
    float16, float32, int8 or nf4. mixed: both columns are generated in one batch (False for DoRA: one after the other).
    thinks: whether it thinks by default, None if its template has no such option. adapter: facts of the adapter (base,
    r, lora_alpha, use_dora). why_unloaded: after an unload. elsewhere: a note that it runs on another device than the
    training's. tight: a warning that it needs more memory than was free before loading.
    """

    phase: Phase = "empty"
    target: ChatTarget | None = None
    message: Message | None = None
    advice: Message | None = None
    stage: str = ""
    progress: Progress | None = None
    dtype: str | None = None
    context_limit: int | None = None
    mixed: bool = False
    thinks: bool | None = None
    adapter: JsonObject | None = None
    why_unloaded: Message | None = None
    elsewhere: Message | None = None
    tight: Message | None = None


class ChatClient:
    """The chat of an app, in front of one worker process, which holds one base model and at most one adapter. It
    answers in two columns: "base", without the adapter, and "tuned", with it."""

    def __init__(
        self,
        workspace: Workspace,
        idle_minutes: float = IDLE_MINUTES,
        doing: str = DOING,
    ):
        """Begin without a worker. idle_minutes: after which a worker ends by itself. doing: the key of the message that
        names its work to others who want the device."""
        self._workspace, self._idle_minutes, self._doing = workspace, idle_minutes, doing
        self._changed = threading.Condition()  # guards everything below
        self._state = ChatState()
        self._worker: Child | None = None
        self._worker_environment: dict[str, str] | None = None
        self._answer: Answer | None = None
        self._loads = 0
        self._answers = 0

    # ---- state -----------------------------------------------------------------------------------------
    def state(self) -> ChatState:
        """Return the present state of the chat, which is replaced and never changed."""
        with self._changed:
            return self._state

    def wait_ready(self, timeout_s: float) -> ChatState:
        """Wait until loading has ended, and return the state. Raises ChatError with the failure, if nothing is loaded,
        or after timeout_s."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._state.phase != "loading", timeout_s):
                raise ChatError("chat.load_timeout", seconds=round(timeout_s))
            state = self._state
        if state.phase in ("ready", "answering"):
            return state
        raise ChatError(state.message or state.why_unloaded or msg("chat.not_ready"))

    # ---- load and unload ------------------------------------------------------------------------------------------
    def load(self, target: ChatTarget) -> None:
        """Begin to load target and return at once, in the present worker or, for another GPU's environment, a new one;
        a running answer or load is ended. A failure becomes the state "failed": see state()."""
        environment = self._environment(target)
        if self._worker_environment not in (None, environment):
            self.unload()  # a process gets its device at its start
        with self._changed:
            worker = self._worker
            if worker is None or worker.process.poll() is not None:
                if worker is not None:
                    self._detach_worker(ChatError("chat.unloaded"))
                try:
                    worker = self._start_worker(environment)
                except OSError as error:
                    self._set(ChatState("failed", target, msg("chat.cannot_start", reason=error.strerror or error)))
                    return
            self._loads += 1
            self._set(ChatState("loading", target, stage="waiting"))
            worker.send(
                command="load",
                load=self._loads,
                model_id=target.model_id,
                revision=target.revision,
                adapter=None if target.adapter is None else str(Path(target.adapter).absolute()),
                four_bit=target.four_bit,
                eight_bit=target.eight_bit,
                run=target.run,
                doing=msg(self._doing, label=target.label or target.model_id).model_dump(),
            )

    def _environment(self, target: ChatTarget) -> dict[str, str]:
        """Return the worker's environment variables, which choose the run's GPU, else that of the present worker, else
        any."""
        device = None
        if target.run is not None:
            with suppress(GarageError):  # deleted meanwhile
                device = Runs(self._workspace).get(target.run).facts().wanted_device
        with self._changed:
            if (
                device is None
                and self._worker_environment
                and self._worker is not None
                and self._worker.process.poll() is None
            ):
                # Keep the worker's GPU: free memory would choose another, because the loaded model occupies this one.
                device = self._worker_environment.get(devices.VISIBLE)
        return run_process.environment_nearest(device)

    def _start_worker(self, environment: dict[str, str]) -> Child:
        """Start a worker with its output in chat.log, listen to its events, and make it the current one; return it."""
        with open(self._workspace.root / "chat.log", "wb") as log:
            arguments = ("--workspace", str(self._workspace.root), "--idle-minutes", str(self._idle_minutes))
            worker = Child(
                "core.chat.chat_worker", *arguments, log=log, cwd=self._workspace.root, environment=environment
            )
        self._worker, self._worker_environment = worker, environment
        worker.listen(lambda event: self._on_event(worker, event), lambda code: self._on_exit(worker, code))
        return worker

    def unload(self, reason: Message | None = None) -> None:
        """End the worker, which fails a running answer, and free the device: cleanly within 2 s, else by force. reason
        is shown as state().why_unloaded."""
        with self._changed:
            worker = self._worker
            if worker is not None:
                self._detach_worker(ChatError(reason or msg("chat.unloaded")))
            if worker is not None or self._state.phase != "empty":
                self._set(ChatState(why_unloaded=reason))
        if worker is not None:
            worker.end(END_S)

    # ---- ask ------------------------------------------------------------------------------------------------------
    def ask(
        self,
        base_turns: Sequence[Turn] | None,
        tuned_turns: Sequence[Turn] | None,
        sampling: Sampling | None = None,
        strength: float = 1.0,
    ) -> Answer:
        """Send one question to one or both columns (None: not to this one) and return the Answer that streams them.
        strength: of the tuned column's adapter.

        Raises ChatError if it is not ready, already answering, or the question is empty or too long.
        """
        return self.ask_together([(base_turns, tuned_turns)], sampling, strength)

    def ask_together(
        self,
        questions: Sequence[Question],
        sampling: Sampling | Sequence[ApiSampling] | None = None,
        strength: float = 1.0,
    ) -> Answer:
        """Send several questions in one batch, as `ask`, and return the Answer; each item names its question. sampling:
        of all questions, or one for each. Waits up to STOP_S for an answer that was stopped. Raises ChatError without a
        question, for too long ones, during another answer, or if nothing is loaded."""
        sampling = sampling or Sampling()
        all_turns = [turns for question in questions for turns in question if turns]
        if not all_turns or not all(map(ends_with_question, all_turns)):
            raise ChatError("chat.no_question")
        length = max(sum(map(characters, turns)) for turns in all_turns)
        if length > MAX_CHARACTERS:
            raise ChatError("chat.too_many_characters", characters=length, limit=MAX_CHARACTERS)
        with self._changed:
            if self._answer is not None and self._answer.stopping:
                self._changed.wait_for(lambda: self._state.phase != "answering", STOP_S)
            if self._state.phase == "answering":
                raise ChatError("chat.already_answering")
            worker = self._worker
            if self._state.phase != "ready" or worker is None:
                raise ChatError(self._state.message or msg("chat.not_ready"))
            self._answers += 1
            self._answer = answer = Answer(self._answers, self._stop)
            self._set(replace(self._state, phase="answering", message=None, advice=None))
        worker.send(
            command="ask",
            id=answer.number,
            questions=_as_json(questions),
            sampling=sampling.model_dump()
            if isinstance(sampling, Sampling)
            else [one.model_dump() for one in sampling],
            strength=strength,
        )
        return answer

    def join(self, answer: Answer, questions: Sequence[Question], sampling: Sequence[ApiSampling]) -> None:
        """Add further questions to an answer in progress, numbered after those that it has; nothing happens if it is
        not the current one.

        The answer may end without items for them, if it was about to end or one of them cannot be answered; then they
        have to be sent by themselves.
        """
        with self._changed:
            worker = self._worker if self._answer is answer else None
        if worker is not None:
            how = [one.model_dump() for one in sampling]
            worker.send(command="join", id=answer.number, questions=_as_json(questions), sampling=how)

    def stop(self, column: Column | None = None) -> None:
        """Request the end of the answer, or one column of it; its text so far stays. Its iterator gets a Done with the
        finish_reason "stopped"."""
        with self._changed:
            answer = self._answer
        if answer is not None:
            self._stop(answer.number, column, None)

    def _stop(self, number: int, column: Column | None, question: int | None) -> None:
        """Send the worker the command to stop an answer, in one column and to one question or (None) in all. Ignored if
        it is not the current answer."""
        with self._changed:
            worker = self._worker
            if worker is None or self._answer is None or self._answer.number != number:
                return
            self._answer.stopping = self._answer.stopping or (column is None and question is None)
        worker.send(command="stop", id=number, column=column, question=question)

    # ---- events of the worker, in the listening thread ----------------------------------------------------------
    def _on_event(self, worker: Child, event: JsonObject) -> None:
        """Apply an event, unless its worker has been replaced."""
        with self._changed:
            if worker is self._worker:
                self._apply(event)

    def _on_exit(self, worker: Child, code: int) -> None:
        """Set the state to failed, and end the answer, after the unexpected end of the current worker: it crashed (code
        above 0), or the system killed it."""
        with self._changed:
            if worker is not self._worker:
                return
            if self._state.message is not None and self._state.phase in ("ready", "answering"):
                message = self._state.message  # sent before it ended
            else:
                message = msg("chat.worker_killed" if code < 0 else "chat.worker_died", code=abs(code))
            self._detach_worker(ChatError(message))
            self._set(ChatState("failed", self._state.target, message, msg("chat.advice_log")))

    def _apply(self, event: JsonObject) -> None:
        """Change the state by an event of the worker: answers, loading, ready, idle or error. Events of a load that was
        replaced are ignored."""
        kind = event["event"]
        if "id" in event:
            self._apply_to_answer(event)
        elif kind == "idle":
            self._detach_worker(None)
            self._set(ChatState(why_unloaded=msg("chat.idle_unloaded", minutes=round(event["minutes"]))))
        elif event["load"] != self._loads:
            return  # an event of a load that a newer one replaced
        elif kind == "loading":
            progress = event["progress"] and Progress.model_validate(event["progress"])
            tight = Message.model_validate(event["tight"]) if event["tight"] else self._state.tight
            self._set(replace(self._state, stage=event["stage"], progress=progress, tight=tight))
        elif kind == "ready":
            ready = ChatState(
                "ready",
                self._state.target,
                dtype=event["dtype"],
                context_limit=event["context_limit"],
                mixed=event["mixed"],
                thinks=event["thinks"],
                adapter=event["adapter"],
                elsewhere=event["elsewhere"] and Message.model_validate(event["elsewhere"]),
                tight=self._state.tight,
            )
            self._set(ready)
        elif kind == "error":
            self._detach_worker(None)  # it ends by itself after a failed load
            self._set(ChatState("failed", self._state.target, *_message(event)))

    def _apply_to_answer(self, event: JsonObject) -> None:
        """Add a piece to the current answer, or end it. Events of earlier answers are ignored."""
        answer = self._answer
        if answer is None or answer.number != event["id"]:
            return
        if event["event"] in ("piece", "done"):
            answer.put(item_of(event))
        elif event["event"] == "answered":
            self._end_answer(None)
        else:
            message, advice = _message(event)
            self._end_answer(ChatError(message))
            self._set(replace(self._state, message=message, advice=advice))

    def _detach_worker(self, error: ChatError | None) -> None:
        """Ignore further events of the worker, so that another one may take its place, and end its answer with error
        (None: regularly)."""
        self._end_answer(error)
        self._worker = None

    def _end_answer(self, error: ChatError | None) -> None:
        """End the current answer, if any, with error (None: regularly); the chat is ready again if it was answering."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.put(error)
        if self._state.phase == "answering":
            self._set(replace(self._state, phase="ready"))

    def _set(self, state: ChatState) -> None:
        """Replace the state, and wake those who wait for a change."""
        self._state = state
        self._changed.notify_all()


def ends_with_question(turns: Sequence[Turn]) -> bool:
    """Return whether the last turn is a question that is not empty, or the result of a tool."""
    last = turns[-1]
    return last["role"] == "tool" or (last["role"] == "user" and bool(last["content"].strip()))


def _as_json(questions: Sequence[Question]) -> list[JsonObject]:
    """Return questions as the worker reads them."""
    return [
        {column: turns and [dict(turn) for turn in turns] for column, turns in zip(COLUMNS, question, strict=True)}
        for question in questions
    ]


def _message(event: JsonObject) -> tuple[Message, Message | None]:
    """Return the message of an error event, and its advice or None."""
    return Message.model_validate(event["text"]), event["advice"] and Message.model_validate(event["advice"])
