"""The numbers of the charts: what a page is sent, when, and that nothing in a file or a cursor ends them."""

from __future__ import annotations

import json
import math
import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from core.advice import curve_doctor
from core.chat.client import ChatClient
from core.commands.running import summary
from core.export.exports import Exports
from core.files import read_lines
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.cards.results import outcome
from core.runs.folder import RunFolder
from core.training.memory.use import EVERY_S, MemoryUse
from core.workspace.folder import Workspace
from webui.kit.wording import Wording
from webui.run.compare import row_data
from webui.run.figures import figures
from webui.state.curves import BLOCK, MAX_POINTS, CurveColumns, Curves, smooth, thin
from webui.state.diagnoses import Diagnoses
from webui.state.snapshot import Snapshots


def make_run(workspace: Workspace) -> RunFolder:
    return Runs(workspace).create(Recipe.parse({"name": "a run", "data": {"source": "sample:pirate_answers"}}), "test")


@pytest.fixture
def run(workspace: Workspace) -> RunFolder:
    return make_run(workspace)


@pytest.fixture
def curves(workspace: Workspace) -> Curves:
    return Curves(Runs(workspace))


@pytest.fixture
def snapshots(workspace: Workspace) -> Snapshots:
    return Snapshots(Runs(workspace), ChatClient(workspace), Exports(workspace))


def log(run: RunFolder, step: int, attempt: int = 1, **numbers: float | None) -> None:
    usual = {
        "loss": 1.0,
        "learning_rate": 2e-4,
        "grad_norm": 0.5,
        "tokens_per_second": 800.0,
        "tokens_seen": 9,
        "epoch": 0.1,
    }
    run.log_metrics("train", attempt, step, **(usual | numbers))


def test_what_pairs_say_is_sent_beside_the_loss_and_taken_back_with_it(run: RunFolder, curves: Curves):
    """A page gets the new points only; a run that went on from step 2 takes back what it had said after it."""
    metrics = {"rewards/accuracies": 0.5, "rewards/margins": 0.1, "logps/chosen": -30.0, "logps/rejected": -40.0}
    for step in (1, 2, 3):
        log(run, step, **metrics | {"rewards/margins": step / 10})
    run.log_metrics("eval", 1, 3, eval_loss=0.6, **{f"eval_{name}": value for name, value in metrics.items()})
    first = curves.since(run.id)
    assert (first["px"], first["p_margin"], first["p_chosen"], first["p_rejected"]) == (
        [1, 2, 3],
        [0.1, 0.2, 0.3],
        [-30.0] * 3,
        [-40.0] * 3,
    )
    assert (first["qx"], first["q_accuracy"]) == ([3], [0.5])
    log(run, 4)
    assert curves.since(run.id, first["cursor"])["px"] == [] and curves.since(run.id, first["cursor"])["x"] == [4]
    log(run, 3, attempt=2, **metrics)
    again = curves.since(run.id, first["cursor"])
    assert again["reset"] and (again["px"], again["p_margin"], again["qx"]) == ([1, 2, 3], [0.1, 0.2, 0.1], [])


def test_a_run_by_rewards_is_followed_by_its_rewards_and_never_by_its_loss(
    workspace: Workspace, curves: Curves, snapshots: Snapshots
):
    """The loss of a policy is near 0 at every step, and says nothing about how the answers become better."""
    settings = {"data": {"source": "sample:pirate_answers"}, "train": {"objective": "grpo"}}
    run = Runs(workspace).create(Recipe.parse(settings | {"rewards": {"judges": [{"kind": "number"}]}}), "test")
    for step in range(1, 65):
        log(run, step, loss=0.01 / step, reward=step / 64)
    run.log_metrics("eval", 1, 64, eval_reward=0.25, eval_kl=0.1)
    got = curves.since(run.id)
    assert (got["is_reward"], got["y"][-1], got["ex"], got["ey"]) == (True, 1.0, [64], [0.25])
    view = snapshots.view(run.id)
    assert view is not None
    assert (view.row.is_reward, view.row.last_measure, view.row.evaluated) == (True, 1.0, 0.25)
    assert view.row.course[0] == 0.0156 and view.row.course[-1] > 0.8
    shown = figures(view, Wording("en"))
    assert '<dt>Reward</dt><dd><strong>1.000</strong><span class="lg-ok">+0.984 since the start' in shown
    assert "<dt>Held-out reward</dt><dd><strong>0.250" in shown and "oss" not in shown
    series = curves.series(run.id, 30)
    assert curve_doctor.of_run(run.recipe(), series, False) == [], "the rules for losses do not apply"
    assert row_data(view.row, Wording("en"))["eval"] == "0.250 (reward)"
    numbers = summary(run, run.status())
    assert (numbers["first_reward"], numbers["last_reward"], numbers["eval_reward"]) == (1 / 64, 1.0, 0.25)
    assert "last_loss" not in numbers
    then = outcome(run)
    assert (then.first, then.last, then.is_reward) == (1 / 64, 1.0, True)


