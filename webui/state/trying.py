"""Tries of a model before a training by rewards: one at a time, in a thread of the app (core/chat/trying).
The newest result is kept until the app ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from core.chat.client import ChatClient, ChatTarget
from core.chat.making.writers import LocalWriter
from core.chat.questions import target_of
from core.chat.trying import Trial, try_model
from core.data.reading.choices import Choices
from core.data.store import DatasetStore
from core.errors import ChatError, GarageError
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.all import Runs


@dataclass(frozen=True)
class TryingProgress:
    """The newest try of this app. key: of what is tried; recipe: that is tried; total: 0 while the model is loaded;
    error: why there is no trial."""

    key: str = ""
    recipe: Recipe | None = None
    at_work: bool = False
    done: int = 0
    total: int = 0
    error: Message | None = None
    trial: Trial | None = None


class Trying:
    """Tries of a model before a training by rewards: it answers some questions of the dataset, and the scores show
    whether it can learn from them. One at a time, in a thread of the app; the newest result is kept until the app
    ends."""

    def __init__(self, runs: Runs, datasets: DatasetStore, chat: ChatClient):
        self._runs, self._datasets, self._chat = runs, datasets, chat
        self._guard, self._stopped = threading.Lock(), threading.Event()
        self._progress = TryingProgress()

    def progress(self) -> TryingProgress:
        """Return the progress of the newest try of this app, also once it has ended, then with its result or error."""
        return self._progress

    def start(self, key: str, recipe: Recipe, parent: str | None) -> None:
        """Try the model of a planned recipe, or that of the run `parent`, in a thread. key: of the form's answers that
        the try belongs to. Raises ChatError while another try is at work."""
        with self._guard:
            if self._progress.at_work:
                raise ChatError("comparing.try_other")
            self._stopped.clear()
            self._progress = TryingProgress(key, recipe, at_work=True)
        threading.Thread(target=self._work, args=(recipe, parent), name="trying", daemon=True).start()

    def refuse(self, key: str, why: Message) -> None:
        """Show why a try did not begin, unless one is at work."""
        with self._guard:
            if not self._progress.at_work:
                self._progress = TryingProgress(key, error=why)

    def stop(self) -> None:
        """End the try, without a result. If none is at work, do nothing: an answer in Chat goes on."""
        if self._progress.at_work:
            self._stopped.set()
            self._chat.stop()

    def _work(self, recipe: Recipe, parent: str | None) -> None:
        """Try in the thread, and end the progress with the trial or the error; a stop is none."""
        trial: Trial | None = None
        error: Message | None = msg("evaluation_view.broken")
        try:
            trial, error = self._tried(recipe, parent), None
        except GarageError as refusal:
            error = None if self._stopped.is_set() else refusal.message
        finally:
            self._progress = replace(self._progress, at_work=False, trial=trial, error=error)

    def _tried(self, recipe: Recipe, parent: str | None) -> Trial:
        """Return the trial, noting the progress. Raises GarageError, also when stopped."""

        def note_or_stop(done: int, total: int) -> None:
            """Keep how many answers are done, for the page. Raises ChatError if the try was stopped."""
            self._progress = replace(self._progress, done=done, total=total)
            if self._stopped.is_set():
                raise ChatError("compare.stopped")

        model, data, adapter = recipe.model, recipe.data, recipe.adapter
        target = target_of(self._runs.get(parent)) if parent else ChatTarget(
            model.id, model.revision, None, adapter.method == "qlora", model.id, adapter.load_in_8bit
        )  # fmt: skip
        examples = self._datasets.rows(data.source, data.format, Choices.from_data(data)).examples
        return try_model(LocalWriter(self._chat, target), recipe, examples, note_or_stop)
