"""The evaluation of a run in the background: one at a time, in a thread of the app.

Every answer is kept as it arrives (core/chat/evaluation), so whoever stops it, closes the page or ends the app loses
none; the next press goes on.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from core.chat.client import ChatClient
from core.chat.contest import answer_missing
from core.chat.evaluation.of_run import keep_result, prepare, table_of
from core.data.store import DatasetStore
from core.errors import ChatError, GarageError
from core.messages import Message, msg
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace


@dataclass(frozen=True)
class EvaluationProgress:
    """The newest evaluation of this app. total: 0 while it is prepared; error: why it ended without its result."""

    run: str = ""
    at_work: bool = False
    done: int = 0
    total: int = 0
    error: Message | None = None


class Evaluating:
    def __init__(self, workspace: Workspace, datasets: DatasetStore, chat: ChatClient):
        self._workspace, self._datasets, self._chat = workspace, datasets, chat
        self._guard, self._stopped = threading.Lock(), threading.Event()
        self._progress = EvaluationProgress()

    def progress(self) -> EvaluationProgress:
        return self._progress

    def start(self, run: RunFolder) -> None:
        """Answer what is missing, in a thread. Raises ChatError while another one is at work."""
        with self._guard:
            if self._progress.at_work:
                raise ChatError("evaluation_view.other_at_work")
            self._stopped.clear()
            self._progress = EvaluationProgress(run.id, at_work=True)
        threading.Thread(target=self._work, args=(run,), name="evaluation", daemon=True).start()

    def stop(self) -> None:
        """End it after the answers that are being written. Without one, an answer in Chat goes on."""
        if self._progress.at_work:
            self._stopped.set()
            self._chat.stop()

    def _work(self, run: RunFolder) -> None:
        error: Message | None = msg("evaluation_view.broken")
        try:
            error = self._answer(run)
        except GarageError as refusal:
            error = None if self._stopped.is_set() else refusal.message
        finally:
            self._progress = replace(self._progress, at_work=False, error=error)

    def _answer(self, run: RunFolder) -> Message | None:
        evaluation = prepare(self._workspace, run, self._datasets)
        for done, total in answer_missing(self._chat, self._workspace, evaluation):
            self._progress = replace(self._progress, done=done, total=total)
            if self._stopped.is_set():
                return None
        if not evaluation.missing() and (table := table_of(evaluation)):
            keep_result(run, table)
        return None
