"""The buttons of the run that is at work: each says its present effect."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.runs.states import State
from webui.kit.wording import Wording
from webui.run.column import RunColumn


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.PAUSED, State.COMPLETED])
def test_a_run_that_was_stopped_or_failed_can_be_set_up_again(state: State) -> None:
    """Seen: "Start again with a lower learning rate" beside Resume alone, which repeats what failed."""
    shown = SimpleNamespace(row=SimpleNamespace(status=SimpleNamespace(state=state)))
    context = SimpleNamespace(snapshot=SimpleNamespace(busy=None, shown=shown))
    update = RunColumn._again_button(SimpleNamespace(), context)  # type: ignore[arg-type]
    assert update["visible"] == (state in (State.STOPPED, State.FAILED))


@pytest.mark.parametrize(
    ("state", "checkpoints", "label"),
    [
        (State.QUEUED, (), "stop_before_training"),
        (State.PREPARING, (), "stop_before_training"),
        (State.PREPARING, ("checkpoint-9",), "stop"),  # seen: a resumed run with nine steps had "nothing trained yet"
        (State.RUNNING, (), "stop"),
        (State.STOPPING, ("checkpoint-9",), "stop_under_way"),
    ],
)
def test_stop_says_what_it_keeps(state: State, checkpoints: tuple[str, ...], label: str) -> None:
    w = Wording("en")
    busy = SimpleNamespace(status=SimpleNamespace(state=state), checkpoints=checkpoints)
    context = SimpleNamespace(snapshot=SimpleNamespace(busy=busy))
    update = RunColumn._stop_button(SimpleNamespace(w=w), context)  # type: ignore[arg-type]
    assert update["value"] == w.t(f"train_page.{label}")  # type: ignore[index]
