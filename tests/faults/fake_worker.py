"""The worker without a model: the real process, lease, reporter and states around a scripted training, and no torch.

    python -m tests.faults.fake_worker --workspace DIR RUN_ID

A run's facts may hold "script": {"step_s": seconds of a step, "save_s": seconds of a save, "deaf": do not hear a stop,
"stubborn": do not end when terminated either}. What it learns is a chain of hashes, so that a run which went on wrongly
ends in another adapter. Checkpoints are written as core.training.checkpoint writes them, in the same files.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

from core import files
from core.advice import plan
from core.errors import PauseRequested, StopRequested
from core.messages import msg
from core.recipe import Recipe
from core.runs.ended import Finished
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.runs.states import State
from core.system.processes import own_group, worker_environment
from core.training import worker
from core.workspace.folder import Workspace

STAGES = ("reading_data", "tokenizing", "loading_libraries", "loading_model")


def recipe(steps: int, save_steps: int) -> Recipe:
    value = {
        "name": "Scripted",
        "data": {"source": "sample:pirate_answers"},
        "train": {"max_steps": steps, "save_steps": save_steps, "eval_steps": save_steps},
    }
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def spawn(workspace: Workspace, run: RunFolder) -> subprocess.Popen:
    """In place of core.queue.supervisor.spawn_worker."""
    with open(run.path / "train.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fake_worker", "--workspace", str(workspace.root), run.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=worker_environment(),
            **own_group(),
        )


def learned(step: int) -> bytes:
    """What a run that was never disturbed has learned after so many steps."""
    chain = b"base"
    for number in range(1, step + 1):
        chain = after(chain, number)
    return chain


def after(chain: bytes, step: int) -> bytes:
    return hashlib.sha256(chain + str(step).encode()).digest()


def read_checkpoint(folder: Path) -> tuple[int, bytes]:
    """Raises OSError or ValueError for one that is not whole."""
    step = json.loads((folder / "position.json").read_text("utf-8"))["step"]
    chain = (folder / "trainer.pt").read_bytes()
    if (folder / "adapter" / "adapter_model.safetensors").read_bytes() != safetensors(chain) or chain != learned(step):
        raise ValueError(f"{folder} is not whole")
    return step, chain


def save_adapter(folder: Path, chain: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.replace_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": 8})
    (folder / "adapter_model.safetensors").write_bytes(safetensors(chain))


def safetensors(chain: bytes) -> bytes:
    """A file of that format whose one tensor is the chain: its last 32 bytes."""
    head = json.dumps({"chain": {"dtype": "U8", "shape": [len(chain)], "data_offsets": [0, len(chain)]}}).encode()
    return len(head).to_bytes(8, "little") + head + chain


def checkpoint(run: RunFolder, step: int, chain: bytes, keep: int = 2) -> None:
    from shutil import rmtree

    target = run.path / "checkpoints" / f"checkpoint-{step:06d}"
    if (target / "COMPLETE").exists():
        return
    aside = target.with_name(f".{target.name}.part")
    rmtree(aside, ignore_errors=True)
    rmtree(target, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        save_adapter(aside / "adapter", chain)
        (aside / "trainer.pt").write_bytes(chain)
        (aside / "position.json").write_text(json.dumps({"step": step}), "utf-8")
        files.sync_tree(aside)
        (aside / "COMPLETE").write_text("1", "ascii")
    except BaseException:
        rmtree(aside, ignore_errors=True)
        raise
    aside.rename(target)
    run.log_event("checkpoint", step=step, checkpoint=target.name)
    for folder in run.checkpoints()[:-keep]:
        (folder / "COMPLETE").unlink()
        rmtree(folder, ignore_errors=True)


def train(run: RunFolder, workspace: Workspace, reporter: Reporter) -> Finished:
    """In place of core.training.worker._train."""
    script = (run.facts().model_extra or {}).get("script") or {}
    settings = run.recipe().train
    step, chain = 0, b"base"
    for stage in STAGES:
        reporter.set_stage(stage)
        reporter.check()
    saved = run.checkpoints() if reporter.status.attempt > 1 else []
    if saved:
        step, chain = read_checkpoint(saved[-1])
        run.log_event("decision", message=msg("run.resumed", step=step))
    reporter.set_state(State.RUNNING, step=step, total_steps=settings.max_steps)
    if script.get("deaf"):
        reporter.check = lambda: None
    if script.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reporter.has_something_to_save()

    def save() -> None:
        reporter.set_stage("saving")
        time.sleep(script.get("save_s", 0))
        checkpoint(run, step, chain)

    try:
        while step < settings.max_steps:
            reporter.set_stage("training")
            reporter.check()
            time.sleep(script.get("step_s", 0))
            step, chain = step + 1, after(chain, step + 1)
            loss = 2.4 * math.exp(-step / 25) + 0.4 + 0.1 * math.sin(step)
            reporter.metrics(
                "train", step, loss=loss, grad_norm=loss, learning_rate=1e-4, tokens_seen=step, tokens_per_second=1.0
            )
            reporter.set_progress(step, settings.max_steps, 1.0)
            if step % settings.save_steps == 0 or step == settings.max_steps:
                reporter.set_stage("measuring")
                reporter.metrics("eval", step, eval_loss=loss)
                save()
    except (PauseRequested, StopRequested) as asked:
        if step:
            save()
        if isinstance(asked, StopRequested):
            save_adapter(run.adapter, chain)
        raise
    reporter.set_stage("saving")
    save_adapter(run.adapter, chain)
    return Finished(step, settings.max_steps, kept=step)


def main() -> int:
    worker._train = train
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
