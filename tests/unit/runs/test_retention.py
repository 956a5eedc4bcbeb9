"""Which checkpoints stay, and what a short disk does to them. Real files, small; the disk's size is the only fake."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from core import files, values
from core.runs import checkpoints as retention
from core.runs.folder import RunFolder
from core.training.checkpoint import Checkpoints, Position, name_of

KB = 1000


def save_adapter(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(100 * KB))


STATES = {"optimizer": {"m": torch.zeros(25 * KB)}}  # 100 kB: a checkpoint is about 200


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return RunFolder(tmp_path / "run")


def saved(run: RunFolder, steps: range | list[int], best: int | None = None, **how: float) -> list[int]:
    checkpoints = Checkpoints(run, save_adapter, **({"keep": 2, "budget_gib": 10.0} | how))
    for step in steps:
        checkpoints.write(Position(step=step, best_checkpoint=name_of(best) if best else None), STATES)
    return left(run)


def left(run: RunFolder) -> list[int]:
    return [int(folder.name[-6:]) for folder in run.checkpoints()]


def test_the_newest_two_stay_and_the_best_beside_them(run: RunFolder) -> None:
    assert saved(run, range(1, 7)) == [5, 6]
    assert saved(run, [7, 8, 9], best=7) == [7, 8, 9]


@pytest.mark.parametrize(
    ("budget_kb", "expected"),
    [(1000, [3, 8, 9]), (650, [3, 8, 9]), (450, [3, 9]), (250, [3, 9]), (1, [3, 9])],
    ids=["roomy", "three", "two", "one", "less than one"],
)
def test_a_budget_takes_the_older_and_never_the_newest_nor_the_best(
    run: RunFolder, budget_kb: int, expected: list[int]
) -> None:
    saved(run, [3])
    assert saved(run, [8, 9], best=3, budget_gib=budget_kb * KB / values.GIB) == expected


def test_a_budget_that_is_too_small_for_two_is_said_once(run: RunFolder) -> None:
    saved(run, [1, 2])
    assert warnings(run) == []
    checkpoints = Checkpoints(run, save_adapter, 2, 250 * KB / values.GIB)
    for step in (3, 4, 5):
        checkpoints.write(Position(step=step), STATES)
    assert left(run) == [5] and warnings(run) == ["checkpoint.over_budget"]


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_good_one(run: RunFolder) -> None:
    """Two kept, one of them half: a crash later there was one to go on from, not two."""
    saved(run, [1, 2])
    (run.path / "checkpoints" / name_of(2) / "trainer.pt").write_bytes(b"half")
    assert saved(run, [3]) == [1, 3]


def test_where_none_is_good_none_is_dropped(run: RunFolder) -> None:
    saved(run, [1, 2])
    for folder in run.checkpoints():
        (folder / "trainer.pt").write_bytes(b"half")
    assert retention.select_kept(run.checkpoints(), 1, 0, None) == run.checkpoints()


def test_a_marker_of_an_earlier_version_still_counts(run: RunFolder) -> None:
    saved(run, [1])
    [folder] = run.checkpoints()
    (folder / "COMPLETE").write_text("1", "ascii")
    assert retention.is_good(folder)
    (folder / "position.json").unlink()
    assert not retention.is_good(folder)


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, run: RunFolder) -> Callable[[int], None]:
    """A disk of so many kB beside the margin, on which only this run's checkpoints lie."""

    def set_size(size_kb: int) -> None:
        def usage(path: object) -> Disk:
            used = sum(files.bytes_in(folder) for folder in (run.path / "checkpoints").iterdir())
            return Disk(0, used, retention.MARGIN + size_kb * KB - used)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    return set_size


def warnings(run: RunFolder) -> list[str]:
    return [event["message"]["key"] for event in run.events() if event["kind"] == "warning"]


def test_a_short_disk_costs_old_checkpoints_before_it_costs_a_save(run: RunFolder, disk: Callable[[int], None]) -> None:
    saved(run, [1, 2], best=1)
    assert left(run) == [1, 2]
    disk(650)  # three fit, and there would be room for a fourth only without one of them
    assert saved(run, [3], best=1) == [1, 2, 3] and warnings(run) == []
    disk(620)
    assert saved(run, [4], best=1) == [1, 3, 4]  # 2 went: neither the newest nor the best
    assert warnings(run) == ["checkpoint.dropped_for_room"]


def test_a_short_disk_never_costs_the_best_one(run: RunFolder, disk: Callable[[int], None]) -> None:
    saved(run, [1, 2, 3], best=1)
    disk(1)
    needed = files.bytes_in(run.checkpoints()[-1]) + retention.MARGIN
    assert retention.make_room(run.checkpoints(), needed, name_of(1))[1] == [name_of(2)] and left(run) == [1, 3]


def test_a_checkpoint_whose_position_is_written_anew_is_still_good(run: RunFolder) -> None:
    """A measurement made after it, in a later attempt: its marker told the old size, and it was taken for damaged."""
    saved(run, [1])
    checkpoints = Checkpoints(run, save_adapter, 2)
    checkpoints.write(Position(step=1, measured_step=1, best_eval_loss=1.25, best_checkpoint=name_of(1)), STATES)
    assert retention.is_good(run.checkpoints()[0])


def test_the_last_good_one_never_goes_and_a_disk_that_stays_short_is_said(
    run: RunFolder, disk: Callable[[int], None]
) -> None:
    saved(run, [1, 2])
    disk(250)
    needed = files.bytes_in(run.checkpoints()[-1])
    free, dropped = retention.make_room(run.checkpoints(), needed + retention.MARGIN, None)
    assert (dropped, left(run)) == ([name_of(1)], [2]) and free < needed + retention.MARGIN
    saved(run, [3])
    assert warnings(run) == ["checkpoint.disk_short"] and left(run) == [2, 3], "the save itself is still tried"


def test_the_first_save_knows_from_the_optimizer_what_it_takes(run: RunFolder, disk: Callable[[int], None]) -> None:
    disk(100)
    saved(run, [1])
    assert warnings(run) == ["checkpoint.disk_short"]
