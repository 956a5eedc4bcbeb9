"""Requests of other programs, answered in batches by the chat's worker, with one copy of the weights.

What may share a batch: the base and one adapter at one strength. Requests that arrive while one is answered join it at
its next token, unless one before them has to wait for its end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from core.chat.answer import MAX_ROWS, STRENGTHS, Answer, ApiSampling, Column, Done, Piece
from core.chat.client import MAX_CHARACTERS, ChatClient, ChatTarget, Question, ends_with_question
from core.chat.contest import ensure_loaded
from core.chat.questions import target_of
from core.chat.serving.requests import ApiError
from core.data.conversation import Turn, characters
from core.errors import ChatError, GarageError
from core.runs.folder import RunFolder

BASE = "base"
MAX_WAITING = 64  # requests
GATHER_S = 0.02  # a client that sends several requests at once needs a moment
POLL_S = 0.1


@dataclass(frozen=True)
class ServedModel:
    """A model that a request names: a run at a strength, or its base."""

    target: ChatTarget
    column: Column
    strength: float = 1.0

    def base(self) -> ChatTarget:
        """The base in memory, without an adapter."""
        return _without_adapter(self.target)


def _without_adapter(target: ChatTarget) -> ChatTarget:
    """Return the target of the base alone: without adapter, label and run."""
    return replace(target, adapter=None, label="", run=None)


class ServedModels:
    """The names of served models: RUN, RUN@0.5 (strength), RUN@checkpoint-40, and base, which is the first run's."""

    def __init__(self, runs: Sequence[RunFolder]):
        """Store the runs by name; the base is that of the first. runs: at least one. Raises GarageError for a run
        without an adapter."""
        self._runs = {run.name: run for run in runs}
        self._first = target_of(runs[0])
        for run in runs[1:]:
            target_of(run)

    def names(self) -> list[str]:
        """Return all names but those with a strength."""
        checkpoints = [f"{name}@{each.name}" for name, run in self._runs.items() for each in run.checkpoints()]
        return [*self._runs, BASE, *checkpoints]

    def find(self, name: str) -> ServedModel:
        """Return the model, with its strength and checkpoint, of a name in a request. Raises ApiError (404), with the
        known names, for any other."""
        if name == BASE:
            return ServedModel(self._first, "base")
        label, *how = [name] if name in self._runs else name.split("@")
        run, strength, checkpoint = self._runs.get(label), 1.0, None
        try:
            if run is None:
                raise ValueError
            for part in how:
                if part.startswith("checkpoint-"):
                    checkpoint = run.checkpoint(part).name
                elif not STRENGTHS[0] <= (strength := float(part)) <= STRENGTHS[1]:
                    raise ValueError
            return ServedModel(target_of(run, checkpoint), "tuned", strength)
        except (ValueError, GarageError):
            known = ", ".join(self.names()[:20])
            message = f"The model {name[:100]!r} is not served here. Served are: {known}; RUN@0.5 sets a strength."
            raise ApiError(404, message, "model_not_found", "model") from None


