"""Several ranks in a test: rank 0 is this process, the others are threads with a model of their own, or processes, as
torchrun's agent would start them: `python -m tests.kit.ranks MODEL MEETING BEFORE`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from core.engine import adapter, base_model
from core.models.library import Models
from core.presets import PROJECT
from core.recipe import Recipe
from core.system.processes import worker_environment
from core.training.ranks import rank_process
from core.training.ranks.group import END_S, Ranks, gloo
from core.training.ranks.meeting import AGENT
from core.training.ranks.step import SharedStep
from core.workspace.folder import Workspace
from tests.kit.trainer import FP32


def tuned_of(model: Path, recipe: Recipe) -> Any:
    torch.manual_seed(1)
    return adapter.add(base_model.load(model, FP32, recipe.adapter.method == "qlora"), recipe.adapter, "tiny", None)


class OfThreads(Ranks):
    """Ranks on threads. Their exchange before the first step is skipped: it needs torch's default group, of which a
    process has one."""

    def exchange(self, **mine: Any) -> list[dict[str, Any]]:
        return [mine] * self.size


@contextmanager
def in_threads(
    folder: Path, model: Path, recipe: Recipe, count: int, spoil: Callable[[SharedStep], None] = lambda step: None
) -> Iterator[tuple[Ranks, list[SharedStep]]]:
    """Yield rank 0's end, and the steps of the others. spoil: called with each of those before it serves."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = [
        SharedStep.on(OfThreads(rank, count, None, None), "", tuned_of(model, recipe), recipe, FP32, 0)
        for rank in range(1, count)
    ]

    def serve(step: SharedStep) -> None:
        step.ranks._group = gloo(distributed.FileStore(str(folder / "meeting")), step.ranks.rank, count, "127.0.0.1")
        step.ranks.publish_use = lambda own: None  # type: ignore[method-assign]
        step.follow()

    for step in steps:
        step.begin(recipe.train.seed)
        spoil(step)
        threading.Thread(target=serve, args=(step,), daemon=True).start()
    store = distributed.FileStore(str(folder / "meeting"))
    ranks = OfThreads(0, count, store, gloo(store, 0, count, "127.0.0.1"))
    try:
        yield ranks, steps
    finally:
        ranks.end()


@contextmanager
def in_processes(
    folder: Path, model: Path, recipe: Recipe, count: int, before: str = ""
) -> Iterator[tuple[Ranks, list[subprocess.Popen[bytes]]]]:
    """Yield rank 0's end, and the processes of the others. before: Python that each of those runs first."""
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    usual = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GROUP_WORLD_SIZE": "1", "GROUP_RANK": "0"}
    usual |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", AGENT: str(os.getpid())}
    command = [sys.executable, "-m", "tests.kit.ranks", str(model), str(meeting), before]
    others = [
        subprocess.Popen(command, cwd=PROJECT, env=worker_environment() | usual | {"RANK": str(rank)})
        for rank in range(1, count)
    ]
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (usual | {"RANK": "0"}).items():
                patch.setenv(name, value)
            ranks = Ranks.from_environment(False, meeting)
        ranks.meet(recipe=recipe.model_dump(mode="json"), dtype="float32", pad_token_id=0)
        yield ranks, others
        ranks.end()
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
        for other in others:  # torchrun's agent ends them too
            with suppress(subprocess.TimeoutExpired):
                other.wait(END_S)
            other.kill()
            other.wait()
        distributed.destroy_process_group()


def main() -> None:
    model, meeting, before = sys.argv[1:]
    Models.obtain = lambda *_, **__: Path(model)  # type: ignore[method-assign]
    exec(before, {"__name__": "before"})
    rank_process.follow(Workspace.open(tempfile.mkdtemp(dir=os.path.dirname(meeting))), Path(meeting))


if __name__ == "__main__":
    main()
