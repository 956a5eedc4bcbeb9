"""Trackers (TensorBoard, trackio, Weights & Biases, MLflow) get a run's settings, metrics and sample answers through
the callbacks of transformers, which name and group them as in its Trainer.

A thread reads what the run writes into its folder, so no step waits for a tracker, and one that fails costs a warning.
TensorBoard's files are in <run>/tensorboard, trackio's in <workspace>/trackio; Weights & Biases and MLflow send where
their own variables say. A resumed run goes on in the same curves, but for MLflow, where it is another run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from core.errors import GarageError
from core.files import JsonObject
from core.messages import msg
from core.recipe import Recipe
from core.runs import sample_answers
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.workspace.folder import Workspace

PROJECT = "lora-garage"
LOOK_S = 2.0
CLOSE_S = 20.0  # at the end of a run; a tracker that takes longer, as without a network, is left
NOT_MEASURED = ("v", "kind", "attempt", "step", "time", "nonfinite")  # in metrics.jsonl


class Trackers:
    """Context manager: sends what the run writes during the block to the trackers of its recipe (train.report_to)."""

    def __init__(self, run: RunFolder, workspace: Workspace, reporter: Reporter):
        """Note where the run's metrics and sample answers end now: only what is written later is sent, not that of an
        earlier attempt."""
        self._run, self._workspace, self._reporter = run, workspace, reporter
        metrics = run.path / "metrics.jsonl"
        self._offset = metrics.stat().st_size if metrics.exists() else 0
        self._frames = {(frame.attempt, frame.step) for frame in sample_answers.read(run)}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._callbacks: dict[str, Any] = {}
        self._arguments: Any = None  # once the trackers have begun

    def __enter__(self) -> Trackers:
        """Start the thread that sends news to the trackers, if the recipe names any. A recipe that cannot be read
        starts none and raises nothing."""
        with suppress(GarageError):  # the worker says what is wrong with a recipe
            if (recipe := self._run.recipe()).train.report_to:
                self._thread = threading.Thread(target=self._follow, args=(recipe,), name="trackers", daemon=True)
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread after it has sent the last news, waiting at most CLOSE_S for it."""
        self._over.set()
        if self._thread:
            self._thread.join(CLOSE_S)

    def _follow(self, recipe: Recipe) -> None:
        """Send what is new every LOOK_S until the end of the run. The trackers begin with the first news: by then the
        libraries are there, which the worker imports in an order of its own."""
        is_over = False
        while not is_over:
            is_over = self._over.wait(LOOK_S)
            for step, logs in self._news():
                if self._arguments is None:
                    self._begin(recipe)
                self._call("on_log", step, logs=logs)
        self._call("on_train_end", 0)

    def _begin(self, recipe: Recipe) -> None:
        """Begin the trackers of the recipe; one whose package is missing or fails to import becomes a warning of the
        run."""
        self._set_places()
        self._arguments = _arguments(self._run, recipe)
        for name in recipe.train.report_to:
            try:
                self._callbacks[name] = _callback(name)
            except Exception as error:  # noqa: BLE001 - not installed, or whatever its import raises
                self._warn(name, error)
        self._call("on_train_begin", 0)

    def _set_places(self) -> None:
        """Set, for the rest of this process, the environment variables by which trackers know where to write and which
        run goes on, where nobody has set them."""
        places = {
            "TENSORBOARD_LOGGING_DIR": self._run.path / "tensorboard", "TRACKIO_DIR": self._workspace.root / "trackio",
            "WANDB_PROJECT": PROJECT, "WANDB_DIR": self._run.path, "WANDB_RUN_ID": self._run.id,
            "WANDB_RESUME": "allow", "MLFLOW_EXPERIMENT_NAME": PROJECT,
        }  # fmt: skip
        for name, value in places.items():
            os.environ.setdefault(name, str(value))

    def _news(self) -> Iterator[tuple[int, JsonObject]]:
        """Yield (step, values by name) of the metrics and sample answers since the last call."""
        tail = self._run.metrics(self._offset)
        self._offset = tail.offset
        for record in tail.records:
            kind = record.get("kind")
            prefix = f"{kind}_" if kind == "gpu" else ""  # those of an evaluation have theirs
            values = {
                prefix + name: value
                for name, value in record.items()
                if name not in NOT_MEASURED and isinstance(value, int | float)
            }
            yield int(record.get("step", 0)), values
        for frame in sample_answers.read(self._run):
            if (frame.attempt, frame.step) not in self._frames:
                self._frames.add((frame.attempt, frame.step))
                answers = enumerate(frame.answers, 1)
                yield frame.step, {f"sample_{place}": answer.text for place, answer in answers if answer.text}

    def _call(self, event: str, step: int, **values: object) -> None:
        """Call an event of each tracker. One that fails is left out from then on."""
        from transformers import TrainerControl, TrainerState

        for name, callback in list(self._callbacks.items()):
            try:
                getattr(callback, event)(self._arguments, TrainerState(global_step=step), TrainerControl(), **values)
            except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the run goes on
                del self._callbacks[name]
                self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        """Log a warning of the run that a tracker failed, with the beginning of the error's text; the training goes
        on."""
        self._reporter.warn(msg("run.tracker_failed", tracker=name, reason=str(error).strip()[:300] or repr(error)))


def _callback(name: str) -> Any:
    """Return the callback of transformers for a tracker. Raises RuntimeError if its package is not installed."""
    from transformers.integrations import get_reporting_integration_callbacks

    [kind] = get_reporting_integration_callbacks([name])
    return kind()


def _arguments(run: RunFolder, recipe: Recipe) -> Any:
    """Return transformers' arguments of a training that name the run, with the recipe as their values."""
    from transformers import TrainingArguments

    class RecipeArguments(TrainingArguments):
        """Arguments whose values are those of the recipe."""

        def to_dict(self) -> dict[str, Any]:
            """Return the recipe's settings by names such as train.learning_rate, which the trackers log in place of
            transformers' own arguments."""
            return settings

        to_sanitized_dict = to_dict

    settings = dict(_flat(recipe.model_dump(mode="json")))
    return RecipeArguments(output_dir=str(run.path), run_name=run.id, project=PROJECT, report_to="none", use_cpu=True)


def _flat(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield the settings of a recipe with their sections, as train.learning_rate; lists as text."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, str(value) if isinstance(value, list) else value
