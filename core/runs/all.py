"""All runs of a workspace: creating, finding, queueing, renaming and deleting their folders. No training, no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import Timeout

from core import files
from core.errors import BusyError, RecipeError, RunError
from core.files import JsonObject, writing
from core.messages import msg
from core.models.on_disk import Use
from core.recipe import Recipe
from core.runs import further
from core.runs import process as run_process
from core.runs.ended import EndFacts, ending
from core.runs.folder import RUN_ID, RunFolder, Status
from core.runs.run_json import Parent, RunFacts
from core.runs.states import ACTIVE, BUSY, TERMINAL, State, may_pause, may_resume
from core.system import devices, path_length
from core.system.processes import process_lives
from core.workspace import names
from core.workspace.folder import Workspace

LOCK_S = 3.0  # seconds; a worker that has reported "paused" still needs a moment to end


@dataclass(frozen=True)
class Runs:
    """The runs of one workspace."""

    workspace: Workspace

    def create(
        self,
        recipe: Recipe,
        launcher: str,
        facts: RunFacts | None = None,
        fill: Callable[[RunFolder], Status] = lambda run: Status(state=State.QUEUED, since=time.time()),
    ) -> RunFolder:
        """Create the folder of a run, all or nothing: recipe, state, run.json (the recipe's name, told
        apart from other runs of that name, and facts), and a copy of the adapter of facts.parent. Raises RunError if it
        cannot, or if the parent is gone.

        launcher: "app" (the app's supervisor starts it) or "command" (the command that created it does). fill: writes
        further files and returns the run's state, by default queued.
        """
        path_length.refuse(self.workspace.root, RunError)
        folder = f"{time.strftime('%Y-%m-%d')}_{names.slug(recipe.name)}_{names.short_id()}"
        aside = self.workspace.runs / f".{folder}.part"
        try:
            (aside / "checkpoints").mkdir(parents=True)
            run = RunFolder(aside)
            if facts and facts.parent:
                further.bring_start(self._parent(facts.parent), aside)
            recipe.write(aside / "recipe.yaml")
            name = further.free_name(recipe, {run.name: run for run in self.folders()})
            created = RunFacts(v=1, name=name, created=time.time(), launcher=launcher, **this_process())
            files.replace_json(aside / "run.json", created.set_fields() | (facts.set_fields() if facts else {}))
            run.write_status(fill(run))
            files.rename(aside, self.workspace.runs / folder)
            files.sync_folder(self.workspace.runs)
        except BaseException as error:  # also of the parent, of fill, and Ctrl-C
            shutil.rmtree(aside, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise RunError("run.cannot_create", folder=self.workspace.runs, reason=error.strerror or error) from error
        return RunFolder(self.workspace.runs / folder)

    def _parent(self, parent: Parent) -> RunFolder:
        """Return the run that one continues. Raises RunError if it was deleted."""
        try:
            return self.get(parent.run)
        except RunError:
            raise RunError("further.parent_gone", name=parent.name) from None

    def get(self, run_id: str) -> RunFolder:
        """Return the run with this id. Raises RunError for an id that is not a run here; no id can leave the runs
        folder."""
        if not RUN_ID.fullmatch(run_id) or not (self.workspace.runs / run_id / "state.json").is_file():
            raise RunError("run.unknown", run=str(run_id)[:80])
        return RunFolder(self.workspace.runs / run_id)

    def find(self, name: str) -> RunFolder:
        """Return the run with this id, with an id that ends so, or with this name if only one run has it (for
        commands). Raises RunError if there is none, or several."""
        runs = self.list()
        for matches in (
            [r for r in runs if r.id == name or r.id.endswith(f"_{name}")],
            [r for r in runs if r.name == name],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise RunError("run.ambiguous", run=name[:80], ids=[r.id for r in matches[:5]])
        raise RunError("run.unknown", run=name[:80])

    def folders(self) -> Iterator[RunFolder]:
        """Yield all runs in no particular order, without reading a file."""
        for path in self.workspace.runs.iterdir():
            if RUN_ID.fullmatch(path.name) and (path / "state.json").is_file():
                yield RunFolder(path)

    def combined_in(self, run: RunFolder) -> Iterator[tuple[RunFolder, str | None]]:
        """Yield the runs whose adapters a run was combined of, each with the checkpoint that was taken (None: its end);
        those that are still here. They are known by their ids, as names change and repeat."""
        combined = run.facts().combined
        for folder in (Path(one.folder) for one in combined.adapters) if combined else ():
            id = next((part for part in folder.parts if RUN_ID.fullmatch(part)), "")
            if (self.workspace.runs / id / "state.json").is_file():
                checkpoint = folder.parent.name if folder.parent.parent.name == "checkpoints" else None
                yield RunFolder(self.workspace.runs / id), checkpoint

    def list(self) -> Sequence[RunFolder]:
        """Return all runs, newest first."""
        return sorted(self.folders(), key=lambda run: (run.facts().created, run.id), reverse=True)

    def uses(self) -> dict[str, tuple[Use, ...]]:
        """Map each model id to the runs trained on it, each with whether it may need it again. Runs with an unreadable
        recipe are left out."""
        uses: dict[str, tuple[Use, ...]] = {}
        for run in self.list():
            with contextlib.suppress(RecipeError):
                model, needs_it = run.recipe().model.id, self.status(run).state not in TERMINAL
                uses[model] = (*uses.get(model, ()), Use(run.name, needs_it, run.facts().created))
        return uses

    def status(self, run: RunFolder) -> Status:
        """Return the run's true status without writing it: one recorded as active whose lock nobody holds was
        interrupted, one queued by a command that is gone was stopped."""
        status = run.status()
        if status.state in ACTIVE and not run.is_locked():
            status = run.status()  # the worker may have ended between the two checks
            if status.state in ACTIVE:
                return ending(status, "gone", EndFacts.from_run(run), time.time())
        if status.state == State.QUEUED and self._was_left(run):
            return ending(status, "stop", EndFacts.from_run(run), time.time())
        return status

    def pause(self, run: RunFolder) -> None:
        """Request that a run saves its position and frees the device. Raises RunError if it cannot be paused."""
        state = self.status(run).state
        if not may_pause(state):
            raise RunError("run.not_pausable", name=run.name, state=msg(f"state.{state.value}"))
        run.request("pause")

    def queue_again(self, run: RunFolder, launcher: str) -> None:
        """Queue a paused, interrupted or failed run for its next attempt, which continues from its newest checkpoint.

        launcher: "app" (the app's supervisor starts it) or "command" (the command that queued it does). Raises RunError
        for a run that has ended or is at work, BusyError if another process is changing it.
        """
        status = self.status(run)
        if not may_resume(status.state):
            raise RunError("run.not_resumable", name=run.name, state=msg(f"state.{status.state.value}"))
        with writing(run.path):
            try:
                with run.lock().acquire(timeout=LOCK_S):
                    if run.status().attempt != status.attempt:  # resumed by another process meanwhile
                        raise BusyError("run.already_training", name=run.name)
                    self._queue_again(run, status, launcher)
            except Timeout:
                raise BusyError("run.already_training", name=run.name) from None

    def _queue_again(self, run: RunFolder, status: Status, launcher: str) -> None:
        """Set an ended run's state to queued, as its next attempt from its saved step, on the device that was offered;
        delete a pending command."""
        if run.status().state != status.state:
            run.write_status(status)  # found interrupted, or left in the queue, which nobody has recorded yet
        (run.path / "control.json").unlink(missing_ok=True)  # the command of the previous attempt
        facts = run.facts()
        device_now = run_process.accept_offer(facts, devices.read_cards()) if facts.offered_device else RunFacts()
        run.add_facts(RunFacts(launcher=launcher, **this_process(), **device_now.set_fields()))
        fresh = {
            "message": None,
            "advice": None,
            "progress": None,
            "seconds_left": None,
            "pid": None,
            "stage": "waiting",
        }
        # A recreated state.json does not know the attempts of earlier metrics.
        attempts = [
            a for line in run.newest_metrics(64 << 10) if isinstance(a := line.get("attempt"), int) and 0 < a < 2**31
        ]
        attempt = max([status.attempt, *attempts]) + 1
        again = {"state": State.QUEUED, "since": time.time(), "attempt": attempt, "step": run.saved_step()}
        run.write_status(status.model_copy(update=again | fresh))
        with contextlib.suppress(OSError):  # it is queued, even if the disk is too full for the log
            run.log_event("state", state=State.QUEUED.value)

    def drop(self, run: RunFolder) -> None:
        """Write the end of a waiting run, so that it leaves the queue, when no app is running to do it; another run
        stays as it is. Raises BusyError while another process has it."""
        try:
            with run.lock().acquire(timeout=LOCK_S):
                status = run.status()
                if status.state == State.QUEUED:
                    run.write_status(ending(status, "stop", EndFacts.from_run(run), time.time()))
        except Timeout:
            raise BusyError("run.already_training", name=run.name) from None

    def _was_left(self, run: RunFolder) -> bool:
        """Return whether the command that created this run ended before its worker began, so that nobody will ever
        start it."""
        facts = run.facts()
        if facts.launcher != "command" or run.is_locked():
            return False
        return not process_lives(facts.launcher_pid, facts.launcher_started)

    def waiting(self) -> Sequence[RunFolder]:
        """Return the queued runs that the app starts, longest waiting first (core/queue/queue may order them
        otherwise)."""
        since = {
            run: status.since
            for run in self.folders()
            if run.is_of_app and (status := run.status()).state == State.QUEUED
        }
        return sorted(since, key=since.__getitem__)

    def rename(self, run: RunFolder, name: str) -> None:
        """Give a run this name, made fit for display. Raises RunError if nothing is left of it."""
        clean = names.display_name(name)
        if not clean:
            raise RunError("run.empty_name")
        run.relabel(name=clean)

    def delete(self, run: RunFolder) -> None:
        """Delete a run. Raises RunError while it is at work or queued, or if a program has it open.

        The folder is renamed first, so that a partial deletion leaves no visible run.
        """
        if self.status(run).state in ACTIVE:  # or another process is recording its end
            with contextlib.suppress(Timeout), run.lock().acquire(timeout=files.MOMENT_S):
                pass
        if self.status(run).state in BUSY:
            raise RunError("run.busy_delete", run=run.name)
        aside = run.path.with_name(f".{run.id}.deleted")
        try:
            files.rename(run.path, aside, files.MOMENT_S)
            shutil.rmtree(aside)
        except OSError as error:
            raise RunError("run.cannot_delete", run=run.id, reason=error.strerror or error) from error

    def clear(self) -> None:
        """Remove the folders of runs and of checkpoints whose deletion was interrupted, or refused by Windows for a
        moment; runs themselves stay. What is still refused is left.

        Call it only while nobody else deletes.
        """
        for left in (*self.workspace.runs.glob(".*.deleted"), *self.workspace.runs.glob("*/.checkpoints.deleted")):
            files.remove_tree(left)


def this_process() -> JsonObject:
    """Return the fields of RunFacts that identify this process."""
    return {"launcher_pid": os.getpid(), "launcher_started": psutil.Process().create_time()}