@dataclass(eq=False)
class Request:
    """A request that waits or is answered. questions: conversations, each answered once. put: receives each Piece and
    Done, with the index of its question, or an error; it is called in another thread."""

    model: ServedModel
    questions: list[list[Turn]]
    sampling: ApiSampling
    put: Callable[[Piece | Done | Exception], None]
    abandoned: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise ApiError for a conversation that does not end with a question, or is too long."""
        if not all(map(ends_with_question, self.questions)):
            raise ApiError(400, "The last message must be a question that is not empty, or the result of a tool.")
        if (length := max(sum(map(characters, turns)) for turns in self.questions)) > MAX_CHARACTERS:
            message = f"The conversation has {length} characters; the limit is {MAX_CHARACTERS}."
            raise ApiError(400, message, "context_length_exceeded")


class Batcher:
    """The requests that wait, and the thread that has them answered."""

    def __init__(self, chat: ChatClient):
        """Begin without requests, and start the thread."""
        self._chat = chat
        self._waiting = list[Request]()
        self._changed = threading.Condition()
        self._is_over = False
        threading.Thread(target=self._serve, name="serving", daemon=True).start()

    def add(self, request: Request) -> None:
        """Let a request wait for its answers, which its `put` receives. Raises ApiError if it is no question, too long,
        or too many wait."""
        request.check()
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                raise ApiError(429, f"{MAX_WAITING} requests wait already. Try again later.", "rate_limit_exceeded")
            self._waiting.append(request)
            self._changed.notify_all()

    def end(self) -> None:
        """End the thread after the present batch; requests that wait get an error."""
        with self._changed:
            self._is_over = True
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
        for request in left:
            request.put(ApiError(503, "The server is ending."))

    def _serve(self) -> None:
        """Answer the waiting requests batch after batch, each gathered for GATHER_S, until the end. Requests of a batch
        that fails get the error."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_over)
                if self._is_over:
                    return self.end()  # for those that joined in vain meanwhile
            time.sleep(GATHER_S)
            batch = self._take([])
            try:
                if batch:  # all may have been abandoned meanwhile
                    self._answer(batch)
            except Exception as error:  # noqa: BLE001 - whatever happens, these get an error and the next are served
                for request in batch:
                    request.put(error)

    def _take(self, running: Sequence[Request], rows: int = 0) -> list[Request]:
        """Remove from the queue the requests that can join the running batch, or else form a new one with the first of
        the queue, and return them in their order; abandoned requests are dropped. A batch has one base, at most one
        tuned model and MAX_ROWS questions.

        running: the batch that is being answered, which they would join, [] for a new one. rows: how many of its
        questions still go on. If a batch runs, the search ends at the first request that does not fit, and only its own
        tuned model, or the base, can join; else those that do not fit are passed over.
        """
        taken, tuned = list[Request](), next((one.model for one in running if one.model.column == "tuned"), None)
        with self._changed:
            self._waiting = [request for request in self._waiting if not request.abandoned.is_set()]
            for request in self._waiting:
                model, first = request.model, next(iter([*running, *taken]), request)
                fits = rows + len(request.questions) <= MAX_ROWS and model.base() == first.model.base()
                if fits and (model.column == "base" or model == tuned or not (running or tuned)):
                    taken.append(request)
                    rows += len(request.questions)
                    tuned = model if model.column == "tuned" else tuned
                elif running:
                    break
            self._waiting = [request for request in self._waiting if request not in taken]
        return taken

    def _answer(self, batch: list[Request]) -> None:
        """Answer a batch and pass each request its items; requests that fit join it meanwhile. If it fails before its
        first item, each request of several is answered alone, so that one that is too long fails alone; after that all
        get the error. Those that joined but were not answered wait again."""
        owners = [(request, index) for request in batch for index in range(len(request.questions))]
        at_first, answered, ended, stopped = len(batch), set[Request](), 0, set[int]()
        try:
            with self._ask(batch) as answer:
                for item in answer:
                    request, index = owners[item.question]
                    answered.add(request)
                    ended += isinstance(item, Done)
                    if request.abandoned.is_set() and item.question not in stopped:
                        stopped.add(item.question)
                        answer.stop_question(item.question)
                    request.put(replace(item, question=index))
                    for new in self._take(batch, len(owners) - ended) if self._waiting else ():
                        batch.append(new)
                        owners += [(new, index) for index in range(len(new.questions))]
                        self._chat.join(answer, *_rows([new]))
        except GarageError as error:
            for request in batch:
                if answered or len(batch) == 1:
                    request.put(error)
                else:
                    self._answer([request])
        else:
            with self._changed:
                self._waiting = [each for each in batch[at_first:] if each not in answered] + self._waiting

    def _ask(self, batch: list[Request]) -> Answer:
        """Load the model if it is not (for the base alone any of its adapters may stay), wait while the page's chat
        answers, and ask. Raises ChatError."""
        model = next((request.model for request in batch if request.model.column == "tuned"), batch[0].model)
        while True:
            loaded = self._chat.state().target
            any_adapter = model.column == "base" and loaded is not None and _without_adapter(loaded) == model.base()
            ensure_loaded(self._chat, loaded if any_adapter and loaded else model.target)
            try:
                return self._chat.ask_together(*_rows(batch), model.strength)
            except ChatError as error:
                if error.message.key != "chat.already_answering":
                    raise
                time.sleep(POLL_S)


def _rows(batch: list[Request]) -> tuple[list[Question], list[ApiSampling]]:
    """Return the requests' questions for the worker, and the sampling of each; n answers to one request get n seeds."""
    questions: list[Question] = [
        (turns, None) if request.model.column == "base" else (None, turns)
        for request in batch
        for turns in request.questions
    ]
    sampling = [
        request.sampling.model_copy(update={"seed": (request.sampling.seed + n) % 2**32})
        for request in batch
        for n in range(len(request.questions))
    ]
    return questions, sampling
