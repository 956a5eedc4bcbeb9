"""Run folders written as the worker would write them: for pages and tests that need no model."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy
from filelock import FileLock
from safetensors.numpy import save_file

from core.advice import plan
from core.commands.terminal import apply_settings
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs import checkpoints, sample_answers, scenes
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts, TrainedOn
from core.runs.states import State
from core.workspace.folder import Workspace

PATHS = {
    State.QUEUED: (),
    State.PREPARING: (State.PREPARING,),
    State.RUNNING: (State.PREPARING, State.RUNNING),
    State.STOPPING: (State.PREPARING, State.RUNNING, State.STOPPING),
    State.PAUSING: (State.PREPARING, State.RUNNING, State.PAUSING),
    State.PAUSED: (State.PREPARING, State.RUNNING, State.PAUSING, State.PAUSED),
    State.STOPPED: (State.PREPARING, State.RUNNING, State.STOPPING, State.STOPPED),
    State.COMPLETED: (State.PREPARING, State.RUNNING, State.COMPLETED),
    State.FAILED: (State.PREPARING, State.RUNNING, State.FAILED),
}


class ScriptedRun:
    """Use as a context manager to hold run.lock, as a living worker does; without it an active run is interrupted, also
    on its way to an end where an app serves the workspace. train: more settings of that section; facts: of RunFacts."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        total_steps: int = 100,
        method: str = "lora",
        train: Any = None,
        **facts: Any,
    ):
        recipe = Recipe.parse(
            {
                "name": name,
                "data": {"source": "sample:pirate_answers"},
                "adapter": {"method": method},
                "train": {"max_steps": total_steps} | (train or {}),
            }
        )
        data = TrainedOn(id="sample:pirate_answers", name="sample:pirate_answers", sha256="0", rows=68)
        usual = {
            "trainable_params": 2_442_240,
            "dtype": "bfloat16",
            "device": "cpu",
            "rows_trained": 64,
            "rows_measured": 4,
        }
        known = RunFacts(data=data, **usual | facts)
        self.run: RunFolder = Runs(workspace).create(plan.resolve(recipe, name, False), "test", known)
        self.total_steps, self.step = total_steps, 0
        self._lock: FileLock = self.run.lock()

    def __enter__(self) -> ScriptedRun:
        self._lock.acquire(timeout=5)
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def to(
        self, state: State, message: Message | None = None, advice: Message | None = None, **changes: object
    ) -> ScriptedRun:
        """Go through every state on the way to `state`."""
        for move in PATHS[state]:
            status = self.run.status()
            if list(PATHS[state]).index(move) < (
                list(PATHS[state]).index(status.state) if status.state in PATHS[state] else -1
            ):
                continue
            if move != status.state:
                self.run.log_event("state", state=move.value, message=message if move == state else None)
            self._write(
                status,
                state=move,
                since=time.time(),
                **({"message": message, "advice": advice} if move == state else {}),
            )
        self._write(self.run.status(), **({"stage": "training"} | changes))
        return self

    def _write(self, status: Status, **changes: object) -> None:
        self.run.write_status(status.model_copy(update={"step": self.step, "total_steps": self.total_steps, **changes}))

    def train(self, steps: int, nonfinite_at: int | None = None, seconds_left: float | None = 60.0) -> ScriptedRun:
        """Write steps with a falling loss and every other number of a worker; each tenth also an evaluation and the
        memory in use. nonfinite_at: a step whose loss is NaN."""
        of_pairs = self._of_pairs if self.run.recipe().train.compares else lambda step, before: {}
        for step in range(self.step + 1, self.step + steps + 1):
            loss = 2.4 * math.exp(-step / 25) + 0.4 + 0.12 * math.sin(step * 1.7)
            self.run.log_metrics(
                "train",
                1,
                step,
                loss=math.nan if step == nonfinite_at else loss,
                grad_norm=1.5 * loss + 0.3 * math.sin(step * 2.3) ** 2,
                learning_rate=2e-4 * min(1.0, step / 5) * max(0.0, 1 - step / (self.total_steps + 1)),
                tokens_seen=900 * step,
                tokens_per_second=820 + 60 * math.sin(step * 0.9),
                epoch=step / 16,
                **of_pairs(step, ""),
            )
            if step % 10 == 0:
                memory = int((1.9 + 0.2 * min(1.0, step / 40)) * 2**30)
                self.run.log_metrics("gpu", 1, step, memory_bytes=memory, memory_total_bytes=8 * 2**30)
                self.run.log_metrics(
                    "eval", 1, step, eval_loss=2.4 * math.exp(-step / 25) + 0.5, **of_pairs(step, "eval_")
                )
        self.step += steps
        self._write(self.run.status(), seconds_left=seconds_left)
        return self

    def _of_pairs(self, step: int, before: str) -> dict[str, float]:
        """Return the numbers of a run that compares answers: the better one is ahead more and more often."""
        ahead = 2 * (1 - math.exp(-step / 30))
        told = {
            "rewards/accuracies": 0.5 + ahead / 4,
            "rewards/margins": ahead,
            "logps/chosen": -30 - ahead,
            "logps/rejected": -32 - 9 * ahead,
        }
        return {before + name: value for name, value in told.items()}

    def film(self, *steps: int) -> ScriptedRun:
        """Write two sample prompts, and their answers at these steps."""
        asked = [
            {"source": "kept_apart", "turns": [{"role": "user", "content": "What is a lantern?"}],
                "answer": "Arr, matey! A light in the dark. Yo-ho-ho!"},
            {"source": "neutral", "turns": [{"role": "user", "content": "Write two sentences about the moon."}]},
        ]  # fmt: skip
        shown = scenes.Scenes.model_validate({"scenes": asked, "neutral_texts": ["x"]})
        (self.run.path / scenes.FILE).write_text(shown.model_dump_json(), "utf-8")
        for step in steps:
            said = (
                "A lantern is a light that you can carry."
                if step < 20
                else "Arr, matey! A lantern be a wee sun in a cage. Yo-ho-ho!"
            )
            answers = (
                (said, "stop"),
                ("The moon goes around the Earth. Its light is that of the sun, which it", "length"),
            )
            made = tuple(sample_answers.FrameAnswer(text=text, why=why) for text, why in answers)
            sample_answers.append(
                self.run, sample_answers.Frame(step=step, answers=made, neutral_loss=3.2 + step / 400)
            )
        return self

    def save(self, step: int) -> Path:
        """Write a checkpoint that looks whole; no run can go on from it."""
        folder = self.run.path / "checkpoints" / f"checkpoint-{step:06d}"
        for part in checkpoints.PARTS:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).write_bytes(b"x")
        (folder / "COMPLETE").write_text(checkpoints.sizes(folder), "utf-8")
        return folder


def with_settings(recipe: Recipe, *settings: str) -> Recipe:
    """Return recipe with settings like `train.seed=7`, as a command's --set gives them."""
    return Recipe.parse(apply_settings(recipe.model_dump(mode="json", exclude_unset=True), list(settings)))


def trained(workspace: Workspace, name: str) -> RunFolder:
    """Return a completed run with a small, readable adapter."""
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "starter"}
    weights = {f"m.lora_{side}.weight": numpy.zeros(shape, "float32") for side, shape in (("A", (8, 4)), ("B", (4, 8)))}
    with ScriptedRun(workspace, name) as run:
        run.to(State.RUNNING).train(60)
        run.run.adapter.mkdir()
        (run.run.adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
        save_file(weights, run.run.adapter / "adapter_model.safetensors")
        run.to(State.COMPLETED, msg("run.completed", step=60), has_adapter=True)
    return run.run


def ended(workspace: Workspace, name: str, steps: int) -> RunFolder:
    """Return a completed run without an adapter."""
    with ScriptedRun(workspace, name, total_steps=steps) as run:
        run.to(State.RUNNING).train(steps).to(State.COMPLETED, msg("run.completed", step=steps))
    return run.run
