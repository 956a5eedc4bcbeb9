"""How runs end, and in which words: every way out of every state."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from core.errors import DataError, RunError, StopRequested
from core.messages import msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.ended import EndFacts, Failed, Finished, How, ending
from core.runs.folder import RunFolder, Status
from core.runs.reporter import EXIT, Reporter
from core.runs.states import ACTIVE, MOVES, State
from core.workspace.folder import Workspace

FAILED = Failed(msg("run.crashed", kind="KeyError", reason="x"), msg("advice.crashed"))
DONE = Finished(step=5, total=5, kept=5)
EARLY = Finished(step=5, total=9, kept=3, best_loss=1.5, since_best=2)
BEST = Finished(step=5, total=5, kept=3, best_loss=1.5, since_best=2)
HOWS: dict[str, How] = {
    "pause": "pause",
    "stop": "stop",
    "gone": "gone",
    "failed": FAILED,
    "done": DONE,
    "early": EARLY,
    "best": BEST,
}
LEFT = [
    EndFacts(has_adapter, adapter_step, checkpoint, full, waited, kernel)
    for has_adapter, adapter_step, checkpoint, full, waited, kernel in product(
        (False, True),
        (None, 3, 5),
        (None, "checkpoint-000003"),
        (None, 4_000_000),
        (None, 1.23),
        (None, "invalid device function"),
    )
]

# (state or None for any at work, how) -> the state that follows, and its sentence with what is left as a condition
WAITED = State.QUEUED
TABLE = {
    (WAITED, "pause"): (State.PAUSED, lambda left, attempt: "run.paused"),
    (WAITED, "stop"): (None, lambda left, attempt: "run.paused" if attempt > 1 else "run.dropped"),
    (WAITED, "failed"): (State.FAILED, lambda left, attempt: "run.crashed"),
    (None, "pause"): (State.PAUSED, lambda left, attempt: "run.paused" if left.waited_s is None else "pausing.paused"),
    (None, "stop"): (
        State.STOPPED,
        lambda left, attempt: (
            "run.stopped_before_training"
            if not left.has_adapter
            else "run.stopped_best"
            if left.adapter_step == 3
            else "run.stopped_kept"
        ),
    ),
    (None, "gone"): (
        State.INTERRUPTED,
        lambda left, attempt: "run.interrupted_kernel" if left.kernel_error else "run.interrupted",
    ),
    (None, "failed"): (State.FAILED, lambda left, attempt: "run.crashed"),
    (None, "done"): (State.COMPLETED, lambda left, attempt: "run.completed"),
    (None, "early"): (State.COMPLETED, lambda left, attempt: "run.completed_early"),
    (None, "best"): (State.COMPLETED, lambda left, attempt: "run.completed_best"),
}
CASES = [
    (state, how) for state in (WAITED, *sorted(ACTIVE)) for how in HOWS if state != WAITED or (WAITED, how) in TABLE
]


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize(("state", "how"), CASES)
def test_every_way_out_of_every_state_has_its_state_and_its_words(state: State, how: str, attempt: int) -> None:
    wanted, key_of = TABLE[WAITED if state == WAITED else None, how]
    for left in LEFT:
        status = Status(
            state=state,
            step=5,
            total_steps=9,
            attempt=attempt,
            seconds_left=7.0,
            stage="training",
            message=msg("run.dropped"),
        )
        after = ending(status, HOWS[how], left, 123.0)
        key = key_of(left, attempt)
        assert (after.message.key, after.state) == (
            key,
            wanted or (State.PAUSED if key == "run.paused" else State.STOPPED),
        )
        assert (after.since, after.progress, after.has_adapter) == (123.0, None, left.has_adapter)
        assert after.seconds_left == (0 if wanted == State.COMPLETED else None), "nothing is left to wait for"
        kept_as_they_were = {"v", "stage", "attempt", "step", "total_steps", "seconds_total", "pid"}
        assert after.model_dump(include=kept_as_they_were) == status.model_dump(include=kept_as_they_were)
        for language in ("en", "zh"):
            for said in filter(None, (after.message, after.advice)):
                words = said.render(language)
                assert words and "{" not in words and said.key not in words, words


def test_the_advice_after_a_process_that_went_away_is_the_likeliest_cause() -> None:
    status = Status(state=State.RUNNING, step=5, total_steps=9)
    keys = {
        (left.checkpoint is not None, left.full_bytes is not None): ending(status, "gone", left, 0).advice.key
        for left in LEFT
    }
    assert keys == {
        (False, False): "run.interrupted_nothing",
        (True, False): "run.interrupted_checkpoint",
        (False, True): "faults.interrupted_disk_full",
        (True, True): "faults.interrupted_disk_full",
    }


class AcceleratorError(RuntimeError):
    """torch's, which these tests do not import: an error of CUDA's."""


@pytest.mark.parametrize(
    ("error", "what", "advice"),
    [
        (DataError("data.empty"), "data.empty", "advice.data"),
        (RunError("run.not_finite", step=1, loss="nan", grad_norm="nan"), "run.not_finite", "advice.not_finite"),
        (RunError("run.ran_away", step=1), "run.ran_away", "advice.ran_away"),
        (RunError("run.other_device"), "run.other_device", "advice.crashed"),
        (MemoryError(), "run.out_of_memory", "advice.out_of_memory"),
        (OSError(28, "No space left on device"), "run.disk_full", "advice.disk_full"),
        (KeyError("x"), "run.crashed", "advice.crashed"),
        (AcceleratorError("CUDA error: unspecified launch failure"), "run.card_failed", "advice.card_failed"),
        (AcceleratorError("CUDA error: out of memory"), "run.out_of_memory", "advice.out_of_memory"),
    ],
)
def test_every_kind_of_error_has_its_words_and_its_advice(
    tmp_path: Path, error: Exception, what: str, advice: str
) -> None:
    failed = Failed.from_error(error, tmp_path)
    assert (failed.message.key, failed.advice.key) == (what, advice)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = Runs(Workspace.open(tmp_path)).create(
        Recipe.parse({"data": {"source": "sample:x"}, "name": "x"}), "command", {}
    )
    (made.path / "run.lock").touch()
    return made


def test_a_kernel_that_ended_the_process_is_the_reason_of_this_attempt_alone(run: RunFolder) -> None:
    """bitsandbytes prints one line and exits where CUDA refuses a kernel: the run was interrupted without a reason."""
    line = "Error no kernel image is available for execution on the device at line 461 in file /src/csrc/ops.cu\n"
    (run.path / "train.log").write_text("step 1\n" + line, "utf-8")
    for state in WAYS[State.RUNNING]:
        run.write_status(run.status().model_copy(update={"since": 0.0, "state": state}))
    left = EndFacts.from_run(run)
    assert left.kernel_error == "no kernel image is available for execution on the device"
    assert left.kernel_error in ending(run.status(), "gone", left, 0.0).message.render("en")
    run.write_status(run.status().model_copy(update={"since": 2e10}))
    assert EndFacts.from_run(run).kernel_error is None, "the line is of an attempt before this one"
    (run.path / "train.log").write_text(line + "step 1\n", "utf-8")
    run.write_status(run.status().model_copy(update={"since": 0.0}))
    assert EndFacts.from_run(run).kernel_error is None, "the process went on after it"


WAYS = {
    State.PREPARING: (State.PREPARING,),
    State.RUNNING: (State.PREPARING, State.RUNNING),
    State.PAUSING: (State.PREPARING, State.RUNNING, State.PAUSING),
    State.STOPPING: (State.PREPARING, State.RUNNING, State.STOPPING),
}


@pytest.mark.parametrize("how", ["pause", "stop", FAILED, DONE], ids=["pause", "stop", "failed", "finished"])
@pytest.mark.parametrize("state", sorted(WAYS))
def test_the_reporter_ends_a_run_in_every_state_that_it_can_be_in(run: RunFolder, state: State, how: How) -> None:
    """Also where what was asked is heard and not written down yet: a pausing run that was stopped in that moment
    failed."""
    reporter = Reporter(run)
    for step in WAYS[state]:
        reporter.set_state(step)
    if state == State.STOPPING and how == "pause":
        with pytest.raises(StopRequested):
            reporter.end(how)
        return
    if state == State.PREPARING and how == DONE:  # no run is done before it began
        with pytest.raises(RunError):
            reporter.end(how)
        return
    code = reporter.end(how)
    after = run.status()
    assert code == EXIT[after.state]
    assert after == ending(after.model_copy(update={"state": state}), how, EndFacts.from_run(run), after.since)
    passed = [State(event["state"]) for event in run.events() if event["kind"] == "state"]
    assert passed[-1] == after.state and all(b in MOVES[a] for a, b in zip(passed, passed[1:], strict=False))