# ---- smoothing and thinning ----------------------------------------------------------------------


def test_the_first_smoothed_loss_equals_the_first_loss():
    assert smooth([2.5])[0] == [2.5]
    assert smooth([3.0] * 50)[0] == pytest.approx([3.0] * 50)


def test_smoothing_in_two_parts_equals_smoothing_at_once():
    values = [3.0, 1.0, 2.0, 5.0, 4.0]
    first, state = smooth(values[:2])
    assert first + smooth(values[2:], state=state)[0] == smooth(values)[0]


@pytest.mark.parametrize("count", [1, 1499, 1500, 1501, 4000, 50_000])
def test_thinning_keeps_the_ends_and_the_spikes_of_every_column(count: int):
    loss, norm = np.random.default_rng(0).normal(size=(2, count))
    loss[count // 2] = 99.0
    norm[count // 3] = 77.0
    for columns, spikes in (((loss,), [count // 2]), ((loss, norm), [count // 2, count // 3])):
        chosen = thin(*columns)
        assert len(chosen) <= MAX_POINTS and chosen[0] == 0 and chosen[-1] == count - 1
        assert set(spikes) <= set(chosen.tolist()) and (np.diff(chosen) > 0).all()


def test_what_is_unknown_hides_no_spike():
    norm = np.full(9000, np.nan)
    norm[4000:4003] = 1.0, 50.0, -7.0
    assert {4001, 4002} <= set(thin(np.zeros(9000), norm).tolist())
    assert len(thin(np.full(9000, np.nan))) <= MAX_POINTS


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_columns_hold_what_was_added_over_the_ends_of_their_blocks(count: int):
    columns = CurveColumns("loss", "norm")
    assert (len(columns), columns.last_step, columns.since().shape) == (0, 0, (3, 0))
    for step in range(1, count + 1):
        columns.add(step, 2.0 * step, math.nan)
    assert (len(columns), columns.last_step) == (count, count)
    assert columns.column("loss").tolist() == [2.0 * step for step in range(1, count + 1)]
    assert columns.since()[0].tolist() == columns.column("step").tolist() == list(range(1, count + 1))
    for start in {0, 1, count - 1, count, BLOCK - 1, BLOCK} & set(range(count + 1)):
        assert columns.since(start)[1].tolist() == [2.0 * step for step in range(start + 1, count + 1)]
    for keep in sorted({count, count - 1, BLOCK, 0} & set(range(count + 1)), reverse=True):
        columns.keep_before(keep + 1)
        assert len(columns) == columns.last_step == keep
    columns.add(7, 1.0, 2.0)
    assert columns.since().tolist() == [[7], [1.0], [2.0]]


# ---- what a page gets ----------------------------------------------------------------------------


def test_a_page_gets_only_what_is_new(run: RunFolder, curves: Curves):
    for step in (1, 2):
        log(run, step, loss=4.0 - step)
    run.log_metrics("eval", 1, 2, eval_loss=2.5)
    first = curves.since(run.id)
    assert (first["reset"], first["x"], first["y"], first["ex"], first["ey"]) == (True, [1, 2], [3.0, 2.0], [2], [2.5])
    log(run, 3, loss=1.5)
    second = curves.since(run.id, first["cursor"])
    assert (second["reset"], second["x"], second["ex"]) == (False, [3], [])
    assert curves.since(run.id, second["cursor"])["x"] == []


def test_every_number_of_a_step_arrives_with_five_digits_in_less_than_1_kb(run: RunFolder, curves: Curves):
    cursor = curves.since(run.id)["cursor"]
    log(run, 10**6, loss=math.pi, learning_rate=1.23456789e-4, grad_norm=0.1 + 0.2, tokens_per_second=12345.678)
    run.log_metrics("gpu", 1, 10**6, memory_bytes=6_123_456_789, memory_total_bytes=8 << 30)
    run.log_metrics("eval", 1, 10**6, eval_loss=math.e)
    columns = curves.since(run.id, cursor)
    assert (columns["y"], columns["s"], columns["rate"], columns["norm"], columns["speed"]) == (
        [3.1416], [3.1416], [1.2346e-4], [0.3], [12346.0],
    )  # fmt: skip
    assert (columns["mx"], columns["my"], columns["total"], columns["ey"]) == ([10**6], [6.1235e9], 8.5899e9, [2.7183])
    assert len(json.dumps(columns)) < 1024


def test_a_number_that_is_missing_or_not_finite_is_null_and_its_step_stays(run: RunFolder, curves: Curves):
    log(run, 1, grad_norm=math.inf, tokens_per_second=None)
    run.log_metrics("train", 1, 2, loss=1.0)
    run.log_metrics("gpu", 1, 2, memory_bytes=None)
    columns = curves.since(run.id)
    assert (columns["x"], columns["norm"], columns["speed"], columns["rate"]) == (
        [1, 2],
        [None, None],
        [None, None],
        [2e-4, None],
    )
    assert (columns["bx"], columns["my"], columns["total"]) == ([], [None], None)


def test_a_loss_that_is_no_number_is_told_and_never_drawn_as_one(run: RunFolder, curves: Curves):
    log(run, 1)
    log(run, 2, loss=math.nan)
    columns = curves.since(run.id)
    assert (columns["x"], columns["bx"]) == ([1], [2])
    assert "NaN" not in json.dumps(columns, allow_nan=False)


def test_a_long_run_is_sent_thinned_with_its_spikes_and_then_by_row(run: RunFolder, curves: Curves):
    lines = []
    for step in range(1, 9001):
        numbers = {
            "loss": 99.0 if step == 4567 else 1.0 + step % 7,
            "grad_norm": 55.0 if step == 7001 else 0.1 * (step % 5),
        }
        lines.append(json.dumps({"kind": "train", "attempt": 1, "step": step, **numbers}))
        lines.append(json.dumps({"kind": "eval", "attempt": 1, "step": step, "eval_loss": 2.0}))
        lines.append(json.dumps({"kind": "gpu", "attempt": 1, "step": step, "memory_bytes": 1e9}))
    (run.path / "metrics.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    columns = curves.since(run.id)
    assert all(len(columns[name]) <= MAX_POINTS for name in ("x", "ex", "mx"))
    assert columns["y"][columns["x"].index(4567)] == 99.0 and columns["norm"][columns["x"].index(7001)] == 55.0
    assert {len(columns[name]) for name in ("x", "y", "s", "rate", "norm", "speed")} == {len(columns["x"])}
    log(run, 9001)
    assert curves.since(run.id, columns["cursor"])["x"] == [9001]
    behind = [run.id, 0, 9001 - MAX_POINTS - 1, 9000, 9000, 0]
    assert curves.since(run.id, behind)["reset"] is True


@pytest.mark.parametrize(
    "cursor",
    [None, 1, "x", [], [1, 2], ["?", 0, 0, 0, 0, 0], [None] * 6, {"a": 1}, [1e30] * 6, [[]] * 6, "own, but too far on"],
)
def test_a_cursor_that_is_none_gets_the_whole_curve(run: RunFolder, curves: Curves, cursor: object):
    log(run, 1)
    given = [run.id, 0, 2, 0, 0, 0] if cursor == "own, but too far on" else cursor
    assert curves.since(run.id, given)["reset"] is True


def test_whole_curves_are_looked_at_by_one_thread(
    run: RunFolder, curves: Curves, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
):
    """Each thread keeps the memory that it once needed: what takes a curve's size again is no work for each of the
    server's."""
    for step in range(1, 30):
        log(run, step)
    threads = Counter()
    column, of_run = CurveColumns.column, curve_doctor.of_run
    monkeypatch.setattr(CurveColumns, "column", lambda *a: (threads.update([threading.get_ident()]), column(*a))[1])
    monkeypatch.setattr(
        curve_doctor, "of_run", lambda *a: (threads.update([threading.get_ident(), "diagnosed"]), of_run(*a))[1]
    )
    diagnoses = Diagnoses(curves)
    view = snapshots.view(run.id)
    with ThreadPoolExecutor(8) as server:
        results = [server.submit(curves.since, run.id) for _ in range(16)] + [
            server.submit(diagnoses.diagnose, view) for _ in range(16)
        ]
        assert [len(one.result()["x"]) for one in results[:16]] == [29] * 16
    assert threads.pop("diagnosed") == 1, "not anew without a new number"
    assert len(threads) == 1
    log(run, 30)
    diagnoses.diagnose(view)
    assert threads["diagnosed"] == 1


def test_events_are_read_again_only_when_there_are_new_ones(
    run: RunFolder, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
):
    reads, events = [], RunFolder.events
    monkeypatch.setattr(RunFolder, "events", lambda run: (reads.append(run.id), events(run))[1])

    def seen() -> list[str]:
        return [event["stage"] for event in snapshots.view(run.id).events]

    run.log_event("stage", stage="a")
    assert (seen(), seen(), len(reads)) == (["a"], ["a"], 1)
    run.log_event("stage", stage="b")
    assert (seen(), seen(), len(reads)) == (["a", "b"], ["a", "b"], 2)
    (run.path / "events.jsonl").unlink()
    assert seen() == []


@pytest.mark.parametrize("run_id", ["", "../x", "2026-01-01_x_aaaaaa", "a" * 5000, None, 5])
def test_an_unknown_run_has_an_empty_curve(curves: Curves, run_id: object):
    columns = curves.since(run_id)  # type: ignore[arg-type]
    assert all(columns[name] == [] for name in ("x", "y", "s", "rate", "norm", "speed", "ex", "ey", "mx", "my", "bx"))


def test_after_a_resume_the_points_beyond_it_are_gone(run: RunFolder, curves: Curves):
    for step in (1, 2, 3):
        log(run, step, loss=float(step))
        run.log_metrics("gpu", 1, step, memory_bytes=step)
    run.log_metrics("eval", 1, 3, eval_loss=9.0)
    before = curves.since(run.id)
    log(run, 2, attempt=2, loss=20.0)
    after = curves.since(run.id, before["cursor"])
    assert (after["reset"], after["x"], after["y"], after["ex"], after["mx"]) == (True, [1, 2], [1.0, 20.0], [], [1])


def test_a_run_that_was_paused_in_a_measurement_keeps_the_step_before_it(run: RunFolder, curves: Curves):
    for step in (1, 2, 3):
        log(run, step, loss=float(step))
    run.log_metrics("eval", 2, 2, eval_loss=9.0)
    log(run, 3, attempt=2, loss=30.0)
    columns = curves.since(run.id)
    assert (columns["x"], columns["y"], columns["ex"]) == ([1, 2, 3], [1.0, 2.0, 30.0], [2])


def test_damaged_lines_do_not_end_a_curve(run: RunFolder, curves: Curves):
    strange = [
        '{"kind":"train","step":"x"}',
        "[]",
        "not json",
        '{"kind":"train","attempt":1,"step":1,"loss":2.0,"grad_norm":"big","learning_rate":[1],"tokens_per_second":true}',
        '{"kind":"train","attempt":1,"step":2,"loss":1' + "0" * 400 + "}",
        '{"kind":"gpu","attempt":1,"step":3,"memory_bytes":{}}',
        '{"kind":"train","att',
    ]
    (run.path / "metrics.jsonl").write_text("\n".join(strange), "utf-8")
    columns = curves.since(run.id)
    assert (columns["x"], columns["norm"], columns["rate"], columns["speed"], columns["my"]) == (
        [1],
        [None],
        [None],
        [None],
        [None],
    )


# ---- memory --------------------------------------------------------------------------------------


class FakeReporter:
    def __init__(self, run: RunFolder):
        self.run = run

    def metrics(self, kind: str, step: int, **numbers: int) -> None:
        self.run.log_metrics(kind, 1, step, **numbers)


def looked_at(run: RunFolder) -> list[int]:
    return [line["step"] for line in run.metrics().records if line["kind"] == "gpu"]


def test_memory_is_looked_at_at_the_first_step_each_two_seconds_and_at_the_last(run: RunFolder):
    now = [100.0]
    memory = MemoryUse(FakeReporter(run), on_card=False, clock=lambda: now[0])
    for step in range(1, 12):
        memory.note(step, last=step == 11)
        now[0] += EVERY_S / 4
    assert looked_at(run) == [1, 5, 9, 11]
    line = run.metrics().records[0]
    assert 10e6 < line["memory_bytes"] < line["memory_total_bytes"] == psutil.virtual_memory().total
    memory.keep_peak()
    assert run.facts().peak_memory_bytes >= line["memory_bytes"]


def test_memory_that_cannot_be_asked_leaves_no_line_and_ends_no_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", refuse)
    memory = MemoryUse(FakeReporter(run), on_card=False)
    memory.note(1)
    memory.keep_peak()
    assert looked_at(run) == [] and run.facts().peak_memory_bytes is None


def test_on_a_card_the_peak_is_the_allocators_own(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 << 30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 7 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 8 << 30))
    memory = MemoryUse(FakeReporter(run), on_card=True)
    memory.note(1)
    line = run.metrics().records[0]
    assert (line["memory_bytes"], line["memory_total_bytes"]) == (5 << 30, 8 << 30)
    memory.keep_peak()
    assert run.facts().peak_memory_bytes == 7 << 30


def test_a_poll_allocates_no_more_than_the_new_lines_take(tmp_path: Path) -> None:
    """Each poll once asked for 8 MB to read one line, in whichever thread came by: the app grew by 2 MB in 1,000
    steps."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"kind": "train", "step": 1}\n' * 1000, "utf-8")
    end = file.stat().st_size
    with open(file, "a", encoding="utf-8") as more:
        more.write('{"kind": "train", "step": 2}\n')
    tracemalloc.start()
    try:
        assert len(read_lines(file, end).records) == 1
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
